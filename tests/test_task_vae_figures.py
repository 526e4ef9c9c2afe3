"""The study's tables and figures that are not of trained runs: what is measured on a VAE, and what is computed."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from task_helpers import lines, run
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from discrete_ops import diagnostics
from discrete_ops.estimators import ReinMax, StraightThrough
from tasks.vae import data, measured, train
from tasks.vae.ensemble import Ensemble
from tasks.vae.gradients import Decoded, measure
from tasks.vae.recipes import configure

pytestmark = pytest.mark.usefixtures("one_thread")


# ---------------------------------------------------------------------------------------------------
# BR Figure 1 and Table 1


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few images and draws."""
    for name, value in {"IMAGES": 2, "DRAWS": 50, "BATCHES": 3}.items():
        monkeypatch.setattr(measured, name, value)


@pytest.mark.usefixtures("quick", "small")
def test_figure_1_starts_with_the_untrained_vae(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(tmp_path, "figure", "br-1", "--epochs", "2") == 0
    found = lines(tmp_path, "figure-br-1")
    assert {line["epochs"] for line in found} == {0, 2}
    assert {line["split"] for line in found} == {"cosine", "relative_std", "std"}
    cosines = {(line["method"], line["epochs"]): line["value"] for line in found if line["split"] == "cosine"}
    assert all(-1 <= value <= 1 for value in cosines.values())
    assert len(set(cosines.values())) == len(cosines) == 16
    assert (tmp_path / "results" / "figure-br-1-2-epochs.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "results" / "figure-br-1-2-epochs.md").read_text()
    assert f"{cosines['ReinMax', 0]:.2f} | {cosines['ReinMax', 2]:.2f}" in text

    images = data.load("digits")
    untrained = Ensemble([configure(tau=1.0, epochs=2)], images)
    order = torch.randperm(len(images.train), generator=torch.Generator().manual_seed(0))
    spread = measure(untrained.member(0), images.train[order[:2]], {"ReinMax": ReinMax()}, 50, seed=0)
    assert cosines["ReinMax", 0] == spread["ReinMax"].cosine

    # One epoch's checkpoint and its results are lost: they come back as they were.
    (tmp_path / "digits-8x4-reinmax-tau=1.0-2-0" / "epoch-2.pt").unlink()
    path = tmp_path / "results" / "figure-br-1.jsonl"
    path.write_text("".join(line for line in path.open() if '"epochs": 0' in line))
    assert run(tmp_path, "figure", "br-1", "--epochs", "2") == 0
    assert sorted(map(repr, lines(tmp_path, "figure-br-1"))) == sorted(map(repr, found))


@pytest.mark.usefixtures("quick", "small")
def test_table_1_is_a_mean_over_minibatches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(tmp_path, "table", "br-1", "--epochs", "1") == 0
    found = lines(tmp_path, "br-1")
    assert {line["method"] for line in found} == {"Straight-Through", "ReinMax", "ReinMax-Argmax"}
    assert len({line["column"] for line in found}) == 3
    assert all("tau 1.3" in line["column"] and "50 draws" in line["column"] for line in found)
    values = {(line["split"], line["method"], line["column"][-1]): line["value"] for line in found}
    assert len(set(values.values())) == 4 * 3 * 3
    ratios = [values["std", "ReinMax", k] / values["std", "Straight-Through", k] for k in "012"]
    text = (tmp_path / "results" / "br-1-1-epochs.md").read_text()
    assert f"{sum(ratios) / 3:.2f}" in text
    assert "7.40" not in text  # neither the paper's data nor its epochs
    with monkeypatch.context() as patch:  # nothing is trained or measured again, not even without its directory
        patch.setattr(train, "fit", None)
        patch.setattr(measured, "measure", None)
        patch.setattr(data, "load", None)
        shutil.rmtree(tmp_path / "digits-8x4-reinmax-tau=1.3-1-0")
        assert run(tmp_path, "table", "br-1", "--epochs", "1") == 0


def test_measured_settings_are_the_papers() -> None:
    figure, table = measured.figure_1(), measured.table_1()
    assert (measured.DRAWS, measured.IMAGES, measured.LAST) == (1024, 100, 50)
    assert measured.epochs_until(50) == (0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50)
    assert (figure.tau, table.tau) == (1.0, 1.3)
    taus = {name: estimator.tau for name, estimator in figure.estimators.items()}
    assert taus.pop("ReinMax-CV, tau 0.1") == 0.1
    assert set(taus.values()) == {1.0}
    assert {estimator.tau for estimator in table.estimators.values()} == {1.3}


def test_failed_model_is_no_error(few: data.Images) -> None:
    model = Ensemble([configure(estimator="reinmax", latent="3x2", lr=1e-3, tau=1.0, optimizer="adam")], few).member(0)
    model.encoder[0].weight.data[:] = torch.nan
    assert math.isnan(measure(model, few.train[:2], {"ST": StraightThrough()}, 10, seed=0)["ST"].cosine)


def test_spread_is_that_of_the_estimator(few: data.Images) -> None:
    """ReinMax is nearer to the exact gradient than ST, and noisier. A batch's variance is that of its images' sum."""
    run = Ensemble([configure(estimator="reinmax", latent="3x2", tau=1.0, lr=3e-3, optimizer="adam")], few)
    for _ in range(12):
        run.run_epoch()
    model = run.member(0)
    found = measure(model, few.train[:10], {"ST": StraightThrough(), "ReinMax": ReinMax()}, 800, seed=0)
    assert found["ReinMax"].cosine > 0.97
    assert found["ReinMax"].cosine > found["ST"].cosine
    assert found["ReinMax"].std > found["ST"].std > 0
    each = [measure(model, few.train[k : k + 1], {"ST": StraightThrough()}, 800, seed=k)["ST"] for k in range(10)]
    assert found["ST"].std == pytest.approx(sum(m.std for m in each) / 10)
    assert found["ST"].batch_std == pytest.approx(math.sqrt(sum(m.std**2 for m in each)) / 10)


def test_decoded_codes_have_the_models_losses(few: data.Images) -> None:
    """Against the model itself, code by code; and the measured gradient against diagnostics without the short cut."""
    config = configure(estimator="reinmax", latent="3x2", tau=1.0, lr=3e-3, optimizer="adam")
    model = Ensemble([config], few).member(0)
    decoded, image = Decoded(model), few.train[0]

    def loss(codes: Tensor) -> Tensor:
        output = model.decode(codes[None])[0]
        return binary_cross_entropy_with_logits(output, image.expand_as(output), reduction="none").sum(-1)

    assert len(decoded.codes) == len(decoded.codes.unique(dim=0)) == 9
    torch.testing.assert_close(decoded.place(decoded.codes), torch.arange(9))
    torch.testing.assert_close(decoded.losses(image), loss(decoded.codes).double(), rtol=1e-5, atol=1e-4)
    logits = model.encode(image[None, None])[0, 0].detach()
    plain = diagnostics.measure(ReinMax(), loss, logits, 60, seed=3)
    ours = measure(model, image[None], {"ReinMax": ReinMax()}, 60, seed=3)["ReinMax"]
    assert ours.cosine == pytest.approx(plain.cosine, rel=1e-4)
    assert ours.std == pytest.approx(plain.std, rel=1e-4)
