"""What is below autograd of :mod:`discrete_ops.linear_operators`: logits that are a product, a part of the rows at a
time. Arguments as there."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from . import ops, parts, reference, table
from .reference import Parameters
from .register import in_shape


class Tile(NamedTuple):
    """Logits of a part of the rows."""

    rows: slice
    group: int
    logits: Tensor  # (rows, N)
    seed: Tensor
    parameters: Parameters
    first_row: int


def _tiles(
    hidden: Tensor, proj: Tensor, bias: Tensor | None, seed: Tensor, parameters: Tensor, first_row: int, groups: int = 1
) -> Iterator[Tile]:
    """The logits of ``hidden (rows, H)``, in each of ``groups`` equal groups of rows; the same numbers each time. The
    next ones are written over them."""
    rows, tile = len(hidden), Products(hidden, proj)
    for part in parts.parts(rows, tile.most, seed, parameters, first_row, groups):
        own = slice(part.begin, part.end)
        yield Tile(own, part.begin * groups // rows, tile(hidden[own], bias), *part[2:])


class Products:
    """Products of rows with a table ``(N, H)``, in one place of memory: a heap that gives and takes tiles of this size
    in turns with smaller ones grows by several of them."""

    def __init__(self, rows: Tensor, table: Tensor) -> None:
        columns, size = len(table), rows.element_size()
        self.most = parts.rows_of(columns, size, rows.device, parts.PRODUCT_BYTES)
        self.table, self.memory = table.t(), rows.new_empty((min(self.most, len(rows)), columns))

    def __call__(self, rows: Tensor, bias: Tensor | None = None) -> Tensor:
        out = self.memory[: len(rows)]
        if bias is None:
            return torch.mm(rows, self.table, out=out)
        return torch.addmm(bias, rows, self.table, out=out)


class Jacobian:
    """What an estimator does with gradients, or tangents, at a tile's logits."""

    def __init__(self, x: Tensor, transposed: bool, estimator: str, num_samples: int, backend: str) -> None:
        self.kernels = ops.kernels_of(backend, x)
        self.of = estimator, num_samples
        pushes = transposed and estimator in reference.ASYMMETRIC  # the others are their own transpose
        self.product = reference.surrogate_jvp if pushes else self.kernels.surrogate_vjp

    def __call__(self, v: Tensor, tile: Tile, index: Tensor) -> Tensor:
        call = (tile.logits, index[tile.rows], tile.seed, tile.parameters)
        return self.product(v, *call, *self.of, tile.first_row)

    def in_tau(self, tile: Tile, index: Tensor) -> Tensor:
        ops.check_tau_derivative(self.of)
        call = (tile.logits, index[tile.rows], tile.seed, tile.parameters)
        return self.kernels.tau_derivative(*call, *self.of, tile.first_row)


def _fused(backend: str, estimator: str, hidden: Tensor, weight: Tensor) -> Any:
    """Triton's kernels that hold no logits, where they serve a call that asks for Triton."""
    if backend != "triton":
        return None
    from .triton_kernels import linear_embedding as kernels

    return kernels if kernels.serves(estimator, hidden, weight) else None


