"""The verification of a GPU cannot be wasted: what fails is failed by name, with its log, and costs nothing else."""

import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import gpu, gpu_measure, gpu_smoke
from bench.stage import Stage, run
from discrete_ops import reference

INFO = {"device": "none", "date": "2026-01-01", "commit": "abc", "torch": "2"}


def python(code: str, limit: float = 30) -> Stage:
    return Stage([sys.executable, "-c", code], limit)


def verified(
    plan: dict[str, Stage], build: Stage, tmp_path: Path, limit: float = 60
) -> tuple[list[str], dict[str, Any]]:
    results = gpu.Results(INFO, tmp_path / "results.json")
    failed = gpu.verify(plan, build, limit, results, tmp_path, tmp_path / "logs.tar.gz", strict=True)
    return failed, json.loads((tmp_path / "results.json").read_text())["stages"]


def test_a_failed_build_stops_everything_and_is_named(tmp_path: Path) -> None:
    plan = {"load": python("raise SystemExit('no library')"), "bandwidth": python("print('must not run')")}
    failed, stages = verified(plan, python("raise SystemExit('nvcc: no such option')"), tmp_path)
    assert failed == ["load", "build", "load_built", "bandwidth"]
    assert stages["bandwidth"]["reason"] == "NOT RUN: build failed: nvcc: no such option"
    with tarfile.open(tmp_path / "logs.tar.gz") as logs:
        assert b"no such option" in logs.extractfile("build.log").read()  # type: ignore[union-attr]
        assert "bandwidth.log" not in logs.getnames()


def test_a_build_that_helps_goes_on(tmp_path: Path) -> None:
    mark = tmp_path / "library"
    plan = {"load": python(f"open({str(mark)!r})"), "smoke": python("print('fine')")}
    failed, stages = verified(plan, python(f"open({str(mark)!r}, 'w')"), tmp_path)
    assert failed == ["load"]
    assert stages["load_built"]["passed"]
    assert stages["smoke"]["passed"]


def test_a_hang_costs_its_own_limit_and_nothing_it_started_lives_on(tmp_path: Path) -> None:
    mark = tmp_path / "alive"
    child = f"import time; time.sleep(4); open({str(mark)!r}, 'w')"
    code = f"import subprocess, sys; print('began', flush=True); subprocess.run([sys.executable, '-c', {child!r}])"
    plan = {"load": python(""), "hangs": python(code, 2), "after": python("print('ran')")}
    failed, stages = verified(plan, python(""), tmp_path)
    assert failed == ["hangs"]
    assert "took longer than 2 s; last line: began" in stages["hangs"]["reason"]
    assert stages["after"]["passed"]
    time.sleep(3)
    assert not mark.exists()


def test_a_test_that_hangs_is_named_and_its_file_goes_on(tmp_path: Path) -> None:
    """Under xdist the worker is lost, not the stage."""
    pytest.importorskip("xdist")
    test = tmp_path / "test_it.py"
    test.write_text("import time\ndef test_hangs():\n    time.sleep(60)\ndef test_other():\n    pass\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "bench.limit",
        "-p",
        "no:cacheprovider",
        "-n",
        "1",
        "-c",
        "/dev/null",
    ]
    environment = {"TEST_LIMIT": "1.5", "PYTHONPATH": str(gpu.ROOT)}
    outcome = run("tests", Stage([*command, str(test)], 50, environment), tmp_path / "tests.log")
    log = (tmp_path / "tests.log").read_text()
    assert not outcome["passed"]
    assert "1 failed, 1 passed" in log
    assert "test_hangs" in log


def test_a_wrong_result_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(grad: Any, *call: Any) -> Any:
        pulled = reference.surrogate_vjp(grad, *call)
        if "gst" in call and grad.shape == (5, 33):
            pulled[2, 7] += 1e-3
        return pulled

    monkeypatch.setattr(gpu_smoke, "SHAPES", [(5, 33), (4, 10)])
    backend = SimpleNamespace(sample=reference.sample, surrogate=reference.surrogate, surrogate_vjp=wrong)
    failures = gpu_smoke.check(backend, "cpu")  # type: ignore[arg-type]
    assert len(failures) == 4  # one a dtype
    assert all(failure.startswith("pull-back gst 5x33") for failure in failures)


def test_a_stage_without_figures_of_its_backend_fails(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.gpu_measure", "small", str(tmp_path / "x.json")]
    done = subprocess.run([*command, "--backend", "no such", "--device", "cpu"], capture_output=True, text=True)
    assert done.returncode
    assert "name: got 'no such'" in done.stderr


def test_only_the_copy_is_not_a_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gpu_measure.STAGES, "small", lambda bench: bench.record(what="copy"))
    monkeypatch.setattr(
        sys, "argv", ["x", "small", str(tmp_path / "x.json"), "--backend", "reference", "--device", "cpu"]
    )
    with pytest.raises(SystemExit, match="nothing of reference was measured"):
        gpu_measure.main()


def test_the_second_command_adds_to_the_first_at_the_same_commit(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    first = gpu.Results(INFO, path)
    first.add("load", {"passed": True, "covered": True, "seconds": 1.0}, tmp_path / "none")
    assert set(gpu.Results(INFO, path, path).all["stages"]) == {"load"}
    assert gpu.Results({**INFO, "commit": "other"}, path, path).all["stages"] == {}
