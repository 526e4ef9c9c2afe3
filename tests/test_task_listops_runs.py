"""The ListOps task's runs: they survive interruption, stop early, and its commands."""

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import figures

from discrete_ops.estimators import ESTIMATORS, GST
from tasks.common import files, papers
from tasks.common.errors import RunError
from tasks.listops import cli, data, expressions, parsing, recipes, results, train, treelstm, trees
from tasks.listops.recipes import PRESETS, configure

pytestmark = pytest.mark.usefixtures("one_thread")

TINY: dict[str, Any] = {"hidden": 8, "max_tokens": 12, "batch_size": 16, "epochs": 3, "lr": 0.01}
FLAGS = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
VOLATILE = ("seconds", "cpu_seconds", "lines_per_second")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Generated files of few lines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "SIZES", {"train": 90, "valid": 40, "test": 30})
        path = tmp_path_factory.mktemp("listops")
        data.write(path, 1)
        yield path


@pytest.fixture(scope="module")
def splits(directory: Path) -> data.Splits:
    return data.load(directory)


def recorded(path: Path) -> list[dict[str, float]]:
    return [{name: value for name, value in record.items() if name not in VOLATILE} for record in figures(path)]


# ---------------------------------------------------------------------------------------------------
# Recipes


def test_presets() -> None:
    config = configure("paper", "gst")
    assert (config.hidden, config.max_tokens, config.dropout, config.lr, config.clip) == (300, 100, 0.5, 1e-3, 5)
    assert (config.batch_size, config.epochs, config.epoch_steps) == (16, 20, None)
    assert config.build_estimator() == GST(tau=1.0, gap=1.0)
    config = configure("small", "gumbel_rao", tau=0.1)
    assert (config.hidden, config.max_tokens, config.tau, config.num_samples, config.gap) == (64, 30, 0.1, 100, None)


@pytest.mark.parametrize("estimator", list(ESTIMATORS))
def test_config_has_what_the_estimator_takes(estimator: str) -> None:
    config = configure(estimator=estimator)
    built = config.build_estimator()
    for name, value in {"tau": 1.0, "gap": 1.0, "eta": 1.5, "num_samples": 100}.items():
        assert getattr(built, name, None) == getattr(config, name) == (value if hasattr(built, name) else None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "large"}, "preset: got 'large', allowed: 'paper', 'small'"),
        ({"estimator": "gts"}, "estimator: got 'gts', allowed: 'straight_through'"),
        ({"estimator": "reinmax", "gap": 1.0}, "gap: got 1.0 for reinmax, which has none, allowed with: gst"),
        ({"tau": 0.0}, "tau: got 0.0"),
        ({"hidden": 0}, "hidden: got 0"),
        ({"epoch_steps": 0}, "epoch_steps: got 0"),
        ({"dropout": 1.0}, r"dropout: got 1.0, allowed: a number in \[0, 1\)"),
        ({"lr": float("inf")}, "lr: got inf"),
        ({"clip": -1.0}, "clip: got -1.0"),
        ({"seed": -1}, "seed: got -1"),
        ({"device": "abacus"}, "device: got 'abacus'"),
        ({"backend": "fast"}, "backend: got 'fast'"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match=message):
        configure(**arguments)


# ---------------------------------------------------------------------------------------------------
# Runs


def test_run_writes_its_files(splits: data.Splits, tmp_path: Path) -> None:
    config = configure(**TINY)
    trainer = train.fit(config, splits, tmp_path)
    records = figures(tmp_path)
    assert [record["epoch"] for record in records] == [1, 2, 3]
    assert records[-1]["train_loss"] < records[0]["train_loss"]
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["estimator"] == "gst"
    assert written["environment"]["data"] == splits.digest()
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["test_lines"], result["test_all_lines"]) == (len(splits.test.shorter(12)), 30)
    assert result["epoch"] == trainer.best_epoch
    # The same once more, line by line and without batches.
    model, short = trainer.best_model(), splits.test.shorter(12)
    right, f1 = 0, 0.0
    for number, text in enumerate(short.texts):
        logits, merges = model(short.batch(torch.tensor([number])), treelstm.greedy)
        right += int(logits.argmax()) == int(short.labels[number])
        f1 += trees.f1(trees.spans(merges[0].tolist()), trees.gold_spans(text))
    assert result["test_accuracy"] == right / len(short)
    assert result["test_f1"] == pytest.approx(f1 / len(short))


