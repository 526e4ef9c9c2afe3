"""Ragged rows: rows of different lengths, one after the other in a flat tensor, without padding to the longest.

    draw_ragged(logits, offsets, seed, parameters, hard, *spec)                       -> sample, index
    pull_back_ragged(grad, logits, offsets, index, seed, parameters, transposed, *spec) -> the gradient at the logits
    tau_derivative_ragged(logits, offsets, index, seed, parameters, *spec)            -> the soft sample's in tau

Row i is the row of that number of :mod:`discrete_ops.ops`, of ``(rows, longest)`` with -inf behind each row's end: it
draws the same on the same seed. A backend with kernels for it (``sample_ragged``, ...) makes none of these; another one
takes neighbouring rows in parts, each padded to its own longest row. There the lengths are read on the host: a GPU is
waited for, once in the forward and once in the backward pass.

Args:
    logits: ``(..., total)``.
    offsets: ``(..., rows + 1)`` int64, nondecreasing from 0 to total: where each row begins, and the last one ends.
    index: ``(..., rows)`` int64, of each row's own columns; -1 for a row of length 0, too.
"""

import math
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import Function

from . import backends, ops, parts, reference
from .ops import Spec
from .reference import Parameters
from .register import apply, at_once, below_autograd, in_shape, is_plain, operator, trains