def linear_embedding(
    hidden: Tensor,
    proj: Tensor,
    bias: Tensor | None,
    weight: Tensor,
    seed: Tensor,
    parameters: Tensor,
    estimator: str,
    num_samples: int,
    first_row: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    kernels = ops.kernels_of(backend, hidden)
    leading, hidden = hidden.shape[:-1], _as_rows(hidden)
    fused = _fused(backend, estimator, hidden, weight)
    if fused:
        index, first_column = fused.sample(hidden, proj, bias, weight.shape[1], seed, parameters, first_row)
        out = table.gather(weight, index, first_column)
        return in_shape(out, (*leading, weight.shape[1])), in_shape(index, leading)
    out = hidden.new_empty((len(hidden), weight.shape[1]))
    index = hidden.new_empty((len(hidden),), dtype=torch.int64)
    with torch._C._DisableAutocast():
        for tile in _tiles(hidden, proj, bias, seed, parameters, first_row):
            sample, drawn = kernels.sample(tile.logits, tile.seed, tile.parameters, tile.first_row)
            index[tile.rows] = drawn
            out[tile.rows] = table.gather(weight, drawn, sample[:, 0])
            del tile, sample  # before the next one is there
    return in_shape(out, (*leading, weight.shape[1])), in_shape(index, leading)


def pull_back(
    grad: Tensor,
    hidden: Tensor,
    proj: Tensor,
    bias: Tensor | None,
    weight: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Tensor,
    transposed: bool,
    wanted: list[bool],
    groups: list[int],
    estimator: str,
    num_samples: int,
    first_row: int,
    backend: str,
) -> tuple[Tensor, ...]:
    shapes = shapes_of(wanted, groups, hidden, proj, weight, index)
    jacobian = Jacobian(hidden, transposed, estimator, num_samples, backend)
    grad, hidden, index, count = _as_rows(grad), _as_rows(hidden), index.reshape(-1), math.prod(groups)
    wide = torch.promote_types(hidden.dtype, torch.float32)
    of_hidden, of_proj, of_bias, of_weight, of_tau = wanted
    nothing = hidden.new_empty(0)
    at_weight = nothing
    if of_weight:
        tables = torch.arange(count, device=index.device).repeat_interleave(len(index) // count)
        at_weight = table.scatter(grad, index, count * len(weight), tables * len(weight))
        at_weight = at_weight.view(count, *weight.shape)
    fused = None if of_tau else _fused(backend, estimator, hidden, weight)
    if fused and any(wanted[:3]):
        call = (grad, hidden, proj, bias, weight, index, parameters, estimator, count)
        found = fused.pull_back(*call, of_hidden, of_proj or of_bias)
        gradients = [x if want else nothing for x, want in zip(found, wanted, strict=False)]
        return _shaped((*gradients, at_weight, nothing.double()), shapes)
    at_hidden = torch.empty_like(hidden) if of_hidden else nothing
    at_proj = hidden.new_zeros((count, *proj.shape) if of_proj else 0, dtype=wide)
    at_bias = hidden.new_zeros((count, proj.shape[0]) if of_bias else 0, dtype=wide)
    at_tau = hidden.new_empty(index.shape if of_tau else 0, dtype=torch.float64)
    tiles, at_sample = _tiles(hidden, proj, bias, seed, parameters, first_row, count), Products(grad, weight)
    with torch._C._DisableAutocast():
        for tile in tiles if any(wanted[:3]) or of_tau else ():
            rows, v = tile.rows, at_sample(grad[tile.rows])
            if of_tau:
                at_tau[rows] = ops.along(v, jacobian.in_tau(tile, index)).sum(-1)
            at_logits = jacobian(v, tile, index) if any(wanted[:3]) else v
            if of_hidden:
                torch.mm(at_logits, proj, out=at_hidden[rows])
            if of_proj:
                at_proj[tile.group].addmm_(ops.widened(at_logits).t(), ops.widened(hidden[rows]))
            if of_bias:
                at_bias[tile.group] += at_logits.sum(0, dtype=wide)
            del tile, v, at_logits  # before the next ones are there
    return _shaped((at_hidden, at_proj.to(hidden.dtype), at_bias.to(hidden.dtype), at_weight, at_tau), shapes)


def push(
    of_hidden: Tensor | None,
    of_proj: Tensor | None,
    of_bias: Tensor | None,
    of_weight: Tensor | None,
    of_tau: Tensor | None,
    hidden: Tensor,
    proj: Tensor,
    bias: Tensor | None,
    weight: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Tensor,
    transposed: bool,
    groups: list[int],
    estimator: str,
    num_samples: int,
    first_row: int,
    backend: str,
) -> Tensor:
    jacobian = Jacobian(hidden, transposed, estimator, num_samples, backend)
    leading, hidden, index, count = hidden.shape[:-1], _as_rows(hidden), index.reshape(-1), math.prod(groups)
    of_hidden = None if of_hidden is None else _as_rows(of_hidden)
    of_tau = None if of_tau is None else of_tau.reshape(-1, 1)
    tables = [None if x is None else x.reshape(count, *x.shape[len(groups) :]) for x in (of_proj, of_bias, of_weight)]
    out = hidden.new_zeros((len(hidden), weight.shape[1]))
    with torch._C._DisableAutocast():
        for tile in _tiles(hidden, proj, bias, seed, parameters, first_row, count):
            rows = tile.rows
            of_proj, of_bias, of_weight = (None if x is None else x[tile.group] for x in tables)
            terms = [linear(of_hidden[rows], proj)] if of_hidden is not None else []
            terms += [linear(hidden[rows], of_proj)] if of_proj is not None else []
            terms += [of_bias.expand_as(tile.logits)] if of_bias is not None else []
            if terms:
                out[rows] += jacobian(sum(terms[1:], terms[0]), tile, index) @ weight
            if of_tau is not None:
                out[rows] += (jacobian.in_tau(tile, index) * of_tau[rows]).to(weight.dtype) @ weight
            if of_weight is not None:
                out[rows] += table.gather(of_weight, index[rows], _without_sample(tile.logits))
    return in_shape(out, (*leading, weight.shape[1]))


def _without_sample(logits: Tensor) -> Tensor:
    """What a row has that has no sample: NaN, or 0 where it is masked whole."""
    top = logits.amax(-1)
    return torch.where(top == -math.inf, 0.0, top - top)


def _shaped(gradients: tuple[Tensor, ...], shapes: Any) -> tuple[Tensor, ...]:
    return tuple(in_shape(gradient, shape) for gradient, shape in zip(gradients, shapes, strict=True))


def _as_rows(x: Tensor) -> Tensor:
    return x.reshape(x.shape[:-1].numel(), x.shape[-1])


def shapes_of(
    wanted: list[bool], groups: list[int], hidden: Tensor, proj: Tensor, weight: Tensor, index: Tensor
) -> Any:
    """Of the gradients; one that is not computed has nothing in it, but the dims of vmap."""
    every = hidden.shape, (*groups, *proj.shape), (*groups, len(proj)), (*groups, *weight.shape), index.shape
    return [shape if want else (*groups, 0) for shape, want in zip(every, wanted, strict=True)]
