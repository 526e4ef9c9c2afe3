"""What an import meets in a package's directory: libraries that are not whole or not ours, no right to write.

Every case is an interpreter of its own that imports a copy of the package, with its library or its build.json spoiled.
"""

import importlib.util
import os
import platform
import random
import re
import shutil
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import rights
from .children import Outcome, outcomes
from .record import Line

SHORT = {"cuts": 3}
LONG = {"cuts": 400}

PAGE = """\
A copy of the package, its library or its `build.json` spoiled, is imported by an interpreter that then draws and
differentiates, twice. It has to end well, with the samples of the whole library and its gradients within 1e-6, after
one warning that ends with the cause; a call that names the backend has to be refused with that cause. `cut off` and
`zeros` begin at lengths spread over the file, closer at both ends."""

LIBRARY = "libdiscrete_ops_cpu.so"
NO_LIBRARY = "no compiled library"
#: What each spoiled library is refused for, in the words of the loader or of the package.
CAUSES = {
    "cut off": r"the file is cut off|file too short|cannot read file data",
    "zeros": r"not written to its end|file too short|invalid ELF header|is cut off",
    "empty": "file too short",
    "text": "invalid ELF header|file too short",
    "random bytes": "invalid ELF header",
    "a header, then random bytes": r"is cut off|ELF|cannot",
    "another processor": "another processor",
    "32 bits": "wrong ELF class",
    "no operators of ours": "built from other sources",
    "older sources": "built from other sources",
    "a directory": "Is a directory",
    "unreadable": "Permission denied",
    "a link to nothing": "not part of this installation",
    "none": "not part of this installation",
}
OTHERS = ["another build's"]
ABOUT = {
    "none": None,
    "empty": b"",
    "half": b'{"torch": "2.10.0", "namesp',
    "a list": b"[1, 2]",
    "a number": b"3",
    "no UTF-8": b"\xff\xfe\x00",
    "a namespace of no name": b'{"namespace": 3}',
    "without a namespace": b"{}",
    OTHERS[0]: b'{"namespace": "elsewhere"}',
}


def package() -> Path:
    """The package's directory, found without importing it."""
    found = importlib.util.find_spec("discrete_ops")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def copy(to: Path) -> Path:
    """A package without libraries in a directory of packages, which is returned."""
    no_library = shutil.ignore_patterns("*.so", "__pycache__", "triton_kernels")
    shutil.copytree(package(), to / "discrete_ops", ignore=no_library)
    return to


def spoiled(kind: str, whole: bytes, at: int) -> bytes:
    if kind == "cut off":
        return whole[:at]
    if kind == "zeros":
        return whole[:at] + bytes(len(whole) - at)
    if kind in ("random bytes", "a header, then random bytes"):
        kept = whole[:64] if kind.startswith("a header") else b""
        return kept + random.Random(at).randbytes(len(whole) - len(kept))
    if kind == "another processor":  # the number in the header: of AArch64, or of x86-64
        return whole[:18] + (183 if platform.machine() == "x86_64" else 62).to_bytes(2, sys.byteorder) + whole[20:]
    if kind == "32 bits":
        return whole[:4] + b"\x01" + whole[5:]
    if kind == "no operators of ours":
        import torch

        return (Path(torch.__file__).parent / "lib" / "libc10.so").read_bytes()
    if kind == "older sources":  # without what a newer version calls
        return whole.replace(b"sample_ragged", b"sample_rugged")
    return {"empty": b"", "text": b"no library"}.get(kind, whole)


def place(directory: Path, kind: str, at: int) -> None:
    """Have a spoiled library there."""
    path = directory / "discrete_ops" / LIBRARY
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    if kind == "a directory":
        path.mkdir()
    elif kind == "a link to nothing":
        path.symlink_to("nowhere.so")
    elif kind != "none":
        path.write_bytes(spoiled(kind, (package() / LIBRARY).read_bytes(), at))
        path.chmod(0 if kind == "unreadable" else 0o755)


def write(path: Path, content: bytes | None) -> None:
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)


def imported(case: dict[str, Any]) -> dict[str, Any]:
    """Import the package of a case, and use it."""
    assert "discrete_ops" not in sys.modules
    directory = Path(case["directory"])
    if "kind" in case:
        place(directory, case["kind"], case["at"])
    if "about" in case:
        write(directory / "discrete_ops" / "build.json", ABOUT[case["about"]])
    rights.give_up()
    os.environ.update(case.get("environment", {}))
    before = sorted(directory.rglob("*"))
    sys.path.insert(0, str(directory))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        import torch

        import discrete_ops as do

        logits = torch.linspace(-2, 2, 60).reshape(6, 10).requires_grad_()
        drawn = [do.gst(logits, 0.7, seed=seed, return_index=True) for seed in (1, 2)]
        gradients = [torch.autograd.grad(sample, logits, logits.detach().cos())[0] for sample, _ in drawn]
    named = ""
    try:
        do.gst(logits, backend="cpp")
    except ValueError as error:
        named = str(error)
    return {
        "from": str(Path(do.__file__).parent.parent),
        "backends": do.available_backends(),
        "cause": do.build_info()["missing"].get("cpp", ""),  # type: ignore[attr-defined]
        "warned": [str(warning.message) for warning in warned if "discrete_ops" in str(warning.message)],
        "named": named,
        "index": [index.tolist() for _, index in drawn],
        "gradients": torch.stack(gradients).flatten().tolist(),
        "written": os.access(directory / "discrete_ops", os.W_OK) or sorted(directory.rglob("*")) != before,
    }


