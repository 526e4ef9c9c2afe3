"""Argument checks: each message names the argument, what came and what is allowed."""

import math
import numbers
import operator
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active, _get_tracing_state
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from .ops import without_gradient
from .reference import LEAST_TAU, MOST_TAU, STRATIFIED, WITH_SOFT_SAMPLE, Parameters
from .register import as_tensor, is_plain

_STRIDED = torch.strided
#: A dim that no tensor has: there is no dimension of categories, every logit is a binary variable's.
NO_DIM = -(2**62)
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_TAU = f"allowed: a number from {LEAST_TAU:.3g} to {MOST_TAU:.3g}, or a tensor of them"
#: Largest eta and beta: their products with float32 gradients of ordinary size stay finite.
MOST_WEIGHT = 1e30


def logits(value: Any, dim: Any, name: str = "logits") -> int:
    """Check logits, or what else ``name`` says, and dim; return dim counted from the front."""
    _of_floats(value, name)
    if dim == NO_DIM:
        return NO_DIM
    dims = value.ndim
    if dims == 0:
        raise ValueError(f"{name}: got a 0-dim tensor, allowed: one dimension or more")
    if type(dim) is not int:
        dim = dimension(dim)
    if not -dims <= dim < dims:
        raise ValueError(f"dim: got {dim}, allowed: {-dims} to {dims - 1} for shape {tuple(value.shape)}")
    if _get_tracing_state() is None and value.shape[dim] == 0:  # traced, a size is a tensor
        raise ValueError(f"{name}: got shape {tuple(value.shape)}, allowed: at least one category in dim {dim}")
    return dim if dim >= 0 else dim + dims


def _of_floats(value: Any, name: str) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: got {type(value).__name__}, allowed: a tensor")
    if value.dtype not in FLOATS:
        raise TypeError(f"{name}: got dtype {value.dtype}, allowed: float64, float32, float16, bfloat16")
    dense(value, name)


def dense(value: Tensor, name: str) -> None:
    if value.layout is not _STRIDED or value.is_nested:
        kind = "nested" if value.is_nested else value.layout
        raise TypeError(f"{name}: got a tensor that is {kind}, allowed: a dense one")


def offsets(value: Any, logits: Any, dim: Any) -> int:
    """Check where ragged rows begin, the logits and dim; return dim counted from the front. Values are checked where
    that costs no wait for a device."""
    _of_floats(logits, "logits")
    if hasattr(logits, "device_mesh"):
        raise TypeError("logits: got a DTensor, allowed with offsets: a tensor of one device")
    if logits.ndim != 1:
        raise ValueError(f"logits: got shape {tuple(logits.shape)}, allowed with offsets: one dimension, all rows'")
    if dimension(dim) != -1:
        raise ValueError(f"dim: got {dim}, allowed with offsets: -1")
    allowed = "allowed: an int64 tensor of rows + 1 elements"
    if not isinstance(value, Tensor) or value.dtype != torch.int64:
        raise TypeError(f"offsets: got {getattr(value, 'dtype', type(value).__name__)}, {allowed}")
    if value.ndim != 1 or (_get_tracing_state() is None and value.shape[0] == 0):
        raise ValueError(f"offsets: got shape {tuple(value.shape)}, {allowed}")
    if value.device != logits.device:
        raise ValueError(f"offsets: got a tensor on {value.device}, allowed: the logits' device, {logits.device}")
    if _is_at_hand(value) and get_proxy_mode() is None:
        first, last, total = value[0].item(), value[-1].item(), logits.shape[0]
        if first != 0 or last != total:
            raise ValueError(f"offsets: got {first} to {last}, allowed: 0 to {total}, the number of logits")
        if not (value[1:] >= value[:-1]).all():
            raise ValueError("offsets: got some less than the one before, allowed: nondecreasing ones")
    return 0


def elements_of_nested(logits: Any, mask: Any, offsets: Any) -> tuple[Tensor, Any, Tensor]:
    """Elements, their mask's and offsets of a nested tensor of layout torch.jagged."""
    if logits.ndim != 2 or logits._ragged_idx != 1 or logits.lengths() is not None:
        kind = "with lengths" if logits.lengths() is not None else f"of shape {tuple(logits.shape)}"
        raise TypeError(f"logits: got a nested tensor {kind}, allowed: one of shape (rows, j) without lengths")
    if offsets is not None:
        raise ValueError("offsets: got some with nested logits, allowed: None, for nested ones have theirs")
    if mask is not None:
        if not isinstance(mask, Tensor) or mask.layout is not torch.jagged or mask.shape != logits.shape:
            came = f"one of shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
            raise ValueError(f"mask: got {came}, allowed: a nested one with the offsets of the nested logits")
        mask = mask.values()
    return logits.values(), mask, logits.offsets()


