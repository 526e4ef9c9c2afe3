"""A sample's product with a table, row kernels: what the operators of :mod:`.embedding_ops` do below autograd.

Rows go in parts: of each there is one tile ``(rows, N)`` at a time, which stays in the cache. Arguments as there.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from . import backends, ops
from .parts import Part, parts, rows_of
from .reference import Parameters

_Place = tuple[int, int, int]  # groups, tables of each, rows of each group


def embedding(
    logits: Tensor,
    weight: Tensor,
    seed: Tensor,
    parameters: Parameters,
    soft: bool,
    estimator: str,
    num_samples: int,
    first_row: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    kernels = backends.get(backend or backends.default(logits))
    place, (columns, width) = _placed(logits, weight.shape[:-1]), weight.shape[-2:]
    lines = weight.reshape(-1, width)

    def of(part: Part, x: Tensor) -> tuple[Tensor, Tensor]:
        sample, index = kernels.sample(x, part.seed, part.parameters, part.first_row)
        found = torch.embedding(lines, _lines(index.clamp_min(0), part.begin, place, columns))
        return torch.where(index.unsqueeze(-1) < 0, sample[:, :1], found), index  # that row is all NaN, or 0

    each = _each(logits, place, seed, parameters, first_row)
    result, index = _joined(logits, (of(*part) for part in each))
    return result.view(*logits.shape[:-1], width), index.view(logits.shape[:-1])


def pull_back(
    grad: Tensor,
    weight: Tensor,
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Parameters,
    estimator: str,
    num_samples: int,
    first_row: int,
    backend: str,
) -> Tensor:
    kernels = backends.get(backend or backends.default(logits))
    index = index.reshape(-1)

    def of(part: Part, x: Tensor, v: Tensor) -> tuple[Tensor]:
        own = index[part.begin : part.end]
        call = (v, x, own, part.seed, part.parameters, estimator, num_samples, part.first_row)
        return (kernels.surrogate_vjp(*call),)

    each = _with_products(grad, weight, logits, seed, parameters, first_row)
    return _joined(logits, (of(*part) for part in each))[0].view(logits.shape)


def scatter(
    grad: Tensor,
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Parameters,
    tables: tuple[int, ...],
    soft: bool,
    estimator: str,
    num_samples: int,
    first_row: int,
    backend: str,
) -> Tensor:
    """A sum in float32 at least, in the order of the rows. A row without a sample adds nothing."""
    place, columns, width = _placed(logits, tables), tables[-1], grad.shape[-1]
    index, dtype = index.reshape(-1), torch.promote_types(grad.dtype, torch.float32)
    wide = grad.reshape(-1, width).to(dtype)
    if not soft:
        lines = index
        if math.prod(tables[:-1]) > 1:
            lines = torch.where(index < 0, -1, _lines(index, 0, place, columns))
        total = torch.ops.aten.embedding_dense_backward(wide, lines, math.prod(tables), -1, False)
        return total.to(grad.dtype).view(*tables, width)
    kernels = backends.get(backend or backends.default(logits))
    groups, cycle, per_group = place
    total = wide.new_zeros((groups, cycle, columns, width))
    without = (index < 0).unsqueeze(-1)
    wide = wide.masked_fill(without, 0.0)
    for part, x in _each(logits, place, seed, parameters, first_row):
        own = slice(part.begin, part.end)
        call = (x, index[own], part.seed, part.parameters, estimator, num_samples, part.first_row)
        sample = kernels.surrogate(*call).to(dtype).masked_fill_(without[own], 0.0)
        for table in range(cycle):
            every = slice((table - part.begin) % cycle, None, cycle)
            total[part.begin // per_group, table].addmm_(sample[every].t(), wide[own][every])
    return total.to(grad.dtype).view(*tables, width)


def pull_back_to_parameters(
    grad: Tensor,
    weight: Tensor,
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Tensor,
    estimator: str,
    num_samples: int,
    first_row: int,
    backend: str,
) -> Tensor:
    kernels = backends.get(backend or backends.default(logits))
    index, flat = index.reshape(-1), parameters.reshape(-1, 3)

    def of(part: Part, x: Tensor, v: Tensor) -> tuple[Tensor]:
        own = index[part.begin : part.end]
        call = (x, own, part.seed, part.parameters, estimator, num_samples, part.first_row)
        return (ops.along(v, kernels.tau_derivative(*call)).sum(-1),)

    each = _with_products(grad, weight, logits, seed, flat, first_row)
    (of_rows,) = _joined(logits, (of(*part) for part in each))
    at_tau = of_rows.view(len(flat), len(index) // len(flat)).sum(-1, keepdim=True)
    return torch.nn.functional.pad(at_tau, (0, 2)).view(parameters.shape)


# --- parts ---------------------------------------------------------------------------------------------------------


def _each(logits: Tensor, place: _Place, seed: Tensor, parameters: Parameters, first_row: int) -> Iterator[Any]:
    """Each part with its rows of the logits. It has whole turns through the tables, but where seeds cut it."""
    groups, tables, per_group = place
    columns, most, rows = logits.shape[-1], _most(logits, tables), groups * per_group
    if (rows <= most and groups == 1) or rows == 0:  # at once, for small calls
        yield Part(0, rows, seed, parameters, first_row), logits.reshape(-1, columns)
        return
    blocks = _blocks(logits)
    length = blocks.shape[1]
    if len(blocks) > 1 and length >= most:  # no part has rows of two
        groups = math.lcm(groups, len(blocks))
    for part in parts(rows, most, seed, parameters, first_row, groups):
        first, last = part.begin // length, -(-part.end // length)
        own = blocks[first:last].reshape(-1, columns)
        yield part, own[part.begin - first * length : part.end - first * length]


def _joined(logits: Tensor, pieces: Iterator[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """What each part has of some results, one below the other."""
    rows, end = logits.numel() // logits.shape[-1], 0
    joined: tuple[Tensor, ...] = ()
    for piece in pieces:
        length = len(piece[0])
        if length == rows:
            return piece
        joined = joined or tuple(x.new_empty((rows, *x.shape[1:])) for x in piece)
        for whole, x in zip(joined, piece, strict=True):
            whole[end : end + length] = x
        end += length
        del piece, x  # the next one comes where this one was, in the cache
    return joined


def _most(logits: Tensor, tables: int) -> int:
    """Rows of a part: what :mod:`.parts` allows, or one of each table where that is more."""
    most = rows_of(logits.shape[-1], logits.element_size(), logits.device)
    return max(tables, most - most % tables)


def _blocks(logits: Tensor) -> Tensor:
    """``(blocks, rows, N)``, a view of logits whose categories stood before other dimensions, as an image's."""
    for blocks in (1, logits.shape[0]):
        try:
            return logits.view(blocks, -1, logits.shape[-1])
        except RuntimeError:  # not with these strides
            continue
    return logits.reshape(1, -1, logits.shape[-1])


