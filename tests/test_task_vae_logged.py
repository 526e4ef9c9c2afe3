"""Runs that are not trained, since the log of a longer one has their epochs."""

import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from task_helpers import lines, run

from tasks.common.errors import RunError
from tasks.vae import logged, report, results, study
from tasks.vae.recipes import configure
from tasks.vae.results import Result
from tasks.vae.tables import STUDIES, TABLES

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parent.parent
CELL = ("--columns", "8x4", "--methods", "ReinMax")


def log(folder: Path, out: Path) -> Path:
    """The files of the one ensemble below ``out`` as a log in ``folder``."""
    folder.mkdir(parents=True)
    (directory,) = (out / "br").glob("digits-8x4-*")
    shutil.copy(directory / "metrics.jsonl", folder / "long.jsonl")
    return Path(shutil.copy(directory / "config.json", folder / "long.config.json"))


def test_an_epoch_of_a_longer_run_is_the_end_of_a_shorter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bit for bit, and the table says where the figure is from."""
    assert run(tmp_path / "long", "table", "br-2", *CELL, "--epochs", "3") == 0
    assert run(tmp_path / "short", "table", "br-2", *CELL, "--epochs", "2") == 0
    log(tmp_path / "read" / "results" / "logs", tmp_path / "long")
    capsys.readouterr()
    assert run(tmp_path / "read", "table", "br-2", *CELL, "--epochs", "2", "--seeds", "2") == 0
    told = capsys.readouterr().out
    assert "br 8x4: 1 runs are read from the logs long" in told
    assert "1 runs in " in told  # seed 1 has no log
    (trained,) = lines(tmp_path / "short", "br-2")
    found = {line["seed"]: line for line in lines(tmp_path / "read", "br-2")}
    assert found[0] == {**trained, "log": "long"}
    assert found[1]["log"] == ""
    text = (tmp_path / "read" / "results" / "br-2-2-epochs.md").read_text()
    assert "1 of the 2 runs are this epoch of other tables' runs, read from their logs" in text
    assert "long: ReinMax 8x4 seed 0." in text


def test_a_log_of_another_run_is_not_taken(tmp_path: Path) -> None:
    """Of other settings, another seed or data set, or too short; and a damaged one is named."""
    assert run(tmp_path / "long", "table", "br-2", *CELL, "--epochs", "2") == 0
    logs = tmp_path / "logs"
    log(logs, tmp_path / "long")
    config = configure(estimator="reinmax", data="digits", epochs=2)
    assert [*logged.find(logs, [config])] == [config]
    others = ({"tau": 1.0}, {"seed": 1}, {"data": "mnist"}, {"epochs": 3}, {"shared_order": True})
    given = {"estimator": "reinmax", "data": "digits", "epochs": 2}
    for other in others:
        assert not logged.find(logs, [configure(**{**given, **other})]), other
    (logs / "long.jsonl").write_text("[]\n")
    with pytest.raises(RunError, match=r"long\.jsonl: line 1 is not a record"):
        logged.find(logs, [config])


def test_a_failed_run_is_read_as_failed(tmp_path: Path) -> None:
    """From its first epoch with a figure that is not finite on, as when it is trained."""
    assert run(tmp_path / "long", "table", "br-2", *CELL, "--epochs", "2") == 0
    logs = tmp_path / "logs"
    log(logs, tmp_path / "long")
    path = logs / "long.jsonl"
    first, second = map(json.loads, path.read_text().splitlines())
    path.write_text("".join(json.dumps(record) + "\n" for record in (first, {**second, "train_loss": None})))
    for epochs, failed in ((1, None), (2, 2)):
        config = configure(estimator="reinmax", data="digits", epochs=epochs)
        (found,) = logged.find(logs, [config]).values()
        assert (len(found.history), found.failed) == (epochs, failed)


def test_every_figure_that_says_so_is_in_its_log() -> None:
    """The committed table's."""
    folder = ROOT / "tasks" / "results"
    read = [r for r in results.read(folder, "family") if r.log]
    assert read
    for r in read:
        config = STUDIES["family"].config(r.column, r.method, seed=r.seed, data=r.data)
        found = logged.find(folder / "logs", [config])[config]
        assert found.log == r.log
        assert found.history[-1][f"{r.split}_loss"] == r.value


def test_the_committed_table_shows_the_settings_of_today() -> None:
    folder = ROOT / "tasks" / "results"
    found: list[Result] = results.read(folder, "family")
    shown = study.shown(found, TABLES["family"], {"data": "mnist", "device": "cpu", "epochs": None})
    assert shown == found


def test_a_table_of_our_own_has_no_paper_beside_it(tmp_path: Path) -> None:
    fields = {"table": "family", "column": "8x4", "method": "ReinMax", "split": "test", "epochs": 40, "data": "mnist"}
    found = [
        Result(seed=seed, value=value, device="cpu", commit="abc", **fields) for seed, value in ((0, 130.0), (1, 132.0))
    ]
    report.write("family", "a title", found, tmp_path, Console(quiet=True))
    text = (tmp_path / "family.md").read_text()
    assert "| test | 8x4 | ReinMax | 131.00 +- 1.41 | 2 | 130.00 | 132.00 |" in text
    assert "paper |" not in text
    assert TABLES["family"].note in text