def dimension(value: Any) -> int:
    """dim, before it is known of which tensor."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"dim: got {value!r}, allowed: an int")
    return operator.index(value)


def masked(logits: Tensor, mask: Any) -> Tensor:
    """Checked logits with -inf where the mask is False."""
    if not isinstance(mask, Tensor) or mask.dtype is not torch.bool:
        came = f"a tensor of {mask.dtype}" if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask: got {came}, allowed: a bool tensor, True where a category may be sampled")
    if mask.device != logits.device:
        raise ValueError(f"mask: got a tensor on {mask.device}, allowed: the logits' device, {logits.device}")
    if hasattr(mask, "device_mesh") != hasattr(logits, "device_mesh"):
        raise TypeError("mask: got one of mask and logits that is a DTensor, allowed: both or neither")
    if not _broadcasts(mask, logits.shape):
        allowed = f"allowed: one that broadcasts to the logits' {tuple(logits.shape)}"
        raise ValueError(f"mask: got shape {tuple(mask.shape)}, {allowed}")
    return torch.where(mask, logits, -math.inf)


def temperature(name: str, value: Any) -> float | Tensor:
    """tau or sample_tau: a positive number, as a float, or a tensor of them. One tensor element that is at hand and
    wants no gradient is a number, too."""
    if type(value) in (float, int) and LEAST_TAU <= value <= MOST_TAU:  # at once, for most calls
        return float(value)
    return _number_or_tensor(name, value, LEAST_TAU, MOST_TAU, _TAU)


def is_zero(value: Any) -> bool:
    """Whether a temperature is the number 0, which stands for a limit; a tensor does not."""
    return isinstance(value, (float, int, numbers.Real)) and not isinstance(value, bool) and value == 0


def without_limit(tau: Any) -> None:
    """Raises ValueError where a single draw's temperature is 0: it says what has the limit that is wanted."""
    if is_zero(tau):
        reason = "a single draw's gradient has no limit at 0, its variance diverges; its mean given the sample has one"
        raise ValueError(f"tau: got {tau!r}, {_TAU} ({reason}: gumbel_rao(tau=0))")


def _number_or_tensor(name: str, value: Any, least: float, most: float, allowed: str) -> float | Tensor:
    if not isinstance(value, (float, int, Tensor, numbers.Real)) and hasattr(value, "__array__"):
        try:
            value = torch.as_tensor(value)
        except (TypeError, ValueError):
            raise TypeError(f"{name}: got an array of {value.dtype}, {allowed}") from None
    if not isinstance(value, Tensor):
        value = number(name, value, allowed)
        if not least <= value <= most:
            raise ValueError(f"{name}: got {value!r}, {allowed}")
        return value
    if value.is_complex() or value.dtype == torch.bool or value.layout != torch.strided or value.is_nested:
        kind = "nested" if value.is_nested else value.layout
        raise TypeError(f"{name}: got a {kind} tensor of {value.dtype}, {allowed}")
    if value.numel() == 1:
        known = _known(value)
        if known is not None:
            if not least <= known <= most:
                raise ValueError(f"{name}: got {known}, {allowed}")
            return value if value.requires_grad else float(known)
    elif _is_at_hand(value) and _known(((value >= least) & (value <= most)).all()) is False:
        raise ValueError(f"{name}: got a tensor of shape {tuple(value.shape)} with values beyond that, {allowed}")
    return value


def parameters(
    logits: Tensor,
    dim: int,
    estimator: str,
    tau: float | Tensor,
    coefficient: float | Tensor,
    sample_tau: float | Tensor,
    coefficient_name: str = "gap",
    offsets: Tensor | None = None,
) -> Parameters:
    """What the operators take, of values that :func:`temperature` and the like have checked: their place is checked
    here, against logits with the categories in ``dim``, or ``NO_DIM``, or ragged rows."""
    if type(tau) is type(coefficient) is type(sample_tau) is float:
        return tau, coefficient, sample_tau
    columns = (
        _of_rows("tau", tau, logits, dim, offsets, estimator in WITH_SOFT_SAMPLE),
        _of_rows(coefficient_name, coefficient, logits, dim, offsets),
        _of_rows("sample_tau", sample_tau, logits, dim, offsets),
    )
    groups = max(column.shape[0] for column in columns)
    return torch.stack([column.expand(groups) for column in columns], -1)


