"""The VAE task: its recipes and its commands."""

import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import figures
from rich.console import Console

from discrete_ops import backends
from discrete_ops.estimators import ESTIMATORS, GST
from tasks.common.errors import RunError
from tasks.vae import cli, data, demo, results, study, sweep, train
from tasks.vae.recipes import BR_SETTINGS, configure
from tasks.vae.tables import TABLES

pytestmark = pytest.mark.usefixtures("one_thread")


# ---------------------------------------------------------------------------------------------------
# Recipes


def test_recipes_are_the_papers() -> None:
    """BR Table 4, as printed but for one cell; in full below, in its order: lr, tau, and which are Adam's."""
    printed = {
        "gumbel_softmax": "3e-4 .5, 5e-4 .3, 5e-4 .5, 7e-4 .7, 7e-4 .7, 5e-4 .5",
        "gumbel_rao": "5e-4 .5, 5.5e-4 .3, 7e-4 .7, 5e-4 1, 7e-4 2, 5e-4 1",
        "straight_through": "1e-3 1.3, 1e-3 1.5, 1e-3 1.5, 5e-4 1.5, 5e-4 1.5, 7e-3 1.4",  # but the last: 7e-4
        "gst": "5e-4 1, 5e-4 .5, 7e-4 .5, 7e-4 .5, 7e-4 .7, 5e-4 .5",
        "reinmax": "5e-4 1.3, 5e-4 1.5, 7e-4 1.5, 7e-4 1.5, 5e-4 1.5, 5e-4 1.3",
        "reinmax_rao": "5e-4 1, 5e-4 .7, 7e-4 1, 7e-4 1, 7e-4 1, 5e-4 .7",
        "reinmax_cv": "5e-4 1, 5e-4 1.3, 5e-4 1.1, 5e-4 .7, 5e-4 .7, 5e-4 .7",
    }
    printed |= {"reinmax_argmax": printed["reinmax"]}
    adam = {
        ("16x12", "gumbel_rao"),
        ("64x8", "gumbel_rao"),
        ("16x12", "straight_through"),
        ("64x8", "straight_through"),
    }
    assert list(BR_SETTINGS) == ["8x4", "4x24", "8x16", "16x12", "64x8", "10x30"]
    for estimator, cells in printed.items():
        for latent, cell in zip(BR_SETTINGS, cells.split(","), strict=True):
            config = configure(latent=latent, estimator=estimator)
            optimizer = "adam" if latent == "8x4" or (latent, estimator) in adam else "radam"
            assert (config.lr, config.tau) == tuple(map(float, cell.split())), (latent, estimator)
            assert config.optimizer == optimizer, (latent, estimator)
            assert (config.epochs, config.batch_size, config.relu_logits) == (160, 100, False)
            assert config.eta == (1.5 if estimator == "reinmax_cv" else None)
            assert config.num_samples in (100, None)
    config = configure(latent="64x8")
    assert (config.categories, config.latents) == (64, 8)
    config = configure(recipe="gst", estimator="gst")
    assert (config.latent, config.epochs, config.batch_size, config.relu_logits) == ("10x30", 40, 100, True)
    assert (config.lr, config.tau, config.optimizer, config.gap) == (1e-3, 0.5, "adam", 1.0)


@pytest.mark.parametrize("recipe", ["br", "gst"])
@pytest.mark.parametrize("estimator", list(ESTIMATORS))
def test_config_has_what_the_estimator_takes(recipe: str, estimator: str) -> None:
    for latent in BR_SETTINGS:
        config = configure(recipe=recipe, estimator=estimator, latent=latent)
        built = config.build_estimator()
        for name, value in {"tau": config.tau, "gap": 1.0, "eta": 1.5, "num_samples": 100}.items():
            assert getattr(config, name) == (value if hasattr(built, name) else None)
            assert getattr(built, name, None) == getattr(config, name)


