"""Tables that are interrupted, at whatever moment and by whatever else runs: they end with the figures of one that was
not."""

import json
import math
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from task_helpers import lines, run

from tasks.common import checkpoint, files, jsonl
from tasks.common.errors import RunError
from tasks.vae import data, ensemble, train
from tasks.vae.progress import RunProgress
from tasks.vae.recipes import configure
from tasks.vae.tables import STUDIES, Method

pytestmark = pytest.mark.usefixtures("one_thread", "saved_each_epoch")


def killed(epochs: int, seconds: float, out: Path, arguments: tuple[str, ...]) -> bool:
    """Run a command in a child process and kill it a while after some epochs; False if it was done before."""
    before = epochs_done(out)
    child = os.fork()
    if child == 0:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        os._exit(run(out, *arguments))
    deadline = time.monotonic() + seconds
    while epochs_done(out) < before + epochs or time.monotonic() < deadline:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        if epochs_done(out) < before + epochs:
            deadline = time.monotonic() + seconds
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def epochs_done(out: Path) -> int:
    """How many epochs the runs in ``out`` have written."""
    return sum(path.read_text().count('"epoch"') for path in out.glob("br/*/metrics.jsonl")) // 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="NOT COVERED: killing a forked process, which needs fork")
def test_table_killed_ten_times_ends_with_the_same_figures(small: data.Images, tmp_path: Path) -> None:
    """SIGKILL at random moments, ten times: bit for bit the lines of an uninterrupted table, none twice or torn."""
    arguments = ("table", "br-2", "--columns", "8x4", "--methods", "ReinMax", "ST", "--epochs", "20")
    start = time.monotonic()
    assert run(tmp_path / "whole", *arguments) == 0
    longest = (time.monotonic() - start) / 20
    moments = random.Random(0)
    for kill in range(10):  # half of them in the first epoch after the start, which may be while files are read
        assert killed(kill % 2, moments.uniform(0, longest), tmp_path / "parts", arguments)
    assert 0 < epochs_done(tmp_path / "parts") < 20
    assert run(tmp_path / "parts", *arguments) == 0
    for table in ("br-2", "br-3"):
        assert lines(tmp_path / "parts", table) == lines(tmp_path / "whole", table)
    assert len(lines(tmp_path / "whole", "br-2")) == 2


