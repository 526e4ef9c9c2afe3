"""One block of a launch, its machine code executed instruction by instruction, all threads of the block side by side.

Each thread has its own address to go on at. Of those that wait for nothing, the ones at the lowest go on together, so
that a warp whose threads went different ways meets where its code does; barriers hold them as the hardware does. An
instruction that is not known, memory that is not the launch's, and threads that wait for ever raise.
"""

import ctypes
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .sass_arithmetic import OPERATIONS, Array
from .sass_code import Address, Immediate, Instruction, Kernel, Name, Operand, Predicate, Register
from .sass_registers import Read, Registers

WARP = 32
SHARED_AT = 0x400  #: where a block's own shared memory begins
SHARED_WINDOW = 0x800000  #: upper half of a generic address of shared memory: no process has such ones
#: Where the driver puts the block's size into the constants, the grid's, the top of the stack, the kernel's parameter.
BLOCK_AT, GRID_AT, STACK_AT, PARAMETER_AT = 0x0, 0xC, 0x28, 0x210
#: They order memory, which here is in order, or give way to others.
WITHOUT_EFFECT = {"NOP", "YIELD", "ENDCOLLECTIVE", "MEMBAR", "ERRBAR", "CGAERRBAR", "CCTL"}
#: Branches that a block takes before the next one's turn, where blocks wait for each other.
TURN = 100
SIZES = {"U8": 1, "U16": 2, "64": 8, "128": 16}

Step = Callable[[Array], None]


class Launch(NamedTuple):
    kernel: Kernel
    parameter: bytes
    blocks: int
    threads: int
    shared_bytes: int
    memory: tuple[tuple[int, int], ...]  #: address and bytes of all that the kernel may touch


class Memory:
    """Bytes at addresses, in parts."""

    def __init__(self, parts: list[tuple[int, Array]]) -> None:
        self.parts = parts

    def _within(self, addresses: Array, size: int) -> Iterator[tuple[Array, Array, Array]]:
        """Whose addresses are in a part, its bytes, and which of them those are."""
        if (addresses % size).any():
            raise MemoryError(f"{size} bytes at {int(addresses[addresses % size != 0][0]):#x}")
        left = np.ones(len(addresses), bool)
        for start, data in self.parts:
            if len(data) < size:
                continue
            offset = addresses - np.uint64(start)  # below the start it is beyond any end
            inside = left & (offset <= len(data) - size)
            if inside.any():
                yield inside, data, offset[inside, None].astype(np.int64) + np.arange(size)
                left &= ~inside
        if left.any():
            raise MemoryError(f"{size} bytes at {int(addresses[left][0]):#x}, which is not the launch's")

    def load(self, addresses: Array, size: int) -> Array:
        loaded = np.empty((len(addresses), size), np.uint8)
        for inside, data, at in self._within(addresses, size):
            loaded[inside] = data[at]
        return loaded

    def store(self, addresses: Array, values: Array) -> None:
        for inside, data, at in self._within(addresses, values.shape[1]):
            data[at] = values[inside]


def process_memory(address: int, size: int) -> tuple[int, Array]:
    return address, np.frombuffer((ctypes.c_uint8 * size).from_address(address), np.uint8)


