"""The GPU's verification, without one: what fails comes out as failed, by name, and takes nothing else with it."""

import json
import os
import subprocess
import sys
import tarfile
import time
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import gpu, gpu_report, gpu_smoke
from bench.stage import ROOT, Stage, pack, run
from discrete_ops import reference

pytestmark = pytest.mark.skipif(not (ROOT / "bench").exists(), reason="NOT COVERED: not a source tree")


def python(script: str, limit: float = 30, **more: Any) -> Stage:
    return Stage([sys.executable, "-c", script], limit, **more)


def verify(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, every: dict[str, Stage], plan: str = "1"
) -> tuple[bool, dict[str, Any], set[str]]:
    """Whether all is well, the stages' outcomes, and the names of the packed logs."""
    monkeypatch.setenv("OUT", str(tmp_path))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    about = {"device": "none", "date": "today", "backend": "cuda", "seconds": {}}
    results: dict[str, Any] = {"about": about, "stages": {}, "figures": {}}
    good = gpu.execute(plan, every, results, tmp_path / "r.json", scratch, time.monotonic() + 100)
    written = (tmp_path / "r.md").read_text()
    assert all(f"| {name} |" in written for name in results["stages"])
    with tarfile.open(tmp_path / f"logs-{plan}.tar.gz") as logs:
        return good, results["stages"], set(logs.getnames())


def test_a_build_that_fails_stops_the_rest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    every = {
        "load": python("raise SystemExit('cuda is not available: undefined symbol')"),
        "build": python("raise SystemExit('nvcc: no such header')"),
        "reload": python(""),
        "smoke": python("print('fine')"),
        "bandwidth": python(""),
    }
    good, found, logs = verify(monkeypatch, tmp_path, every)
    assert not good
    assert logs == {"load.log", "build.log"}
    assert "undefined symbol" in found["1 load"]["reason"]
    assert "no such header" in found["1 build"]["reason"]
    for name in ("reload", "smoke", "bandwidth"):
        assert found[f"1 {name}"]["reason"] == "NOT RUN: no library that loads"


def test_a_library_that_loads_is_not_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    every = {"load": python(""), "build": python("1 / 0"), "reload": python("1 / 0"), "smoke": python("")}
    good, found, _ = verify(monkeypatch, tmp_path, every)
    assert good
    assert set(found) == {"1 load", "1 smoke"}


def test_a_hang_is_killed_with_all_that_it_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    child = tmp_path / "child"
    script = f"sleep 100 & echo $! >{child}; echo begun; trap '' TERM; while true; do sleep 0.1; done"
    every = {"smoke": Stage(["bash", "-c", script], 0.5), "parity": python("print('fine')")}
    monkeypatch.setattr("bench.stage.GRACE", 0.2)
    good, found, logs = verify(monkeypatch, tmp_path, every)
    assert not good
    assert found["1 smoke"]["reason"] == "took longer than 0 s; last line: begun"
    assert found["1 parity"]["passed"]
    assert logs == {"smoke.log", "parity.log"}
    stat = Path(f"/proc/{child.read_text().strip()}/stat")
    assert not stat.exists() or stat.read_text().split()[2] == "Z"  # ended, and perhaps not yet waited for


