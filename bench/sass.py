"""What the CUDA kernels cost a thread in machine instructions, without a GPU: the figures behind their design.

python -m bench.sass [--markdown FILE] [--source DIRECTORY]

Instructions: each case is compiled for sm_90 with its launch known (``sass_probe.cu``: shape, threads a row, estimator,
float32, temperature 1), so that no branch on the launch is left, and the path of a row that has a sample and no value
beyond 2^100 is walked, blocks for rare rows skipped. An instruction of a loop over draws counts once a draw. That
compares versions of the kernels' own work; it is less than what runs (``bench.sass_run``), for the kernels as shipped
also find out what is known here.
Registers and stack: of the built library's own kernels.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import discrete_ops

ROOT = Path(__file__).parent.parent
LIBRARY = Path(discrete_ops.__file__).parent / "libdiscrete_ops_cuda.so"
#: A jump back over more than this, in bytes, closes the loop over draws; a shorter one, that over a team's lanes, which
#: older checkouts have.
LONG = 0x1000
#: How the kernels' template parameters are called in the tables.
NAMES = {"Mode": ("pull-back", "soft", "tau"), "Serves": ("all", "without draws", "with draws", "MVE")}


class Case(NamedTuple):
    what: str
    columns: int
    team: int
    quads: int
    flags: tuple[str, ...]
    asked: int | None
    a_draw: bool = False


CASES = [
    Case("Gumbel-Rao pull-back, a draw", 10, 1, 3, ("-DESTIMATOR=kGumbelRao",), 500, a_draw=True),
    Case("Gumbel-softmax pull-back", 64, 4, 4, ("-DESTIMATOR=kGumbelRao", "-DONE_DRAW"), 1100),
    Case("straight-through pull-back", 64, 4, 4, ("-DESTIMATOR=kStraightThrough",), None),
    Case("GST pull-back", 64, 4, 4, ("-DESTIMATOR=kGST",), None),
    Case("ReinMax pull-back", 64, 4, 4, ("-DESTIMATOR=kReinMax",), None),
    Case("forward", 10, 1, 3, ("-DESTIMATOR=kStraightThrough", "-DSAMPLE"), None),
    Case("forward", 64, 4, 4, ("-DESTIMATOR=kStraightThrough", "-DSAMPLE"), 480),
    Case("forward", 1024, 64, 4, ("-DESTIMATOR=kStraightThrough", "-DSAMPLE"), 650),
]


class Instruction(NamedTuple):
    at: int
    text: str

    @property
    def target(self) -> int | None:
        """Where a conditional jump goes, but one to code that serves diverged warps."""
        match = re.match(r"@!?U?P\d+ BRA(?:\.U\w*)? 0x([0-9a-f]+)", self.text)
        return int(match[1], 16) if match else None


def tool(name: str) -> str:
    """A program of CUDA's, or the one that Triton brings."""
    places = [shutil.which(name), f"/usr/local/cuda/bin/{name}"]
    places += [str(path / "triton/backends/nvidia/bin" / name) for path in map(Path, sys.path)]
    for place in places:
        if place and Path(place).exists():
            return place
    raise SystemExit(f"{name} is neither on the PATH, nor CUDA's, nor Triton's")


def printed(*options: str) -> str:
    """By cuobjdump."""
    return subprocess.run([tool("cuobjdump"), *options], check=True, capture_output=True, text=True).stdout


def listing(case: Case, source: Path) -> list[Instruction]:
    shape = [f"-DCOLUMNS={case.columns}", f"-DTEAM={case.team}", f"-DQUADS={case.quads}"]
    with tempfile.TemporaryDirectory() as directory:
        cubin = Path(directory) / "probe.cubin"
        command = [
            tool("nvcc"),
            "-O3",
            "-std=c++17",
            "-arch=sm_90",
            "-cubin",
            f"-I{source / 'csrc'}",
            *shape,
            *case.flags,
        ]
        subprocess.run([*command, str(source / "bench/sass_probe.cu"), "-o", str(cubin)], check=True)
        return parse(printed("-sass", str(cubin)))


