"""The GPU side of the project in one command: build, tests, sanitizer, benchmarks, and what they say.

python -m bench.gpu [--commit HASH] [--only STAGE ...] [--device cpu]

Every stage is a process with a time limit of its own, and so have all together; one that fails hides no other. Results
are written after each stage to ``bench/results/<device>-<date>.json`` (or into the directory $OUT), and as a table to
the ``.md`` beside it.
``--device cpu`` tries the driver and the benchmarks' code where there is no GPU; its figures mean nothing.
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
from typing import Any, NamedTuple

from .gpu_report import markdown

ROOT = Path(__file__).parent.parent
MEASURED = ("bandwidth", "small", "gumbel_rao")
LIMIT = 570  #: seconds for all stages


class Stage(NamedTuple):
    command: list[str]
    limit: int  # seconds
    environment: dict[str, str] = {}  # noqa: RUF012  (never changed)


SANITIZED = """
import torch
from discrete_ops import reference
from discrete_ops.backends import get

kernels, seed = get("cuda"), torch.tensor([1], device="cuda")
for shape in ((5, 10), (3, 300), (2, 5000)):
    x, v = torch.randn(shape, device="cuda"), torch.randn(shape, device="cuda")
    index = kernels.sample(x, seed)[1]
    for estimator in reference.TERMS:
        kernels.surrogate_vjp(v, x, index, seed, 1.0, estimator, 1.0, 3)
torch.cuda.synchronize()
"""


def stages(device: str, results: Path) -> dict[str, Stage]:
    python, gpu = sys.executable, device != "cpu"
    pip = [python, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--editable", str(ROOT)]
    environment = {"DISCRETE_OPS_CUDA": "1", **({"TORCH_CUDA_ARCH_LIST": own_architecture()} if gpu else {})}
    pytest = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    workers = ["-n", "8"] if gpu and importlib.util.find_spec("xdist") else []  # Triton compiles on the host
    # One backend a stage: what Triton takes to compile its kernels does not cost the other one its verdict.
    chosen = ["-k", "cuda-cuda"] if gpu else ["-k", "groups_of_seeds"]
    triton_files = ["tests/test_kernels.py", "tests/test_triton.py"] if gpu else ["tests/test_triton.py"]
    of_triton = ["-k", "triton-cuda or test_triton"] if gpu else ["-k", "tiles or parts or strides"]
    measured = {
        name: Stage([python, "-m", "bench.gpu_measure", name, str(results / f"{name}.json"), "--device", device], limit)
        for name, limit in zip(MEASURED, (70, 80, 40), strict=True)
    }
    sanitizers = {
        tool: Stage(["compute-sanitizer", "--tool", tool, "--error-exitcode", "7", python, "-c", SANITIZED], 60)
        for tool in ("memcheck", "racecheck")
    }
    return {
        "build": Stage(pip, 150, environment),
        "tests": Stage([*pytest, *workers, "tests/test_kernels.py", *chosen], 100, {"OMP_NUM_THREADS": "1"}),
        "gpu_tests": Stage([*pytest, "tests/test_cuda.py", "-k", "not compiled"], 80),
        **measured,
        **sanitizers,
        "study": Stage([*pytest, "tests/test_cuda_study.py"], 60),
        "compiled": Stage([*pytest, "tests/test_cuda.py", "-k", "compiled"], 100),
        "triton_tests": Stage([*pytest, *workers, *triton_files, *of_triton], 200, {"OMP_NUM_THREADS": "1"}),
    }


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


def run(name: str, stage: Stage, log: Path) -> dict[str, Any]:
    """One stage: whether it passed, its time, and where it did not pass, why."""
    began = time.monotonic()
    outcome: dict[str, Any] = {"passed": False}
    try:
        if stage.limit <= 0:
            outcome["reason"] = f"NOT COVERED: the {LIMIT} s of all stages are used up"
        elif shutil.which(stage.command[0]) is None:
            outcome["reason"] = f"NOT COVERED: {stage.command[0]} is not installed"
        else:
            with log.open("w") as file:
                environment = {**os.environ, **stage.environment}
                done = subprocess.run(
                    stage.command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, timeout=stage.limit
                )
            outcome["passed"] = done.returncode == 0
            outcome["said"] = last_line(log)
            if done.returncode:
                outcome["reason"] = f"exit status {done.returncode}: {last_line(log)}"
    except subprocess.TimeoutExpired:
        outcome["reason"] = f"took longer than {stage.limit} s; last line: {last_line(log)}"
    except OSError as error:
        outcome["reason"] = f"{type(error).__name__}: {error}"
    outcome["seconds"] = round(time.monotonic() - began, 1)
    said = outcome.get("reason") or outcome.get("said", "")
    print(f"{name}: {'passed' if outcome['passed'] else 'FAILED'} in {outcome['seconds']} s  {said}"[:200], flush=True)
    return outcome


def last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def write(results: dict[str, Any], path: Path) -> None:
    for target, text in ((path, json.dumps(results, indent=1) + "\n"), (path.with_suffix(".md"), markdown(results))):
        unfinished = target.with_name(f"{target.name}.new")
        unfinished.write_text(text)
        os.replace(unfinished, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commit", help="what is measured, where there is no .git")
    parser.add_argument("--only", nargs="+", metavar="STAGE", help="these stages alone")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    options = parser.parse_args()
    info = about(options.commit)
    scratch = ROOT / "build" / "gpu"
    directory = Path(os.environ.get("OUT") or (ROOT / "bench/results" if options.device == "cuda" else scratch))
    for needed in (directory, scratch):
        needed.mkdir(parents=True, exist_ok=True)
    device = re.sub(r"\W+", "-", info["device"]).strip("-").lower()
    path = directory / f"{'dry-run' if options.device == 'cpu' else device}-{info['date']}.json"
    every = stages(options.device, scratch)
    unknown = set(options.only or ()) - set(every)
    if unknown:
        raise SystemExit(f"--only: got {', '.join(sorted(unknown))}, allowed: {', '.join(every)}")
    began = time.monotonic()
    results: dict[str, Any] = {"about": info, "stages": {}, "figures": {}}
    for name, stage in every.items():
        if options.only and name not in options.only:
            continue
        figures = scratch / f"{name}.json"
        figures.unlink(missing_ok=True)
        left = LIMIT - int(time.monotonic() - began)
        results["stages"][name] = run(name, stage._replace(limit=min(stage.limit, left)), scratch / f"{name}.log")
        if figures.exists():  # what a stage measured before it failed counts too
            results["figures"][name] = json.loads(figures.read_text())
        write(results, path)
    print(f"\n{markdown(results)}\n{path}")
    raise SystemExit(not all(stage["passed"] for stage in results["stages"].values()))


if __name__ == "__main__":
    main()
