"""What a sample looks up in a table: ``estimator(logits) @ weight`` without the sample.

The value is a row of the table, the gradient at the logits is the estimator's for the incoming gradient times the
table. Neither one-hot vectors nor gradients at them are ever in memory but for a few rows. It is how codebooks are
used, as by the quantizer of wav2vec 2.0 (Baevski et al., NeurIPS 2020), and latents that a linear layer takes, as in
DreamerV3 (Hafner et al., 2023).
"""

import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._C import _get_tracing_state
from torch.compiler import is_exporting
from torch.overrides import handle_torch_function, has_torch_function

from . import checks, embedding_ops, estimators, ops, sharded
from .call import DEFAULTS, OPERATOR, Options, Pair, Unpack, _unknown
from .documented import documented
from .reference import Parameters

_HALF = (torch.float16, torch.bfloat16)
_WITH_SOFT_SAMPLE = ("straight_through", "gumbel_softmax", "gumbel_rao", "gst")


@documented
def embedding(
    logits: Tensor,
    weight: Tensor,
    estimator: str | estimators.Estimator = "straight_through",
    *,
    soft: bool = False,
    return_index: bool = False,
    **options: Unpack[Options],
) -> Tensor | Pair:
    """The rows of a table that an estimator's sample chooses, ``estimator(logits) @ weight``, in value and gradient.

    Neither the sample is in memory, nor the gradient at it: beside logits, table, result and their gradients there is
    room for a part of the rows, of 4 MiB on a CPU and 256 MiB on a GPU, a few times. (A mask takes a copy of the
    logits.) Where all logits are some hundred KiB, the product is quicker on a CPU.

    A row of the table that is not chosen is not read in the forward pass, so that inf or NaN in it does not spoil the
    others, as in a product.

    Derivatives of the gradient, in the incoming gradient and in the weight, and forward mode in the logits take as much
    memory as the product.

    Args:
        weight: the table, ``(N, D)``; or ``(L, N, D)``, a table for each of L latents, of logits ``(..., L, N)``. On
            the logits' device and of their dtype; under ``torch.autocast`` of any float dtype, it is cast to theirs.
        estimator: an estimator (:mod:`discrete_ops.estimators`), or what describes one to
            :func:`discrete_ops.estimator`: ``"reinmax"``, ``"gst(tau=0.5, gap=1.0)"``.
        soft: True: the gradient at the weight is that of the soft sample's product, ``soft.T @ grad``, so that rows
            that were not chosen learn, too; of the estimators that have a soft sample: straight_through,
            gumbel_softmax, gumbel_rao and gst. The value, and the gradient at the logits, are the same.
        num_draws: R, independent samples of each row, one after the other: result and index get a dimension of R in
            front, and the gradients are sums over it. The same as the call on ``logits.expand(R, *logits.shape)``.
            Half types are taken in float32, for these sums. None: one sample, without that dimension.
        offsets: not of this function: None.

    Returns:
        ``(..., D)``, with D in the place of the categories; logits' dtype. A row with NaN or +inf in its logits gives
        NaN, a row masked whole gives zeros; neither adds to the gradient at the weight. ``(result, index)`` with
        ``return_index``. Equal input and seed give equal bits, gradients included.
    """
    unknown = options.keys() - DEFAULTS.keys()
    if unknown:
        raise _unknown(min(unknown), sys._getframe())
    chosen = estimators.estimator(estimator)
    soft = checked_soft(soft, chosen)
    return look_up(chosen, logits, weight, soft, {"return_index": return_index, **options})


def look_up(
    estimator: estimators.Estimator, logits: Tensor, weight: Tensor, soft: bool, options: dict[str, Any]
) -> Any:
    """:func:`embedding` with any option of the estimator's call."""
    if not isinstance(logits, Tensor) and has_torch_function((logits, weight)):
        return handle_torch_function(look_up, (logits, weight), estimator, logits, weight, soft, options)
    half = getattr(logits, "dtype", None)
    if options.get("num_draws") is None or half not in _HALF or getattr(weight, "dtype", None) is not half:
        return estimator(logits, **options, **{OPERATOR: partial(_look_up, weight, soft)})
    # What autograd adds up over the draws is rounded once.
    wide = {**options, OPERATOR: partial(_look_up, weight.float(), soft)}
    found = estimator(logits.float(), **wide)
    return (found[0].to(half), found[1]) if isinstance(found, tuple) else found.to(half)