def _of_rows(
    name: str, value: float | Tensor, logits: Tensor, dim: int, offsets: Tensor | None, has_gradient: bool = False
) -> Tensor:
    """A value as float64 on the logits' device, ``(1,)`` or one a row."""
    if not isinstance(value, Tensor):
        return as_tensor(value, logits.device)
    if not has_gradient and _wants_gradient(value):
        raise ValueError(f"{name}: got a tensor that requires grad, allowed: {name}.detach() (no gradient is defined)")
    if value.device != logits.device and value.device.type != "cpu":
        allowed = f"allowed: the logits' device, {logits.device}, or the CPU"
        raise ValueError(f"{name}: got a tensor on {value.device}, {allowed}")
    whole = value.full_tensor() if hasattr(value, "full_tensor") else value  # a DTensor is gathered
    if not is_plain(whole) and not has_gradient:  # who asks for a gradient later is refused
        whole = without_gradient(whole, name)
    column = whole.to(logits.device, torch.float64)
    if column.numel() == 1:
        return column.reshape(1)
    shape, what = [*logits.shape], "the logits' shape"
    if offsets is not None:
        shape, what, dim = [offsets.shape[0] - 1], "one a row", NO_DIM
    elif dim != NO_DIM:
        shape[dim], what = 1, f"{what} with 1 in dim {dim}"
    if not _broadcasts(value, shape):
        allowed = f"allowed: one that broadcasts to {tuple(shape)}, {what}"
        raise ValueError(f"{name}: got a tensor of shape {tuple(value.shape)}, {allowed}")
    column = column.expand(shape)
    column = (column if dim == NO_DIM else column.movedim(dim, -1)).reshape(-1)
    return column if column.shape[0] else column.sum().reshape(1) + 1  # no rows are one group, too


def _broadcasts(value: Tensor, shape: Sequence[int]) -> bool:
    lengths = zip(reversed(value.shape), reversed(shape), strict=False)
    return value.ndim <= len(shape) and all(length in (1, wanted) for length, wanted in lengths)


def _wants_gradient(value: Tensor) -> bool:
    """Of either mode."""
    if value.requires_grad and torch.is_grad_enabled():
        return True
    is_forward = not torch.compiler.is_compiling() and forward_ad._current_level >= 0
    return is_forward and forward_ad.unpack_dual(value).tangent is not None


def _is_at_hand(value: Tensor) -> bool:
    """Whether its values can be read for free: on the CPU, and nobody traces."""
    if torch.compiler.is_compiling() or value.device.type != "cpu" or _get_tracing_state() is not None:
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(value) and type(value) in (Tensor, torch.nn.Parameter)


def _known(value: Tensor) -> Any:
    """A one-element tensor's value, where it is at hand."""
    if not _is_at_hand(value):
        return None
    try:
        return value.item()
    except Exception:  # each tracer says in its own way that there is no value
        return None


def number(name: str, value: Any, allowed: str = "allowed: a finite number") -> float:
    if isinstance(value, bool) or not isinstance(value, (float, int, numbers.Real)):
        raise TypeError(f"{name}: got {value!r}, {allowed}")
    try:
        value = float(value)
    except OverflowError:
        raise ValueError(f"{name}: got an int beyond float64, {allowed}") from None
    if not -math.inf < value < math.inf:  # math.isfinite does not trace
        raise ValueError(f"{name}: got {value!r}, {allowed}")
    return value


def weight(name: str, value: Any) -> float | Tensor:
    """eta or beta."""
    return _number_or_tensor(
        name, value, -MOST_WEIGHT, MOST_WEIGHT, "allowed: a number from -1e30 to 1e30, or a tensor"
    )


def share(name: str, value: Any) -> float | Tensor:
    """a of the mix."""
    return _number_or_tensor(name, value, 0.0, 1.0, "allowed: a number from 0 to 1, or a tensor of them")


