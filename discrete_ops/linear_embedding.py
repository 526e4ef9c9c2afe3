"""A sample's row of a table, of logits that are a product: :mod:`discrete_ops.linear_operators` holds them in parts."""

from functools import partial
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from . import checks, linear_operators, ops
from .call import OPERATOR, Generator, Pair, Real, Seed
from .estimators import Estimator
from .estimators import estimator as estimator_of
from .reference import Parameters


@overload
def linear_embedding(
    hidden: Tensor,
    proj: Tensor,
    weight: Tensor,
    estimator: str | Estimator = "straight_through",
    *,
    bias: Tensor | None = None,
    return_index: Literal[False] = False,
    sample_tau: Real | None = None,
    generator: Generator = None,
    seed: Seed = None,
    backend: str | None = None,
    num_draws: int | None = None,
) -> Tensor: ...
@overload
def linear_embedding(
    hidden: Tensor,
    proj: Tensor,
    weight: Tensor,
    estimator: str | Estimator = "straight_through",
    *,
    bias: Tensor | None = None,
    return_index: Literal[True],
    sample_tau: Real | None = None,
    generator: Generator = None,
    seed: Seed = None,
    backend: str | None = None,
    num_draws: int | None = None,
) -> Pair: ...
@overload
def linear_embedding(
    hidden: Tensor,
    proj: Tensor,
    weight: Tensor,
    estimator: str | Estimator = "straight_through",
    *,
    bias: Tensor | None = None,
    return_index: bool,
    sample_tau: Real | None = None,
    generator: Generator = None,
    seed: Seed = None,
    backend: str | None = None,
    num_draws: int | None = None,
) -> Tensor | Pair: ...
def linear_embedding(
    hidden: Tensor,
    proj: Tensor,
    weight: Tensor,
    estimator: str | Estimator = "straight_through",
    *,
    bias: Tensor | None = None,
    return_index: bool = False,
    sample_tau: Real | None = None,
    generator: Generator = None,
    seed: Seed = None,
    backend: str | None = None,
    num_draws: int | None = None,
) -> Tensor | Pair:
    """The sampled row of a table, of logits that are a product: ``estimator(F.linear(hidden, proj, bias)) @ weight``
    without the logits.

    Value and gradients at hidden, proj, bias, weight and a tensor of temperatures are those of that formulation on the
    same seed. Beside inputs, result and gradients it holds parts of some MiB of the logits, whatever N and the number
    of rows are; the backward pass computes their product again. Gradients at half types are summed in float32, for
    which proj's and weight's have a float32 copy while they are computed.

    Args:
        hidden: ``(..., H)``; float64, float32, float16 or bfloat16, any strides, empty batches too. Under autocast it
            and the tables are cast as for ``F.linear``.
        proj: ``(N, H)``, as ``torch.nn.Linear`` has its weight; of hidden's dtype and device, as all the others.
        weight: ``(N, D)``, what a category stands for; may be ``proj`` itself, tied embeddings.
        estimator: an estimator (:mod:`discrete_ops.estimators`), or what describes one to
            :func:`discrete_ops.estimator`: ``"reinmax"``, ``"gst(tau=0.5, gap=1.0)"``. Tensors that are its parameters
            broadcast against the logits.
        bias: ``(N,)``; ``-inf`` masks a category: it is never sampled, and of no gradient.
        return_index: also return the sampled index, int64, ``hidden.shape[:-1]``; -1 for a row that has no sample: one
            with NaN or +inf among its logits, which is NaN in the result, or one masked whole, which is 0. It adds
            nothing to the gradient at the weight.
        sample_tau: in place of the estimator's, temperature of the sample.
        generator: where the seed is drawn from; torch's default generator of the device if None.
        seed: int in ``[0, 2**63)``, or an int64 tensor on hidden's device with one element (or S: then each of S equal
            consecutive groups of rows has its own).
        backend: one of ``available_backends()``; the device's default if None.
        num_draws: R, independent samples of each row, as of the estimators: ``(R, ..., D)``. The product is formed
            again for each.

    Returns:
        ``(..., D)`` like ``hidden`` in dtype and device; ``(result, index)`` with ``return_index``.

    Raises:
        TypeError, ValueError: naming the argument, what came and what is allowed.
        RuntimeError: when the gradient itself is differentiated in anything but the incoming gradient; when
            ``torch.vmap`` goes over proj, bias or weight.
    """
    for given in (hidden, proj, weight, bias):
        if given is not None and not isinstance(given, Tensor) and has_torch_function_unary(given):
            named = {"bias": bias, "return_index": return_index, "sample_tau": sample_tau, "generator": generator}
            named |= {"seed": seed, "backend": backend, "num_draws": num_draws}
            return handle_torch_function(linear_embedding, (given,), hidden, proj, weight, estimator, **named)
    chosen = estimator_of(estimator)
    hidden, proj, weight, bias = _as_autocast(hidden, proj, weight, bias)
    _check(hidden, proj, weight, bias)
    logits = hidden.new_empty(()).expand(*hidden.shape[:-1], proj.shape[0])  # their shape alone
    options: dict[str, Any] = {"generator": generator, "seed": seed, "backend": backend, "num_draws": num_draws}
    if sample_tau is not None:
        options["sample_tau"] = sample_tau
    options[OPERATOR] = partial(_draw, hidden, proj, bias, weight)
    return chosen(logits, return_index=return_index, **options)


