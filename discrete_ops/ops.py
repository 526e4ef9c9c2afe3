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


class Draw(torch.autograd.Function):
    """``(sample, index)``: ``sample`` is one-hot, or the estimator's soft sample with ``hard=False``."""

    @staticmethod
    def forward(
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

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        logits, seed, tau, *ctx.spec, _, ctx.backend = inputs
        ctx.tau = None if isinstance(tau, Tensor) else tau
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(logits, output[1], seed, tau if ctx.tau is None else None)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: Any) -> tuple[Any, ...]:
        if grad is None:
            return (None,) * 8
        logits, index, seed, tau = ctx.saved_tensors
        tau = ctx.tau if tau is None else tau
        return PullBack.apply(grad, logits, index, seed, tau, *ctx.spec, ctx.backend), *(None,) * 7

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


class Replace(torch.autograd.Function):
    """Forward ``hard``, exactly; backward the identity into ``soft``."""

    @staticmethod
    def forward(hard: Tensor, soft: Tensor) -> Tensor:
        return hard.clone()

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, grad

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], hard: Tensor, soft: Tensor) -> Any:
        hard, soft = (_fold(info.batch_size, x, d) for x, d in zip((hard, soft), in_dims, strict=True))
        return Replace.apply(hard, soft), 0
