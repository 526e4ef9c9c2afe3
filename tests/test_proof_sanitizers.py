"""The kernels under the sanitizers, and that these find what is planted: the short form of proof.sanitizers."""

import subprocess

import pytest

from proof import sanitizers


@pytest.mark.parametrize("build", sanitizers.FLAGS)
def test_the_kernels_of_eight_threads_at_once_have_no_report(build: str) -> None:
    if reason := sanitizers.obstacle(build):
        pytest.skip(f"NOT COVERED: {reason}")
    for fault in sanitizers.FAULTS[build]:
        line = sanitizers.planted(build, fault)
        assert line.holds, f"{line.what}: {line.found}"
    line = sanitizers.alone(build)
    assert line.holds, f"{line.what}: {line.found}"


def test_a_report_and_a_missing_result_do_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanitizers, "compiled", lambda *_: "program")
    for status, said in (
        (0, "no word"),
        (1, "9 calls"),
        (0, "9 calls\nWARNING: ThreadSanitizer: data race (pid=1)"),
        (0, "9 calls\nx.cpp:1:1: runtime error: signed integer overflow"),
    ):
        monkeypatch.setattr(sanitizers, "command", lambda *_, status=status, said=said: (status, said))
        assert not sanitizers.alone("thread").holds
    monkeypatch.setattr(sanitizers, "command", lambda *_: (0, "9 calls"))
    assert sanitizers.alone("thread").holds
    assert not sanitizers.planted("thread", "thread").holds  # which says nothing


def test_a_machine_without_a_sanitizer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "cannot find -ltsan")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    assert sanitizers.obstacle("thread") == "no C++ compiler with ThreadSanitizer: cannot find -ltsan"