def _placed(logits: Tensor, tables: tuple[int, ...]) -> _Place:
    groups = math.prod(tables[:-2])
    return groups, tables[-2], logits.numel() // logits.shape[-1] // groups


def _lines(index: Tensor, begin: int, place: _Place, columns: int) -> Tensor:
    """Where the rows from ``begin`` on with these categories look, in all tables one under the other."""
    groups, tables, per_group = place
    if groups == tables == 1:
        return index
    row = torch.arange(begin, begin + len(index), device=index.device)
    return index + (row // per_group * tables + row % tables) * columns


def _with_products(
    grad: Tensor, weight: Tensor, logits: Tensor, seed: Tensor, parameters: Parameters, first_row: int
) -> Iterator[tuple[Part, Tensor, Tensor]]:
    """Each part, its logits and the gradient at its sample, which the next one writes over."""
    groups, tables, per_group = place = _placed(logits, weight.shape[:-1])
    columns, width = weight.shape[-2:]
    grad, weight = grad.reshape(-1, width), weight.reshape(groups, tables, columns, width)
    buffer = grad.new_empty((min(per_group, _most(logits, tables) + 2 * tables), columns))
    for part, x in _each(logits, place, seed, parameters, first_row):
        first, last = part.begin - part.begin % tables, part.end + -part.end % tables
        tile, own, of_group = buffer[: last - first], grad[first:last], weight[part.begin // max(1, per_group)]
        if tables == 1:
            torch.mm(own, of_group[0].t(), out=tile)
        else:
            by_table = tile.view(-1, tables, columns).transpose(0, 1)
            torch.bmm(own.view(-1, tables, width).transpose(0, 1), of_group.transpose(1, 2), out=by_table)
        yield part, x, tile[part.begin - first : part.end - first]
