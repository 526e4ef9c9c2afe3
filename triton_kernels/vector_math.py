"""``exp`` and ``log1p`` of a tile, right to a few units in the last place on a GPU and in the interpreter alike.

Mirrors ``csrc/cpu/simd.h``. Float64 takes the library's functions; float32 does not: ``tl.exp`` rounds ``x log2(e)``,
which costs ``|x|`` units in the last place, there is no ``tl.log1p``, and ``tl.log(1 + x)`` would lose the small
exponentials that decide who wins.
"""

import triton.language as tl

from .jit import device_function

LOG2_E = tl.constexpr(1.4426950216293335)  # rounded to float32
LOG2_E_LOW = tl.constexpr(1.9259629911e-08)  # what that rounding took
LN_2 = tl.constexpr(0.6931471805599453)
LN_2_HIGH = tl.constexpr(0.693145751953125)  # 12 bits, so that its product with an exponent is exact
LN_2_LOW = tl.constexpr(1.428606765330187e-06)


@device_function
def exp(x):
    """``e**x`` for ``x <= 88``; 0 far below, at ``-inf`` too."""
    if x.dtype == tl.float64:
        return tl.exp(x)
    else:
        x = tl.maximum(x, -150.0, propagate_nan=tl.PropagateNan.ALL)  # -inf - -inf below would be NaN
        t = x * LOG2_E
        lost = tl.fma(x, LOG2_E, -t) + x * LOG2_E_LOW
        y = tl.exp2(t)
        return y + y * (lost * LN_2)


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