@pytest.mark.parametrize("estimator", list(ESTIMATORS))
def test_every_estimator_trains(estimator: str, splits: data.Splits, tmp_path: Path) -> None:
    config = configure(estimator=estimator, **{**TINY, "epochs": 1, "epoch_steps": 2})
    record = train.fit(config, splits, tmp_path).history[0]
    assert 0 < record["train_loss"] < 10


def test_interrupted_run_ends_as_one_that_was_not(splits: data.Splits, tmp_path: Path) -> None:
    config = configure(**{**TINY, "dropout": 0.2})
    whole = train.fit(config, splits, tmp_path / "whole")

    def interrupt(steps: train.Steps) -> None:
        if (steps.epoch, steps.done) == (2, 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.fit(config, splits, tmp_path / "parts", on_step=interrupt)
    assert len(figures(tmp_path / "parts")) == 1
    parts = train.fit(config, splits, tmp_path / "parts")
    assert recorded(tmp_path / "parts") == recorded(tmp_path / "whole")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, parts.model.state_dict()[name])
    assert (tmp_path / "parts/result.json").read_text() == (tmp_path / "whole/result.json").read_text()


def test_seed_and_estimator_decide(splits: data.Splits, tmp_path: Path) -> None:
    runs = {}
    for name, change in {"a": {}, "b": {}, "seed": {"seed": 1}, "tau": {"tau": 0.5}}.items():
        train.fit(configure(**{**TINY, "epochs": 1, **change}), splits, tmp_path / name)
        runs[name] = recorded(tmp_path / name)
    assert runs["a"] == runs["b"]
    assert runs["seed"] != runs["a"] != runs["tau"]


def test_stops_when_validation_gets_no_better(splits: data.Splits, tmp_path: Path) -> None:
    config = configure(**{**TINY, "lr": 1e-30, "epochs": 50, "patience": 2})
    trainer = train.fit(config, splits, tmp_path)
    assert (trainer.epoch, trainer.best_epoch) == (3, 1)
    again = train.fit(config, splits, tmp_path)
    assert again.epoch == 3


def test_best_model_is_kept(splits: data.Splits, tmp_path: Path) -> None:
    trainer = train.Trainer(configure(**{**TINY, "lr": 0.05}), splits)
    for _ in range(4):
        trainer.run_epoch(lambda steps: None)
    best = max(record["valid_accuracy"] for record in trainer.history)
    assert best > trainer.history[trainer.best_epoch - 2]["valid_accuracy"] or trainer.best_epoch == 1
    again = train.evaluate(trainer.best_model(), trainer.config, trainer.valid)
    assert again["accuracy"] == best


def test_epoch_steps(splits: data.Splits, tmp_path: Path) -> None:
    seen: list[train.Steps] = []
    train.fit(configure(**{**TINY, "epoch_steps": 2, "epochs": 2}), splits, tmp_path, on_step=seen.append)
    assert seen == [train.Steps(epoch, done, 2) for epoch in (1, 2) for done in (0, 1, 2)]


def test_checkpoint_of_another_run_is_refused(splits: data.Splits, tmp_path: Path) -> None:
    config = configure(**{**TINY, "epochs": 2})
    train.fit(config, splits, tmp_path)
    with pytest.raises(RunError, match=r"checkpoint.pt: belongs to another run: tau is 1.0 there and 0.5 here"):
        train.fit(configure(**{**TINY, "tau": 0.5}), splits, tmp_path)
    with pytest.raises(RunError, match=r"epochs: got 1, allowed: 2 or more"):
        train.fit(configure(**{**TINY, "epochs": 1}), splits, tmp_path)
    assert train.fit(configure(**{**TINY, "epochs": 3}), splits, tmp_path).epoch == 3
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(RunError, match=r"checkpoint.pt: not a readable checkpoint"):
        train.load(config, splits, tmp_path)


def test_a_checkpoint_of_an_earlier_version_goes_on(splits: data.Splits, tmp_path: Path) -> None:
    """Which has one hash of all lines."""
    train.fit(configure(**{**TINY, "epochs": 1}), splits, tmp_path)
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    content["state"]["data"] = "0123456789abcdef"
    torch.save(content, tmp_path / "checkpoint.pt")
    assert train.fit(configure(**{**TINY, "epochs": 2}), splits, tmp_path).epoch == 2


