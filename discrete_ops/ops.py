"""The differentiable operators, as PyTorch sees them: ``torch.ops.discrete_ops``.

    draw(logits, seed, parameters, hard, *spec)                        -> sample, index
    pull_back(grad, logits, index, seed, parameters, transposed, *spec) -> the gradient at the logits
    tau_derivative(logits, index, seed, parameters, *spec)             -> the soft sample's derivative in tau

Each is a pure function of (inputs, seed), for every backend: an op that drew its own noise would be merged with its
twin by torch.compile's common-subexpression elimination, and would not replay under checkpointing. Autograd of both
modes, vmap and fakes belong to the operators, so whatever captures, transforms or recomputes a call keeps its gradient.
What is saved for the backward pass is logits, index and seed; the noise is drawn again.

Below autograd they are the row kernels of a backend (``sample``, ``surrogate``, ...). A call that nobody traces goes to
them without the dispatcher, which would take longer than a small call itself.

Shared by all of them:

Args:
    logits: ``(..., N)``.
    index: ``(...)`` int64, as ``draw`` returned it.
    seed: ``(S,)`` int64.
    parameters: ``(T, 3)`` float64, tau, coefficient and sample_tau of T equal groups of rows; the functions here take
        three numbers, too.
    spec: ``(estimator, num_samples, first_row, backend)``: a key of ``reference.TERMS`` or one that
        ``reference.NONZERO``, ``reference.STRATIFIED`` and ``reference.BINARY`` make; K; the number of the first row,
        for the noise; a backend's name, or "" for the default of the device that the call runs on.
"""

import math
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import Function
from torch.compiler import is_exporting

from . import backends, reference
from .reference import Parameters
from .register import (
    apply,
    as_tensor,
    at_once,
    below,
    below_autograd,
    fold,
    is_plain,
    operator,
    refuses,
    trains,
)

Spec: TypeAlias = tuple[str, int, int, str]


