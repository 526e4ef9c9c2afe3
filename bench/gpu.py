"""The GPU side of the project in two commands: does it run and is it right, then how fast, and what they say.

python -m bench.gpu {1,2,all} [--commit HASH] [--only STAGE ...] [--device cpu]

1 is the cuda backend: load, every kernel against the reference, figures, tests, sanitizers, profile; 290 seconds at
most. 2 is what changed since, torch.compile as comparator, triton, CUDA graphs; 390 at most. The library is the one
that lies in discrete_ops; where it does not load it is built. Results are written after each stage to
``bench/results/<device>-<date>.json`` (or into the directory $OUT, with every log in ``logs.tar.gz``), and as a table
to the ``.md`` beside it; 2 adds to what 1 wrote at the same commit.
``--device cpu`` rehearses both where there is no GPU, with the cpp backend in cuda's place; its figures mean nothing.
"""

import argparse
import datetime
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .gpu_report import markdown
from .stage import ROOT, Stage, last_line, pack, run, verdict

#: Seconds that each command may take in all, with some to spare for its own start.
LIMITS = {"1": 280, "2": 380, "all": 660}
SECTIONS = ("SpeedOfLight", "MemoryWorkloadAnalysis", "Occupancy", "LaunchStats", "WarpStateStats")


def plans(device: str, results: Path) -> dict[str, dict[str, Stage]]:
    """The stages of each command, what matters most first."""
    python, gpu = sys.executable, device != "cpu"
    backend = "cuda" if gpu else "cpp"
    of_cuda, one_thread = ["--backend", backend, "--device", device], {"OMP_NUM_THREADS": "1"}
    pytest = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "bench.limit"]
    workers = ["-n", "8"] if gpu and importlib.util.find_spec("xdist") else []
    slow = {"TEST_LIMIT": "90"}  # a first call compiles

    def smoke(what: str, limit: int, *flags: str) -> Stage:
        return Stage([python, "-m", "bench.gpu_smoke", what, *(flags or of_cuda)], limit)

    def measure(stage: str, limit: int, name: str = "", *flags: str) -> Stage:
        path = results / f"{name or stage}.json"
        command = [python, "-m", "bench.gpu_measure", stage, str(path), "--device", device]
        return Stage([*command, *(flags or ("--backend", backend))], limit)

    def sanitizer(tool: str) -> Stage:
        command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "7"]
        checked = smoke("sanitized", 60)
        return Stage([*command, *checked.command], 60, {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})

    profiled = [
        "ncu",
        "--clock-control",
        "none",
        "-k",
        "regex:(sample|surrogate)_",
        *(f"--section={s}" for s in SECTIONS),
    ]
    parity = ["tests/test_kernels.py", "-k", "cuda-cuda" if gpu else "groups_of_seeds and cpp"]
    first = {
        "load": smoke("load", 30),
        "smoke": smoke("check", 75),
        "bandwidth": measure("bandwidth", 60),
        "gumbel_rao": measure("gumbel_rao", 30),
        "small": measure("small", 40),
        "parity": Stage([*pytest, *workers, *parity], 75, one_thread),
        "gpu_tests": Stage([*pytest, "tests/test_cuda.py", "-k", "not triton and not compiled"], 60),
        "memcheck": sanitizer("memcheck"),
        "racecheck": sanitizer("racecheck"),
        "ncu": Stage([*profiled, *smoke("profile", 45).command], 45),
    }
    second = {
        "load": smoke("load", 30),
        "smoke": smoke("check", 75),
        "compared": measure("compared", 100, "", "--backend", backend),
        "graphs": Stage([*pytest, "tests/test_cuda_study.py"], 60),
        "compiled": Stage([*pytest, "tests/test_cuda.py", "-k", "compiled"], 100, slow),
        "bandwidth": measure("bandwidth", 60),
        "gumbel_rao": measure("gumbel_rao", 30),
    }
    if gpu:
        of_triton = ["--backend", "triton", "--device", device]
        tests = ["tests/test_kernels.py", "tests/test_triton.py", "-k", "triton-cuda or test_triton"]
        second |= {
            "triton_smoke": smoke("load", 40, *of_triton),
            "triton_bandwidth": measure("bandwidth", 80, "triton_bandwidth", "--backend", "triton"),
            "triton_tests": Stage([*pytest, *workers, *tests], 150, one_thread | slow),
            "triton_gpu_tests": Stage([*pytest, "tests/test_cuda.py", "-k", "triton and not compiled"], 60, slow),
        }
    return {"1": first, "2": second, "all": {**first, **second}}


