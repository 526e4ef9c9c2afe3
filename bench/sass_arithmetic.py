"""What instructions of sm_90 compute, of arrays with an element a thread: integers are uint32 or uint64, so are bits.

MUFU's approximations are numpy's results, rounded to float32: not the hardware's bits, but within its bounds.
"""

import ctypes
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
Modifiers = frozenset[str]
TINY = np.float32(2.0**-126)
#: Table of the three inputs of LOP3 -> the same, faster.
LOGIC: dict[int, Callable[[Array, Array, Array], Array]] = {
    0x33: lambda a, b, c: ~b,
    0x3C: lambda a, b, c: a ^ b,
    0x40: lambda a, b, c: a & b & ~c,
    0x96: lambda a, b, c: a ^ b ^ c,
    0xC0: lambda a, b, c: a & b,
    0xF8: lambda a, b, c: a | b & c,
    0xFC: lambda a, b, c: a | b,
}
ORDERED: dict[str, Callable[[Array, Array], Array]] = {
    "EQ": np.equal,
    "LT": np.less,
    "LE": np.less_equal,
    "GT": np.greater,
    "GE": np.greater_equal,
}
OPPOSITE = {"NE": "EQ", "LTU": "GE", "LEU": "GT", "GTU": "LE", "GEU": "LT", "NEU": "EQ"}

_LIBM = ctypes.CDLL("libm.so.6")
_LIBM.fma.restype, _LIBM.fma.argtypes = ctypes.c_double, (ctypes.c_double,) * 3
_fma = np.frompyfunc(_LIBM.fma, 3, 1)


class Operation(NamedTuple):
    """What it returns goes to its register, if it has one, then to its predicates.

    ``kinds`` says how its sources are read, the last ones perhaps absent: i 32 bits, t the same as a term of a wider
    sum, w 64 bits, f float32, h one of two halves as float32, d float64, p predicate.
    """

    compute: Callable[..., Any]
    kinds: Callable[[tuple[str, ...]], str]
    modifiers: Modifiers


OPERATIONS: dict[str, Operation] = {}


def operation(names: str, kinds: str | Callable[[tuple[str, ...]], str], modifiers: str = "") -> Callable[..., Any]:
    def register(compute: Callable[..., Any]) -> Callable[..., Any]:
        chosen = kinds if callable(kinds) else lambda _: kinds
        for name in names.split():
            OPERATIONS[name] = Operation(compute, chosen, frozenset(modifiers.split()))
        return compute

    return register


# ---------------------------------------------------------------------------------------------------
# Integers and bits


@operation("MOV S2R S2UR R2UR", "i")
def move(m: Modifiers, x: Array) -> Array:
    return x


@operation("CS2R", "w")
def move_pair(m: Modifiers, x: Array) -> Array:
    return x


@operation("LDC", lambda m: "w" if "64" in m else "i", "64 U8")
def constant(m: Modifiers, x: Array) -> Array:
    return x & 0xFF if "U8" in m else x


@operation("SEL", "iip")
@operation("FSEL", "ffp")
def select(m: Modifiers, a: Array, b: Array, which: Array) -> Array:
    return np.where(which, a, b)


@operation("IADD3", "tttpp", "X")
def add(m: Modifiers, a: Array, b: Array, c: Array, carry: Any = False, more: Any = False) -> tuple[Array, ...]:
    total = a + b + c + np.uint64(1) * carry + np.uint64(1) * more
    return total.astype(np.uint32), total >> 32 >= 1, total >> 32 >= 2


@operation("VIADD", "ii")
def add_two(m: Modifiers, a: Array, b: Array) -> Array:
    return a + b


def of_product(m: tuple[str, ...]) -> str:
    return "iiwp" if {"WIDE", "HI"} & {*m} else "iiip"


@operation("IMAD", of_product, "MOV IADD SHL U32 WIDE HI X")
def multiply_add(m: Modifiers, a: Array, b: Array, c: Array, carry: Any = False) -> Any:
    if not m & {"WIDE", "HI"}:
        return a * b + c + np.uint32(1) * carry
    if "U32" in m:
        product = a.astype(np.uint64) * b
    else:
        product = (a.view(np.int32).astype(np.int64) * b.view(np.int32)).view(np.uint64)
    total = product + c
    overflow = total < c
    total = total + np.uint64(1) * carry
    overflow = overflow | (total < np.uint64(1) * carry)
    return (total >> 32).astype(np.uint32) if "HI" in m else total, overflow