def draw(
    logits: Tensor,
    seed: Tensor,
    parameters: Parameters,
    hard: bool,
    estimator: str,
    num_samples: int,
    first_row: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """``(sample, index)``: ``sample`` is one-hot, or the estimator's soft sample with ``hard=False``."""
    if not is_plain(logits):
        parameters = as_parameters(parameters, logits)
        if is_exporting() and torch.onnx.is_in_onnx_export():  # which has no such operator, but those of the formulas
            return _draw(logits, seed, parameters, hard, estimator, num_samples, first_row, "reference")
        return _draw_op(logits, seed, parameters, hard, estimator, num_samples, first_row, backend)
    backend = backend or backends.default(logits)
    if trains(parameters, logits):
        return _draw_at_once(None, logits, seed, parameters, hard, estimator, num_samples, first_row, backend)
    return _draw(logits, seed, parameters, hard, estimator, num_samples, first_row, backend)


def pull_back(
    grad: Tensor, logits: Tensor, index: Tensor, seed: Tensor, parameters: Parameters, transposed: bool, spec: Spec
) -> Tensor:
    """The pull-back of ``grad``, or its transpose, which pushes a tangent forward. Linear, so differentiable, in
    ``grad``; the derivative in the others is refused."""
    if torch.is_grad_enabled() or not is_plain(grad, logits):
        return _pull_back_op(grad, logits, index, seed, as_parameters(parameters, logits), transposed, *spec)
    return _pull_back(grad, logits, index, seed, parameters, transposed, *spec)


def tau_derivative(logits: Tensor, index: Tensor, seed: Tensor, parameters: Tensor, spec: Spec) -> Tensor:
    """The derivative in tau of the soft sample, of an estimator that has one. None of its own is defined."""
    check_tau_derivative(spec)
    return _tau_derivative_op(logits, index, seed, parameters, *spec)


def check_tau_derivative(spec: tuple[Any, ...]) -> None:
    if reference.without_binary(spec[0]) not in reference.WITH_SOFT_SAMPLE:
        what = f"the derivative in tau is not defined for {spec[0]}, which has no soft sample"
        raise RuntimeError(f"discrete_ops: {what}")


def pushed(
    of_logits: Tensor | None,
    of_parameters: Tensor | None,
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Tensor,
    spec: Spec,
    pull_back: Callable[..., Tensor] = pull_back,
    tau_derivative: Callable[..., Tensor] = tau_derivative,
) -> Tensor | None:
    """The tangent of the sample of tangents at the logits and at the parameters; None is no tangent."""
    along_logits = None
    if of_logits is not None:
        along_logits = pull_back(of_logits, logits, index, seed, parameters, True, spec)
    if of_parameters is None:
        return along_logits
    derivative = tau_derivative(logits, index, seed, parameters, spec)
    along_tau = (derivative * of_rows(of_parameters, logits[..., 0]).unsqueeze(-1)).to(derivative.dtype)
    return along_tau if along_logits is None else along_logits + along_tau


# --- below autograd -------------------------------------------------------------------------------------------------


def kernels_of(backend: str, logits: Tensor) -> ModuleType:
    return backends.get(backend or backends.default(logits))


def _draw(
    logits: Tensor,
    seed: Tensor,
    parameters: Parameters,
    hard: bool,
    estimator: str,
    num_samples: int,
    first_row: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    kernels = kernels_of(backend, logits)
    sample, index = kernels.sample(logits, seed, parameters, first_row, reference.is_binary(estimator))
    if not hard:
        sample = kernels.surrogate(logits, index, seed, parameters, estimator, num_samples, first_row)
    return sample, index


def _pull_back(
    grad: Tensor,
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Parameters,
    transposed: bool,
    estimator: str,
    num_samples: int,
    first_row: int,
    backend: str,
) -> Tensor:
    call = (grad, logits, index, seed, parameters, estimator, num_samples, first_row)
    if transposed and estimator in reference.ASYMMETRIC:  # the others, and binary ones, are their own transpose
        return reference.surrogate_jvp(*call)
    return kernels_of(backend, logits).surrogate_vjp(*call)


def _tau_derivative(
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Parameters,
    estimator: str,
    num_samples: int,
    first_row: int,
    backend: str,
) -> Tensor:
    kernels = kernels_of(backend, logits)
    return kernels.tau_derivative(logits, index, seed, parameters, estimator, num_samples, first_row)


# --- autograd -------------------------------------------------------------------------------------------------------
# ``keyset`` comes from the dispatcher, for the call below autograd; None is a call without it.


REFUSED = (
    "discrete_ops: double backward is not defined in the logits or in tau: the pull-back of a straight-through "
    "estimator is not the derivative of its sample, and its own derivative would mean nothing. In the incoming "
    "gradient it is defined. Detach the first gradient, or leave create_graph=False."
)


class Draw(Function):
    """Autograd of :func:`draw`; of another kind of draw, whose forward calls :func:`keep`, the derivatives."""

    @staticmethod
    def forward(
        ctx: Any, keyset: Any, logits: Tensor, seed: Tensor, parameters: Parameters, hard: bool, *spec: Any
    ) -> tuple[Tensor, Tensor]:
        call = (logits, seed, parameters, hard, *spec)
        output = _draw(*call) if keyset is None else below_autograd(_draw_op, keyset, *call)
        keep(ctx, keyset is not None, (logits, output[1], seed, parameters), spec, pull_back, tau_derivative)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: Any) -> tuple[Any, ...]:
        wanted = ctx.needs_input_grad
        if grad is None:
            return (None,) * len(wanted)
        saved = restored(ctx)
        at_logits = ctx.pull_back(grad, *saved, False, ctx.spec) if wanted[1] else None
        at_parameters = None
        if wanted[3]:
            at_parameters = pull_back_to_parameters(grad, *saved, ctx.spec, ctx.tau_derivative)
        return (None, at_logits, None, at_parameters, *(None,) * (len(wanted) - 4))

    @staticmethod
    def jvp(ctx: Any, _: Any, of_logits: Any, __: Any, of_parameters: Any, *rest: Any) -> tuple[Any, None]:
        call = (*restored(ctx), ctx.spec, ctx.pull_back, ctx.tau_derivative)
        return pushed(of_logits, of_parameters, *call), None


_draw_at_once = at_once(Draw)


class PullBack(Function):
    """Autograd of :func:`pull_back`; of another one, whose forward calls :func:`keep_pull_back`, the derivatives."""

    @staticmethod
    def forward(ctx: Any, keyset: Any, grad: Tensor, *call: Any) -> Tensor:
        keep_pull_back(ctx, call, pull_back)
        return below_autograd(_pull_back_op, keyset, grad, *call)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Any, ...]:
        at_grad = None if grad is None else ctx.pull_back(grad, *restored(ctx), not ctx.transposed, ctx.spec)
        return (None, at_grad, *(None,) * (len(ctx.needs_input_grad) - 2))

    @staticmethod
    def jvp(ctx: Any, _: Any, tangent: Any, *others: Any) -> Tensor | None:
        refuse_tangents(others)
        return None if tangent is None else ctx.pull_back(tangent, *restored(ctx), ctx.transposed, ctx.spec)


