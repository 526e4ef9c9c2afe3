"""A sample's product with a table, ``D W``, as operators: the sample is in no memory, nor is the gradient at it.

    embedding(logits, weight, seed, parameters, soft, *spec)                            -> D W, index
    embedding_pull_back(grad, weight, logits, index, seed, parameters, *spec)           -> the gradient at the logits
    embedding_scatter(grad, logits, index, seed, parameters, tables, soft, *spec)       -> that at the weight, D^T grad
    embedding_pull_back_to_parameters(grad, weight, logits, index, seed, parameters, *spec) -> that at the parameters

With ``D(l)`` the sample and ``J`` its Jacobian, the first three are

    E(l, W) = D(l) W        P(g, W) = J^T (g W^T)        S(g, l) = D(l)^T g

and derivatives of each other: P and S are E's, ``<S(g, l), U> = <g, E(l, U)>``, so that S has E and P. What needs J
itself, forward mode and the second derivative of P, holds ``(rows, N)``.

Args, beside those of :mod:`.ops`:
    weight: ``(*groups, L, N, D)``: the rows of each of so many equal consecutive groups cycle through its L tables.
    grad: ``(..., D)``, gradient at the result.
    tables: ``(*groups, L, N)``.
    soft: whether the gradient at the weight is that of the soft sample.
"""

import math
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import Function

from . import backends, embedding_rows, ops
from .reference import Parameters
from .register import apply, at_once, below_autograd, fold, is_plain, operator, refuses, trains


def embedding(
    logits: Tensor, weight: Tensor, seed: Tensor, parameters: Parameters, soft: bool, *spec: Any
) -> tuple[Tensor, Tensor]:
    """``(D W, index)``."""
    if not is_plain(logits, weight):
        return _embedding_op(logits, weight, seed, ops.as_parameters(parameters, logits), soft, *spec)
    spec = (*spec[:-1], spec[-1] or backends.default(logits))
    if trains(parameters, logits, weight):
        return _embedding_at_once(None, logits, weight, seed, parameters, soft, *spec)
    return embedding_rows.embedding(logits, weight, seed, parameters, soft, *spec)


def pull_back(
    grad: Tensor,
    weight: Tensor,
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Parameters,
    spec: ops.Spec,
) -> Tensor:
    """The gradient at the logits."""
    if torch.is_grad_enabled() or not is_plain(grad, logits):
        call = (grad, weight, logits, index, seed, ops.as_parameters(parameters, logits))
        return _pull_back_op(*call, *spec)
    return embedding_rows.pull_back(grad, weight, logits, index, seed, parameters, *spec)


def scatter(
    grad: Tensor,
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Parameters,
    tables: tuple[int, ...],
    soft: bool,
    spec: ops.Spec,
) -> Tensor:
    """The gradient at the weight."""
    if torch.is_grad_enabled() or not is_plain(grad, logits):
        call = (grad, logits, index, seed, ops.as_parameters(parameters, logits))
        return _scatter_op(*call, tables, soft, *spec)
    return embedding_rows.scatter(grad, logits, index, seed, parameters, tables, soft, *spec)


def pull_back_to_parameters(
    grad: Tensor, weight: Tensor, logits: Tensor, index: Tensor, seed: Tensor, parameters: Tensor, spec: ops.Spec
) -> Tensor:
    """The gradient at the parameters: at tau, of an estimator with a soft sample."""
    ops.check_tau_derivative(spec)
    return _pull_back_to_parameters_op(grad, weight, logits, index, seed, parameters, *spec)


def product(sample: Tensor, weight: Tensor) -> Tensor:
    """``sample @ weight`` of a sample that is in memory."""
    weight = weight.reshape(-1, *weight.shape[-3:])
    rows = sample.reshape(len(weight), -1, *weight.shape[1:3])
    return (rows.transpose(1, 2) @ weight).transpose(1, 2).reshape(*sample.shape[:-1], weight.shape[-1])


def _product_at_weight(sample: Tensor, grad: Tensor, tables: tuple[int, ...]) -> Tensor:
    """``sample^T grad``, the gradient of :func:`product`."""
    groups, width = math.prod(tables[:-2]), grad.shape[-1]
    rows = sample.reshape(groups, -1, *tables[-2:]).permute(0, 2, 3, 1)
    return (rows @ grad.reshape(groups, -1, tables[-2], width).transpose(1, 2)).reshape(*tables, width)


# --- autograd -------------------------------------------------------------------------------------------------------
# ``keyset`` as in ops.py.