def test_flags_override_the_recipe() -> None:
    flags = {
        "tau": 0.3,
        "gap": "pi",
        "lr": 0.1,
        "optimizer": "radam",
        "epochs": 7,
        "batch_size": 9,
        "relu_logits": True,
        "latent": "3x5",  # no row of the recipe, so all that it would have given must be given
    }
    config = configure(estimator="gst", seed=4, **flags)
    assert {name: getattr(config, name) for name in flags} == flags
    assert config.build_estimator() == GST(tau=0.3, gap="pi")
    config = configure(estimator="reinmax_cv", eta=0.5, num_samples=3)
    assert (config.eta, config.num_samples) == (0.5, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recipe": "x"}, "recipe: got 'x', allowed: 'br', 'gst'"),
        ({"estimator": "gts"}, "estimator: got 'gts', allowed: 'straight_through'"),
        ({"data": "cifar"}, "data: got 'cifar'"),
        ({"latent": "8"}, "latent: got '8'"),
        ({"latent": "1x4"}, "latent: got '1x4'"),
        ({"latent": "5x5", "lr": 1e-3}, "latent: got '5x5', allowed in recipe 'br': 8x4.* optimizer, tau given too"),
        ({"gap": 1.0}, "gap: got 1.0 for reinmax, which has none, allowed with: gst"),
        ({"estimator": "gst", "gap": -1.0}, "gap: got -1.0"),
        ({"estimator": "reinmax_rk2", "tau": 1.0}, "tau: got 1.0 for reinmax_rk2"),
        ({"tau": 0.0}, "tau: got 0.0"),
        ({"lr": 0.0}, "lr: got 0.0"),
        ({"lr": math.nan}, "lr: got nan"),
        ({"mid_tau": 0.0}, "mid_tau: got 0.0"),
        ({"estimator": "reinmax_rk2", "mid_tau": 0.5}, "mid_tau: got 0.5 for reinmax_rk2, which has no temperature"),
        ({"mid_tau": 0.5, "low_every": 0}, "low_every: got 0"),
        ({"low_every": 3}, "low_every: got 3, allowed with mid_tau"),
        ({"optimizer": "sgd"}, "optimizer: got 'sgd', allowed: 'adam', 'radam'"),
        ({"epochs": 0}, "epochs: got 0"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"seed": -1}, "seed: got -1"),
        ({"device": "gpu"}, "device: got 'gpu'"),
        ({"backend": "fortran"}, "backend: got 'fortran'"),
    ],
)
def test_bad_argument_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match=message):
        configure(**arguments)


# ---------------------------------------------------------------------------------------------------
# Commands


def test_help_names_commands_and_flags(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["--help"], ["train", "demo"]),
        (["train", "--help"], ["--estimator", "--recipe", "--latent", "--data-dir", "--no-resume", *ESTIMATORS]),
        (["demo", "--help"], ["--fresh"]),
    ):
        with pytest.raises(SystemExit) as exit_info:
            cli.main(arguments)
        assert exit_info.value.code == 0
        text = capsys.readouterr().out
        assert [word for word in words if word not in text] == []