def parse(said: str) -> list[Instruction]:
    found = re.findall(r"/\*([0-9a-f]{4,5})\*/\s+(.*?)\s*;", said)
    return [Instruction(int(at, 16), text) for at, text in found]


def executed(code: list[Instruction], team: int) -> tuple[int, int]:
    """Instructions of a thread's whole path, its loops over draws taken once; and of such a loop's body.

    A forward jump that is taken skips what few rows need: the walk takes those that skip a block with arithmetic of its
    own but no store, load or shuffle, which the paths of every row have.
    """
    index = {instruction.at: number for number, instruction in enumerate(code)}
    steps = max(1, min(team, 32).bit_length() - 1)
    total, draw, at, taken = 0, 0, 0, dict[int, int]()
    visited: list[int] = []
    while at < len(code):
        instruction = code[at]
        total += 1
        visited.append(at)
        if instruction.text == "EXIT":
            break
        target = instruction.target
        if target is None and (jump := re.match(r"BRA 0x([0-9a-f]+)", instruction.text)):
            at = index[int(jump[1], 16)]
            continue
        at += 1
        if target is None:
            continue
        if target <= instruction.at:  # a loop
            if instruction.at - target > LONG:
                draw = len(visited) - len(visited[: visited.index(index[target])])
                continue
            taken[instruction.at] = taken.get(instruction.at, 1) + 1
            if taken[instruction.at] <= steps:
                at = index[target]
            else:
                del taken[instruction.at]
        elif is_rare(code, at, index[target], index):
            at = index[target]
    return total, draw


def is_rare(code: list[Instruction], at: int, target: int, index: dict[int, int]) -> bool:
    """Whether what a jump skips serves few rows: those without a sample or with masks or huge values.

    Such blocks only compute; of two alternatives, the one that does more.
    """
    block = code[at:target]
    if re.search(r"\b(LDG|STG|ST|LD|MUFU|IMAD\.HI|SHFL)\b", " ".join(instruction.text for instruction in block)):
        return False
    otherwise = re.match(r"BRA 0x([0-9a-f]+)", block[-1].text)
    return not otherwise or len(block) > index[int(otherwise[1], 16)] - target


def resources() -> dict[str, tuple[int, int]]:
    """Kernel -> registers and bytes of stack, on sm_90, of the built library."""
    said = printed("--dump-resource-usage", str(LIBRARY))
    found, architecture = {}, ""
    for line, following in zip(said.splitlines(), [*said.splitlines()[1:], ""], strict=True):
        if match := re.search(r"arch = (sm_\w+)|\.(sm_\w+)\.cubin", line):
            architecture = match[1] or match[2]
        if (match := re.search(r"Function (\S+):", line)) and architecture == "sm_90":
            usage = re.search(r"REG:(\d+) STACK:(\d+)", following)
            assert usage is not None, following
            found[demangled(match[1])] = int(usage[1]), int(usage[2])
    return found


def demangled(name: str) -> str:
    said = subprocess.run(["c++filt", name], check=True, capture_output=True, text=True).stdout.strip()
    short = re.sub(r"discrete_ops::|cuda::|void |\(Call\)", "", said)
    for enumeration, names in NAMES.items():
        short = re.sub(rf"\({enumeration}\)(\d)", lambda m, names=names: names[int(m[1])], short)
    return short


def table(source: Path) -> str:
    lines = [
        "| what | N | threads a row | quads | instructions a thread | an element | asked |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for case in CASES:
        total, draw = executed(listing(case, source), case.team)
        count = draw if case.a_draw else total
        element = count / (case.columns / case.team)
        asked = f"<= {case.asked}" if case.asked else ""
        lines.append(
            f"| {case.what} | {case.columns} | {case.team} | {case.quads} | {count} | {element:.0f} | {asked} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", type=Path, help="write the tables here, too")
    parser.add_argument("--source", type=Path, default=ROOT, help="a checkout whose kernels are counted")
    options = parser.parse_args()
    lines = [table(options.source), "", "| kernel | registers | bytes of stack |", "|---|---:|---:|"]
    lines += [f"| `{name}` | {registers} | {stack} |" for name, (registers, stack) in sorted(resources().items())]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if options.markdown:
        options.markdown.write_text(text)


if __name__ == "__main__":
    main()
