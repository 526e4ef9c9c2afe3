"""``exp`` and ``log1p`` of a tile, right to a few units in the last place on a GPU and in the interpreter alike.

Mirrors ``csrc/cpu/simd.h``. Float64 takes the library's functions; float32 does not: ``tl.exp`` rounds ``x log2(e)``,
which costs ``|x|`` units in the last place, there is no ``tl.log1p``, and ``tl.log(1 + x)`` would lose the small
exponentials that decide who wins.
"""

import triton.language as tl

from .jit import INTERPRETED, device_function

HAS_INSTRUCTIONS = tl.constexpr(not INTERPRETED)
LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.693147182464599609375)  # rounded to float32
LN_2_REST = tl.constexpr(-1.904654323148236e-09)  # what that rounding took
LN_2_HIGH = tl.constexpr(0.693145751953125)  # 12 bits, so that its product with an exponent is exact
LN_2_LOW = tl.constexpr(1.428606765330187e-06)


@device_function
def inverse(x):
    """``1 / x``. Of float32 by one instruction, where a division is seven: right to a unit in the last place where x
    and ``1 / x`` are normal."""
    if HAS_INSTRUCTIONS and x.dtype == tl.float32:
        return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, is_pure=True, pack=1)
    else:
        return 1.0 / x


@device_function
def log2(x):
    """The hardware's: for float32 below 1/2, where its absolute error is small beside the result."""
    if HAS_INSTRUCTIONS and x.dtype == tl.float32:
        return tl.inline_asm_elementwise("lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, is_pure=True, pack=1)
    else:
        return tl.log2(x)


@device_function
def exp(x):
    """``e**x`` for ``x <= 88``; 0 far below, at ``-inf`` too."""
    if x.dtype == tl.float64:
        return tl.exp(x)
    else:
        x = tl.maximum(x, -150.0, propagate_nan=tl.PropagateNan.ALL)  # -inf - -inf below would be NaN
        t = x * LOG2_E
        lost = tl.fma(-t, LN_2_REST, tl.fma(-t, LN_2, x))  # x - log(2**t)
        y = tl.exp2(t)
        return y + y * lost


@device_function
def log1p(x):
    """``log(1 + x)`` for finite ``x > -1``, precise relative to its own size down to the smallest x."""
    w = x + 1.0
    if x.dtype == tl.float64:
        return tl.log(w) + (x - (w - 1.0)) / w
    else:
        bits = w.to(tl.int32, bitcast=True)
        exponent = (bits - 0x3F3504F3) >> 23  # w is in [sqrt(1/2), sqrt(2)) * 2**exponent
        t = tl.where(exponent == 0, x, (bits - (exponent << 23)).to(tl.float32, bitcast=True) - 1.0)
        tt = t * t
        low = (0.3333333134651184 - 0.2500081956386566 * t) + tt * (0.20001226663589478 - 0.16623356938362122 * t)
        high = (0.14201757311820984 - 0.13160184025764465 * t) + tt * (0.127615824341774 - 0.07634497433900833 * t)
        e = exponent.to(tl.float32)
        return e * LN_2_HIGH + (t + (e * LN_2_LOW + (t * tt * (low + tt * tt * high) - 0.5 * tt)))