def test_unknown_estimator_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--estimator", "gts", "--out", str(tmp_path / "run")]) == 1
    assert "estimator: got 'gts', allowed: 'straight_through'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_train_command_writes_a_run_and_resumes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "--estimator", "gst", "--gap", "pi", "--tau", "0.7", "--out", str(tmp_path)]
    assert cli.main([*arguments, "--epochs", "1", "--threads", "1"]) == 0
    anew, epoch, *_ = capsys.readouterr().out.splitlines()
    assert anew == f"starting anew (no checkpoint in {tmp_path})"
    assert epoch.startswith("epoch 1/1: train ")
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["estimator"], config["gap"], config["tau"], config["lr"]) == ("gst", "pi", 0.7, 5e-4)
    (record,) = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    halves = {f"{name}_{part}" for name in ("train", "test") for part in ("loss", "bce", "kl")}
    assert set(record) == {"epoch", "seconds"} | halves
    for name in ("curves", "reconstructions", "samples"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main([*arguments, "--epochs", "2"]) == 0
    output = capsys.readouterr().out
    assert f"resumed at epoch 2 of 2, from {tmp_path / 'checkpoint.pt'}" in output
    assert "epoch 2/2" in output
    assert "epoch 1/2" not in output
    assert cli.main([*arguments, "--epochs", "2"]) == 0
    assert f"nothing to train: 2 of 2 epochs are done in {tmp_path / 'checkpoint.pt'}" in capsys.readouterr().out
    assert cli.main([*arguments, "--epochs", "1", "--no-resume"]) == 0
    assert f"starting anew (told not to resume {tmp_path / 'checkpoint.pt'})" in capsys.readouterr().out


def test_figure_that_is_not_finite_ends_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--lr", "1e30", "--epochs", "3", "--out", str(tmp_path)]) == 1
    assert "reinmax: train_loss is nan in epoch 1" in capsys.readouterr().err
    assert figures(tmp_path) == []


def test_missing_tensorboard_is_named(few: data.Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(RunError, match="tensorboard: is not installed"):
        train.fit(configure(epochs=1), few, tmp_path, tensorboard=True)


# ---------------------------------------------------------------------------------------------------
# What a user gets wrong

LINE = {"table": "br-2", "column": "8x4", "method": "ST", "seed": 0, "split": "train", "value": 1.0, "epochs": 1}
LINE |= {"data": "digits", "device": "cpu", "commit": "abc"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"value": "abc"}, "value: got 'abc'"),
        ({"value": float("nan")}, "got NaN"),
        ({"value": None}, "value: got None, failed: None"),
        ({"failed": 3}, "value: got 1.0, failed: 3"),
        ({"seed": "0"}, "seed: got '0'"),
        ({"seed": 0.5}, "seed: got 0.5"),
        ({"epochs": True}, "epochs: got True"),
        ({"column": ["8x4"]}, "column: got \\['8x4'\\]"),
        ({"more": 1}, "more"),
    ],
)
def test_damaged_line_is_named(damage: dict[str, Any], message: str, tmp_path: Path) -> None:
    """By what is wrong with it, before it becomes a wrong mean: a seed of "0" would count beside seed 0."""
    path = tmp_path / "br-2.jsonl"
    path.write_text(json.dumps(LINE) + "\n" + json.dumps({**LINE, **damage}) + "\n")
    with pytest.raises(RunError, match=rf"br-2\.jsonl: line 2 is not a result \(.*{message}"):
        results.read(tmp_path, "br-2")
    path.write_text(json.dumps({**LINE, "value": 1}) + "\n")
    assert results.read(tmp_path, "br-2") == [results.Result(**LINE)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        ("table br-2", "out"),
        ("table br-2", "results"),
        ("table gst-1", "results"),
        ("figure gst-1", "results"),
        ("sweep --epochs 1", "out"),
        ("train --epochs 1", "out"),
        ("demo --epochs 1", "out"),
    ],
)
def test_folder_that_is_a_file_is_an_error(
    command: str, flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Told before anything is trained."""
    (tmp_path / "file").write_text("mine")
    place = tmp_path / "file" / "below"
    digits = [] if command.startswith("demo") else ["--data=digits"]
    assert cli.main([*command.split(), *digits, f"--{flag}={place}"]) == 1
    error = capsys.readouterr().err
    assert f"error: {flag}: got {place}, allowed: a directory that can be written; {tmp_path / 'file'} " in error
    assert (tmp_path / "file").read_text() == "mine"
    # Where nobody can write, root neither; and a name that is no name
    for bad, reason in (("/proc/x", "/proc cannot be written ("), (f"/tmp/{'x' * 300}", "cannot be written (")):
        assert cli.main([*command.split(), *digits, f"--{flag}={bad}"]) == 1
        error = capsys.readouterr().err
        assert f"error: {flag}: got {bad}, allowed: a directory that can be written; " in error
        assert reason in error


def test_sweep_tells_why_every_trial_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--epochs=1", "--taus=1.0", "--lrs=1e-3", "--optimizers=adam", f"--data-dir={tmp_path / 'none'}"]
    assert cli.main(["sweep", "--data=mnist", *flags, f"--out={tmp_path / 'out'}"]) == 1
    assert f"tau=1 seed=0: data_dir: {tmp_path / 'none'}" in capsys.readouterr().err


def test_sweep_tells_close_temperatures_apart() -> None:
    configs = sweep.grid("reinmax", (0,), data="digits", taus=(0.12345671, 0.12345674, 1.0), lrs=(5e-4, 1e-3))
    assert len({sweep._column(config) for config in configs}) == len(configs)
    assert "adam lr=0.0005 tau=1" in {sweep._column(config) for config in configs}  # as in trials of earlier versions


def test_report_keeps_a_row_that_was_not_asked_for() -> None:
    """ReinMax-CV with the other control is no row of the paper's: it is not trained unasked, but shown where it was."""
    found = []
    for method in ("ST", "ReinMax-CV (gumbel)"):
        config = study.STUDIES["br"].config("8x4", method, data="mnist")
        found.append(
            results.Result(**{**LINE, "method": method, "settings": config.settings, "epochs": 160, "data": "mnist"})
        )
    assert study.shown(found, TABLES["br-2"], {"data": "mnist"}) == found
    assert "ReinMax-CV (gumbel)" not in TABLES["br-2"].rows()


def test_demo_reports_all_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two estimators, one of them sick at first: exit status 1; cured: only that one trains, exit status 0."""
    monkeypatch.setattr(demo, "ESTIMATORS", {name: ESTIMATORS[name] for name in ("gst", "reinmax")})

    def sick(estimator: str, epochs: int, seed: int) -> Any:
        return configure(estimator=estimator, epochs=epochs, seed=seed, lr=1e30 if estimator == "gst" else None)

    def run() -> tuple[int, str]:
        console = Console(record=True, width=200)
        status = demo.run(tmp_path, 1, False, console)
        return status, console.export_text()

    with monkeypatch.context() as patch:
        patch.setattr(demo, "configure", sick)
        status, text = run()
    assert status == 1
    assert "error: gst: train_loss is nan in epoch 1" in text
    assert f"reinmax: done; it was starting anew (no checkpoint in {tmp_path / 'reinmax'})" in text
    assert [row["estimator"] for row in json.loads((tmp_path / "summary.json").read_text())["results"]] == ["reinmax"]

    before = (tmp_path / "reinmax" / "result.json").stat().st_mtime_ns
    status, text = run()
    assert status == 0
    assert f"backend {backends.resolve(None, 'cpu')}; finished before: 1 of 2" in text
    assert (tmp_path / "reinmax" / "result.json").stat().st_mtime_ns == before
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [row["estimator"] for row in summary["results"]] == ["gst", "reinmax"]
    for row in summary["results"]:
        last = figures(tmp_path / row["estimator"])[-len(demo.SEEDS) :]
        assert row["train_losses"] == [record["train_loss"] for record in last]
        losses = row["test_losses"]
        shown = f"{statistics.fmean(losses):.2f} +- {statistics.stdev(losses):.2f}"
        assert shown in text
        assert shown in (tmp_path / "summary.md").read_text()
        alone = train.fit(
            configure(estimator=row["estimator"], epochs=1, seed=1),
            data.load("digits"),
            tmp_path / "alone",
            resume=False,
        )
        assert losses[1] == alone.history_of(0)[-1]["test_loss"]
    for name in ("curves", "reconstructions", "samples"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")

    (tmp_path / "gst" / "result.json").write_text("{}")
    with pytest.raises(RunError, match=r"gst/result\.json: "):
        run()
