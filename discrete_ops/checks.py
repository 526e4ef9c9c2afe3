"""Argument checks: each message names the argument, what came and what is allowed."""

import math
import numbers
import operator
from typing import Any

import torch
from torch import Tensor

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
#: Temperatures whose inverse is a normal float32 too.
LEAST_TAU = torch.finfo(torch.float32).tiny
MOST_TAU = 1 / LEAST_TAU
_TAU = f"allowed: a number from {LEAST_TAU:.3g} to {MOST_TAU:.3g}, or a 0-dim tensor of one"
#: Largest eta and beta: their products with float32 gradients stay finite.
MOST_WEIGHT = 1e30


def logits(value: Any, dim: Any) -> int:
    """Check logits and dim; return dim counted from the front."""
    if not isinstance(value, Tensor):
        raise TypeError(f"logits: got {type(value).__name__}, allowed: a tensor")
    if value.dtype not in FLOATS:
        raise TypeError(f"logits: got dtype {value.dtype}, allowed: float64, float32, float16, bfloat16")
    if value.ndim == 0:
        raise ValueError("logits: got a 0-dim tensor, allowed: one dimension or more")
    if not isinstance(dim, int):
        try:
            dim = operator.index(dim)
        except TypeError:
            raise TypeError(f"dim: got {dim!r}, allowed: an int") from None
    if isinstance(dim, bool):
        raise TypeError(f"dim: got {dim!r}, allowed: an int")
    if not -value.ndim <= dim < value.ndim:
        raise ValueError(f"dim: got {dim}, allowed: {-value.ndim} to {value.ndim - 1} for shape {tuple(value.shape)}")
    if value.shape[dim] == 0:
        raise ValueError(f"logits: got shape {tuple(value.shape)}, allowed: at least one category in dim {dim}")
    return dim % value.ndim


def tau(value: Any, device: torch.device | None = None) -> float | Tensor:
    """A temperature for logits on ``device``: positive float (returned as float) or 0-dim tensor (as ``(1,)`` there).

    One on the CPU, for logits elsewhere, is read; where a tracer has no value to read, it moves.
    """
    allowed = _TAU
    if isinstance(value, Tensor):
        if value.ndim != 0:
            raise ValueError(f"tau: got a tensor of shape {tuple(value.shape)}, {allowed}")
        if value.is_complex() or value.dtype == torch.bool:
            raise TypeError(f"tau: got a tensor of {value.dtype}, {allowed}")
        if value.requires_grad:
            raise ValueError("tau: got a tensor that requires grad, allowed: tau.detach() (no gradient is defined)")
        if device is not None and value.device != device and value.device.type != "cpu":
            raise ValueError(f"tau: got a tensor on {value.device}, allowed: the logits' device, {device}, or the CPU")
        known = _known(value)
        if known is not None and not _is_tau(known):
            raise ValueError(f"tau: got {known}, {allowed}")
        if device is None or value.device == device:
            return value.reshape(1)
        return value.reshape(1).to(device) if known is None else known
    value = number("tau", value, allowed)
    if not _is_tau(value):
        raise ValueError(f"tau: got {value!r}, {allowed}")
    return value


def _is_tau(value: float) -> bool:
    return LEAST_TAU <= value <= MOST_TAU


def _known(value: Tensor) -> float | None:
    """A one-element tensor's value where it can be read for free: on the CPU, real, and no stand-in of a tracer."""
    if torch.compiler.is_compiling() or value.device.type != "cpu":
        return None
    if torch._C._functorch.is_functorch_wrapped_tensor(value):
        return None
    try:
        return float(value)
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


def weight(name: str, value: Any) -> float:
    """eta or beta."""
    allowed = "allowed: a number from -1e30 to 1e30"
    value = number(name, value, allowed)
    if not -MOST_WEIGHT <= value <= MOST_WEIGHT:
        raise ValueError(f"{name}: got {value!r}, {allowed}")
    return value


def index(value: Any, shape: torch.Size, categories: int) -> None:
    """Categories of rows of this shape. Their values are checked where that costs no wait for a device."""
    if not isinstance(value, Tensor) or value.dtype != torch.int64:
        raise TypeError(f"index: got {getattr(value, 'dtype', type(value).__name__)}, allowed: an int64 tensor")
    if value.shape != shape:
        raise ValueError(f"index: got shape {tuple(value.shape)}, allowed: {tuple(shape)}")
    if _known(((value < 0) | (value >= categories)).any()):
        raise ValueError(f"index: got values outside [0, {categories}), allowed: a category of the row")


def count(name: str, value: Any, least: int = 1, most: int = 2**31 - 2) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, numbers.Integral)):
        raise TypeError(f"{name}: got {value!r}, allowed: an int from {least} to {most}")
    value = int(value)
    if not least <= value <= most:
        raise ValueError(f"{name}: got {value}, allowed: an int from {least} to {most}")
    return value


def choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f"{name}: got {value!r}, allowed: {', '.join(map(repr, allowed))}")
    return value


def gap(value: Any) -> tuple[str, float]:
    """The estimator that a gap asks for, and its coefficient: a number >= 0, or "pi"."""
    allowed = 'allowed: a finite number >= 0, or "pi"'
    if isinstance(value, str):
        if value != "pi":
            raise ValueError(f"gap: got {value!r}, {allowed}")
        return "gst_pi", 0.0
    value = number("gap", value, allowed)
    if value < 0:
        raise ValueError(f"gap: got {value!r}, {allowed}")
    return "gst", value


def draw_seed(generator: torch.Generator | None, seed: int | Tensor | None, rows: int, device: torch.device) -> Tensor:
    """The int64 seed tensor of one call: the one given, or drawn from torch's generator without a sync."""
    if seed is None:
        if generator is not None:
            if not isinstance(generator, torch.Generator):
                raise TypeError(f"generator: got {type(generator).__name__}, allowed: a torch.Generator or None")
            if generator.device.type != device.type:
                raise ValueError(f"generator: got one on {generator.device}, allowed: the logits' device, {device}")
        return torch.randint(2**63 - 1, (1,), generator=generator, device=device)
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