@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["alone", "xdist"])
def test_a_test_that_hangs_is_named(tmp_path: Path, workers: list[str]) -> None:
    if workers:
        pytest.importorskip("xdist")
    tests = "import time\ndef test_a(): pass\ndef test_hang(): time.sleep(100)\ndef test_z(): pass\n"
    (tmp_path / "test_some.py").write_text(tests)
    options = ["-v", "-p", "no:cacheprovider", "-p", "bench.limit", "--rootdir", str(tmp_path), *workers]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path / "test_some.py")],
        env={**os.environ, "TEST_LIMIT": "0.5", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode
    assert "in test_hang" in done.stdout + done.stderr  # the traceback
    if workers:
        assert "1 failed, 2 passed" in done.stdout
        assert "test_hang" in done.stdout.split("short test summary")[1]


def test_a_wrong_result_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def wrong_gst(*call: Any) -> torch.Tensor:
        return reference.surrogate_vjp(*call) * (1.001 if call[5] == "gst" else 1)

    def wrong_sample(logits: torch.Tensor, *call: Any) -> tuple[torch.Tensor, torch.Tensor]:
        sample, index = reference.sample(logits, *call)
        return sample, (index + 1) % logits.shape[-1]

    fine = {name: getattr(reference, name) for name in ("sample", "surrogate", "surrogate_vjp", "tau_derivative")}
    shapes = ((7, 10),)
    assert gpu_smoke.check(types.SimpleNamespace(**fine), "cpu", shapes) == []  # type: ignore[arg-type]
    kernels = types.SimpleNamespace(**{**fine, "surrogate_vjp": wrong_gst})
    said = gpu_smoke.check(kernels, "cpu", shapes)  # type: ignore[arg-type]
    assert any(line.startswith("pull-back gst 7x10 torch.float32 contiguous: beyond") for line in said)
    assert all("gst" in line for line in said)
    kernels = types.SimpleNamespace(**{**fine, "sample": wrong_sample})
    said = gpu_smoke.check(kernels, "cpu", shapes)  # type: ignore[arg-type]
    assert any(line.startswith("sample 7x10 torch.float64 strided: row 0: got index") for line in said)

    script = (
        "from bench import gpu_smoke; from discrete_ops import cpp; right = cpp.sample\n"
        "cpp.sample = lambda *call: (right(*call)[0], 0 * right(*call)[1])\n"
        "gpu_smoke.check.__defaults__ = (((7, 10),),)\n"
        "gpu_smoke.main()\n"
    )
    if "cpp" not in gpu_smoke.do.available_backends():
        pytest.skip("NOT COVERED: the cpp backend is not installed")
    command = [sys.executable, "-c", script, "check", "--backend", "cpp", "--device", "cpu"]
    every = {"smoke": Stage(command, 60, {"PYTHONPATH": str(ROOT)}), "parity": python("")}
    good, found, _ = verify(monkeypatch, tmp_path, every)
    assert not good
    reason = found["1 smoke"]["reason"]
    assert "cases are wrong, the first: sample at 1.7 from row 4294967294 7x10 torch.float32 contiguous" in reason
    assert found["1 parity"]["passed"]


def test_measured_means_that_our_kernels_were(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A copy alone, or another backend, is no measurement of bandwidth."""
    copy = [{"shape": "1Mx64", "what": "copy", "GBs": 1}]
    ours = [{**case, "backend": "cuda", "share": 0.7} for case in gpu_report.EXPECTED["bandwidth"]]
    assert gpu_report.unmeasured("bandwidth", copy + ours, "cuda") == ""
    assert gpu_report.unmeasured("bandwidth", copy + ours[1:], "cuda") == "1Mx64 forward"
    assert "4Kx32000 reinmax backward" in gpu_report.unmeasured("bandwidth", ours, "triton")
    record = f"open({str(tmp_path / 'scratch/bandwidth.json')!r}, 'w').write({json.dumps(copy)!r})"
    good, found, _ = verify(monkeypatch, tmp_path, {"bandwidth": python(record), "small": python("")})
    assert not good
    assert found["1 bandwidth"]["reason"].startswith("NOT MEASURED: 1Mx64 forward, ")
    assert found["1 small"]["reason"].startswith("NOT MEASURED: straight_through ours, ")


def test_bars_take_the_last_measurement() -> None:
    def figures(share: float) -> list[dict[str, Any]]:
        return [{"shape": "1Mx64", "what": "forward", "backend": "cuda", "share": share}]

    results = {
        "about": {"backend": "cuda"},
        "stages": {"1 smoke": {"passed": True}, "1 memcheck": {"passed": False, "reason": "NOT COVERED: no tool"}},
        "figures": {"1 bandwidth": figures(0.9), "2 bandwidth": figures(0.7)},
    }
    bars = {bar["asked"]: bar for bar in gpu_report.bars(results)}
    forward = bars["1Mx64 forward: share of the copy bandwidth >= 0.75"]
    assert (forward["measured"], forward["met"]) == (0.7, False)
    assert bars["every kernel against the reference; the same indices"]["met"]
    assert bars["compute-sanitizer memcheck finds nothing"]["measured"] is None


@pytest.mark.parametrize(
    ("stage", "covered", "said"),
    [
        (Stage(["no-such-tool"], 5), False, "NOT COVERED: no-such-tool is not installed"),
        (python("print('ERR_NVGPUCTRPERM')", proof="discrete_ops"), False, "NOT COVERED: the stage says"),
        (python("print('no kernels')", proof="discrete_ops"), True, "its log has no 'discrete_ops'"),
        (python("", limit=0), True, "NOT RUN: the time of all stages is used up"),
    ],
    ids=["no tool", "no permission", "no proof", "no time"],
)
def test_what_is_no_pass_says_why(tmp_path: Path, stage: Stage, covered: bool, said: str) -> None:
    outcome = run("some", stage, tmp_path / "some.log")
    assert not outcome["passed"]
    assert outcome["covered"] == covered
    assert outcome["reason"].startswith(said)


def test_results_of_one_commit_are_one_file(tmp_path: Path) -> None:
    info = {"date": "2020-01-01", "commit": "a" * 40, "seconds": {}}
    results, path = gpu.prepare("1", dict(info), "none", tmp_path)
    results["stages"] |= {"1 load": {"passed": True, "covered": True, "seconds": 1.0}}
    results["about"] |= {"device": "none", "backend": "cuda", "seconds": {"1": 9.0}}
    gpu.write(results, path)
    second, same = gpu.prepare("2", dict(info), "none", tmp_path)
    assert same == path
    assert "1 load" in second["stages"]
    assert second["about"]["seconds"] == {"1": 9.0}
    assert gpu.prepare("1", dict(info), "none", tmp_path)[0]["stages"] == {}
    _, other = gpu.prepare("1", {**info, "commit": "b" * 40}, "none", tmp_path)
    assert other.name == "none-2020-01-01-bbbbbbb.json"


def test_logs_are_packed_whole(tmp_path: Path) -> None:
    for name in ("a.log", "b.log", "figures.json"):
        (tmp_path / name).write_text(name)
    for _ in range(2):
        pack(tmp_path, tmp_path / "logs.tar.gz")
    with tarfile.open(tmp_path / "logs.tar.gz") as logs:
        assert logs.getnames() == ["a.log", "b.log"]
    assert not list(tmp_path.glob("*.new"))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_stage_of_a_plan_exists(device: str, tmp_path: Path) -> None:
    every = gpu.stages(device, "cpp" if device == "cpu" else "cuda", tmp_path)
    assert set(every) == {name for plan in gpu.PLANS.values() for name in plan}
    assert gpu.LIMITS["1"] <= 290
    assert gpu.LIMITS["2"] <= 390