def fault(outcome: Outcome, case: dict[str, Any], cause: str, good: Outcome) -> str:
    """What does not hold of a child whose library is refused for a cause; of another, the cause is empty."""
    said, whole = outcome.said, good.said
    if not outcome.ended_well or not whole:
        return str(outcome)
    if said["from"] != case["directory"]:
        return f"imported from {said['from']}"
    if said["index"] != whole["index"]:
        return "other samples"
    if max(abs(a - b) for a, b in zip(said["gradients"], whole["gradients"], strict=True)) > 1e-6:
        return "other gradients"
    if case.get("read_only") and said["written"]:
        return "something was written"
    if not cause:
        used = "cpp" in said["backends"] and not said["warned"] and not said["named"]
        return "" if used else f"the library is not used: {said['cause']}, {said['warned']}"
    if "cpp" in said["backends"] or not re.search(cause, said["cause"]):
        return f"another cause: {said['cause'] or 'none'}"
    if [text.endswith(f"(cpp: {said['cause']})") for text in said["warned"]] != [True]:
        return f"warned {said['warned']}"
    return "" if said["named"].endswith(f"({said['cause']})") else f"a call that names it said {said['named']!r}"


def lengths(size: int, number: int) -> list[int]:
    """Where a library is cut: at both ends' headers, and as far from one another as a number of cuts is."""
    edges = [1, 63, 64, 1000, size - 4096, size - 100]
    return sorted({*edges[: number // 2 + 1], *(size * i // (number + 1) for i in range(1, number + 1))})


FALLS_BACK = "the same samples and gradients, one warning that ends with the cause, a named call refused with it"


@dataclass
class Group:
    """Cases of one line, by name, each with the cause that its library is refused for; no cause: it is used."""

    what: str
    asked: str
    cases: list[tuple[str, dict[str, Any], str]]


def groups(sites: dict[str, str], cuts: int) -> list[Group]:
    size = (package() / LIBRARY).stat().st_size
    here, at = {"directory": sites["spoiled"]}, lengths(size, cuts)
    kinds = [kind for kind in CAUSES if kind not in ("cut off", "zeros")]

    def cut(kind: str) -> list[tuple[str, dict[str, Any], str]]:
        return [(f"at {n}", {**here, "kind": kind, "at": n}, CAUSES[kind]) for n in at]

    foreign = [(kind, {**here, "kind": kind, "at": size}, CAUSES[kind]) for kind in kinds]
    described: list[tuple[str, dict[str, Any], str]] = [
        (about, {"directory": sites["described"], "about": about}, CAUSES["older sources"] if about in OTHERS else "")
        for about in ABOUT
    ]
    alone = {
        "directory": sites["read_only"],
        "read_only": True,
        "environment": {"HOME": "/nonexistent", "TMPDIR": "/nonexistent"},
    }
    used = "used, no warning"
    return [
        Group("the library as built", used, [("whole", {**here, "kind": "whole", "at": size}, "")]),
        Group("a library cut off", FALLS_BACK, cut("cut off")),
        Group("a library whose end is zeros", FALLS_BACK, cut("zeros")),
        Group(f"a library that is {', '.join(kinds)}", FALLS_BACK, foreign),
        Group(f"build.json that is {', '.join(ABOUT)}", f"{used}; with {OTHERS[0]}, as a foreign library", described),
        Group("a package that may be read alone, and no home", f"{used}, nothing written", [("read-only", alone, "")]),
    ]


def run(cuts: int) -> list[Line]:
    if not (package() / LIBRARY).exists():
        return [Line.untried("what an import meets", "imports", FALLS_BACK, NO_LIBRARY)]
    with tempfile.TemporaryDirectory() as directory:
        sites = {name: copy(Path(directory, name)) for name in ("spoiled", "described", "read_only")}
        for name in ("described", "read_only"):
            shutil.copy(package() / LIBRARY, sites[name] / "discrete_ops")
        closed = sites["read_only"], sites["read_only"] / "discrete_ops"
        for path in closed:
            path.chmod(0o555)
        tried = groups({name: str(site) for name, site in sites.items()}, cuts)
        found = outcomes(imported, [case for group in tried for _, case, _ in group.cases])
        for path in closed:
            path.chmod(0o755)
    lines, whole, each = [], found[0], iter(found)
    for group in tried:
        words = {name: fault(next(each), case, cause, whole) for name, case, cause in group.cases}
        faults = [f"{name}: {fault}" for name, fault in words.items() if fault]
        lines.append(Line.of(group.what, len(words), "imports", group.asked, faults).printed())
    return lines
