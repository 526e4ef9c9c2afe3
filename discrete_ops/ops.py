"""Autograd and vmap around the two row kernels, for every backend.

Both operators are pure functions of (inputs, seed): an op that drew its own noise would be merged with its
twin by torch.compile's common-subexpression elimination, and would not replay under checkpointing.
What is saved for the backward pass is logits, index and seed; the noise is drawn again.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from . import backends


def _fold(batch_size: int, x: Tensor, dim: int | None) -> Tensor:
    """Bring a vmapped dimension to the front of ``x``, adding it where ``x`` has none."""
    return x.expand(batch_size, *x.shape) if dim is None else x.movedim(dim, 0)


def _fold_groups(batch_size: int, x: Any, dim: int | None) -> Any:
    """The same for a ``(S,)`` seed or tau: batch element b keeps its own groups, so ``(B * S,)``."""
    return _fold(batch_size, x, dim).reshape(-1) if isinstance(x, Tensor) else x


def draw(
    logits: Tensor,
    seed: Tensor,
    tau: float | Tensor,
    estimator: str,
    coefficient: float,
    num_samples: int,
    hard: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """``(sample, index)``: ``sample`` is one-hot, or the estimator's soft sample with ``hard=False``.

    Args:
        logits: ``(..., N)``.
        seed: ``(S,)`` int64.
        tau: float, or ``(T,)``.
        estimator: a key of ``reference.TERMS``.
        coefficient: gap, eta or beta.
        num_samples: K.
        hard: which sample.
        backend: a loaded backend.
    """
    compiling, transformed = torch.compiler.is_compiling(), torch._C._are_functorch_transforms_active()
    if compiling and not isinstance(tau, Tensor):  # an operator's float argument is a constant
        tau = torch.full((1,), tau, dtype=torch.float64, device=logits.device)
    call = (logits, seed, tau, estimator, coefficient, num_samples, hard, backend)
    if compiling and transformed:
        torch._dynamo.graph_break()  # it would trace the forward alone and lose the gradient in silence
    if compiling or transformed:
        return Draw.apply(*call)
    if logits.requires_grad and torch.is_grad_enabled():
        return EagerDraw.apply(*call)
    return _forward(*call)


def _forward(
    logits: Tensor,
    seed: Tensor,
    tau: float | Tensor,
    estimator: str,
    coefficient: float,
    num_samples: int,
    hard: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    kernels = backends.get(backend)
    sample, index = kernels.sample(logits, seed)
    if not hard:
        sample = kernels.surrogate(logits, index, seed, tau, estimator, coefficient, num_samples)
    return sample, index


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    logits, seed, tau, estimator, coefficient, num_samples, _, backend = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1])
    ctx.call = (estimator, coefficient, num_samples, backend)
    if isinstance(tau, Tensor):
        ctx.tau = None
        ctx.save_for_backward(logits, output[1], seed, tau)
    else:
        ctx.tau = tau
        ctx.save_for_backward(logits, output[1], seed)


def _saved(ctx: Any) -> tuple[Any, ...]:
    """What ``PullBack`` takes after the gradient."""
    saved = ctx.saved_tensors
    return (*saved, *ctx.call) if ctx.tau is None else (*saved, ctx.tau, *ctx.call)


class EagerDraw(torch.autograd.Function):
    """:func:`draw` in eager mode: half the overhead of :class:`Draw`, which is most of a small call."""

    @staticmethod
    def forward(ctx: Any, *call: Any) -> tuple[Tensor, Tensor]:
        output = _forward(*call)
        _save(ctx, call, output)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: Any) -> tuple[Any, ...]:
        if grad is None:
            return (None,) * 8
        if torch.is_grad_enabled():  # somebody may differentiate this: let PullBack say no
            return PullBack.apply(grad, *_saved(ctx)), *(None,) * 7
        return PullBack.forward(grad, *_saved(ctx)), *(None,) * 7


class Draw(torch.autograd.Function):
    """:func:`draw` for torch.func and torch.compile."""

    forward = staticmethod(_forward)
    setup_context = staticmethod(_save)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: Any) -> tuple[Any, ...]:
        if grad is None:
            return (None,) * 8
        return PullBack.apply(grad, *_saved(ctx)), *(None,) * 7

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], logits: Tensor, seed: Tensor, tau: Any, *rest: Any) -> Any:
        logits = _fold(info.batch_size, logits, in_dims[0])
        seed = _fold_groups(info.batch_size, seed, in_dims[1])
        tau = _fold_groups(info.batch_size, tau, in_dims[2])
        return Draw.apply(logits, seed, tau, *rest), (0, 0)


class PullBack(torch.autograd.Function):
    """``surrogate_vjp``, as a function of its own for vmap's sake and to say no to a double backward."""

    @staticmethod
    def forward(
        grad: Tensor,
        logits: Tensor,
        index: Tensor,
        seed: Tensor,
        tau: float | Tensor,
        estimator: str,
        coefficient: float,
        num_samples: int,
        backend: str,
    ) -> Tensor:
        kernels = backends.get(backend)
        return kernels.surrogate_vjp(grad, logits, index, seed, tau, estimator, coefficient, num_samples)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        raise RuntimeError(
            "discrete_ops: double backward is not defined: the pull-back of a straight-through estimator is "
            "not the derivative of its sample. Detach the first gradient, or leave create_graph=False."
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], grad: Tensor, logits: Tensor, index: Tensor, *rest: Any) -> Any:
        grad, logits, index = (
            _fold(info.batch_size, x, dim) for x, dim in zip((grad, logits, index), in_dims, strict=False)
        )
        seed = _fold_groups(info.batch_size, rest[0], in_dims[3])
        tau = _fold_groups(info.batch_size, rest[1], in_dims[4])
        return PullBack.apply(grad, logits, index, seed, tau, *rest[2:]), 0
