"""R draws of each row, from one pass over it: ``num_draws`` of every estimator.

    draw_many(logits, seed, parameters, num_draws, hard, *spec)      -> sample (R, ..., N), index (R, ...)
    pull_back_many(grad, logits, index, seed, parameters, *spec)      -> the gradient at the logits, (..., N)

This is :func:`discrete_ops.ops.draw` of R copies of the logits, to the last sample, and its gradient is the sum over
them. Draw r of row i has the noise of row number ``first_row + r * rows + i``; where S seeds have groups of rows, r and
i count inside a group: vmap's draws are those that each of its elements has by itself.

What a backend has under the names ``sample_many`` and ``surrogate_vjp_many`` takes each row once. The functions of
those names here, for the others, give their kernels the copies, which are in no memory where the backend reads rows at
any stride; Triton's copies them. So do forward mode, the soft sample, the second derivative and that in tau.

Arguments are those of ``ops``.
"""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_exporting

from . import backends, ops, reference
from .ops import Spec
from .reference import Parameters
from .register import apply, at_once, below_autograd, is_plain, operator, trains


def draw(
    logits: Tensor,
    seed: Tensor,
    parameters: Parameters,
    hard: bool,
    estimator: str,
    num_samples: int,
    first_row: int,
    backend: str,
    *,
    num_draws: int,
) -> tuple[Tensor, Tensor]:
    """``(sample, index)``: ``sample`` is one-hot, or the estimator's soft sample with ``hard=False``."""
    spec = (estimator, num_samples, first_row)
    if not is_plain(logits):
        parameters = ops.as_parameters(parameters, logits)
        if is_exporting() and torch.onnx.is_in_onnx_export():  # as ops.draw
            return _draw(logits, seed, parameters, num_draws, hard, *spec, "reference")
        return _draw_op(logits, seed, parameters, num_draws, hard, *spec, backend)
    backend = backend or backends.default(logits)
    if trains(parameters, logits):
        return _draw_at_once(None, logits, seed, parameters, num_draws, hard, *spec, backend)
    return _draw(logits, seed, parameters, num_draws, hard, *spec, backend)


def pull_back(
    grad: Tensor, logits: Tensor, index: Tensor, seed: Tensor, parameters: Parameters, transposed: bool, spec: Spec
) -> Tensor:
    """The sum over the draws of the pull-backs of ``grad``, in which it is linear; or its transpose, which pushes a
    tangent forward to every draw."""
    if transposed:
        copies, call = _of_copies(logits, index, seed, parameters)
        return copies.back(ops.pull_back(copies.of(grad), *call, True, spec), logits.shape)
    if torch.is_grad_enabled() or not is_plain(grad, logits):
        return _pull_back_op(grad, logits, index, seed, ops.as_parameters(parameters, logits), *spec)
    return _pull_back(grad, logits, index, seed, parameters, *spec)


def tau_derivative(logits: Tensor, index: Tensor, seed: Tensor, parameters: Tensor, spec: Spec) -> Tensor:
    """As :func:`discrete_ops.ops.tau_derivative`, of every draw."""
    copies, call = _of_copies(logits, index, seed, parameters)
    return copies.back(ops.tau_derivative(*call, spec), logits.shape)


