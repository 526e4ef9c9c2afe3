"""The operators behind :func:`discrete_ops.linear_embedding`, on logits that are never held whole.

A part of the rows (:mod:`discrete_ops.parts`) has its logits, is drawn and looked up; the backward pass forms the same
product of the same part again, and multiplies its gradient away at once: :mod:`discrete_ops.linear_tiles`.

    linear_embedding(hidden, proj, bias, weight, seed, parameters, *spec)                  -> out, index
    linear_embedding_pull_back(grad, <saved>, transposed, wanted, groups, *spec)           -> gradients
    linear_embedding_push(<tangents>, <saved>, transposed, groups, *spec)                  -> the tangent of out

The last two are each other's transpose, so each is the other's derivative in what comes in; in all else none is
defined. Gradients, and tangents, are those at hidden, proj, bias, weight and, one a row, tau.

Shared by them:

Args:
    hidden: ``(..., H)``.
    proj, bias: ``(N, H)``, as ``torch.nn.Linear`` has it, and ``(N,)`` or None.
    weight: ``(N, D)``.
    index: ``(...)`` int64, as the first returned it.
    saved: hidden, proj, bias, weight, index, seed, parameters.
    seed, parameters, spec: as in :mod:`discrete_ops.ops`.
    transposed: whether the estimator's Jacobian at the logits is: as it pushes tangents forward.
    wanted: of five gradients, which are computed; the others have no elements.
    groups: the leading dims in which gradients at tables, or tangents of them, differ: those of vmap.
"""

from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import Function

from . import linear_tiles, ops
from .register import apply, below_autograd, fold, operator, refuses

# --- autograd -------------------------------------------------------------------------------------------------------


_REFUSED = (
    "linear_embedding: got a gradient that is itself differentiated in hidden, proj, bias, weight or tau, allowed: in "
    "the incoming gradient. The pull-back of a straight-through estimator is not the derivative of its sample. Detach "
    "the first gradient, or leave create_graph=False."
)


class Constant(ops.NoDerivative):
    """The identity; raises when it is differentiated."""

    backward = refuses(_REFUSED)


_constants = partial(ops.constants, function=Constant)


class LinearEmbedding(Function):
    """Autograd of the draw."""

    @staticmethod
    def forward(ctx: Any, keyset: Any, *call: Any) -> tuple[Tensor, Tensor]:
        out, index = below_autograd(linear_embedding, keyset, *call)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(index)
        ctx.spec = call[6:]
        ops.save(ctx, True, *call[:4], index, *call[4:6])
        return out, index

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: Any) -> tuple[Any, ...]:
        if grad is None:
            return (None,) * 11
        saved, wanted = ctx.saved_tensors, [*ctx.needs_input_grad[1:5], ctx.needs_input_grad[6]]
        *gradients, at_tau = _pull_back_op(grad, *saved, False, wanted, [], *ctx.spec)
        at_parameters = ops.at_parameters(at_tau, saved[6]) if wanted[4] else None
        at_tables = [gradient if want else None for gradient, want in zip(gradients, wanted[:4], strict=True)]
        return (None, *at_tables, None, at_parameters, *(None,) * 4)

    @staticmethod
    def jvp(ctx: Any, _: Any, *tangents: Any) -> tuple[Tensor, None]:
        saved, of_parameters = ctx.saved_tensors, tangents[5]
        of_tau = None if of_parameters is None else ops.of_rows(of_parameters, saved[4])
        return _push_op(*tangents[:4], of_tau, *saved, True, [], *ctx.spec), None


class PullBack(Function):
    """Autograd of the pull-back, linear in the incoming gradient."""

    @staticmethod
    def forward(ctx: Any, keyset: Any, grad: Tensor, *call: Any) -> tuple[Tensor, ...]:
        gradients = below_autograd(_pull_back_op, keyset, grad, *call)
        ctx.set_materialize_grads(False)
        ctx.transposed, ctx.wanted, ctx.groups, *ctx.spec = call[7:]
        ctx.mark_non_differentiable(*(x for x, want in zip(gradients, ctx.wanted, strict=True) if not want))
        ops.save(ctx, True, *call[:7])
        return gradients

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> tuple[Any, ...]:
        at_grad = _push_op(*cotangents, *ctx.saved_tensors, not ctx.transposed, ctx.groups, *ctx.spec)
        return (None, at_grad, *(None,) * 14)

    @staticmethod
    def jvp(ctx: Any, _: Any, tangent: Any, *others: Any) -> tuple[Any, ...]:
        ops.refuse_tangents(others, _REFUSED)
        pushed = _pull_back_op(tangent, *ctx.saved_tensors, ctx.transposed, ctx.wanted, ctx.groups, *ctx.spec)
        return tuple(x if want else None for x, want in zip(pushed, ctx.wanted, strict=True))


