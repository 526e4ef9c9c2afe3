"""Machine code of sm_90 as cuobjdump prints it, read into instructions with operands."""

import re
from pathlib import Path
from typing import NamedTuple

from .sass import printed

ARCHITECTURE = "sm_90"


class Register(NamedTuple):
    """Of a thread, or (``uniform``) of a warp; number 255, or 63, reads as 0."""

    number: int
    uniform: bool = False
    negated: bool = False
    inverted: bool = False
    absolute: bool = False
    half: int = 0  #: which half of it an instruction on half precision reads

    @property
    def zero(self) -> bool:
        return self.number == (63 if self.uniform else 255)


class Predicate(NamedTuple):
    number: int  #: 7 is always true
    uniform: bool = False
    inverted: bool = False


class Immediate(NamedTuple):
    value: int  #: 32 bits; of a float64, its upper ones


class Constant(NamedTuple):
    """Of the one bank that the driver fills."""

    offset: int
    register: Register | None = None
    negated: bool = False
    inverted: bool = False
    absolute: bool = False


class Address(NamedTuple):
    registers: tuple[Register, ...]
    wide: bool  #: whether the first register is a pair
    offset: int


class Name(NamedTuple):
    """A special register, or one of a warp's barriers."""

    name: str


Operand = Register | Predicate | Immediate | Constant | Address | Name


class Instruction(NamedTuple):
    at: int
    text: str
    guard: Predicate
    opcode: str
    modifiers: tuple[str, ...]
    operands: tuple[Operand, ...]


class Kernel(NamedTuple):
    code: dict[int, Instruction]  #: by address
    constant_bytes: int  #: with the kernel's parameter
    stack_bytes: int


def kernel(library: Path, name: str) -> Kernel:
    options = ["-arch", ARCHITECTURE, str(library)]
    code = read(printed("-sass", "-fun", name, *options))
    usage = re.search(rf"Function {name}:\s+.*STACK:(\d+).*CONSTANT\[0\]:(\d+)", printed("-res-usage", *options))
    if not code or not usage:
        raise LookupError(f"{library.name} has no machine code of {ARCHITECTURE} for {name}")
    return Kernel(code, int(usage[2]), int(usage[1]))


def read(said: str) -> dict[int, Instruction]:
    found = re.findall(r"/\*([0-9a-f]{4,6})\*/\s+(.*?)\s*;\s*/\* 0x([0-9a-f]{16}) \*/", said)
    return {int(at, 16): instruction(int(at, 16), text, int(word, 16)) for at, text, word in found}


def instruction(at: int, text: str, word: int = 0) -> Instruction:
    """``word`` is the first half of the encoding, whose upper half is the immediate operand: text rounds floats."""
    guarded = re.match(r"@(!?U?P\w+)\s+(.*)", text)
    guard = predicate(guarded[1]) if guarded else Predicate(7)
    name, _, rest = (guarded[2] if guarded else text).partition(" ")
    opcode, *modifiers = name.split(".")
    rest = re.sub(r"desc\[UR\d+\]", "", rest.replace(".reuse", "")).strip()
    if opcode == "RET":  # its register and an offset, no comma between them
        rest = rest.replace(" ", ", ")
    operands = tuple(operand(part.strip(), word >> 32) for part in rest.split(",")) if rest else ()
    return Instruction(at, text, guard or Predicate(7), opcode, tuple(modifiers), operands)


def predicate(text: str) -> Predicate | None:
    match = re.fullmatch(r"(!?)(U?)P([0-7T])", text)
    return Predicate(7 if match[3] == "T" else int(match[3]), bool(match[2]), bool(match[1])) if match else None


def register(text: str) -> Register | None:
    match = re.fullmatch(r"([-~]?)(\|?)(U?)R(\d+|Z)\|?(?:\.H([01])_H[01])?(?:\.(?:64|U32))?", text)
    if not match:
        return None
    sign, absolute, uniform, number, half = match.groups()
    zero = 63 if uniform else 255
    value = zero if number == "Z" else int(number)
    return Register(value, bool(uniform), sign == "-", sign == "~", bool(absolute), int(half or 0))


def operand(text: str, encoded: int) -> Operand:
    if found := predicate(text) or register(text):
        return found
    if re.fullmatch(r"-?0x[0-9a-f]+", text):
        return Immediate(int(text, 16) & 0xFFFFFFFF)
    if re.fullmatch(r"[-+]?(\d+(\.\d*)?(e[-+]?\d+)?|INF|QNAN)", text):
        return Immediate(encoded)
    if match := re.fullmatch(r"([-~]?)(\|?)c\[0x0\]\[(?:(U?R\w+)\+?)?(-?0x[0-9a-f]+)?\]\|?", text):
        sign, absolute, index, offset = match.groups()
        return Constant(int(offset or "0", 16), register(index or ""), sign == "-", sign == "~", bool(absolute))
    if match := re.fullmatch(r"\[(.*)\]", text):
        parts = match[1].split("+")
        registers = tuple(found for part in parts if (found := register(part)))
        rest = [part for part in parts if not register(part)]
        return Address(registers, ".64" in text, sum(int(part, 16) for part in rest))
    if re.fullmatch(r"SR\w+(\.\w+)?|B\d+|PR", text):
        return Name(text)
    raise NotImplementedError(f"operand {text!r}")