def test_checkpoint_of_other_lines_is_refused(splits: data.Splits, tmp_path: Path) -> None:
    """A test set may change: the figures on it are computed anew."""
    config = configure(**{**TINY, "epochs": 1})
    train.fit(config, splits, tmp_path)
    longer = configure(**{**TINY, "epochs": 2})
    fewer = splits.train.shorter(int(splits.train.lengths.max()) - 1)
    with pytest.raises(RunError, match=r"checkpoint.pt: belongs to other data, by its hash: train.tsv has \w+ there"):
        train.fit(longer, splits._replace(train=fewer), tmp_path)
    assert train.fit(longer, splits._replace(test=splits.valid), tmp_path).epoch == 2


def test_two_processes_do_not_share_a_run(splits: data.Splits, tmp_path: Path) -> None:
    with files.locked(tmp_path), pytest.raises(files.Occupied, match=f"{tmp_path}: another process is at work there"):
        train.fit(configure(**TINY), splits, tmp_path)
    assert train.fit(configure(**{**TINY, "epochs": 1}), splits, tmp_path).epoch == 1


def test_no_line_short_enough(splits: data.Splits) -> None:
    with pytest.raises(
        RunError, match=r"max_tokens: got 1, allowed: \d or more, the shortest (train|valid) line's length"
    ):
        train.Trainer(configure(**{**TINY, "max_tokens": 1}), splits)


def test_figure_that_is_not_finite_stops_the_run(splits: data.Splits, tmp_path: Path) -> None:
    trainer = train.Trainer(configure(**TINY), splits)
    with torch.no_grad():
        trainer.model.mlp_bias[1][0] = torch.nan
    with pytest.raises(RunError, match="gst: train_loss is nan in epoch 1"):
        trainer.run_epoch(lambda steps: None)


# ---------------------------------------------------------------------------------------------------
# Commands