class TauDerivative(Function):
    """Has none of its own."""

    @staticmethod
    def forward(ctx: Any, keyset: Any, *call: Any) -> Tensor:
        return below_autograd(_tau_derivative_op, keyset, *call)

    backward = jvp = refuses(REFUSED)


class NoDerivative(Function):
    """The identity; raises when it is differentiated, and not when a graph just holds it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        with below():
            return x.view_as(x)

    backward = refuses(REFUSED)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return tangent.view_as(tangent)  # to the function behind, which refuses it


def keep(
    ctx: Any,
    is_dispatched: bool,
    call: tuple[Any, ...],
    spec: tuple[Any, ...],
    pull_back: Callable[..., Tensor],
    tau_derivative: Callable[..., Tensor],
) -> None:
    """What the derivatives of :class:`Draw` need; a call ends with index, seed and parameters."""
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(call[-3])
    ctx.spec, ctx.pull_back, ctx.tau_derivative = spec, pull_back, tau_derivative
    save(ctx, is_dispatched, *call)


def keep_pull_back(ctx: Any, call: tuple[Any, ...], pull_back: Callable[..., Tensor]) -> None:
    """What the derivatives of :class:`PullBack` need; a call ends with transposed and the four of the spec."""
    ctx.set_materialize_grads(False)
    ctx.transposed, ctx.spec, ctx.pull_back = call[-5], call[-4:], pull_back
    save(ctx, True, *call[:-5])


def save(ctx: Any, is_dispatched: bool, *call: Any) -> None:
    """Tensors, and parameters, which may be numbers."""
    ctx.numbers = None if isinstance(call[-1], Tensor) else call[-1]
    tensors = call if ctx.numbers is None else call[:-1]
    ctx.save_for_backward(*tensors)
    if is_dispatched:  # forward mode is: see is_plain
        ctx.save_for_forward(*tensors)


def restored(ctx: Any) -> tuple[Tensor, Tensor, Tensor, Any]:
    saved = ctx.saved_tensors
    return saved if ctx.numbers is None else (*saved, ctx.numbers)


def pull_back_to_parameters(
    grad: Tensor,
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Tensor,
    spec: Spec,
    derivative_of: Callable[..., Tensor] = tau_derivative,
) -> Tensor:
    """The gradient at the parameters: at tau, that of the soft sample; at the others none is defined. Summed over the
    draws, where several are in front."""
    product = along(grad, derivative_of(logits, index, seed, parameters, spec))
    return at_parameters(product, parameters, math.prod(product.shape[: product.ndim - logits.ndim]))


def at_parameters(at_tau: Tensor, parameters: Tensor, draws: int = 1) -> Tensor:
    """The gradient at the parameters of what each row, or each of its elements, adds at tau; draws are in front."""
    groups = parameters.shape[0]
    each = at_tau.reshape(draws, groups, at_tau.numel() // (draws * groups)).sum((0, 2))
    return torch.nn.functional.pad(each.unsqueeze(1), (0, 2))


def of_rows(of_parameters: Tensor, rows: Tensor) -> Tensor:
    """A tangent at the parameters, as that at the tau of each of the rows, in their shape."""
    return of_parameters[:, 0].repeat_interleave(rows.numel() // len(of_parameters)).view(rows.shape)


def along(grad: Tensor, derivative: Tensor) -> Tensor:
    """Their product, in float64."""
    return torch.where(derivative == 0, 0.0, grad.double() * derivative)  # whatever comes in behind a mask


def widened(x: Tensor) -> Tensor:
    """Half types in float32: what is added up in it is rounded once."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def refuse_tangents(tangents: Any, message: str = REFUSED) -> None:
    if any(tangent is not None for tangent in tangents):
        raise RuntimeError(message)


