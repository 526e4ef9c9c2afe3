"""What only a GPU can say of this project, in two calls that fit a short visit to one: see ``gpu_check.sh``.

python -m bench.gpu {1,2} [--only STAGE ...] [--device cpu]

1: the library that was carried here loads (else it is built); every kernel against the reference; parity; GPU tests;
bandwidth, Gumbel-Rao and small batches; the sanitizers; a profile. 2: again what may have changed since, then
torch.compile as the comparator, the study's captured step, torch.compile of ours, and Triton.

Every stage is a process group with a limit of its own, and so have all together; one that fails hides no other, but
without a library that loads none is run. After each stage the results are written to
``bench/results/<device>-<date>.json`` and ``.md`` and the logs packed in ``build/gpu``: both into $OUT where it is set.
``--device cpu`` rehearses both calls where there is no GPU, with the cpp backend; its figures mean nothing.
"""

import argparse
import datetime
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .gpu_report import EXPECTED, markdown, unmeasured
from .stage import ROOT, Stage, pack, run, tell

BEGAN = time.monotonic()
LIMITS = {"1": 280, "2": 380}  #: seconds for all stages of a call
NEEDED = ("pytest", "xdist", "hypothesis", "numpy", "scipy", "rich", "matplotlib", "setuptools", "ninja", "triton")
CARRIED_COMMIT = ROOT / "build/gpu_carry/commit"
PLANS = {
    "1": (
        *("load", "build", "reload", "smoke", "parity", "gpu_tests", "bandwidth", "gumbel_rao", "small"),
        *("memcheck", "racecheck", "profile"),
    ),
    "2": (
        *("load", "build", "reload", "smoke", "parity", "bandwidth", "gumbel_rao", "small", "comparator", "study"),
        *("compiled", "triton_load", "triton_bandwidth", "triton_tests"),
    ),
}


def stages(device: str, backend: str, scratch: Path) -> dict[str, Stage]:
    """Every stage by name; a plan takes its own, the most valuable first."""
    python, gpu = sys.executable, device != "cpu"
    interpreted = {} if gpu else {"TRITON_INTERPRET": "1"}

    def smoke(what: str, limit: int, backend: str = backend) -> Stage:
        command = [python, "-m", "bench.gpu_smoke", what, "--backend", backend, "--device", device]
        return Stage(command, limit, interpreted if backend == "triton" else {}, f"{what}: {backend} runs")

    def figures(what: str, limit: int, prefix: str = "", backend: str = backend) -> Stage:
        to = str(scratch / f"{prefix}{what}.json")
        command = [python, "-m", "bench.gpu_measure", what, to, "--backend", backend, "--device", device]
        return Stage(command, limit, interpreted if backend == "triton" else {})

    def tests(workers: int, limit: int, *arguments: str, each: int = 30) -> Stage:
        # Under xdist one hang costs one test, not the stage: see limit.py.
        parallel = ["-n", str(workers if gpu else 2)] if importlib.util.find_spec("xdist") else []
        options = ["-q", "--tb=short", "--durations=5", "-p", "no:cacheprovider", "-p", "bench.limit", *parallel]
        environment = {
            "OMP_NUM_THREADS": "1",
            "TEST_LIMIT": str(each),
            **(interpreted if "triton" in arguments[-1] else {}),
        }
        return Stage([python, "-m", "pytest", *options, *arguments], limit, environment, proof=r"\d+ passed")

    def sanitizer(tool: str) -> Stage:
        # From torch's allocator, which hands out parts of large allocations, nothing near a tensor is out of bounds.
        environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "7", *smoke("sanitized", 0).command]
        return Stage(command, 60, environment, proof="sanitized: cuda runs")

    sections = [f"--section={name}" for name in ("SpeedOfLight", "MemoryWorkloadAnalysis", "Occupancy")]
    ncu = [
        "ncu",
        "--clock-control",
        "none",
        "-k",
        "regex:(sample|surrogate)_",
        *sections,
        *smoke("profile", 0).command,
    ]
    build = {"DISCRETE_OPS_CUDA": str(int(gpu)), **({"TORCH_CUDA_ARCH_LIST": own_architecture()} if gpu else {})}
    kernels, on_gpu = "tests/test_kernels.py", "tests/test_cuda.py"
    every = [kernels, on_gpu, "tests/test_triton.py"] if gpu else ["tests/test_triton.py"]
    # Triton compiles each case: one dtype of the parity, and all that is special.
    of_triton = (
        "test_triton or (triton and not cuda-cuda and not float64 and not float16)" if gpu else "test_triton and tiles"
    )
    return {
        "load": smoke("load", 40),
        "build": Stage([python, "setup.py", "build_ext", "--inplace"], 150, build),
        "reload": smoke("load", 40),
        "smoke": smoke("check", 90),
        "parity": tests(8, 70, kernels, "-k", f"{backend}-{device}" if gpu else "groups_of_seeds or tie"),
        "gpu_tests": tests(1, 60, on_gpu, "-k", "not triton and not compiled"),
        "bandwidth": figures("bandwidth", 45),
        "gumbel_rao": figures("gumbel_rao", 30),
        "small": figures("small", 30),
        "memcheck": sanitizer("memcheck"),
        "racecheck": sanitizer("racecheck"),
        "profile": Stage(ncu, 45, proof="(sample|surrogate)_"),
        "comparator": figures("comparator", 90),
        "study": tests(1, 60, "tests/test_cuda_study.py"),
        "compiled": tests(4, 70, on_gpu, "-k", "not triton and compiled", each=60),
        "triton_load": smoke("load", 40, "triton"),
        "triton_bandwidth": figures("bandwidth", 60, "triton_", "triton"),
        "triton_tests": tests(8, 120, *every, "-k", of_triton, each=60),
    }