def test_table_killed_between_its_files_adds_what_is_missing(
    small: data.Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run feeds two tables; killed when the first has its line, the second gets its own and the first no other."""
    arguments = ("table", "br-2", "--columns", "8x4", "--methods", "ST", "--epochs", "1")
    write = files.write_text

    def killed(path: Path, text: str) -> None:
        if path.name == "br-3.jsonl":
            raise KeyboardInterrupt
        write(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_text", killed)
        assert run(tmp_path, *arguments) == 130
    assert not (tmp_path / "results" / "br-3.jsonl").exists()
    first = lines(tmp_path, "br-2")
    assert run(tmp_path, *arguments) == 0
    assert lines(tmp_path, "br-2") == first
    assert len(first) == len(lines(tmp_path, "br-3")) == 1


def test_what_is_done_is_not_trained_again(
    small: data.Images, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = ("table", "br-3", "--columns", "8x4", "--methods", "ST", "--epochs", "1")
    assert run(tmp_path, *one) == 0
    first = lines(tmp_path, "br-2"), lines(tmp_path, "br-3")
    capsys.readouterr()
    assert run(tmp_path, *one) == 0
    assert "epoch" not in capsys.readouterr().out.split("BR Table 3")[0]
    assert (lines(tmp_path, "br-2"), lines(tmp_path, "br-3")) == first
    assert run(tmp_path, *one, "--seeds", "2") == 0
    found = lines(tmp_path, "br-3")
    assert [line["seed"] for line in found] == [0, 1]
    assert found[0] == first[1][0]


def test_what_was_begun_goes_on_whatever_was_finished_since(
    small: data.Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two runs stop after an epoch; a second command finishes one of them; the first goes on where it stopped."""
    both = ("table", "br-2", "--columns", "8x4", "--methods", "ReinMax", "ST", "--epochs", "3")
    save = checkpoint.save

    def stop(*arguments: Any) -> None:
        save(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", stop)
        assert run(tmp_path, *both) == 130
    assert run(tmp_path, "table", "br-2", "--columns", "8x4", "--methods", "ST", "--epochs", "3") == 0
    alone = lines(tmp_path, "br-2")
    capsys.readouterr()
    assert run(tmp_path, *both) == 0
    said = capsys.readouterr().out
    assert "epoch 1/3" not in said
    assert "epoch 2/3" in said
    assert lines(tmp_path, "br-2")[:1] == alone
    assert {line["method"] for line in lines(tmp_path, "br-2")} == {"ReinMax", "ST"}
    (path,) = (tmp_path / "br").glob("*-2x3-*/members.json")
    for text, message in (
        ("[[", "not JSON"),
        ('[["8x4", ["ST"], 0]]', "not a list of runs"),
        ("[3]", "not a list of runs"),
    ):
        path.write_text(text)
        assert run(tmp_path, *both, "--seeds", "2") == 1
        assert f"{path}: {message}" in capsys.readouterr().err


def test_killed_between_two_checkpoints(small: data.Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the shipped interval, by SIGKILL: epochs that metrics.jsonl has, but no checkpoint, are done again."""
    arguments = ("table", "br-2", "--columns", "8x4", "--methods", "ST", "--epochs", "5")
    assert run(tmp_path / "whole", *arguments) == 0
    add = train._Files.add
    for last, seconds in ((2, 0.0), (4, 1e9)):  # a checkpoint of the second epoch, none of the fourth

        def killed(self: Any, records: Any, ensemble: Any, last: int = last, **flags: bool) -> None:
            add(self, records, ensemble, **flags)
            if ensemble.epoch == last:
                raise SystemExit

        with monkeypatch.context() as patch:
            patch.setattr(train._Files, "add", killed)
            patch.setattr(train, "SECONDS", seconds)
            with pytest.raises(SystemExit):
                run(tmp_path / "parts", *arguments)
        assert epochs_written(tmp_path / "parts") == last
    assert run(tmp_path / "parts", *arguments) == 0
    assert lines(tmp_path / "parts", "br-2") == lines(tmp_path / "whole", "br-2")
    assert epochs_written(tmp_path / "parts") == epochs_written(tmp_path / "whole") == 5


def epochs_written(out: Path) -> int:
    (metrics,) = out.glob("br/*/metrics.jsonl")
    return [json.loads(line)["epoch"] for line in metrics.read_text().splitlines()][-1]


def test_every_commit_that_trained_is_named(
    small: data.Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("table", "br-2", "--columns", "8x4", "--methods", "ST", "--epochs", "2")

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    for commit, status in (("one", 130), ("two", 0), ("three", 0)):  # nothing is left to train for the third
        monkeypatch.setattr(jsonl, "commit", lambda commit=commit: commit)
        with monkeypatch.context() as patch:
            if status:
                patch.setattr(RunProgress, "on_epoch", stop)
            assert run(tmp_path, *arguments) == status
    (line,) = (tmp_path / "results" / "br-2.jsonl").read_text().splitlines()
    assert json.loads(line)["commit"] == "one+two"
    (path,) = tmp_path.glob("br/*/config.json")
    assert [entry["commit"] for entry in json.loads(path.read_text())["environments"]] == ["one", "two"]


def test_results_of_another_device_are_told(
    small: data.Images, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("table", "br-2", "--columns", "8x4", "--methods", "ST", "--epochs", "1")
    assert run(tmp_path, *arguments) == 0
    assert "known already" not in capsys.readouterr().out
    for name in ("br-2", "br-3"):
        path = tmp_path / "results" / f"{name}.jsonl"
        path.write_text(path.read_text().replace('"cpu"', '"cuda:1"'))
    assert run(tmp_path, *arguments, "--seeds", "2") == 0
    assert "br 8x4: 1 runs are known already, from cuda:1" in capsys.readouterr().out


def test_checkpoint_of_another_grouping_is_named(
    small: data.Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Machines, and versions, differ in which members they compute together: so do their checkpoints."""
    configs = [configure(estimator="straight_through", epochs=1, seed=seed, data="digits") for seed in (0, 1)]
    monkeypatch.setattr(ensemble, "TOGETHER", 1)
    train.fit(configs, small, tmp_path)
    monkeypatch.setattr(ensemble, "TOGETHER", 2)
    with pytest.raises(RunError, match=f"{tmp_path / 'checkpoint.pt'}: does not fit these runs on this machine"):
        train.fit(configs, small, tmp_path)


def test_two_processes_do_not_share_a_run(
    small: data.Images, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("table", "br-2", "--columns", "8x4", "--methods", "ST", "--epochs", "1")
    assert run(tmp_path, *arguments) == 0
    (folder,) = (path for path in (tmp_path / "br").iterdir())
    (tmp_path / "results" / "br-2.jsonl").unlink()
    with files.locked(folder):
        assert run(tmp_path, *arguments[:2], "--columns", "8x4", "4x24", *arguments[4:]) == 1
    assert f"{folder}: another process is at work there" in capsys.readouterr().err
    assert [line["column"] for line in lines(tmp_path, "br-2")] == ["4x24"]  # the other column was trained
    (tmp_path / "results" / "br-2.jsonl").unlink()
    assert run(tmp_path, *arguments) == 0  # its checkpoint is whole: only the line is written again
    assert len(lines(tmp_path, "br-2")) == 1


def test_failed_run_is_reported_and_no_error(
    small: data.Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As GST Table 3 marks some cells: X, while the others of its column go on."""
    sick = {**STUDIES["gst"].methods, "STGS": Method("gumbel_softmax", {"lr": 1e30})}
    monkeypatch.setitem(STUDIES, "gst", replace(STUDIES["gst"], methods=sick))
    arguments = ("table", "gst-3", "--columns", "tau=0.01", "--methods", "STGS", "GST-1.0", "--epochs", "2")
    assert run(tmp_path, *arguments) == 0
    by_method = {line["method"]: line for line in lines(tmp_path, "gst-3") if line["split"] == "test"}
    assert (by_method["STGS"]["value"], by_method["STGS"]["failed"]) == (None, 1)
    assert math.isfinite(by_method["GST-1.0"]["value"])
    assert "X (1)" in (tmp_path / "results" / "gst-3-2-epochs.md").read_text()
    assert "X (1)" in capsys.readouterr().out


def test_what_is_lost_or_of_other_settings_is_told(
    small: data.Images, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("table", "br-2", "--columns", "8x4", "--methods", "ST", "--epochs", "1")
    assert run(tmp_path, *arguments) == 0
    capsys.readouterr()
    assert run(tmp_path, *arguments) == 0
    assert f"br 8x4: all 1 runs are known, from {tmp_path / 'results'}" in capsys.readouterr().out
    # As lines of earlier versions were, which are not taken for today's experiment
    for name in ("br-2", "br-3"):
        path = tmp_path / "results" / f"{name}.jsonl"
        path.write_text(json.dumps({**json.loads(path.read_text()), "settings": ""}) + "\n")
    (config,) = tmp_path.glob("br/*/config.json")
    config.unlink()
    assert run(tmp_path, *arguments) == 0
    said = capsys.readouterr().out
    assert "br 8x4: 1 runs in" in said
    assert "are of other settings than today's, or note none: they are run again" in said
    assert "nothing to train: 1 of 1 epochs are done" in said
    assert "config.json is lost: which commit trained them is unknown" in said
    last = json.loads((tmp_path / "results" / "br-2.jsonl").read_text().splitlines()[-1])
    assert (last["commit"], bool(last["settings"])) == ("unknown", True)


def test_a_checkpoint_with_any_other_byte_is_refused(tmp_path: Path) -> None:
    """Of its table of members, too, which the archive has no checksum of."""
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, [configure()], {"epoch": 1, "weights": torch.zeros(3), "others": torch.ones(3)})
    written = path.read_bytes()
    for place in range(len(written)):
        path.write_bytes(written[:place] + bytes([written[place] ^ 1]) + written[place + 1 :])
        with pytest.raises(RunError, match="not a readable checkpoint"):
            checkpoint.read(path)