def draw(
    offsets: Tensor,
    logits: Tensor,
    seed: Tensor,
    parameters: Parameters,
    hard: bool,
    estimator: str,
    num_samples: int,
    first_row: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """As :func:`discrete_ops.ops.draw`, of ragged rows."""
    spec = estimator, num_samples, first_row, backend
    if not is_plain(logits, offsets):
        return _draw_op(logits, offsets, seed, ops.as_parameters(parameters, logits), hard, *spec)
    spec = *spec[:3], backend or backends.default(logits)
    if trains(parameters, logits):
        return _draw_at_once(None, logits, offsets, seed, parameters, hard, *spec)
    return _draw(logits, offsets, seed, parameters, hard, *spec)


def pull_back(
    grad: Tensor,
    logits: Tensor,
    offsets: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Parameters,
    transposed: bool,
    spec: Spec,
) -> Tensor:
    """As :func:`discrete_ops.ops.pull_back`."""
    if torch.is_grad_enabled() or not is_plain(grad, logits):
        of_rows = ops.as_parameters(parameters, logits)
        return _pull_back_op(grad, logits, offsets, index, seed, of_rows, transposed, *spec)
    return _pull_back(grad, logits, offsets, index, seed, parameters, transposed, *spec)


def tau_derivative(
    logits: Tensor, offsets: Tensor, index: Tensor, seed: Tensor, parameters: Tensor, spec: Spec
) -> Tensor:
    """As :func:`discrete_ops.ops.tau_derivative`."""
    ops.check_tau_derivative(spec)
    return _tau_derivative_op(logits, offsets, index, seed, parameters, *spec)


def mode(logits: Tensor, offsets: Tensor) -> Tensor:
    """As :func:`discrete_ops.nn.mode`, of rows of a flat tensor."""
    rows, total = offsets.shape[0] - 1, logits.shape[0]
    row = _row_of_each(logits, offsets)
    column = torch.arange(total, device=logits.device) - offsets[row]
    top = logits.new_full((rows,), -math.inf).scatter_reduce(0, row, logits, "amax")[row]
    first = column.new_full((rows,), total).scatter_reduce(0, row, column.where(logits == top, total), "amin")
    one_hot = ((column == first[row]) & (top > -math.inf)).to(logits.dtype)
    return torch.where(top < math.inf, one_hot, torch.nan)


# --- below autograd -------------------------------------------------------------------------------------------------


def _draw(
    logits: Tensor,
    offsets: Tensor,
    seed: Tensor,
    parameters: Parameters,
    hard: bool,
    estimator: str,
    num_samples: int,
    first_row: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    kernels = ops.kernels_of(backend, logits)
    flat, bounds = logits.reshape(-1), _flat(offsets, logits.shape[-1])
    if hasattr(kernels, "sample_ragged"):
        sample, index = kernels.sample_ragged(flat, bounds, seed, parameters, first_row)
        if not hard:
            call = (seed, parameters, estimator, num_samples, first_row)
            sample = kernels.surrogate_ragged(flat, bounds, index, *call)
    else:
        sample, index = flat.new_empty(flat.shape), bounds.new_empty(len(bounds) - 1)
        for part in _parts(flat, bounds, seed, parameters, first_row):
            spec = (estimator, num_samples, part.first_row, backend)
            drawn, index[part.rows] = ops._draw(part.padded(flat), part.seed, part.parameters, hard, *spec)
            sample[part.elements] = part.unpadded(drawn)
    return in_shape(sample, logits.shape), in_shape(index, (*offsets.shape[:-1], offsets.shape[-1] - 1))


def _pull_back(
    grad: Tensor,
    logits: Tensor,
    offsets: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Parameters,
    transposed: bool,
    estimator: str,
    num_samples: int,
    first_row: int,
    backend: str,
) -> Tensor:
    kernels = ops.kernels_of(backend, logits)
    flat, v, winners = logits.reshape(-1), grad.reshape(-1), index.reshape(-1)
    bounds = _flat(offsets, logits.shape[-1])
    if hasattr(kernels, "surrogate_vjp_ragged") and not (transposed and estimator in reference.ASYMMETRIC):
        call = (seed, parameters, estimator, num_samples, first_row)
        return in_shape(kernels.surrogate_vjp_ragged(v, flat, bounds, winners, *call), logits.shape)
    pulled = flat.new_empty(flat.shape)
    for part in _parts(flat, bounds, seed, parameters, first_row):
        rows = (part.padded(v, 0.0), part.padded(flat), winners[part.rows], part.seed, part.parameters)
        spec = (estimator, num_samples, part.first_row, backend)
        pulled[part.elements] = part.unpadded(ops._pull_back(*rows, transposed, *spec))
    return in_shape(pulled, logits.shape)


def _tau_derivative(
    logits: Tensor,
    offsets: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Parameters,
    estimator: str,
    num_samples: int,
    first_row: int,
    backend: str,
) -> Tensor:
    kernels = ops.kernels_of(backend, logits)
    flat, winners, bounds = logits.reshape(-1), index.reshape(-1), _flat(offsets, logits.shape[-1])
    if hasattr(kernels, "tau_derivative_ragged"):
        call = (seed, parameters, estimator, num_samples, first_row)
        return kernels.tau_derivative_ragged(flat, bounds, winners, *call).view(logits.shape)
    derivative = flat.new_empty(flat.shape)
    for part in _parts(flat, bounds, seed, parameters, first_row):
        rows = (part.padded(flat), winners[part.rows], part.seed, part.parameters)
        spec = (estimator, num_samples, part.first_row, backend)
        derivative[part.elements] = part.unpadded(ops._tau_derivative(*rows, *spec))
    return derivative.view(logits.shape)


def _flat(offsets: Tensor, total: int) -> Tensor:
    """Offsets of all batch elements' rows, the elements one after the other."""
    if offsets.ndim == 1:
        return offsets
    if (offsets[..., -1] != total).any():  # the others' place is told by it
        raise ValueError(f"offsets: got {offsets[..., -1].tolist()} at the end, allowed: {total}, the number of logits")
    begins = offsets[..., :-1].reshape(-1, offsets.shape[-1] - 1)
    batch = torch.arange(len(begins) + 1, device=offsets.device) * total
    return torch.cat(((begins + batch[:-1, None]).flatten(), batch[-1:]))


class _Part:
    """Neighbouring rows, and their elements as rows of the longest one's length."""

    def __init__(self, part: parts.Part, offsets: Tensor, elements: slice, longest: int) -> None:
        self.rows, self.elements = slice(part.begin, part.end), elements
        self.seed, self.parameters, self.first_row = part.seed, part.parameters, part.first_row
        self.shape = part.end - part.begin, longest
        begins, ends = offsets[self.rows], offsets[part.begin + 1 : part.end + 1]
        rows = torch.arange(len(begins), device=offsets.device)
        # The number of elements is given, so that no device is asked for it.
        row = rows.repeat_interleave(ends - begins, output_size=elements.stop - elements.start)
        column = torch.arange(elements.start, elements.stop, device=offsets.device) - begins[row]
        self.place = row * longest + column

    def padded(self, flat: Tensor, padding: float = -math.inf) -> Tensor:
        rows = flat.new_full((self.shape[0] * self.shape[1],), padding)
        return rows.index_copy_(0, self.place, flat[self.elements]).view(self.shape)

    def unpadded(self, rows: Tensor) -> Tensor:
        return rows.reshape(-1)[self.place]


def _parts(flat: Tensor, offsets: Tensor, seed: Tensor, parameters: Parameters, first_row: int) -> Iterator[_Part]:
    """Of no more padded elements than a part may have, unless a single row has more."""
    bounds = offsets.tolist()
    lengths = [end - begin for begin, end in pairwise(bounds)]
    if bounds[0] != 0 or bounds[-1] != len(flat) or min(lengths, default=0) < 0:
        raise ValueError(f"offsets: got {bounds}, allowed: nondecreasing ones from 0 to {len(flat)}")
    most = parts.rows_of(1, flat.element_size(), flat.device)

    def rows_from(begin: int) -> int:
        longest = 1
        for row in range(begin, len(lengths)):
            longest = max(longest, lengths[row])
            if (row + 1 - begin) * longest > most:
                return max(1, row - begin)
        return len(lengths) - begin

    for part in parts.parts(len(lengths), rows_from, seed, parameters, first_row):
        longest = max(1, *lengths[part.begin : part.end])
        yield _Part(part, offsets, slice(bounds[part.begin], bounds[part.end]), longest)


# --- autograd -------------------------------------------------------------------------------------------------------


class DrawRagged(Function):
    """Autograd of :func:`draw`."""

    @staticmethod
    def forward(
        ctx: Any,
        keyset: Any,
        logits: Tensor,
        offsets: Tensor,
        seed: Tensor,
        parameters: Parameters,
        hard: bool,
        *spec: Any,
    ) -> tuple[Tensor, Tensor]:
        call = (logits, offsets, seed, parameters, hard, *spec)
        output = _draw(*call) if keyset is None else below_autograd(_draw_op, keyset, *call)
        saved = (logits, offsets, output[1], seed, parameters)
        ops.keep(ctx, keyset is not None, saved, spec, pull_back, tau_derivative)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: Any) -> tuple[Any, ...]:
        if grad is None:
            return (None,) * 10
        saved = _restored(ctx)
        at_logits = pull_back(grad, *saved, False, ctx.spec) if ctx.needs_input_grad[1] else None
        at_parameters = _pull_back_to_parameters(grad, *saved, ctx.spec) if ctx.needs_input_grad[4] else None
        return (None, at_logits, None, None, at_parameters, *(None,) * 5)

    @staticmethod
    def jvp(ctx: Any, _: Any, of_logits: Any, __: Any, ___: Any, of_parameters: Any, *rest: Any) -> tuple[Any, None]:
        saved = _restored(ctx)
        pushed = None if of_logits is None else pull_back(of_logits, *saved, True, ctx.spec)
        if of_parameters is None:
            return pushed, None
        derivative, of_rows = tau_derivative(*saved, ctx.spec), ops.of_rows(of_parameters, saved[2])
        along_tau = derivative * of_rows.gather(-1, _row_of_each(derivative, saved[1]))
        along_tau = along_tau.to(derivative.dtype)
        return along_tau if pushed is None else pushed + along_tau, None


_draw_at_once = at_once(DrawRagged)


class PullBackRagged(ops.PullBack):
    """Autograd of :func:`pull_back`."""

    @staticmethod
    def forward(ctx: Any, keyset: Any, grad: Tensor, *call: Any) -> Tensor:
        ops.keep_pull_back(ctx, call, pull_back)
        return below_autograd(_pull_back_op, keyset, grad, *call)


class TauDerivativeRagged(ops.TauDerivative):
    """Has none of its own."""

    @staticmethod
    def forward(ctx: Any, keyset: Any, *call: Any) -> Tensor:
        return below_autograd(_tau_derivative_op, keyset, *call)


def _restored(ctx: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Any]:
    return cast(Any, ops.restored(ctx))


def _row_of_each(elements: Tensor, offsets: Tensor) -> Tensor:
    """The number of each element's row, in its batch element."""
    places = torch.arange(elements.shape[-1], device=offsets.device).expand(elements.shape)
    ends = offsets[..., 1:].expand(*elements.shape[:-1], offsets.shape[-1] - 1)
    return torch.searchsorted(ends.contiguous(), places.contiguous(), right=True)


def _pull_back_to_parameters(
    grad: Tensor, logits: Tensor, offsets: Tensor, index: Tensor, seed: Tensor, parameters: Tensor, spec: Spec
) -> Tensor:
    derivative = tau_derivative(logits, offsets, index, seed, parameters, spec)
    product = ops.along(grad, derivative)
    of_rows = product.new_zeros(index.shape).scatter_add(-1, _row_of_each(product, offsets), product)
    return ops.at_parameters(of_rows, parameters)


# --- registration ---------------------------------------------------------------------------------------------------


_ROWS = "Tensor logits, Tensor offsets"
_draw_op = operator(
    f"draw_ragged({_ROWS}, Tensor seed, Tensor parameters, bool hard, {ops.SPEC}) -> (Tensor sample, Tensor index)",
    _draw,
    partial(apply, DrawRagged),
    lambda logits, offsets, *_: (
        logits.new_empty(logits.shape),
        offsets.new_empty((*offsets.shape[:-1], offsets.shape[-1] - 1)),
    ),
    partial(ops.vmap, 2),
    whole=True,
)
_pull_back_op = operator(
    f"pull_back_ragged(Tensor grad, {_ROWS}, Tensor index, Tensor seed, Tensor parameters, bool transposed, "
    f"{ops.SPEC}) -> Tensor",
    _pull_back,
    partial(ops.pull_back_autograd, PullBackRagged),
    lambda grad, logits, *_: logits.new_empty(logits.shape),
    partial(ops.vmap, 4),
    whole=True,
)
_tau_derivative_op = operator(
    f"tau_derivative_ragged({_ROWS}, Tensor index, Tensor seed, Tensor parameters, {ops.SPEC}) -> Tensor",
    _tau_derivative,
    partial(apply, TauDerivativeRagged),
    lambda logits, *_: logits.new_empty(logits.shape),
    partial(ops.vmap, 3),
    whole=True,
)