class Embedding(Function):
    """Autograd of :func:`embedding`."""

    @staticmethod
    def forward(
        ctx: Any,
        keyset: Any,
        logits: Tensor,
        weight: Tensor,
        seed: Tensor,
        parameters: Parameters,
        soft: bool,
        *spec: Any,
    ) -> tuple[Tensor, Tensor]:
        call = (logits, weight, seed, parameters, soft, *spec)
        output = embedding_rows.embedding(*call) if keyset is None else below_autograd(_embedding_op, keyset, *call)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(output[1])
        ctx.soft, ctx.spec = soft, spec
        ops.save(ctx, keyset is not None, weight, logits, output[1], seed, parameters)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: Any) -> tuple[Any, ...]:
        if grad is None:
            return (None,) * 10
        (weight,), saved = _restored(ctx)
        _, of_logits, of_weight, _, of_parameters, *_ = ctx.needs_input_grad
        at_logits = pull_back(grad, weight, *saved, ctx.spec) if of_logits else None
        at_weight = scatter(grad, *saved, weight.shape[:-1], ctx.soft, ctx.spec) if of_weight else None
        at_parameters = pull_back_to_parameters(grad, weight, *saved, ctx.spec) if of_parameters else None
        return (None, at_logits, at_weight, None, at_parameters, *(None,) * 5)

    @staticmethod
    def jvp(
        ctx: Any, _: Any, of_logits: Any, of_weight: Any, __: Any, of_parameters: Any, *rest: Any
    ) -> tuple[Any, None]:
        (weight,), saved = _restored(ctx)
        sample = ops.pushed(of_logits, of_parameters, *saved, ctx.spec)
        along = None if sample is None else product(sample, weight)
        if of_weight is None:
            return along, None
        along_weight = _of_weight(of_weight, *saved, ctx.soft, ctx.spec)
        return along_weight if along is None else along + along_weight, None


_embedding_at_once = at_once(Embedding)


def _restored(ctx: Any) -> tuple[Any, tuple[Tensor, Tensor, Tensor, Any]]:
    """What is saved before logits, index, seed and parameters, and those."""
    *first, logits, index, seed, parameters = cast("list[Any]", ops.restored(ctx))
    return first, (logits, index, seed, parameters)


def _of_weight(
    weight: Tensor, logits: Tensor, index: Tensor, seed: Tensor, parameters: Tensor, soft: bool, spec: ops.Spec
) -> Tensor:
    """What is linear in the weight: the result, or that of the soft sample, whose gradient at the weight it has."""
    if soft:
        return product(ops.draw(logits, seed, parameters, False, *spec)[0], weight)
    return _embedding_op(logits, weight, seed, parameters, False, *spec)[0]


class PullBack(Function):
    """Autograd of :func:`pull_back`."""

    @staticmethod
    def forward(ctx: Any, keyset: Any, *call: Any) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.spec = call[6:]
        ops.save(ctx, True, *call[:6])
        return below_autograd(_pull_back_op, keyset, *call)

    @staticmethod
    def backward(ctx: Any, tangent: Tensor | None) -> tuple[Any, ...]:
        if tangent is None:
            return (None,) * 11
        (grad, weight), saved = _restored(ctx)
        sample = ops.pull_back(tangent, *saved, True, ctx.spec)
        at_grad = product(sample, weight) if ctx.needs_input_grad[1] else None
        at_weight = _product_at_weight(sample, grad, weight.shape[:-1]) if ctx.needs_input_grad[2] else None
        return (None, at_grad, at_weight, *(None,) * 8)

    @staticmethod
    def jvp(ctx: Any, _: Any, of_grad: Any, of_weight: Any, *others: Any) -> Tensor | None:
        ops.refuse_tangents(others)
        (grad, weight), saved = _restored(ctx)
        along = None if of_grad is None else pull_back(of_grad, weight, *saved, ctx.spec)
        if of_weight is None:
            return along
        along_weight = pull_back(grad, of_weight, *saved, ctx.spec)
        return along_weight if along is None else along + along_weight