def building(device: str) -> Stage:
    """The library from source, for this machine's GPU alone."""
    environment = {"DISCRETE_OPS_CUDA": "1" if device != "cpu" else "0"}
    if device != "cpu":
        environment["TORCH_CUDA_ARCH_LIST"] = own_architecture()
    return Stage([sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"], 120, environment)


def own_architecture() -> str:
    import torch

    return "{}.{}".format(*torch.cuda.get_device_capability()) if torch.cuda.is_available() else ""


def about(commit: str | None) -> dict[str, Any]:
    """What the figures were taken on."""
    import torch

    info: dict[str, Any] = {"date": datetime.date.today().isoformat(), "torch": torch.__version__, "commit": commit}
    if commit is None:
        info["commit"] = "unknown"
        if shutil.which("git"):
            git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
            info["commit"] = git.stdout.strip() or "unknown"
    try:
        import triton

        info["triton"] = triton.__version__
    except ImportError:
        info["triton"] = None
    if torch.cuda.is_available():
        info["device"] = torch.cuda.get_device_name()
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        if shutil.which(query[0]):
            info["driver"] = subprocess.run(query, capture_output=True, text=True).stdout.strip().split("\n")[0]
    else:
        info["device"] = "CPU (what is measured here means nothing)"
    return info


class Results:
    """What was found so far: on disk after every stage, whole at any moment."""

    def __init__(self, info: dict[str, Any], path: Path, before: Path | None = None) -> None:
        self.path = path
        self.all: dict[str, Any] = {"about": info, "stages": {}, "figures": {}}
        if before and before.exists():
            known = json.loads(before.read_text())
            if known["about"].get("commit") == info["commit"] != "unknown":
                self.all |= {"stages": known["stages"], "figures": known["figures"]}

    def add(self, name: str, outcome: dict[str, Any], figures: Path) -> None:
        self.all["stages"][name] = outcome
        if figures.exists():  # what a stage measured before it failed counts too
            self.all["figures"][name] = json.loads(figures.read_text())
        else:
            self.all["figures"].pop(name, None)
        for target, text in (
            (self.path, json.dumps(self.all, indent=1) + "\n"),
            (self.path.with_suffix(".md"), markdown(self.all)),
        ):
            unfinished = target.with_name(f"{target.name}.new")
            unfinished.write_text(text)
            os.replace(unfinished, target)


def verify(
    plan: dict[str, Stage], build: Stage, limit: float, results: Results, scratch: Path, logs: Path, strict: bool
) -> list[str]:
    """Run a plan's stages; returns the names of those that failed, or with ``strict`` could not be covered either.

    Without a library that loads, built here if need be, nothing is worth running: every later stage fails with that.
    """
    began, failed, stop = time.monotonic(), [], ""
    queue = list(plan.items())
    while queue:
        name, stage = queue.pop(0)
        figures, log = scratch / f"{name}.json", scratch / f"{name}.log"
        figures.unlink(missing_ok=True)
        left = limit - (time.monotonic() - began)
        if stop:
            outcome: dict[str, Any] = {"passed": False, "covered": True, "seconds": 0.0, "reason": stop}
            print(f"{name}: FAILED  {stop}"[:200], flush=True)
        else:
            outcome = run(name, stage._replace(limit=min(stage.limit, left)), log)
        results.add(name, outcome, figures)
        pack(scratch, logs)
        if strict and not outcome["covered"]:
            failed.append(name)
        if verdict(outcome) == "FAILED":
            failed.append(name)
            if name == "load" and "build" not in plan:
                queue[:0] = [("build", build), ("load_built", stage)]
            elif name in ("build", "load_built") and not stop:
                stop = f"NOT RUN: {name} failed: {last_line(log)}"
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=LIMITS)
    parser.add_argument("--commit", default=os.environ.get("COMMIT"), help="what is measured, where there is no .git")
    parser.add_argument("--only", nargs="+", metavar="STAGE", help="these stages alone")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    options = parser.parse_args()
    info, scratch = about(options.commit), ROOT / "build" / "gpu"
    directory = Path(os.environ.get("OUT") or (ROOT / "bench/results" if options.device == "cuda" else scratch))
    shutil.rmtree(scratch, ignore_errors=True)
    for needed in (directory, scratch):
        needed.mkdir(parents=True, exist_ok=True)
    device = re.sub(r"\W+", "-", info["device"]).strip("-").lower()
    name = f"{'rehearsal' if options.device == 'cpu' else device}-{info['date']}.json"
    plan = plans(options.device, scratch)[options.part]
    if unknown := set(options.only or ()) - set(plan):
        raise SystemExit(f"--only: got {', '.join(sorted(unknown))}, allowed: {', '.join(plan)}")
    chosen = {key: stage for key, stage in plan.items() if key in (options.only or plan)}
    logs = (directory if os.environ.get("OUT") else scratch) / "logs.tar.gz"
    results = Results(info, directory / name, ROOT / "bench/results" / name)
    strict = options.device != "cpu"  # a GPU that lacks a tool has not been verified
    failed = verify(chosen, building(options.device), LIMITS[options.part], results, scratch, logs, strict)
    print(f"\n{markdown(results.all)}\n{results.path}; logs: {logs}")
    raise SystemExit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