def pull_back_autograd(function: type[PullBack], keyset: Any, grad: Tensor, *call: Any) -> Tensor:
    return apply(function, keyset, grad, *constants(*call))


def constants(*call: Any, function: type[Function] = NoDerivative) -> list[Any]:
    """The arguments; those that are differentiated raise, as the function's backward does."""
    held = torch.is_grad_enabled()
    return [apply(function, x) if held and isinstance(x, Tensor) and x.requires_grad else x for x in call]


class WithoutGradient(Function):
    """Autograd of :func:`without_gradient`."""

    @staticmethod
    def forward(ctx: Any, keyset: Any, x: Tensor, name: str) -> Tensor:
        ctx.name = name
        return below_autograd(_without_gradient_op, keyset, x, name)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        allowed = f"allowed: {ctx.name}.detach() (no gradient is defined)"
        raise RuntimeError(f"{ctx.name}: got a tensor that requires grad, {allowed}")

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise RuntimeError(f"{ctx.name}: got a tensor with a tangent, allowed: {ctx.name}.detach() (none is defined)")


def without_gradient(x: Tensor, name: str) -> Tensor:
    """``x``; who differentiates a captured graph in it is told that this is not defined for ``name``."""
    return _without_gradient_op(x, name)


def as_parameters(parameters: Parameters, logits: Tensor) -> Tensor:
    if isinstance(parameters, Tensor):
        return parameters
    return torch.stack([as_tensor(number, logits.device) for number in parameters], -1)


# --- registration ---------------------------------------------------------------------------------------------------


def vmap(rows: int, batch_size: int, in_dims: tuple[Any, ...], *call: Any) -> tuple[Any, ...]:
    """The first ``rows`` arguments have rows; a seed and parameters follow: batch element b keeps its own groups of
    rows."""
    folded = [fold(batch_size, x, dim) for x, dim in zip(call[: rows + 2], in_dims, strict=False)]
    return (*folded[:rows], *(x.flatten(0, 1) for x in folded[rows:]), *call[rows + 2 :])


SPEC = "str estimator, SymInt num_samples, SymInt first_row, str backend"
_draw_op = operator(
    f"draw(Tensor logits, Tensor seed, Tensor parameters, bool hard, {SPEC}) -> (Tensor sample, Tensor index)",
    _draw,
    partial(apply, Draw),
    lambda logits, *_: (logits.new_empty(logits.shape), logits.new_empty(logits.shape[:-1], dtype=torch.int64)),
    partial(vmap, 1),
)
_pull_back_op = operator(
    "pull_back(Tensor grad, Tensor logits, Tensor index, Tensor seed, Tensor parameters, bool transposed, "
    f"{SPEC}) -> Tensor",
    _pull_back,
    partial(pull_back_autograd, PullBack),
    lambda grad, logits, *_: logits.new_empty(logits.shape),
    partial(vmap, 3),
)
_tau_derivative_op = operator(
    f"tau_derivative(Tensor logits, Tensor index, Tensor seed, Tensor parameters, {SPEC}) -> Tensor",
    _tau_derivative,
    partial(apply, TauDerivative),
    lambda logits, *_: logits.new_empty(logits.shape),
    partial(vmap, 2),
)
_without_gradient_op = operator(
    "without_gradient(Tensor x, str name) -> Tensor",
    lambda x, name: x.clone(),
    partial(apply, WithoutGradient),
    lambda x, name: torch.empty_like(x),
    lambda batch_size, in_dims, x, name: (fold(batch_size, x, in_dims[0]), name),
)