def _as_autocast(*tensors: Any) -> Any:
    """As autocast gives the arguments of ``F.linear`` to it."""
    device = tensors[0].device.type if isinstance(tensors[0], Tensor) else "meta"
    if device == "meta" or not torch.is_autocast_enabled(device):  # autocast has no meta device
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return [x.to(dtype) if isinstance(x, Tensor) and x.dtype in checks.FLOATS[1:] else x for x in tensors]


def _check(hidden: Any, proj: Any, weight: Any, bias: Any) -> None:
    checks.logits(hidden, -1, "hidden")
    categories = proj.shape[0] if isinstance(proj, Tensor) and proj.ndim == 2 else "N"
    tables: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("hidden", hidden, hidden.shape),
        ("proj", proj, (categories, hidden.shape[-1])),
        ("weight", weight, (categories, "D")),
        ("bias", bias, (categories,)),
    ]
    for name, given, shape in tables:
        if name == "bias" and given is None:
            continue
        if not isinstance(given, Tensor):
            raise TypeError(f"{name}: got {type(given).__name__}, allowed: a tensor")
        if hasattr(given, "device_mesh"):
            raise TypeError(f"{name}: got a DTensor, allowed: a tensor on one device ({name}.full_tensor())")
        checks.dense(given, name)
        if given.dtype != hidden.dtype or given.device != hidden.device:
            allowed = f"allowed: hidden's, {hidden.dtype} on {hidden.device}"
            raise TypeError(f"{name}: got {given.dtype} on {given.device}, {allowed}")
        if name == "proj" and given.ndim == 2 and len(given) == 0:
            raise ValueError(f"proj: got shape {tuple(given.shape)}, allowed: at least one category")
        fits = [isinstance(wanted, str) or length == wanted for length, wanted in zip(given.shape, shape, strict=False)]
        if given.ndim != len(shape) or not all(fits):
            allowed = f"({', '.join(map(str, shape))})" if len(shape) > 1 else f"({shape[0]},)"
            raise ValueError(f"{name}: got shape {tuple(given.shape)}, allowed: {allowed}")


def _draw(
    hidden: Tensor,
    proj: Tensor,
    bias: Tensor | None,
    weight: Tensor,
    logits: Tensor,
    seed: Tensor,
    parameters: Parameters,
    hard: bool,
    *spec: Any,
) -> tuple[Tensor, Tensor]:
    parameters = ops.as_parameters(parameters, hidden)
    return linear_operators.linear_embedding(hidden, proj, bias, weight, seed, parameters, *spec)