def own_architecture() -> str:
    import torch

    return "{}.{}".format(*torch.cuda.get_device_capability()) if torch.cuda.is_available() else ""


def commit() -> str:
    """$COMMIT, git's, or that of the tree from which the libraries were carried."""
    if os.environ.get("COMMIT"):
        return os.environ["COMMIT"]
    if (ROOT / ".git").exists() and shutil.which("git"):
        describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(describe, cwd=ROOT, capture_output=True, text=True).stdout.strip() or "unknown"
    return CARRIED_COMMIT.read_text().strip() if CARRIED_COMMIT.exists() else "unknown"


def about(backend: str) -> dict[str, Any]:
    """What the figures were taken on."""
    import torch

    info: dict[str, Any] = {"date": datetime.date.today().isoformat(), "commit": commit(), "backend": backend}
    info |= {"torch": torch.__version__, "python": platform.python_version(), "seconds": {}}
    info["missing"] = ", ".join(name for name in NEEDED if importlib.util.find_spec(name) is None)
    if importlib.util.find_spec("triton"):
        info["triton"] = importlib.import_module("triton").__version__
    if torch.cuda.is_available():
        info["device"] = torch.cuda.get_device_name()
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        if shutil.which(query[0]):
            info["driver"] = subprocess.run(query, capture_output=True, text=True).stdout.strip().split("\n")[0]
    else:
        info["device"] = "CPU (what is measured here means nothing)"
    return info


