"""Polynomial programming: the problem, its training, and the command."""

import json
from pathlib import Path

import pytest
import torch

import discrete_ops as do
from tasks.polynomial import cli
from tasks.polynomial.programming import Setting, draw, expected, losses, train

pytestmark = pytest.mark.usefixtures("one_thread")

SHORT = Setting(latents=8, batch=16, lr=0.05, steps=200)


def test_expected_loss_is_the_mean_over_samples() -> None:
    theta = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    estimator = do.estimator("straight_through")
    x = draw(estimator, theta.expand(20000, -1, -1), torch.tensor([0]))
    assert x.unique().tolist() == [0, 1]
    values = losses(x, 1.5, 0.3).mean(-1)
    assert float(expected(theta, 1.5, 0.3)) == pytest.approx(float(values.mean()), abs=float(4 * values.std() / 141))
    assert float(expected(torch.tensor([[-50.0, 50.0]]), 3.0, 0.45)) == pytest.approx(0.45**3)


def test_training_comes_to_the_minimum() -> None:
    """Which straight-through, whose bias is largest, does not."""
    at_start, at_end = {}, {}
    for text in ("reinmax", "straight_through"):
        (curve,) = train(do.estimator(text), 2.0, [0], SHORT)
        assert len(curve) == 41
        at_start[text], at_end[text] = curve[0], curve[-1]
    assert at_start["reinmax"] == at_start["straight_through"] == pytest.approx((0.45**2 + 0.55**2) / 2, abs=1e-3)
    assert at_end["reinmax"] - 0.45**2 < 0.1 * (at_start["reinmax"] - 0.45**2)
    assert at_end["straight_through"] > at_end["reinmax"]


def test_a_seed_ends_as_it_does_alone() -> None:
    estimator = do.estimator("gumbel_softmax")
    both = train(estimator, 3.0, [0, 1], SHORT)
    assert both[1] == train(estimator, 3.0, [1], SHORT)[0] != both[0]


def test_command_trains_what_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def arguments(seeds: int) -> list[str]:
        given = f"--powers 2 3 --seeds {seeds} --latents 4 --batch 4 --steps 40 --out {tmp_path}"
        return [*given.split(), "--estimators", "reinmax", "gst(tau=0.5)"]

    assert cli.main(arguments(1)) == 0
    asked = []

    def noted(each: object, power: float, seeds: list[int], setting: Setting) -> list[list[float]]:
        asked.append((str(each), power, list(seeds)))
        return train(each, power, seeds, setting)  # type: ignore[arg-type]

    monkeypatch.setattr(cli, "train", noted)
    assert cli.main(arguments(2)) == 0
    assert asked == [
        (text, power, [1]) for power in (2.0, 3.0) for text in ("reinmax(tau=1.0)", "gst(tau=0.5, gap=1.0)")
    ]
    cells = json.loads((tmp_path / "polynomial.json").read_text())["cells"]
    assert len(cells) == 8
    share = [(curve[-1] - 0.45**2) / (curve[0] - 0.45**2) for name, curve in cells.items() if "p=2, reinmax" in name]
    assert f"{100 * sum(share) / 2:.2f} +- " in (tmp_path / "polynomial.md").read_text()
    assert (tmp_path / "polynomial.png").read_bytes().startswith(b"\x89PNG")

    # Of another setting nothing is taken.
    asked.clear()
    assert cli.main([*arguments(1), "--c", "0.4"]) == 0
    assert len(asked) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--estimators", "gsst"), "estimator: got 'gsst', allowed: an estimator"),
        (("--c", "0.5"), "c: got 0.5, allowed: between 0 and 0.5"),
        (("--powers", "2", "1"), "powers: got (2.0, 1.0), allowed: numbers > 1"),
        (("--steps", "0"), "steps: got 0, allowed: an int from 1"),
        (("--lr", "-1"), "lr: got -1.0, allowed: a number > 0"),
    ],
)
def test_error_is_one_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*arguments, "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1


def test_damaged_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "polynomial.json").write_text("[1]")
    assert cli.main(["--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/polynomial.json: not a file of settings")
