"""The CPU library under AddressSanitizer, UndefinedBehaviourSanitizer and ThreadSanitizer."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .record import Line

PAGE = """\
The library is built twice more (`DISCRETE_OPS_SANITIZE=address`, `thread`) and runs the kernels' tests, and every
estimator by eight Python threads at once, each alone and beside threads of torch's. ThreadSanitizer sees the library
alone: torch, OpenMP and Python are not instrumented. What torch's loops order is told in `csrc/cpu/parallel_for.h`; no
report is suppressed. Each sanitizer first finds a fault that is planted. compute-sanitizer runs on the GPU's kernels in
`bench/gpu_check.sh`.
"""

SHORT = {"whole_library": False}
LONG = {"whole_library": True}

ROOT = Path(__file__).parent.parent
HERE = Path(__file__).parent
FLAGS = {
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    "thread": ["-fsanitize=thread"],
}
#: Name of a build -> the sanitizers in it, by the fault that each must find.
FAULTS = {"address": ("address", "undefined"), "thread": ("thread",)}
NAMES = {
    "address": "AddressSanitizer and UndefinedBehaviourSanitizer",
    "undefined": "UndefinedBehaviourSanitizer",
    "thread": "ThreadSanitizer",
}
REPORT = re.compile(r"(?:ERROR|WARNING): (?:Address|Thread|Leak)Sanitizer|runtime error:")
#: Under ThreadSanitizer most take long, and have no threads but torch's.
TESTS = {"address": ("kernels", "cpp_library", "contract", "many", "ragged"), "thread": ("cpp_library", "contract")}
LIBRARIES = {"address": ("libasan.so", "libubsan.so"), "thread": ("libtsan.so",)}
#: Python keeps what it has, and torch leaks at exit; UBSan says where.
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "exitcode=66",
}


def run(whole_library: bool) -> list[Line]:
    lines = []
    for build in FLAGS:
        if reason := obstacle(build):
            lines.append(Line.untried(NAMES[build], "calls", "no report", reason))
            continue
        lines += [planted(build, fault) for fault in FAULTS[build]]
        lines += [*in_python(build)] if whole_library else [alone(build)]
    return lines


def obstacle(build: str) -> str | None:
    """Why nothing can be compiled for it here, or None."""
    what = f"no C++ compiler with {NAMES[build]}"
    if shutil.which("c++") is None:
        return what
    with tempfile.TemporaryDirectory() as directory:
        link = ["c++", "-x", "c++", "-", *FLAGS[build], "-o", str(Path(directory, "empty"))]
        done = subprocess.run(link, input="int main() {}", capture_output=True, text=True)
    return f"{what}: {done.stderr.strip()[-200:]}" if done.returncode else None


def planted(build: str, fault: str) -> Line:
    """Whether a sanitizer reports a fault, and nothing where there is none."""
    with tempfile.TemporaryDirectory() as directory:
        probe = compiled("sanitizer_probe.cpp", build, Path(directory))
        done = [command([str(probe), kind]) for kind in ("none", fault)]
    reports = [len(REPORT.findall(said)) for _, said in done]
    holds = done[0][0] == 0 and done[1][0] != 0 and reports[0] == 0 and reports[1] > 0
    found = f"{reports[1]} reports, {reports[0]} without it"
    what = f"a fault planted for {NAMES[fault].split(' and ')[0]}"
    return Line(what, 1, "fault", "it is reported", found, holds).printed()


def alone(build: str) -> Line:
    """The kernels without torch, by eight threads at once."""
    with tempfile.TemporaryDirectory() as directory:
        program = compiled("sanitized_kernels.cpp", build, Path(directory))
        status, said = command([str(program)])
    return _calls(f"kernels without torch, eight threads at once: {NAMES[build]}", status, said)


def in_python(build: str) -> list[Line]:
    """The whole library, built with the sanitizer: the kernels' tests, and eight Python threads at once."""
    base = ROOT / f"build/sanitize_{build}"
    arguments = ["--quiet", "build", "--build-base", str(base), "--build-lib", str(base / "lib")]
    environment = {**os.environ, "DISCRETE_OPS_SANITIZE": build}
    subprocess.run([sys.executable, "setup.py", *arguments], cwd=ROOT, env=environment, check=True)
    preloaded = [_library(name) for name in LIBRARIES[build]]
    environment = {**os.environ, **OPTIONS, "LD_PRELOAD": " ".join(preloaded), "OMP_NUM_THREADS": "2"}
    tests = [f"tests/test_{name}.py" for name in TESTS[build]]
    pytest = ["-m", "pytest", "-q", "-s", *tests, "-o", f"pythonpath={base / 'lib'}", "-p", "no:cacheprovider"]
    status, said = command([sys.executable, *pytest, "-k", "not memory"], environment)
    passed = int((re.search(r"(\d+) passed", said) or [0, 0])[1])
    reports = len(REPORT.findall(said))
    found = f"{passed:,} passed, {reports} reports" + _first(said, status)
    what = f"the kernels' tests: {NAMES[build]}"
    holds = not status and passed > 0 and not reports
    lines = [Line(what, passed, "tests", "all pass, no report", found, holds).printed()]
    environment["PYTHONPATH"] = f"{base / 'lib'}:{ROOT}"
    for threads in (1, 2):
        program = ["-m", "proof.sanitized_calls", str(threads), "4"]
        done = command([sys.executable, *program], environment, base)  # where no other discrete_ops is
        torch = "one of torch's each" if threads == 1 else "two of torch's each"
        lines.append(_calls(f"the library, eight Python threads at once, {torch}: {NAMES[build]}", *done))
    return lines


def compiled(source: str, build: str, directory: Path) -> Path:
    flags = [
        "-std=c++17",
        "-O1",
        "-g1",
        "-Wno-psabi",
        "-fno-math-errno",
        "-fno-trapping-math",
        "-pthread",
        *FLAGS[build],
    ]
    program = directory / Path(source).stem
    subprocess.run(["c++", *flags, str(HERE / source), "-o", str(program)], check=True)
    return program


def command(arguments: list[str], environment: dict[str, str] | None = None, directory: Path = ROOT) -> tuple[int, str]:
    environment = environment or {**os.environ, **OPTIONS}
    out, err = subprocess.PIPE, subprocess.STDOUT
    done = subprocess.run(arguments, cwd=directory, env=environment, text=True, stdout=out, stderr=err)
    return done.returncode, done.stdout


def _library(name: str) -> str:
    found = subprocess.run(["c++", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def _calls(what: str, status: int, said: str) -> Line:
    calls, reports = int((re.search(r"(\d+) calls", said) or [0, 0])[1]), len(REPORT.findall(said))
    found = f"{reports} reports" + _first(said, status)
    holds = not status and calls > 0 and not reports
    return Line(what, calls, "calls", "no report; every thread's result as alone", found, holds).printed()


def _first(said: str, status: int) -> str:
    """The first report, or how a program ended that gives none."""
    report = REPORT.search(said)
    if report is None:
        return f"; ended with {status}: {said.strip()[-300:]}" if status else ""
    return "; first: " + " ".join(said[report.start() :][:400].split())