def execute(
    plan: str, every: dict[str, Stage], results: dict[str, Any], path: Path, scratch: Path, deadline: float
) -> bool:
    """Run a plan's stages, in order, and write what there is after each. Returns whether all that ran passed.

    Build comes only where the library did not load; where it still does not, nothing else is tried.
    """
    backend, loaded, hopeless, good = results["about"]["backend"], False, False, True
    for name, stage in every.items():
        if loaded and name in ("build", "reload"):
            continue
        if hopeless:
            outcome = dict[str, Any](passed=False, covered=True, seconds=0.0, reason="NOT RUN: no library that loads")
            tell(name, outcome)
        else:
            limit = min(stage.limit, deadline - time.monotonic())
            outcome = run(name, stage._replace(limit=limit), scratch / f"{name}.log")
        kind, figures = name.removeprefix("triton_"), scratch / f"{name}.json"
        if figures.exists():  # what a stage measured before it failed counts too
            results["figures"][f"{plan} {name}"] = json.loads(figures.read_text())
        if kind in EXPECTED and outcome["passed"]:
            cases = results["figures"].get(f"{plan} {name}", ())
            if gap := unmeasured(kind, cases, "triton" if kind != name else backend):
                outcome |= {"passed": False, "reason": f"NOT MEASURED: {gap}"}
                tell(name, outcome)
        loaded = outcome["passed"] if name in ("load", "reload") else loaded
        hopeless = hopeless or (name in ("build", "reload") and not outcome["passed"])
        good = good and (outcome["passed"] or not outcome["covered"])
        results["stages"][f"{plan} {name}"] = outcome
        results["about"]["seconds"][plan] = round(LIMITS[plan] - (deadline - time.monotonic()), 1)
        write(results, path)
        pack(scratch, Path(os.environ.get("OUT") or scratch.parent) / f"logs-{plan}.tar.gz")
    return good


def write(results: dict[str, Any], path: Path) -> None:
    for target, text in ((path, json.dumps(results, indent=1) + "\n"), (path.with_suffix(".md"), markdown(results))):
        unfinished = target.with_name(f"{target.name}.new")
        unfinished.write_text(text)
        os.replace(unfinished, target)


def prepare(plan: str, info: dict[str, Any], name: str, directory: Path) -> tuple[dict[str, Any], Path]:
    """The results so far and their file: those of the other plan where day, device and commit are the same."""
    stems = [f"{name}-{info['date']}", f"{name}-{info['date']}-{info['commit'][:7]}"]
    taken = False
    for stem in stems:
        for earlier in (directory / f"{stem}.json", ROOT / "bench/results" / f"{stem}.json"):
            results = json.loads(earlier.read_text()) if earlier.exists() else None
            if results and results["about"].get("commit") == info["commit"]:
                info["seconds"] = results["about"]["seconds"]
                for kind in ("stages", "figures"):
                    results[kind] = {key: x for key, x in results[kind].items() if key.split()[0] != plan}
                return results | {"about": info}, directory / f"{stem}.json"
            taken = taken or results is not None  # another commit's results stay
    return {"about": info, "stages": {}, "figures": {}}, directory / f"{stems[taken]}.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", choices=PLANS)
    parser.add_argument("--only", nargs="+", metavar="STAGE", help="these stages alone")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    options = parser.parse_args()
    unknown = set(options.only or ()) - set(PLANS[options.plan])
    if unknown:
        raise SystemExit(f"--only: got {', '.join(sorted(unknown))}, allowed: {', '.join(PLANS[options.plan])}")
    gpu, backend = options.device == "cuda", "cuda" if options.device == "cuda" else "cpp"
    info = about(backend)
    print(" ".join(f"{key}={value!r}" for key, value in info.items()), flush=True)
    if gpu and info["device"].startswith("CPU"):
        raise SystemExit("no GPU: torch.cuda.is_available() is False")
    scratch = ROOT / "build/gpu" / options.plan
    shutil.rmtree(scratch, ignore_errors=True)
    directory = Path(os.environ.get("OUT") or (ROOT / "bench/results" if gpu else scratch.parent))
    for needed in (scratch, directory):
        needed.mkdir(parents=True, exist_ok=True)
    device = re.sub(r"\W+", "-", info["device"]).strip("-").lower() if gpu else "dry-run"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an end from outside ends the stage, too
    results, path = prepare(options.plan, info, device, directory)
    every = stages(options.device, backend, scratch)
    chosen = {name: every[name] for name in PLANS[options.plan] if name in (options.only or every)}
    good = execute(options.plan, chosen, results, path, scratch, BEGAN + LIMITS[options.plan])
    print(f"\n{markdown(results)}\n{path} after {time.monotonic() - BEGAN:.0f} s")
    raise SystemExit(not good)


if __name__ == "__main__":
    main()