def _look_up(
    weight: Tensor,
    soft: bool,
    logits: Tensor,
    seed: Tensor,
    parameters: Parameters,
    hard: bool,
    estimator: str,
    *spec: Any,
) -> Pair:
    tables = checked(weight, logits)
    call = (logits, seed, parameters)
    if sharded.is_sharded(logits):
        return _product(sharded.draw, call, tables, soft, estimator, *spec)
    if is_exporting() and torch.onnx.is_in_onnx_export():
        return _product(ops.draw, call, tables, soft, estimator, *spec)
    return embedding_ops.embedding(logits, tables, seed, parameters, soft, estimator, *spec)


def _product(draw: Any, call: tuple[Any, ...], weight: Tensor, soft: bool, *spec: Any) -> Pair:
    """With the sample in memory."""
    sample, index = draw(*call, True, *spec)
    if not soft:
        return embedding_ops.product(sample, weight), index
    through = embedding_ops.product(draw(*call, False, *spec)[0].detach(), weight)
    return embedding_ops.product(sample, weight.detach()) + (through - through.detach()), index


def checked_soft(soft: Any, estimator: estimators.Estimator) -> bool:
    """Whether the gradient at the weight is another than the sample's."""
    name = type(estimator).function.__name__
    if checks.flag("soft", soft) and name not in _WITH_SOFT_SAMPLE:
        raise ValueError(f"soft: got True with {name}, allowed: with one of {', '.join(_WITH_SOFT_SAMPLE)}")
    return bool(soft) and not checks.is_zero(getattr(estimator, "tau", 1.0))  # Gumbel-Rao's limit: the soft one is D


def checked(weight: Any, logits: Tensor) -> Tensor:
    """The weight as ``(L, N, D)``, of logits with their categories in the last dimension."""
    if not isinstance(weight, Tensor):
        raise TypeError(f"weight: got {type(weight).__name__}, allowed: a tensor")
    if (
        weight.layout != torch.strided
        or weight.is_nested
        or hasattr(weight, "device_mesh") != sharded.is_sharded(logits)
    ):
        kind = "nested" if weight.is_nested else type(weight).__name__ + f" of layout {weight.layout}"
        raise TypeError(
            f"weight: got a {kind}, allowed: a dense tensor; a DTensor for logits that are one, and only then"
        )
    if weight.device != logits.device:
        raise ValueError(f"weight: got a tensor on {weight.device}, allowed: the logits' device, {logits.device}")
    if weight.dtype != logits.dtype:
        if weight.dtype not in checks.FLOATS or not torch.is_autocast_enabled(logits.device.type):
            allowed = f"allowed: the logits' dtype, {logits.dtype}, or any float dtype under torch.autocast"
            raise TypeError(f"weight: got dtype {weight.dtype}, {allowed}")
        weight = weight.to(logits.dtype)
    if _get_tracing_state() is not None:  # traced, a size is a tensor
        return weight if weight.ndim == 3 else weight.unsqueeze(0)
    shape = tuple(weight.shape)
    fits = weight.ndim in (2, 3) and shape[-2] == logits.shape[-1]
    if not fits or (weight.ndim == 3 and logits.shape[-2:-1] != shape[:1]):
        columns = logits.shape[-1]
        allowed = f"allowed: ({columns}, D)"
        if logits.ndim > 1:
            allowed += f" or ({logits.shape[-2]}, {columns}, D), a table for each of the last latents"
        raise ValueError(f"weight: got shape {shape} for logits of shape {tuple(logits.shape)}, {allowed}")
    return weight if weight.ndim == 3 else weight.unsqueeze(0)