def one_by_one(
    operator: Callable[..., tuple[Tensor, Tensor]],
    num_draws: int,
    rows: int,
    logits: Tensor,
    seed: Tensor,
    parameters: Parameters,
    hard: bool,
    estimator: str,
    num_samples: int,
    first_row: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Of another operator than :func:`discrete_ops.ops.draw`, of so many rows: a call a draw."""
    per_seed, call = rows // max(seed.shape[0], 1), (logits, seed, parameters, hard, estimator, num_samples)
    drawn = [operator(*call, first_row + draw * per_seed, backend) for draw in range(num_draws)]
    samples, indices = zip(*drawn, strict=True)
    return torch.stack(samples), torch.stack(indices)


# --- copies of the rows -----------------------------------------------------------------------------------------------


class Copies(NamedTuple):
    """R copies of the rows as kernels count them, ``(S, R, rows of a seed)``; ours come as ``(R, ...)``."""

    seeds: int
    draws: int
    rows: int

    def of(self, x: Tensor) -> Tensor:
        """Of rows ``(..., N)``, or of ``(rows, N)``."""
        columns = x.shape[-1]
        shape = (self.seeds, self.draws, self.rows, columns)
        return x.reshape(self.seeds, 1, self.rows, columns).expand(shape)

    def of_parameters(self, parameters: Any) -> Any:
        if not isinstance(parameters, Tensor) or parameters.shape[0] == 1:
            return parameters
        each = self.seeds * self.rows // parameters.shape[0]
        return self.of(parameters.repeat_interleave(each, 0)).reshape(-1, parameters.shape[1])

    def ordered(self, x: Tensor, tail: Any) -> Tensor:
        """``(R, ..., *tail)`` in the kernels' order."""
        return x.reshape(self.draws, self.seeds, self.rows, *tail).transpose(0, 1)

    def back(self, x: Tensor, shape: Any) -> Tensor:
        """And back: ``(R, *shape)``, contiguous."""
        return x.transpose(0, 1).reshape(self.draws, *shape).contiguous()


def _copies(logits: Tensor, seed: Tensor, num_draws: int) -> Copies:
    seeds = seed.shape[0]
    return Copies(seeds, num_draws, logits.numel() // logits.shape[-1] // max(seeds, 1))


def sample_many(
    kernels: ModuleType,
    logits: Tensor,
    seed: Tensor,
    parameters: Parameters,
    num_draws: int,
    first_row: int = 0,
    binary: bool = False,
) -> tuple[Tensor, Tensor]:
    """``kernels.sample`` of the copies: ``(R, ..., N)`` and ``(R, ...)``."""
    copies = _copies(logits, seed, num_draws)
    sample, index = kernels.sample(copies.of(logits), seed, copies.of_parameters(parameters), first_row, binary)
    return copies.back(sample, logits.shape), copies.back(index, logits.shape[:-1])


def surrogate_vjp_many(
    kernels: ModuleType,
    grad: Tensor,
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Parameters,
    estimator: str,
    num_samples: int,
    first_row: int = 0,
) -> Tensor:
    """The sum of ``kernels.surrogate_vjp`` over the copies."""
    copies, call = _of_copies(logits, index, seed, parameters)
    pulled = kernels.surrogate_vjp(copies.ordered(grad, logits.shape[-1:]), *call, estimator, num_samples, first_row)
    return pulled.sum(1).view(logits.shape)


def _of_copies(
    logits: Tensor, index: Tensor, seed: Tensor, parameters: Parameters
) -> tuple[Copies, tuple[Tensor, Tensor, Tensor, Any]]:
    """What the functions of one draw take for all: logits, index, seed, parameters."""
    copies = _copies(logits, seed, index.shape[0])
    return copies, (copies.of(logits), copies.ordered(index, ()), seed, copies.of_parameters(parameters))


# --- below autograd ---------------------------------------------------------------------------------------------------


def _draw(
    logits: Tensor,
    seed: Tensor,
    parameters: Parameters,
    num_draws: int,
    hard: bool,
    estimator: str,
    num_samples: int,
    first_row: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    kernels = ops.kernels_of(backend, logits)
    sample_of = getattr(kernels, "sample_many", None) or partial(sample_many, kernels)
    sample, index = sample_of(logits, seed, parameters, num_draws, first_row, reference.is_binary(estimator))
    if not hard:
        copies, call = _of_copies(logits, index, seed, parameters)
        sample = copies.back(kernels.surrogate(*call, estimator, num_samples, first_row), logits.shape)
    return sample, index


def _pull_back(
    grad: Tensor,
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Parameters,
    estimator: str,
    num_samples: int,
    first_row: int,
    backend: str,
) -> Tensor:
    kernels = ops.kernels_of(backend, logits)
    vjp = getattr(kernels, "surrogate_vjp_many", None) or partial(surrogate_vjp_many, kernels)
    return vjp(grad, logits, index, seed, parameters, estimator, num_samples, first_row)


# --- autograd ---------------------------------------------------------------------------------------------------------


class DrawMany(ops.Draw):
    """Autograd of :func:`draw`."""

    @staticmethod
    def forward(
        ctx: Any, keyset: Any, logits: Tensor, seed: Tensor, parameters: Parameters, num_draws: int, *rest: Any
    ) -> tuple[Tensor, Tensor]:
        call = (logits, seed, parameters, num_draws, *rest)
        output = _draw(*call) if keyset is None else below_autograd(_draw_op, keyset, *call)
        saved = (logits, output[1], seed, parameters)
        ops.keep(ctx, keyset is not None, saved, rest[1:], pull_back, tau_derivative)
        return output


_draw_at_once = at_once(DrawMany)


class PullBackMany(ops.PullBack):
    """Autograd of :func:`pull_back`."""

    @staticmethod
    def forward(ctx: Any, keyset: Any, grad: Tensor, *call: Any) -> Tensor:
        ops.keep_pull_back(ctx, (*call[:4], False, *call[4:]), pull_back)
        return below_autograd(_pull_back_op, keyset, grad, *call)


# --- registration -----------------------------------------------------------------------------------------------------


def _fake(logits: Tensor, seed: Tensor, parameters: Tensor, num_draws: int, *rest: Any) -> tuple[Tensor, Tensor]:
    index = logits.new_empty((num_draws, *logits.shape[:-1]), dtype=torch.int64)
    return logits.new_empty((num_draws, *logits.shape)), index


def _vmap_pull_back(batch_size: int, in_dims: tuple[Any, ...], *call: Any) -> tuple[Any, ...]:
    """As ops' own, with the batch behind the draws of what has draws."""
    grad, logits, index, *rest = ops.vmap(3, batch_size, in_dims, *call)
    return (grad.movedim(0, 1), logits, index.movedim(0, 1), *rest)


_draw_op = operator(
    "draw_many(Tensor logits, Tensor seed, Tensor parameters, SymInt num_draws, bool hard, "
    f"{ops.SPEC}) -> (Tensor sample, Tensor index)",
    _draw,
    partial(apply, DrawMany),
    _fake,
    partial(ops.vmap, 1),
    batched_dim=1,
)
_pull_back_op = operator(
    f"pull_back_many(Tensor grad, Tensor logits, Tensor index, Tensor seed, Tensor parameters, {ops.SPEC}) -> Tensor",
    _pull_back,
    partial(ops.pull_back_autograd, PullBackMany),
    lambda grad, logits, *_: logits.new_empty(logits.shape),
    _vmap_pull_back,
)