class Push(Function):
    """Autograd of the push, linear in the tangents."""

    @staticmethod
    def forward(ctx: Any, keyset: Any, *call: Any) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.transposed, ctx.groups, *ctx.spec = call[12:]
        ops.save(ctx, True, *call[5:12])
        return below_autograd(_push_op, keyset, *call)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Any, ...]:
        wanted = [*ctx.needs_input_grad[1:6]]
        if grad is None or not any(wanted):
            return (None,) * 19
        gradients = _pull_back_op(grad, *ctx.saved_tensors, not ctx.transposed, wanted, ctx.groups, *ctx.spec)
        at_tangents = (gradient if want else None for gradient, want in zip(gradients, wanted, strict=True))
        return (None, *at_tangents, *(None,) * 13)

    @staticmethod
    def jvp(ctx: Any, _: Any, *tangents: Any) -> Tensor:
        ops.refuse_tangents(tangents[5:], _REFUSED)
        return _push_op(*tangents[:5], *ctx.saved_tensors, ctx.transposed, ctx.groups, *ctx.spec)


# --- registration ---------------------------------------------------------------------------------------------------


Places: TypeAlias = tuple[int, ...]


def _vmap(
    tables: Places,
    rows: Places,
    seeds: Places,
    groups: int | None,
    batch_size: int,
    in_dims: tuple[Any, ...],
    *call: Any,
) -> tuple[Any, ...]:
    """Batch element b keeps its own rows, seeds and parameters, and has gradients at the tables, and their tangents, of
    its own; the tables themselves are those of all."""
    folded = [*call]
    if any(in_dims[place] is not None for place in tables):
        allowed = "allowed: over hidden, or a loop over tables"
        raise RuntimeError(f"linear_embedding: got proj, bias or weight with a batch dimension of vmap, {allowed}")
    for place in (*rows, *seeds):
        if isinstance(call[place], Tensor):
            folded[place] = fold(batch_size, call[place], in_dims[place])
            folded[place] = folded[place].flatten(0, 1) if place in seeds else folded[place]
    if groups is not None:
        folded[groups] = [batch_size, *call[groups]]
    return tuple(folded)


_TABLES = "Tensor hidden, Tensor proj, Tensor? bias, Tensor weight"
_SAVED = f"{_TABLES}, Tensor index, Tensor seed, Tensor parameters"
_TANGENTS = "Tensor? of_hidden, Tensor? of_proj, Tensor? of_bias, Tensor? of_weight, Tensor? of_tau"


def _fake(hidden: Tensor, proj: Tensor, bias: Any, weight: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    leading = hidden.shape[:-1]
    return hidden.new_empty((*leading, weight.shape[1])), hidden.new_empty(leading, dtype=torch.int64)


def _fake_pull_back(
    grad: Tensor,
    hidden: Tensor,
    proj: Tensor,
    bias: Any,
    weight: Tensor,
    index: Tensor,
    seed: Any,
    parameters: Any,
    transposed: bool,
    wanted: list[bool],
    groups: list[int],
    *_: Any,
) -> tuple[Tensor, ...]:
    *shapes, of_tau = linear_tiles.shapes_of(wanted, groups, hidden, proj, weight, index)
    return (*(hidden.new_empty(shape) for shape in shapes), hidden.new_empty(of_tau, dtype=torch.float64))


def _pull_back_autograd(keyset: Any, grad: Tensor, *call: Any) -> Any:
    return apply(PullBack, keyset, grad, *_constants(*call[:7]), *call[7:])


def _push_autograd(keyset: Any, *call: Any) -> Any:
    return apply(Push, keyset, *call[:5], *_constants(*call[5:12]), *call[12:])


linear_embedding = operator(
    f"linear_embedding({_TABLES}, Tensor seed, Tensor parameters, {ops.SPEC}) -> (Tensor out, Tensor index)",
    linear_tiles.linear_embedding,
    partial(apply, LinearEmbedding),
    _fake,
    partial(_vmap, (1, 2, 3), (0,), (4, 5), None),
    whole=True,
)
_pull_back_op = operator(
    f"linear_embedding_pull_back(Tensor grad, {_SAVED}, bool transposed, bool[] wanted, SymInt[] groups, {ops.SPEC})"
    " -> (Tensor at_hidden, Tensor at_proj, Tensor at_bias, Tensor at_weight, Tensor at_tau)",
    linear_tiles.pull_back,
    _pull_back_autograd,
    _fake_pull_back,
    partial(_vmap, (2, 3, 4), (0, 1, 5), (6, 7), 10),
    whole=True,
)
_push_op = operator(
    f"linear_embedding_push({_TANGENTS}, {_SAVED}, bool transposed, SymInt[] groups, {ops.SPEC}) -> Tensor",
    linear_tiles.push,
    _push_autograd,
    lambda *call: call[5].new_empty((*call[5].shape[:-1], call[8].shape[1])),
    partial(_vmap, (6, 7, 8), (0, 1, 2, 3, 4, 5, 9), (10, 11), 13),
    whole=True,
)