def trade(name: str, value: Any) -> float | Tensor:
    """The temperature of MVE, which may be 0 or infinite."""
    if isinstance(value, numbers.Real) and value == math.inf:
        return math.inf
    return _number_or_tensor(name, value, 0.0, math.inf, "allowed: a number >= 0, math.inf, or a tensor of them")


def index(value: Any, shape: torch.Size, categories: int, name: str = "index") -> None:
    """Categories of rows of this shape. Their values are checked where that costs no wait for a device."""
    if not isinstance(value, Tensor) or value.dtype != torch.int64:
        raise TypeError(f"{name}: got {getattr(value, 'dtype', type(value).__name__)}, allowed: an int64 tensor")
    if value.shape != shape:
        raise ValueError(f"{name}: got shape {tuple(value.shape)}, allowed: {tuple(shape)}")
    if _known(((value < 0) | (value >= categories)).any()):
        raise ValueError(f"{name}: got values outside [0, {categories}), allowed: a category of the row")


def count(name: str, value: Any, least: int = 1, most: int = 2**31 - 2) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, numbers.Integral)):
        raise TypeError(f"{name}: got {value!r}, allowed: an int from {least} to {most}")
    value = int(value)
    if not least <= value <= most:
        raise ValueError(f"{name}: got {value}, allowed: an int from {least} to {most}")
    return value


def choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}: got {value!r}, allowed: {', '.join(map(repr, allowed))}")
    return value


def draws(value: Any) -> str:
    """What draws of this kind put before an estimator's name."""
    return STRATIFIED if choice("draws", value, ("independent", "stratified")) == "stratified" else ""


def gap(value: Any) -> tuple[str, float | Tensor]:
    """The estimator that a gap asks for, and its coefficient: a number >= 0, or "pi"."""
    allowed = 'allowed: a finite number >= 0, a tensor of them, or "pi"'
    if isinstance(value, str):
        if value != "pi":
            raise ValueError(f"gap: got {value!r}, {allowed}")
        return "gst_pi", 0.0
    if type(value) is float and 0.0 <= value <= sys.float_info.max:  # at once, for most calls
        return "gst", value
    return "gst", _number_or_tensor("gap", value, 0.0, sys.float_info.max, allowed)


def is_bool(value: Any) -> bool:
    return isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")  # NumPy's


def flag(name: str, value: Any) -> bool:
    if is_bool(value):
        return bool(value)
    raise TypeError(f"{name}: got {value!r}, allowed: True or False")


def draw_seed(generator: torch.Generator | None, seed: int | Tensor | None, rows: int, device: torch.device) -> Tensor:
    """The int64 seed tensor of one call: the one given, or drawn from torch's generator without a sync."""
    if seed is None:
        if generator is not None:
            if not isinstance(generator, torch.Generator):
                raise TypeError(f"generator: got {type(generator).__name__}, allowed: a torch.Generator or None")
            if generator.device.type != device.type:
                raise ValueError(f"generator: got one on {generator.device}, allowed: the logits' device, {device}")
            return torch.randint(2**63 - 1, (1,), generator=generator, device=device)
        return _default_seed(device)
    if generator is not None:
        raise ValueError("seed: got a seed and a generator, allowed: one of the two")
    if isinstance(seed, Tensor):
        if seed.dtype != torch.int64 or seed.ndim > 1:
            raise TypeError(f"seed: got a {seed.dtype} tensor of {seed.ndim} dims, allowed: int64 of 0 or 1 dims")
        if seed.device != device:
            raise ValueError(f"seed: got a tensor on {seed.device}, allowed: the logits' device, {device}")
        seed = seed.reshape(-1)
        if seed.numel() != 1 and (seed.numel() == 0 or rows % seed.numel()):
            raise ValueError(f"seed: got {seed.numel()} seeds for {rows} rows, allowed: a number that divides the rows")
        return seed
    return torch.full((1,), count("seed", seed, 0, 2**63 - 1), dtype=torch.int64, device=device)


def _default_seed(device: torch.device) -> Tensor:
    if torch.compiler.is_dynamo_compiling() and not _are_functorch_transforms_active():
        # The same as randint, for which Inductor would take a generator of its own: see register.never_redrawn. Strict
        # export, which is Dynamo's, takes it as well.
        return torch.ops.aten.random.to(torch.empty((1,), dtype=torch.int64, device=device), 2**63 - 1)
    return torch.randint(2**63 - 1, (1,), device=device)
