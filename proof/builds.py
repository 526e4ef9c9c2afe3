"""Interpreters import while one builds: each finds the library of before or the new one, whole.

The tree's own ``setup.py build_ext --inplace`` runs in a copy, with a compiler whose objects are empty and whose link
writes a library that was built before, slowly.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from . import installs
from .children import ROOT, outcome, outcomes
from .installs import LIBRARY, NO_LIBRARY, imported, package
from .record import Line

SHORT = {"builds": 1}
LONG = {"builds": 25}

PAGE = """\
In a copy of the source tree `setup.py build_ext --inplace` builds again and again, each library with another ending,
linked over half a second. Meanwhile one thread looks at the library and at `build.json` without a rest, and processes
import the package, draw and differentiate."""

#: A compiler's arguments in, empty objects out; the link of our library is slow.
COMPILER = """\
#!{python}
import os, subprocess, sys, time
arguments = sys.argv[1:]
if any(a in arguments for a in ("-dM", "-fsyntax-only")) or any("-print-file-name" in a for a in arguments):
    sys.exit(subprocess.run(["c++", *arguments]).returncode)
for option, path in zip(arguments, arguments[1:]):
    if option in ("-o", "-MF"):
        whole = open(os.environ["LINKED"], "rb").read() if path.endswith("{library}") else b""
        with open(path, "wb", buffering=0) as file:
            for part in range(0, len(whole), len(whole) // 20 + 1):
                file.write(whole[part : part + len(whole) // 20 + 1])
                time.sleep(0.025)
"""


def project(directory: Path) -> Path:
    """A source tree, and beside it the compiler."""
    tree = installs.copy(directory / "tree")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("csrc", "triton_kernels"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    compiler = directory / "c++"
    compiler.write_text(COMPILER.format(python=sys.executable, library=LIBRARY))
    compiler.chmod(0o755)
    return tree


def linked(directory: Path, number: int) -> Path:
    """What build number so and so links: the same code, another end."""
    path = directory / f"{number}.so"
    path.write_bytes((package() / LIBRARY).read_bytes() + ending(number))
    return path


def ending(number: int) -> bytes:
    return f"build {number:06}".encode()


def build(tree: Path, library: Path) -> None:
    (tree / "csrc" / "cpu" / "ops.cpp").touch()
    environment = {**os.environ, "CXX": str(library.parent / "c++"), "LINKED": str(library), "DISCRETE_OPS_CUDA": "0"}
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the build ended with {done.returncode}: {done.stderr[-2000:]}")


class Watch(threading.Thread):
    """Looks at the library, from its opening to its end, and at build.json until it is told to stop."""

    def __init__(self, place: Path) -> None:
        super().__init__()
        self.place, self.looks, self.faults, self.stopped = place, 0, set[str](), False
        self.size = (package() / LIBRARY).stat().st_size + len(ending(0))

    def run(self) -> None:
        while not self.stopped:
            self.looks += 1
            try:
                with open(self.place / LIBRARY, "rb", buffering=0) as file:
                    size = file.seek(-len(ending(0)), os.SEEK_END) + len(ending(0))
                    if size != self.size or not file.read().startswith(b"build "):
                        self.faults.add(f"{size} bytes of {self.size}")
                if not (self.place / "build.json").read_bytes().endswith(b"}"):
                    self.faults.add("a part of build.json")
            except OSError as error:
                self.faults.add(f"{type(error).__name__}: {error}")
            time.sleep(0.0002)  # a copy takes milliseconds


def imports_until(case: dict[str, Any]) -> dict[str, Any]:
    """Import again and again, each time in another child, until a file is there."""
    done, faults, count, first = Path(case["done"]), [], 0, None
    while not done.exists() or count < 2:
        now = outcome(imported, case, 60)
        first, count = first or now, count + 1
        Path(case["begun"]).touch()
        faults += [words for words in [installs.fault(now, case, "", first)] if words]
        time.sleep(0.4)
    return {"count": count, "faults": faults}


def run(builds: int) -> list[Line]:
    what, asked = "imports while another interpreter builds", "the library of before or the new one, whole, and used"
    if not (package() / LIBRARY).exists() or shutil.which("c++") is None:
        return [Line.untried(what, "imports", asked, NO_LIBRARY if shutil.which("c++") else "no C++ compiler")]
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        tree, begun, done = project(directory), directory / "begun", directory / "done"
        place = tree / "discrete_ops"
        shutil.copy(linked(directory, 0), place / LIBRARY)
        case = {"directory": str(tree), "begun": str(begun), "done": str(done)}
        said: list[Any] = []
        importing = threading.Thread(target=lambda: said.extend(outcomes(imports_until, [case], 60 + 60 * builds)))
        watch = Watch(place)
        importing.start()
        while not begun.exists() and importing.is_alive():
            time.sleep(0.01)
        watch.start()
        try:
            for number in range(1, builds + 1):
                build(tree, linked(directory, number))
                watch.faults |= (
                    set() if (place / LIBRARY).read_bytes().endswith(ending(number)) else {"the old one stays"}
                )
                print(
                    f"builds: {number} of {builds}, looked {watch.looks} times, {watch.faults or 'whole'}", flush=True
                )
        finally:
            watch.stopped = True
            watch.join()
            done.touch()
            importing.join()
    (imports,) = said
    faults = [str(imports)] if not imports.ended_well else imports.said["faults"]
    count = imports.said["count"] if imports.said else 0
    return [
        Line.of(f"{what}, {builds} times", count, "imports", asked, faults),
        Line.of(
            "looks at the library and at build.json meanwhile",
            watch.looks,
            "looks",
            "there and whole",
            sorted(watch.faults),
        ),
    ]