def test_commands(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """train, with its files; parse, sampled too."""
    out = tmp_path / "run"
    common = ["train", *FLAGS, "--epochs=1", f"--data-dir={directory}", f"--out={out}", "--tensorboard"]
    assert cli.main(common) == 0
    assert "train loss" in capsys.readouterr().out
    names = {path.name for path in out.iterdir()}
    assert {"config.json", "metrics.jsonl", "checkpoint.pt", "result.json", "curves.png", "trees.png"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)

    picture = tmp_path / "picture.png"
    text = "[MAX 2 9 [MIN 4 7 ] 0 ]"
    assert cli.main(["parse", str(out), text, "--samples=2", f"--picture={picture}"]) == 0
    first = capsys.readouterr().out
    lines = first.splitlines()
    gold = "( ( ( ( ( [MAX 2 ) 9 ) ( ( ( [MIN 4 ) 7 ) ] ) ) 0 ) ] )"
    assert lines[:2] == ["gold: 9", gold]
    assert [line.split(":")[0] for line in lines[2::2]] == ["greedy", "sample 1", "sample 2"]
    assert all(line.replace("(", "").replace(")", "").split() == text.split() for line in lines[1::2])
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert cli.main(["parse", str(out), gold, "--samples=2"]) == 0  # the brackets are left out of account
    assert capsys.readouterr().out == first


def test_data_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(data, "SIZES", {"train": 9, "valid": 3, "test": 2})
    assert cli.main(["data", f"--out={tmp_path}", "--seed=4"]) == 0
    assert [len(lines) for lines in data.load(tmp_path)] == [9, 3, 2]
    assert cli.main(["data", f"--out={tmp_path}", "--seed=-4"]) == 1
    assert "seed: got -4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--threads=0"], "threads: got 0"),
        (["table", "gst-6", "--seeds=0"], "seeds: got 0"),
        (["table", "gst-6", "--methods", "GST-2.0"], "methods: got 'GST-2.0', allowed: 'STGS', 'GR-MC100'"),
        (["table", "gst-6", "--columns", "tau=2"], "columns: got 'tau=2', allowed: 'tau=1.0', 'tau=0.1'"),
        (["train", "--estimator=gts"], "estimator: got 'gts'"),
        (["data", "--out={directory}/train.tsv"], "out: got {directory}/train.tsv, allowed: a directory that can be"),
        (
            ["data", "--out=/proc/x"],
            "out: got /proc/x, allowed: a directory that can be written; /proc cannot be written",
        ),
        (["train", "--out=/proc/x"], "out: got /proc/x, allowed"),
        (
            ["table", "gst-6", "--out=/dev/null/x"],
            "out: got /dev/null/x, allowed: a directory that can be written; /dev/null",
        ),
        (["train", "--data-dir=/proc/x", "--out={directory}/new"], "data_dir: got /proc/x, allowed"),
        (["parse", "nowhere", "7", "--picture=/proc/x/a.png"], "picture: got /proc/x, allowed"),
        (["parse", "nowhere", "7", "--picture={directory}"], "picture: got {directory}, allowed: a file"),
        (["train", "--out={directory}/train.tsv"], "train.tsv is no directory"),
        (["table", "gst-6", "--out={directory}/train.tsv"], "train.tsv is no directory"),
        (["table", "gst-6", "--results={directory}/train.tsv/below"], "train.tsv is no directory"),
        (["train", "--data-dir={directory}", "--test-file=nothing.tsv"], "nothing.tsv: cannot be read"),
        (["parse", "nowhere", "7"], "run: nowhere/checkpoint.pt does not exist"),
        (["parse", "nowhere", "7", "--samples=-1"], "samples: got -1"),
        (["parse", "nowhere", "[MAX 3"], "expression: got '[MAX 3': '[MAX' is not closed"),
        (["parse", "nowhere", "[MOX 3 4 ]"], "expression: got '[MOX 3 4 ]': unknown token '[MOX'"),
        (["parse", "nowhere", ""], "expression: got '': no tokens"),
    ],
)
def test_wrong_commands_are_named(
    arguments: list[str], message: str, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([argument.format(directory=directory) for argument in arguments]) == 1
    assert message.format(directory=directory) in capsys.readouterr().err


@pytest.fixture
def table_flags(directory: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(cli.Run, "draw", lambda *arguments: None)  # many pictures would take their time
    tiny = replace(recipes.PRESETS["small"], **{**TINY, "epochs": 1, "epoch_steps": 1})
    monkeypatch.setitem(recipes.PRESETS, "small", tiny)
    return ["table", "gst-6", f"--data-dir={directory}"]


def rows_of(path: Path) -> dict[tuple[str, str], list[str]]:
    cells = [line.strip("| ").split(" | ") for line in path.read_text().splitlines() if line.startswith("| tau=")]
    return {(column, method): rest for column, method, *rest in cells}


def test_table_shows_the_papers_figures(
    table_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every cell has the figure that the paper's table has there, and one of ours; spot checks against the print."""
    assert cli.main([*table_flags, f"--out={tmp_path}"]) == 0
    rows = rows_of(tmp_path / "gst-6-small.md")
    assert len(rows) == 18
    for method, row in papers.figures("GST Table 6").items():
        for column, figure in row.items():
            assert rows[column, method][0] == f"{figure.value:.3f} +- {figure.spread:.3f}"
            result = json.loads((tmp_path / f"{method}-{column}-0/result.json").read_text())
            accuracy, f1 = result["test_accuracy"], result["test_f1"]
            assert figure.value is not None
            assert figure.spread is not None
            assert rows[column, method][1:6] == [
                f"{accuracy:.3f}",
                "1",
                f"{accuracy - figure.value:+.3f}",
                f"{(accuracy - figure.value) / figure.spread:+.1f}",
                f"{f1:.2f}",
            ]
    assert rows["tau=0.01", "STGS"][0] == "0.479 +- 0.258"
    assert rows["tau=0.1", "GR-MC100"][0] == "0.637 +- 0.049"
    assert rows["tau=1.0", "GST-pi"][0] == "0.659 +- 0.006"
    assert "0.479 +- 0.258" in capsys.readouterr().out
    trained = {json.loads(path.read_text())["gap"] for path in tmp_path.glob("GST-*/config.json")}
    assert trained == {0.8, 1.0, 1.2, "pi"}


def test_table_of_two_seeds(table_flags: list[str], tmp_path: Path) -> None:
    """A second seed is another run, in a folder of its own; the table has their mean and sample deviation."""
    flags = [*table_flags, f"--out={tmp_path}", "--methods", "GST-pi", "STGS", "--columns", "tau=0.1"]
    assert cli.main(flags) == 0
    assert cli.main([*flags, "--seeds=2"]) == 0
    found = results.read(tmp_path / "gst-6-small.jsonl")
    assert [(r.method, r.column, r.seed) for r in found] == [
        (method, "tau=0.1", seed) for seed in (0, 1) for method in ("GST-pi", "STGS")
    ]
    assert [r.commit for r in found].count(found[0].commit) == 4
    for result in found:
        config = json.loads((tmp_path / f"{result.method}-tau=0.1-{result.seed}/config.json").read_text())
        assert (config["seed"], config["tau"]) == (result.seed, 0.1)
    losses = {figures(tmp_path / f"GST-pi-tau=0.1-{seed}")[0]["train_loss"] for seed in (0, 1)}
    assert len(losses) == 2
    a, b = (r.figures["test_accuracy"] for r in found if r.method == "GST-pi")
    row = rows_of(tmp_path / "gst-6-small.md")["tau=0.1", "GST-pi"]
    assert row[1:3] == [f"{(a + b) / 2:.3f} +- {abs(a - b) / math.sqrt(2):.3f}", "2"]
    assert rows_of(tmp_path / "gst-6-small.md")["tau=1.0", "GST-pi"][1:3] == ["not run", "0"]


def test_table_trains_no_run_twice(table_flags: list[str], tmp_path: Path) -> None:
    """Neither one that has ended, wherever its folder went, nor the epochs of one that was interrupted."""
    flags = [*table_flags, f"--out={tmp_path}", f"--results={tmp_path / 'kept'}", "--columns", "tau=0.01"]
    assert cli.main([*flags, "--methods", "STGS"]) == 0
    shutil.rmtree(tmp_path / "STGS-tau=0.01-0")
    gst = tmp_path / "GST-1.0-tau=0.01-0"
    splits = data.load(_data_dir(flags))
    config = configure("small", "gst", tau=0.01, gap=1.0)
    train.fit(config, splits, gst)
    (gst / "result.json").unlink()
    before = (gst / "checkpoint.pt").stat().st_mtime_ns
    assert cli.main([*flags, "--methods", "STGS", "GST-1.0"]) == 0
    assert not (tmp_path / "STGS-tau=0.01-0").exists()
    assert (gst / "checkpoint.pt").stat().st_mtime_ns == before
    first = (tmp_path / "kept/gst-6-small.md").read_text()
    assert cli.main([*flags, "--no-train"]) == 0
    assert (tmp_path / "kept/gst-6-small.md").read_text() == first
    assert len(rows_of(tmp_path / "kept/gst-6-small.md")) == 18


def _data_dir(flags: list[str]) -> Path:
    return Path(next(flag for flag in flags if flag.startswith("--data-dir=")).partition("=")[2])


def test_table_keeps_other_experiments_apart(
    table_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs of other settings or lines are not in one mean; a damaged result is named."""
    flags = [*table_flags, f"--results={tmp_path}", "--methods", "STGS", "--columns", "tau=1.0"]
    assert cli.main([*flags, f"--out={tmp_path / 'a'}"]) == 0
    assert cli.main([*flags, f"--out={tmp_path / 'b'}", "--hidden=6"]) == 0
    other = tmp_path / "other.tsv"
    other.write_text("".join((_data_dir(flags) / "test.tsv").read_text().splitlines(keepends=True)[:20]))
    capsys.readouterr()
    assert cli.main([*flags, f"--out={tmp_path / 'a'}", f"--test-file={other}"]) == 0
    assert len(results.read(tmp_path / "gst-6-small.jsonl")) == 3
    assert rows_of(tmp_path / "gst-6-small.md")["tau=1.0", "STGS"][2] == "1"
    trial = rows_of(tmp_path / "gst-6-small-hidden=6.md")  # not the paper's experiment, nor the report's
    assert trial["tau=1.0", "STGS"][0] == "-"
    assert trial["tau=1.0", "STGS"][2:5] == ["1", "-", "-"]
    assert cli.main([*flags, "--no-train"]) == 1
    assert "results: hold runs of 2 sets of lines" in capsys.readouterr().err
    (tmp_path / "gst-6-small.jsonl").write_text("{}\n")
    assert cli.main([*flags, "--no-train"]) == 1
    assert "gst-6-small.jsonl: line 1 is not a result" in capsys.readouterr().err


def test_parses_are_trees_of_the_line(splits: data.Splits) -> None:
    trainer = train.Trainer(configure(**TINY), splits)
    tokens = parsing.read_expression("[SM 1 2 [MED 3 4 ] ]")
    assert tokens == expressions.parse("( ( ( ( [SM 1 ) 2 ) ( ( ( [MED 3 ) 4 ) ] ) ) ] )")
    found = parsing.parses(trainer.model, trainer.config, tokens, 20, 0)
    assert [parse.title for parse in found[:2]] == ["greedy", "sample 1"]
    shapes = {tuple(parse.merges) for parse in found}
    assert len(shapes) > 5  # an untrained model's scores are near each other
    assert found == parsing.parses(trainer.model, trainer.config, tokens, 20, 0)
    assert parsing.parses(trainer.model, trainer.config, [7], 1, 0)[1].merges == []


def test_presets_are_what_the_flags_offer() -> None:
    assert set(cli.Train.__dataclass_fields__) >= set(recipes.Preset.__dataclass_fields__)
    assert set(PRESETS) == {"paper", "small"}