@operation("LEA", lambda m: "tti" if "HI" not in m else "itip" if "SX32" in m else "itiip", "HI X SX32")
def scaled_add(m: Modifiers, a: Array, b: Array, *rest: Array) -> tuple[Array, Array]:
    carry: Any = False
    if "HI" not in m:
        (shift,) = rest
        scaled = a << shift & 0xFFFFFFFF
    else:
        if "SX32" in m:
            shift, *last = rest
            wide = a.view(np.int32).astype(np.int64).view(np.uint64)
        else:
            high, shift, *last = rest
            wide = joined(a, high)
        carry = last[0] if last else False
        scaled = wide << shift >> 32
    total = scaled + b + np.uint64(1) * carry
    return total.astype(np.uint32), total >> 32 != 0


@operation("SHF", "iii", "L R W U32 S32 U64 HI")
def shift_pair(m: Modifiers, low: Array, by: Array, high: Array) -> Array:
    """Of 64 bits, the lower or upper half."""
    wide, most = joined(low, high), np.uint64(63)
    by = (by & 31 if "W" in m else by).astype(np.uint64)
    if "L" in m:
        moved = np.where(by > most, np.uint64(0), wide << np.minimum(by, most))
        if "HI" not in m and "U64" not in m:  # of 32 bits alone
            moved = np.where(by > 31, np.uint64(0), moved)
    elif "S32" in m:
        moved = (wide.view(np.int64) >> np.minimum(by, most).view(np.int64)).view(np.uint64)
    else:
        moved = np.where(by > most, np.uint64(0), wide >> np.minimum(by, most))
    return (moved >> 32 if "HI" in m else moved).astype(np.uint32)