class Machine(Registers):
    """``issued`` counts each warp's instructions."""

    def __init__(self, launch: Launch, block: int = 0) -> None:
        threads = -(-launch.threads // WARP) * WARP
        constants = np.zeros(launch.kernel.constant_bytes, np.uint8)
        if len(constants) != PARAMETER_AT + len(launch.parameter):
            raise ValueError(
                f"a parameter of {len(launch.parameter)} bytes is not the kernel's: built from other sources?"
            )
        constants[PARAMETER_AT:] = np.frombuffer(launch.parameter, np.uint8)
        for at, value in ((BLOCK_AT, launch.threads), (GRID_AT, launch.blocks), (STACK_AT, launch.kernel.stack_bytes)):
            constants[at : at + 4].view(np.uint32)[0] = value
        special = {"SR_CTAID.X": block, "SR_CgaCtaId": 0, "SR_SWINHI": SHARED_WINDOW}
        super().__init__(threads, constants, special)
        self.code = launch.kernel.code
        self.lane = self.thread % WARP
        self.at = np.zeros(threads, np.int64)
        self.alive = self.thread < launch.threads
        self.waiting = np.full(threads, -1)  # the address of what a thread waits at
        self.barrier = np.full(threads, -1)  # the number of the block's barrier, if it waits at one
        self.expected = np.zeros(threads, np.uint32)  # the lanes it waits for, or how many threads of the block
        self.met = np.zeros((16, threads), np.uint32)  # the lanes that BSYNC brings together
        self.issued = np.zeros(threads // WARP, np.int64)
        self.steps: dict[int, tuple[Step, bool]] = {}
        self.stack_bytes = launch.kernel.stack_bytes
        shared = np.full(launch.shared_bytes, 0xFF, np.uint8)  # it starts with anything: NaN
        everywhere = [process_memory(*part) for part in launch.memory if part[1]]
        self.memory = {
            "": Memory([*everywhere, ((SHARED_WINDOW << 32) + SHARED_AT, shared)]),
            "G": Memory(everywhere),
            "S": Memory([(SHARED_AT, shared)]),
            "L": Memory([(0, np.full(self.stack_bytes * threads, 0xFF, np.uint8))]),
        }

    def run(self, most: int = sys.maxsize) -> bool:
        """All threads to their ends, or a turn of so many branches; whether any goes on."""
        with np.errstate(all="ignore"):
            for _ in range(most):
                ready = self.alive & (self.waiting < 0)
                if not ready.any():
                    break
                first = int(self.at[ready].min())
                lanes = ready & (self.at == first)
                others = self.at[ready & ~lanes]
                self.go_on(first, lanes, int(others.min()) if others.size else max(self.code))
        if self.alive.any() and (self.waiting[self.alive] >= 0).all():
            texts = {self.code[at].text for at in self.waiting[self.alive]}
            raise RuntimeError(f"{self.alive.sum()} threads wait for ever, at {texts}")
        return bool(self.alive.any())

    def go_on(self, at: int, lanes: Array, until: int) -> None:
        """To the next branch, or to where others are."""
        count = 0
        while True:
            step, moves = self.steps.get(at) or self.steps.setdefault(at, self.step(self.code[at]))
            count, at = count + 1, at + 16
            if moves or at >= until:
                break
            step(lanes)
        self.issued[lanes.reshape(-1, WARP).any(1)] += count
        self.at[lanes] = at
        step(lanes)

    def step(self, code: Instruction) -> tuple[Step, bool]:
        """What an instruction does to lanes, and whether it may move them or let them wait."""
        try:
            step, moves = self.control(code), True
            if not step:
                step, moves = self.plain(code), False
        except (NotImplementedError, KeyError, ValueError, TypeError) as error:
            raise NotImplementedError(f"{code.text}: {error}") from error
        guard = code.guard
        if guard.number == 7 and not guard.inverted:
            return step, moves
        holds = self.truth(guard)
        return lambda lanes: step(lanes & holds()), moves

    # Where lanes go on, and where they wait

    def control(self, code: Instruction) -> Step | None:
        match code.opcode, code.operands:
            case "BRA", (*conditions, target) if not code.modifiers and len(conditions) < 2:
                holds = self.truth(conditions[0]) if conditions else lambda: True
                return lambda lanes: self.jump(lanes & holds(), target)
            case "BRA", (mask, target) if code.modifiers == ("DIV",):
                wanted = self.word(mask)
                return lambda lanes: self.jump(lanes & (wanted() & ~self.mask_of(lanes) != 0), target)
            case "CALL", (target,):
                return lambda lanes: self.jump(lanes, target)
            case "RET", (to, Immediate(0)):
                back = self.word(to)
                return lambda lanes: self.at.__setitem__(lanes, back()[lanes])
            case "EXIT", conditions if len(conditions) < 2:
                holds = self.truth(conditions[0]) if conditions else lambda: True
                return lambda lanes: self.exit(lanes & holds())
            case "BSYNC", (Name(barrier),):
                return lambda lanes: self.wait(code.at, lanes, self.met[int(barrier[1:])])
            case "WARPSYNC", ():
                return lambda lanes: self.wait(code.at, lanes, np.full(self.threads, 2**WARP - 1, np.uint32))
            case "WARPSYNC", (mask, *_):
                wanted = self.word(mask)
                return lambda lanes: self.wait(code.at, lanes, wanted())
            case "BAR", (number, *count) if "SYNC" in code.modifiers:
                return self.wait_for_block(code, number, count)
        return None

    def jump(self, lanes: Array, target: Operand) -> None:
        assert isinstance(target, Immediate)
        self.at[lanes] = target.value

    def exit(self, lanes: Array) -> None:
        self.alive &= ~lanes
        self.release()

    def wait(self, at: int, lanes: Array, expected: Array) -> None:
        self.waiting[lanes], self.expected[lanes] = at, expected[lanes]
        self.release()

    def wait_for_block(self, code: Instruction, number: Operand, count: list[Operand]) -> Step:
        """At a numbered barrier. The count of threads is all, or an operand, of a register its upper half."""
        which, threads = self.word(number), self.word(count[0]) if count else None
        packed = 16 if count and isinstance(count[0], Register) else 0

        def step(lanes: Array) -> None:
            self.barrier[lanes] = (which() & 15 | np.zeros(self.threads, np.uint32))[lanes]
            wanted = threads() >> packed if threads else np.uint32(self.alive.sum())
            self.wait(code.at, lanes, wanted | np.zeros(self.threads, np.uint32))

        return step

    def release(self) -> None:
        """Those whose others have arrived, or are no more."""
        held = self.alive & (self.waiting >= 0)
        for number in np.unique(self.barrier[held & (self.barrier >= 0)]):
            here = held & (self.barrier == number)
            if here.sum() == self.expected[here][0]:
                self.waiting[here] = self.barrier[here] = -1
        for at in np.unique(self.waiting[held & (self.barrier < 0)]):
            here = held & (self.waiting == at)
            arrived = self.mask_of(here | ~self.alive)
            self.waiting[here & (self.expected & ~arrived == 0)] = -1

    def mask_of(self, lanes: Array) -> Array:
        """Each thread's warp as bits."""
        return np.repeat(np.packbits(lanes.reshape(-1, WARP), axis=1, bitorder="little").view(np.uint32), WARP)

    # What lanes compute, load and store

    def plain(self, code: Instruction) -> Step:
        match code.opcode, code.operands:
            case name, () if name in WITHOUT_EFFECT:
                return lambda lanes: None
            case "BSSY", (Name(barrier), _):
                met = self.met[int(barrier[1:])]
                return lambda lanes: np.copyto(met, self.mask_of(lanes), where=lanes)
            case "LD" | "LDG" | "LDS" | "LDL", (Register() as to, Address() as source):
                return self.load(code, to, source)
            case "ST" | "STG" | "STS" | "STL", (Address() as to, Register() as source):
                return self.store(code, to, source)
            case "ATOMG", (Predicate(7), Register() as to, Address() as where, value) if "ADD" in code.modifiers:
                return self.atomic_add(code, to, where, value)
            case "SHFL", (valid, to, value, by, clamp):
                return self.shuffle(code, (to, valid), value, by, clamp)
            case "VOTE" | "VOTEU", (*to, which) if code.modifiers in (("ANY",), ("ALL",)):
                return self.vote(to, which, code.modifiers == ("ALL",))
            case "R2P", (Name("PR"), value, which) if not code.modifiers:
                return self.set_predicates(value, which)
            case "MATCH", (to, value) if code.modifiers == ("ANY",):
                return self.match(to, value)
            case "REDUX", (to, value) if code.modifiers == ("OR",):
                return self.reduce(to, value)
        return self.compute(code)

    def compute(self, code: Instruction) -> Step:
        name = code.opcode if code.opcode in OPERATIONS else code.opcode.removeprefix("U")
        operation = OPERATIONS[name]
        modifiers = frozenset(code.modifiers)
        if modifiers - operation.modifiers:
            raise NotImplementedError(f"modifiers {', '.join(sorted(modifiers - operation.modifiers))}")
        first = next((i for i, x in enumerate(code.operands) if not isinstance(x, Predicate)), 0)
        if name in ("ISETP", "FSETP", "DSETP", "PLOP3"):
            to, sources = code.operands[:2], code.operands[2:]
        elif name == "FCHK":
            to, sources = code.operands[:1], code.operands[1:]
        else:  # a register, and predicates on either side of it
            end = first + 1
            while end < len(code.operands) and isinstance(code.operands[end], Predicate):
                end += 1
            to = (code.operands[first], *code.operands[:first], *code.operands[first + 1 : end])
            sources = code.operands[end:]
        kinds = operation.kinds(code.modifiers)
        if len(sources) > len(kinds):
            raise NotImplementedError(f"{len(sources)} sources")
        reads = [self.read(kind, source) for kind, source in zip(kinds, sources, strict=False)]
        puts = [self.put(x) for x in to]

        def step(lanes: Array) -> None:
            values = operation.compute(modifiers, *(read() for read in reads))
            for put, value in zip(puts, values if isinstance(values, tuple) else (values,), strict=False):
                put(lanes, value)

        return step

    def shuffle(self, code: Instruction, to: tuple[Operand, ...], value: Operand, by: Operand, clamp: Operand) -> Step:
        put, put_valid = map(self.put, to)
        reads = self.word(value), self.word(by), self.word(clamp)
        (kind,) = code.modifiers
        sources: dict[str, Callable[[Array, Array], Array]] = {
            "BFLY": lambda moved, segment: self.lane ^ moved,
            "IDX": lambda moved, segment: self.lane & segment | moved & 31 & ~segment,
            "UP": lambda moved, segment: self.lane.astype(np.int64) - (moved & 31),
        }
        find = sources[kind]

        def step(lanes: Array) -> None:
            x, moved, packed = (read() for read in reads)
            segment, last = packed >> 8 & 31, packed & 31
            source, bound = find(moved, segment), self.lane & segment | last & ~segment
            valid = source >= bound if kind == "UP" else source <= bound
            place = self.thread - self.lane + np.where(valid, source, self.lane)
            if (lanes & ~lanes[place]).any():
                raise RuntimeError(f"{code.text}: of a lane that does not take part")
            put(lanes, (x | np.zeros_like(self.lane))[place])
            put_valid(lanes, valid)

        return step

    def vote(self, to: list[Operand], which: Operand, of_all: bool) -> Step:
        holds, puts = self.truth(which), [(self.put(x), isinstance(x, Register)) for x in to]

        def step(lanes: Array) -> None:
            mask = self.mask_of(lanes & holds())
            for put, is_register in puts:
                put(lanes, mask if is_register else mask == self.mask_of(lanes) if of_all else mask != 0)

        return step

    def set_predicates(self, value: Operand, which: Operand) -> Step:
        bits, mask = self.word(value), self.word(which)

        def step(lanes: Array) -> None:
            for at, row in enumerate(self.predicates[:7]):
                np.copyto(row, bits() >> at & 1 != 0, where=lanes & (mask() >> at & 1 != 0))

        return step

    def match(self, to: Operand, value: Operand) -> Step:
        put, read = self.put(to), self.word(value)

        def step(lanes: Array) -> None:
            warps = read().reshape(-1, WARP)
            same = (warps[:, :, None] == warps[:, None, :]) & lanes.reshape(-1, 1, WARP)
            put(lanes, self.mask_of(same.reshape(-1))[::WARP])

        return step

    def reduce(self, to: Operand, value: Operand) -> Step:
        put, read = self.put(to), self.word(value)

        def step(lanes: Array) -> None:
            warps = np.where(lanes, read(), np.uint32(0)).reshape(-1, WARP)
            put(lanes, np.repeat(np.bitwise_or.reduce(warps, axis=1), WARP))

        return step

    def load(self, code: Instruction, to: Register, source: Address) -> Step:
        memory, size, address = self.access(code, source)

        def step(lanes: Array) -> None:
            loaded = memory.load(address()[lanes], size)
            padded = np.zeros((len(loaded), max(size, 4)), np.uint8)
            padded[:, :size] = loaded
            for i, word in enumerate(padded.view(np.uint32).T):
                self.registers[to.number + i, lanes] = word

        if to.zero:
            raise NotImplementedError("a load that is dropped")
        return step

    def store(self, code: Instruction, to: Address, source: Register) -> Step:
        memory, size, address = self.access(code, to)

        def step(lanes: Array) -> None:
            numbers = [255] * (-(-size // 4)) if source.zero else range(source.number, source.number + -(-size // 4))
            words = np.stack([self.registers[number, lanes] for number in numbers], axis=1)
            memory.store(address()[lanes], np.ascontiguousarray(words).view(np.uint8)[:, :size])

        return step

    def atomic_add(self, code: Instruction, to: Register, where: Address, value: Operand) -> Step:
        put, read = self.put(to), self.word(value)
        memory, size, address = self.access(code, where)

        def step(lanes: Array) -> None:
            before = np.zeros(self.threads, np.uint32)
            for thread in np.nonzero(lanes)[0]:  # each sees what those before it added
                at = address()[thread : thread + 1]
                before[thread] = memory.load(at, size).view(np.uint32)[0, 0]
                memory.store(at, (before[thread : thread + 1] + read()[thread]).view(np.uint8)[None])
            put(lanes, before)

        return step

    def access(self, code: Instruction, where: Address) -> tuple[Memory, int, Read]:
        kind = "" if code.opcode in ("LD", "ST") else code.opcode[-1]
        known = {"E", "STRONG", "GPU", "SYS", "ADD", "LU", *SIZES}  # LU: the last use
        if set(code.modifiers) - known or where.wide != (kind in ("", "G")) or len(where.registers) > 2 - where.wide:
            raise NotImplementedError("such an access")
        size = next((SIZES[m] for m in code.modifiers if m in SIZES), 4)
        reads = [self.pair(x) if where.wide else self.word(x) for x in where.registers]
        bits: Any = np.uint64 if where.wide else np.uint32
        offset = bits(where.offset % (1 << 64 if where.wide else 1 << 32))

        def address() -> Array:
            total = sum((read() for read in reads), np.full(self.threads, offset)).astype(np.uint64)
            return total + self.thread * np.uint64(self.stack_bytes) if kind == "L" else total

        return self.memory[kind], size, address


def run_together(machines: list[Machine]) -> None:
    """The blocks of a launch that wait for each other, in turns."""
    while any([machine.run(TURN) for machine in machines]):  # each has its turn
        pass
