"""What the operands of machine code name: a value for each thread of a block."""

from collections.abc import Callable

import numpy as np

from .sass_arithmetic import Array, joined
from .sass_code import Constant, Immediate, Name, Operand, Predicate, Register

Read = Callable[[], Array]
Put = Callable[[Array, Array], None]  #: into those lanes


class Registers:
    """Uniform ones are each thread's own, too: those of a warp agree where code reads them."""

    def __init__(self, threads: int, constants: Array, special: dict[str, int]) -> None:
        self.threads, self.constants, self.special = threads, constants, special
        self.thread = np.arange(threads, dtype=np.uint32)
        self.registers = np.zeros((256, threads), np.uint32)
        self.uniform_registers = np.zeros((64, threads), np.uint32)
        self.predicates, self.uniform_predicates = np.zeros((2, 8, threads), bool)
        self.predicates[7] = self.uniform_predicates[7] = True

    def read(self, kind: str, source: Operand) -> Read:
        """As an operation's ``kinds`` say."""
        if kind == "p":
            assert isinstance(source, Predicate)
            return self.truth(source)
        if kind in "iw":
            return self.word(source) if kind == "i" else self.pair(source)
        negated = inverted = absolute = False
        if isinstance(source, Register | Constant):
            negated, inverted, absolute = source.negated, source.inverted, source.absolute
            source = source._replace(negated=False, inverted=False, absolute=False)
        if kind == "t":  # minus is "not" and 1 more, which may carry
            bits, flip = self.word(source), np.uint32(0xFFFFFFFF if negated or inverted else 0)
            return lambda: (bits() ^ flip).astype(np.uint64) + np.uint64(negated)
        number = self.number(kind, source)

        def read() -> Array:
            x = np.abs(number()) if absolute else number()
            return -x if negated else x

        return read

    def number(self, kind: str, source: Operand) -> Read:
        if kind == "d" and not isinstance(source, Immediate):
            pair = self.pair(source)
            return lambda: pair().view(np.float64)
        word = self.word(source)
        if kind == "d":
            return lambda: (word().astype(np.uint64) << 32).view(np.float64)
        if kind == "f":
            return lambda: word().view(np.float32)
        assert isinstance(source, Register)
        shift = 16 * source.half
        return lambda: (word() >> shift).astype(np.uint16).view(np.float16).astype(np.float32)

    def word(self, source: Operand) -> Read:
        """Its 32 bits."""
        match source:
            case Immediate(value):
                constant = np.array([value], np.uint32)
                return lambda: constant
            case Name("SR_TID.X"):
                return lambda: self.thread
            case Name("PR"):
                return lambda: np.packbits(self.predicates[:7], axis=0, bitorder="little")[0].astype(np.uint32)
            case Name(name):
                return self.word(Immediate(self.special[name]))
            case Constant():
                read = self.constant(source)
            case Register():
                row = (self.uniform_registers if source.uniform else self.registers)[source.number]

                def read() -> Array:
                    return row
            case _:
                raise NotImplementedError(f"{source} as 32 bits")
        if source.absolute:
            raise NotImplementedError("an integer's absolute value")
        return (lambda: -read()) if source.negated else (lambda: ~read()) if source.inverted else read

    def pair(self, source: Operand) -> Read:
        """The 64 bits of two registers, or of constants."""
        match source:
            case Name("SRZ"):
                return lambda: np.zeros(self.threads, np.uint64)
            case Immediate(value):
                constant = np.array([value], np.uint32).view(np.int32).astype(np.int64).view(np.uint64)
                return lambda: constant
            case Constant():
                low, high = self.constant(source), self.constant(source._replace(offset=source.offset + 4))
            case Register():
                second = source.number if source.zero else source.number + 1
                bare = Register(source.number, source.uniform)
                low, high = self.word(bare), self.word(bare._replace(number=second))
            case _:
                raise NotImplementedError(f"{source} as 64 bits")
        if source.absolute:
            raise NotImplementedError("an integer's absolute value")
        if source.negated or source.inverted:
            return lambda: -joined(low(), high()) if source.negated else ~joined(low(), high())
        return lambda: joined(low(), high())

    def constant(self, source: Constant) -> Read:
        index = self.word(source.register) if source.register else None
        if index is None:
            value = self.constants[source.offset : source.offset + 4].view(np.uint32)
            return lambda: value
        words = self.constants.view(np.uint32)
        return lambda: words[(index() + np.uint32(source.offset)) // 4]

    def truth(self, source: Predicate) -> Read:
        row = (self.uniform_predicates if source.uniform else self.predicates)[source.number]
        return (lambda: ~row) if source.inverted else lambda: row

    def put(self, to: Operand) -> Put:
        match to:
            case Register() if to.zero:
                return lambda lanes, value: None
            case Register():
                rows = self.uniform_registers if to.uniform else self.registers

                def put(lanes: Array, value: Array) -> None:
                    if value.itemsize == 4:
                        np.copyto(rows[to.number], value.view(np.uint32), where=lanes)
                        return
                    bits = value.view(np.uint64)
                    np.copyto(rows[to.number], bits.astype(np.uint32), where=lanes)
                    np.copyto(rows[to.number + 1], (bits >> 32).astype(np.uint32), where=lanes)

                return put
            case Predicate(7):
                return lambda lanes, value: None
            case Predicate():
                row = (self.uniform_predicates if to.uniform else self.predicates)[to.number]
                return lambda lanes, value: np.copyto(row, value, where=lanes)
        raise NotImplementedError(f"{to} as a destination")