@operation("LOP3", "iiiip", "LUT")
def logic(m: Modifiers, a: Array, b: Array, c: Array, table: Array, other: Array) -> tuple[Array, Array]:
    which = int(table[0])
    if which in LOGIC:
        value = LOGIC[which](a, b, c)
    else:
        value = np.zeros_like(a)
        for row in range(8):
            if which >> row & 1:
                value = value | (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
    return value, (value != 0) | other


@operation("PLOP3", "pppii", "LUT")
def predicate_logic(m: Modifiers, a: Array, b: Array, c: Array, *tables: Array) -> tuple[Array, ...]:
    row = 4 * a.astype(np.uint32) + 2 * b.astype(np.uint32) + c
    return tuple((table >> row & 1).astype(bool) for table in tables)


@operation("P2R", "iii")
def from_predicates(m: Modifiers, predicates: Array, other: Array, mask: Array) -> Array:
    return other & ~mask | predicates & mask


@operation("PRMT", "iii")
def permute_bytes(m: Modifiers, a: Array, selector: Array, b: Array) -> Array:
    wide, value = joined(a, b), np.uint32(0)
    for at in range(4):
        which = selector >> 4 * at & 15
        byte = (wide >> (which & 7) * np.uint32(8)).astype(np.uint32) & 255
        byte = np.where(which & 8, (byte >> 7) * np.uint32(255), byte)  # its sign, eight times
        value = value | byte << 8 * at
    return value


@operation("BREV", "i")
def reverse_bits(m: Modifiers, x: Array) -> Array:
    for by, mask in ((16, 0xFFFF), (8, 0xFF00FF), (4, 0xF0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        x = x >> by & mask | (x & mask) << by
    return x


@operation("FLO", "i", "U32 SH")
def leading_one(m: Modifiers, x: Array) -> Array:
    highest = np.frexp(x.astype(np.float64))[1] - 1
    return np.where(x == 0, np.uint32(0xFFFFFFFF), (31 - highest if "SH" in m else highest).astype(np.uint32))


@operation("VIMNMX", "iip", "U32")
def integer_extreme(m: Modifiers, a: Array, b: Array, least: Array) -> Array:
    x, y = (a, b) if "U32" in m else (a.view(np.int32), b.view(np.int32))
    return np.where(least, np.minimum(x, y), np.maximum(x, y)).view(np.uint32)


@operation("VIADDMNMX", "iiip", "U32")
def add_then_extreme(m: Modifiers, a: Array, b: Array, c: Array, least: Array) -> Array:
    return integer_extreme(m, a + b, c, least)


# ---------------------------------------------------------------------------------------------------
# Comparisons


def compare(m: Modifiers, a: Array, b: Array) -> Array:
    if m & {"NAN", "NUM"}:
        return ("NAN" in m) == ((a != a) | (b != b))
    if name := next(iter(m & ORDERED.keys()), None):
        return ORDERED[name](a, b)
    name = next(iter(m & OPPOSITE.keys()))
    different = ~ORDERED[OPPOSITE[name]](a, b)
    return different & (a == a) & (b == b) if name == "NE" and a.dtype.kind == "f" else different


def combined(m: Modifiers, found: Array, opposite: Array, other: Array) -> tuple[Array, Array]:
    combine = np.logical_and if "AND" in m else np.logical_or
    return combine(found, other), combine(opposite, other)


@operation("ISETP", "iipp", "EQ NE LT LE GT GE AND OR U32 EX")
def compare_integers(m: Modifiers, a: Array, b: Array, other: Array, lower: Any = None) -> tuple[Array, Array]:
    x, y = (a, b) if "U32" in m else (a.view(np.int32), b.view(np.int32))
    found = compare(m, x, y)
    if "EX" in m:  # of 64 bits, whose lower ones were compared before
        found = found | lower if "NE" in m else np.where(x == y, lower, found)
    return combined(m, found, ~found, other)


FLOATS = "EQ NE LT LE GT GE EQU NEU LTU LEU GTU GEU NAN NUM AND OR"


@operation("FSETP", "ffp", FLOATS + " FTZ")
def compare_floats(m: Modifiers, a: Array, b: Array, other: Array) -> tuple[Array, Array]:
    found = compare(m, flushed(a), flushed(b)) if "FTZ" in m else compare(m, a, b)
    return combined(m, found, ~found, other)


@operation("DSETP", "ddp", FLOATS + " MIN MAX")
def compare_doubles(m: Modifiers, a: Array, b: Array, other: Array) -> tuple[Array, Array]:
    if m & {"MIN", "MAX"}:  # which one is the answer, and whether it is to become a quiet NaN
        first = (a < b if "MIN" in m else a > b) | (b != b)
        return combined(m, first, (a != a) & (b != b), other)
    found = compare(m, a, b)
    return combined(m, found, ~found, other)


# ---------------------------------------------------------------------------------------------------
# Floats


def flushed(x: Array) -> Array:
    return np.where(np.abs(x) < TINY, np.copysign(np.float32(0), x), x)


@operation("FADD", "ff", "FTZ")
def add_floats(m: Modifiers, a: Array, b: Array) -> Array:
    return flushed(flushed(a) + flushed(b)) if "FTZ" in m else a + b


@operation("FMUL", "ff")
def multiply_floats(m: Modifiers, a: Array, b: Array) -> Array:
    return a * b


@operation("FFMA", "fff", "RM RP RZ")
def fused(m: Modifiers, a: Array, b: Array, c: Array) -> Array:
    """In float64 the product is exact; the sum is rounded to odd, so that the rounding to float32 is the only one."""
    product, addend = a.astype(np.float64) * b, c.astype(np.float64)
    total = product + addend
    part = total - product
    error = (product - (total - part)) + (addend - part)
    even = (total.view(np.int64) & 1 == 0) & (error != 0) & np.isfinite(error)
    exact = np.where(even, np.nextafter(total, np.copysign(np.inf, error)), total)
    return directed(m, exact.astype(np.float32), exact)


def directed(m: Modifiers, nearest: Array, exact: Array) -> Array:
    """``exact`` rounded up, down or towards 0, where the modifiers say so."""
    if "RP" in m:
        return np.where(nearest < exact, np.nextafter(nearest, nearest.dtype.type(np.inf)), nearest)
    if "RM" in m:
        return np.where(nearest > exact, np.nextafter(nearest, nearest.dtype.type(-np.inf)), nearest)
    if "RZ" in m:
        return np.where(np.abs(nearest) > np.abs(exact), np.nextafter(nearest, nearest.dtype.type(0)), nearest)
    return nearest


@operation("FMNMX", "ffp", "NAN")
def float_extreme(m: Modifiers, a: Array, b: Array, least: Array) -> Array:
    low, high = (np.minimum, np.maximum) if "NAN" in m else (np.fmin, np.fmax)
    bits = np.where(least, a.view(np.uint32) | b.view(np.uint32), a.view(np.uint32) & b.view(np.uint32))
    return np.where(a == b, bits.view(np.float32), np.where(least, low(a, b), high(a, b)))  # -0 is less than 0


@operation("FCHK", "ff")
def division_is_hard(m: Modifiers, a: Array, b: Array) -> Array:
    """Whether a quotient needs more than a Newton step: near the ends of the range of what takes part in it."""
    x, y = np.abs(a), np.abs(b)
    easy = (x >= TINY * 2**24) & (x < np.inf) & (y >= TINY) & (y <= 2.0**125)
    quotient = x.astype(np.float64) / y
    return ~(easy & (quotient >= 2.0**-125) & (quotient <= 2.0**125))


@operation("MUFU", lambda m: "i" if "RCP64H" in m else "f", "EX2 LG2 RCP RSQ RCP64H")
def approximation(m: Modifiers, x: Array) -> Array:
    if "RCP64H" in m:  # of a float64's upper half
        inverse = 1 / (x.astype(np.uint64) << 32).view(np.float64)
        return (inverse.view(np.uint64) >> 32).astype(np.uint32)
    if "EX2" in m:
        return flushed(np.exp2(x.astype(np.float64)).astype(np.float32))
    wide = flushed(x).astype(np.float64)
    value = np.log2(wide) if "LG2" in m else 1 / wide if "RCP" in m else 1 / np.sqrt(wide)
    return flushed(value.astype(np.float32))


@operation("DADD", "dd")
def add_doubles(m: Modifiers, a: Array, b: Array) -> Array:
    return a + b


@operation("DMUL", "dd", "RP")
def multiply_doubles(m: Modifiers, a: Array, b: Array) -> Array:
    nearest = a * b
    below = fused_doubles(m, a, b, -nearest) > 0 if "RP" in m else False
    return np.where(below, np.nextafter(nearest, np.inf), nearest)


@operation("DFMA", "ddd")
def fused_doubles(m: Modifiers, a: Array, b: Array, c: Array) -> Array:
    return _fma(a, b, c).astype(np.float64)


# ---------------------------------------------------------------------------------------------------
# Conversions


@operation("I2F I2FP", lambda m: "w" if {"S64", "U64"} & {*m} else "i", "F32 F64 S32 U32 S64 U64 RP")
def from_integer(m: Modifiers, x: Array) -> Array:
    if not m & {"U32", "U64"}:
        x = x.view(np.int64 if "S64" in m else np.int32)
    return directed(m, x.astype(np.float64 if "F64" in m else np.float32), x.astype(np.longdouble))


@operation("F2I", lambda m: "d" if "F64" in m else "f", "FTZ U32 S64 U64 F64 TRUNC NTZ")
def to_integer(m: Modifiers, x: Array) -> Array:
    """As near as the type has; of NaN 0, or in 64 bits the uppermost alone."""
    kind: Any = np.int64 if "S64" in m else np.uint64 if "U64" in m else np.uint32 if "U32" in m else np.int32
    ends, wide = np.iinfo(kind), np.trunc(x.astype(np.longdouble))
    of_nan = 0 if ends.bits == 32 else 1 << 63
    value = np.clip(np.where(x == x, wide, 0), ends.min, ends.max).astype(kind)
    unsigned: Any = np.uint32 if ends.bits == 32 else np.uint64
    return np.where(x == x, value.view(unsigned), unsigned(of_nan))


@operation("F2F", lambda m: "f" if m[-1] == "F32" else "d", "F32 F64")
def to_other_float(m: Modifiers, x: Array) -> Array:
    return x.astype(np.float64 if x.dtype == np.float32 else np.float32)


@operation("F2FP", "ff", "F16 F32 PACK_AB")
def to_halves(m: Modifiers, upper: Array, lower: Array) -> Array:
    a, b = (x.astype(np.float16).view(np.uint16).astype(np.uint32) for x in (upper, lower))
    return a << 16 | b


@operation("HADD2", "fh", "F32")
def from_half(m: Modifiers, zero: Array, half: Array) -> Array:
    """All that the kernels add is a half to -0, for its conversion."""
    return zero + half


@operation("HFMA2", "ffii", "MMA")
def pair_of_halves(m: Modifiers, a: Array, b: Array, upper: Array, packed: Array) -> Array:
    """All that the kernels compute so is a constant: two halves, encoded as one operand, added to the product of -0."""
    if a.any() or b.any():
        raise NotImplementedError("a product of halves")
    return packed


def joined(low: Array, high: Array) -> Array:
    return low.astype(np.uint64) | high.astype(np.uint64) << 32