class Scatter(Function):
    """Autograd of :func:`scatter`."""

    @staticmethod
    def forward(ctx: Any, keyset: Any, *call: Any) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.tables, ctx.soft, ctx.spec = call[5], call[6], call[7:]
        ops.save(ctx, True, *call[:5])
        return below_autograd(_scatter_op, keyset, *call)

    @staticmethod
    def backward(ctx: Any, at_weight: Tensor | None) -> tuple[Any, ...]:
        if at_weight is None:
            return (None,) * 12
        (grad,), saved = _restored(ctx)
        _, of_grad, of_logits, _, _, of_parameters, *_ = ctx.needs_input_grad
        at_grad = _of_weight(at_weight, *saved, ctx.soft, ctx.spec) if of_grad else None
        at_logits = pull_back(grad, at_weight, *saved, ctx.spec) if of_logits else None
        at_parameters = pull_back_to_parameters(grad, at_weight, *saved, ctx.spec) if of_parameters else None
        return (None, at_grad, at_logits, None, None, at_parameters, *(None,) * 6)

    @staticmethod
    def jvp(
        ctx: Any, _: Any, of_grad: Any, of_logits: Any, __: Any, ___: Any, of_parameters: Any, *rest: Any
    ) -> Tensor | None:
        (grad,), saved = _restored(ctx)
        sample = ops.pushed(of_logits, of_parameters, *saved, ctx.spec)
        along = None if sample is None else _product_at_weight(sample, grad, ctx.tables)
        if of_grad is None:
            return along
        along_grad = scatter(of_grad, *saved, ctx.tables, ctx.soft, ctx.spec)
        return along_grad if along is None else along + along_grad


class PullBackToParameters(Function):
    """Has none of its own."""

    @staticmethod
    def forward(ctx: Any, keyset: Any, *call: Any) -> Tensor:
        return below_autograd(_pull_back_to_parameters_op, keyset, *call)

    backward = jvp = refuses("discrete_ops: double backward through the gradient at tau is not defined of an embedding")


def _pull_back_autograd(keyset: Any, grad: Tensor, weight: Tensor, *call: Any) -> Tensor:
    return apply(PullBack, keyset, grad, weight, *ops.constants(*call))


# --- registration ---------------------------------------------------------------------------------------------------


def _vmap(kinds: str, batch_size: int, in_dims: tuple[Any, ...], *call: Any) -> tuple[Any, ...]:
    """By the kind of an argument: r has rows, w is a weight, s a seed or parameters, p parameters that a result is
    like, t tables. Batch element b keeps its own groups of rows."""
    batched: list[Any] = []
    for kind, x, dim in zip(kinds, call, in_dims, strict=False):
        if kind == "t":
            batched.append([batch_size, *x])
        elif kind == "w" and dim is None and x.ndim == 3:  # one for all
            batched.append(x)
        else:
            folded = fold(batch_size, x, dim)
            batched.append(folded.flatten(0, 1) if kind == "s" else folded)
    return (*batched, *call[len(kinds) :])


_ROWS = "Tensor logits, Tensor index, Tensor seed, Tensor parameters"
_embedding_op = operator(
    f"embedding(Tensor logits, Tensor weight, Tensor seed, Tensor parameters, bool soft, {ops.SPEC}) "
    "-> (Tensor, Tensor index)",
    embedding_rows.embedding,
    partial(apply, Embedding),
    lambda logits, weight, *_: (
        logits.new_empty((*logits.shape[:-1], weight.shape[-1])),
        logits.new_empty(logits.shape[:-1], dtype=torch.int64),
    ),
    partial(_vmap, "rwss"),
    whole=True,
)
_pull_back_op = operator(
    f"embedding_pull_back(Tensor grad, Tensor weight, {_ROWS}, {ops.SPEC}) -> Tensor",
    embedding_rows.pull_back,
    _pull_back_autograd,
    lambda grad, weight, logits, *_: logits.new_empty(logits.shape),
    partial(_vmap, "rwrrss"),
    whole=True,
)
_scatter_op = operator(
    f"embedding_scatter(Tensor grad, {_ROWS}, SymInt[] tables, bool soft, {ops.SPEC}) -> Tensor",
    embedding_rows.scatter,
    partial(apply, Scatter),
    lambda grad, logits, index, seed, parameters, tables, *_: grad.new_empty((*tables, grad.shape[-1])),
    partial(_vmap, "rrrsst"),
    whole=True,
)
_pull_back_to_parameters_op = operator(
    f"embedding_pull_back_to_parameters(Tensor grad, Tensor weight, {_ROWS}, {ops.SPEC}) -> Tensor",
    embedding_rows.pull_back_to_parameters,
    partial(apply, PullBackToParameters),
    lambda grad, weight, logits, index, seed, parameters, *_: parameters.new_empty(parameters.shape),
    partial(_vmap, "rwrrsp"),
    whole=True,
)
