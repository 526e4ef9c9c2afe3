"""A wheel in fresh environments: every torch with every Python, and with nothing but what the wheel asks for.

python -m bench.wheels dist/discrete_ops-*.whl [--torch 2.10.0 ...] [--python 3.10 ...]

A cell makes a virtual environment, installs a torch and the wheel with uv, and runs wheels_smoke.py in it, away from
the source tree. Cells are kept in build/wheels.jsonl and, but for failed ones, run once for a wheel; the table,
results/wheels.md, is written after each. A torch with CUDA is some gigabytes: the Pythons share what was downloaded for
it, and it goes before the next one comes.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent.resolve()
BUILD = HERE.parent / "build"
TORCHES = ("2.10.0", "2.11.0", "2.12.1", "2.13.0", "2.14.1", "2.15.0")
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
SECONDS = 1200  #: a cell's limit; most of it is for downloads
TABLE = """\
`{wheel}`, built of commit {commit}; {machine}; `python -m bench.wheels`

A cell is a fresh environment of a torch, the wheel and what they ask for, where `bench/wheels_smoke.py` ran: every
estimator on the C++ kernels against the reference on one seed, and torch.compile of one as one graph. After ok: the
torch that came, and the libraries of the wheel that it loaded (`cuda` without a GPU: loaded, not run).

| torch | {pythons} |
|---|{rule}
{rows}

{reasons}
{ok} cells are ok, {bare} of them without numpy. Indices are equal; the largest difference of a gradient, in float32, is
{difference:.1e}.
"""


def last_line(said: str) -> str:
    """The last that names an error, as hints may follow; or the last of any."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(error|cause):|[\w.]+(Error|Exception|Interrupt)\b", line)]
    return [*lines, *errors][-1] if lines else "no message"


def cell(wheel: Path, torch: str, python: str, directory: Path) -> dict[str, Any]:
    """What the smoke test said in a fresh environment, or why there was none: ``state`` ok, failed or not reachable."""
    until, here = time.monotonic() + SECONDS, directory / "environment"
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"UV_CACHE_DIR": str(directory / "cache"), "UV_PYTHON_DOWNLOADS": "never", "PYTHONNOUSERSITE": "1"}
    environment["TORCHINDUCTOR_CACHE_DIR"] = str(here / "inductor")
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        raise SystemExit("bench.wheels: no uv beside this Python or in PATH; pip install uv brings it")
    executable = "bin/python"
    install = [uv, "pip", "install", "--python", executable, "--only-binary", ":all:"]
    steps = [
        # Seeded as Python's own venv is: torch's compiler takes setuptools from there, without asking for it.
        ("not reachable", [uv, "venv", "--quiet", "--clear", "--seed", "--python", python, "."]),
        ("not reachable", [*install, "--dry-run", f"torch=={torch}"]),
        ("failed", [*install, f"torch=={torch}", str(wheel)]),
        ("failed", [uv, "pip", "check", "--python", executable]),
        ("failed", [executable, str(HERE / "wheels_smoke.py")]),
    ]
    shutil.rmtree(here, ignore_errors=True)  # an interrupted run leaves half of one
    here.mkdir(parents=True)
    for state, command in steps:
        limit = max(1.0, until - time.monotonic())
        try:
            done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            return {"state": "failed", "why": f"not done after {SECONDS} s"}
        if done.returncode:
            return {"state": state, "why": last_line(done.stderr or done.stdout)}
    return {"state": "ok", **json.loads(last_line(done.stdout))}


def table(wheel: str, commit: str, cells: dict[tuple[str, str], dict[str, Any]]) -> str:
    torches = sorted({torch for torch, _ in cells}, key=lambda torch: [*map(int, torch.split("."))])
    pythons = sorted({python for _, python in cells}, key=lambda python: [*map(int, python.split("."))])
    rows, reasons = [], list[str]()
    for torch in torches:
        row = [torch]
        for python in pythons:
            found = cells.get((torch, python), {"state": "not run"})
            if found["state"] == "ok":
                row.append(f"ok: {', '.join(found['loaded'])}")
            elif "why" in found:
                reasons += [] if found["why"] in reasons else [found["why"]]
                row.append(f"{found['state']} ({reasons.index(found['why']) + 1})")
            else:
                row.append(found["state"])
        rows.append(f"| {' | '.join(row)} |")
    ran = [found for found in cells.values() if found["state"] == "ok"]
    return TABLE.format(
        wheel=wheel,
        commit=commit,
        machine=f"{platform.system()} {platform.machine()}",
        pythons=" | ".join(f"Python {python}" for python in pythons),
        rule="---|" * len(pythons),
        rows="\n".join(rows),
        reasons="".join(f"{number}. {reason}\n" for number, reason in enumerate(reasons, 1)) or "Every cell was run.\n",
        ok=len(ran),
        bare=sum(not found["numpy"] for found in ran),
        difference=max((found["difference"] for found in ran), default=float("nan")),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--commit", required=True, help="what the wheel was built of")
    parser.add_argument("--torch", nargs="+", default=TORCHES)
    parser.add_argument("--python", nargs="+", default=PYTHONS)
    flags = parser.parse_args()
    digest, kept = hashlib.sha256(flags.wheel.read_bytes()).hexdigest(), BUILD / "wheels.jsonl"
    BUILD.mkdir(exist_ok=True)
    lines = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    cells = {(line["torch"], line["python"]): line for line in lines if line["wheel"] == digest}
    directory = BUILD / "wheels"  # one file system, so that uv links instead of copying
    for torch in flags.torch:
        for python in flags.python:
            if cells.get((torch, python), {"state": "failed"})["state"] == "failed":
                found = cell(flags.wheel.resolve(), torch, python, directory)
                cells[torch, python] = {**found, "wheel": digest, "torch": torch, "python": python}
                with kept.open("a") as file:
                    file.write(json.dumps(cells[torch, python]) + "\n")
                print(torch, python, found["state"], found.get("why", ""), flush=True)
                (HERE / "results" / "wheels.md").write_text(table(flags.wheel.name, flags.commit, cells))
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
