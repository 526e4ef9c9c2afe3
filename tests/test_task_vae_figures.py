"""The study's tables and figures that are not of trained runs: what is measured on a VAE, and what is computed."""

import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from task_helpers import lines, run
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from discrete_ops import diagnostics
from discrete_ops.estimators import ReinMax, StraightThrough
from tasks.vae import costs, data, measured, results, sketches, train
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
    assert len(set(cosines.values())) == len(cosines) == 2 * len(measured.figure_1().estimators)
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
    assert {taus.pop(name) for name in measured.CV_AT_01} == {0.1}
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


# ---------------------------------------------------------------------------------------------------
# BR Figure 2


@pytest.mark.usefixtures("small")
def test_figure_2_trains_both_estimators(tmp_path: Path) -> None:
    """They are one at beta = 1/2 and two elsewhere."""
    chosen = ("beta=0.5", "beta=0.5 (centred)", "beta=0.0", "beta=0.0 (centred)")
    assert run(tmp_path, "figure", "br-2", "--columns", "8x4", "4x24", "--methods", *chosen, "--epochs", "20") == 0
    losses = {(line["column"], line["method"]): line["value"] for line in lines(tmp_path, "figure-br-2")}
    for column in ("8x4", "4x24"):
        half, centred, none, none_centred = (losses[column, method] for method in chosen)
        assert half == pytest.approx(centred, rel=1e-4)
        assert len({none, none_centred, half}) == 3


# ---------------------------------------------------------------------------------------------------
# Of the papers' texts


def entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(np.maximum(p, 1e-300))).sum(-1)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_entropies_are_those_of_the_definitions(tau: float) -> None:
    """GST by its formula; STGS by Gumbels; GR by Gumbels of one winner: at uniform logits, the largest moved ahead."""
    found = sketches.entropies(tau, draws=3000)
    for gap in (1.0, 1.2):
        other = math.exp(-gap / tau)
        z = 1 + 9 * other
        assert found[f"GST-{gap}"] == pytest.approx(math.log(z) + 9 * other * gap / tau / z)
    noise = np.random.default_rng(0).gumbel(size=(300_000, 10))
    assert found["STGS"] == pytest.approx(entropy(softmax(noise / tau)).mean(), abs=0.02)
    given = noise.copy()
    winner = noise.argmax(-1)[:, None]
    np.put_along_axis(given, winner, noise[:, :1], -1)
    given[:, 0] = noise.max(-1)
    means = softmax(given / tau).reshape(-1, 100, 10).mean(1)
    assert found["GR-MC100"] == pytest.approx(entropy(means).mean(), abs=0.01)


def test_entropies_are_the_papers(tmp_path: Path) -> None:
    found = sketches.entropies(0.1, draws=20_000)
    for name, printed in sketches.ENTROPIES.items():
        assert found[name] == pytest.approx(printed, rel=0.06)


def test_variance_of_gumbel_rao_is_its_decomposition() -> None:
    of = sketches.problem(4)
    one, ten = (sketches.variance(sketches.estimators.GumbelRao(tau=0.5, num_samples=k), of, 100_000) for k in (1, 10))
    assert one.within + one.between == pytest.approx(one.total, rel=0.03)
    assert ten.within == pytest.approx(one.within / 10, rel=0.05)
    assert ten.between == pytest.approx(one.between, rel=0.05)
    assert ten.total < one.total


def test_gst_has_the_variance_over_categories_alone() -> None:
    of, tau = sketches.problem(4), 0.7
    logits, matrix, target = (x.numpy() for x in of)
    p, rows = softmax(logits), []
    for i in range(4):
        h = np.minimum(logits, logits.max() - 1.0)
        h[i] = logits.max()
        q, v = softmax(h / tau), matrix.T @ (matrix[:, i] - target)
        rows.append(q * (v - q @ v) / tau)
    mean = p @ np.stack(rows)
    exact = sum(p[i] * ((rows[i] - mean) ** 2).sum() for i in range(4))
    found = sketches.variance(sketches.estimators.GST(tau=tau, gap=1.0), of, 50_000)
    assert found.between == pytest.approx(exact)
    assert found.within == pytest.approx(0, abs=1e-12 * exact)
    assert found.total == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("log_odds", [-2.0, 0.0, 3.0])
def test_gap_is_the_mean_lead(log_odds: float) -> None:
    """By quadrature: where i wins, the lead is a logistic variable's above 0, shifted by the log-odds. GST A.2."""
    found = sketches.gap(log_odds, 100_000)
    x = np.linspace(0, 60, 600_001)
    density = 1 / (4 * np.cosh((x - log_odds) / 2) ** 2)
    assert found.lemma == pytest.approx((x * density).sum() / density.sum(), rel=1e-3)
    assert abs(found.mean - found.lemma) < 4 * found.error
    assert found.wins / 100_000 == pytest.approx(1 / (1 + math.exp(-log_odds)), abs=0.01)


def test_entropy_of_training_starts_near_the_uniform(digits: data.Images) -> None:
    """An untrained encoder's logits are nearly equal."""
    found = sketches.training_entropies(digits, "digits", 0.5, 2)
    for name, uniform in sketches.entropies(0.5).items():
        assert found[name] == pytest.approx(uniform, rel=0.1)


@pytest.mark.parametrize("name", ["gst-entropy", *sketches.REPORTS])
@pytest.mark.usefixtures("small")
def test_sketches_write_their_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketches, "VARIANCE_DRAWS", {1: 2000, 10: 2000})
    monkeypatch.setattr(sketches, "LOG_ODDS", (0.0, 1.0))
    monkeypatch.setattr(sketches, "ENTROPY_TAUS", (0.1,))
    assert run(tmp_path, "figure", name) == 0
    text = (tmp_path / "results" / f"figure-{name}.md").read_text()
    assert text.startswith("# GST ")
    for picture in re.findall(r"!\[.*\]\((.*)\)", text):
        assert (tmp_path / "results" / picture).read_bytes().startswith(b"\x89PNG")


# ---------------------------------------------------------------------------------------------------
# Costs


def test_memory_holds_weights_gradients_and_moments(few: data.Images) -> None:
    """And does not grow with K: no sample but the one at hand is kept."""
    config = configure(recipe="gst", estimator="gumbel_rao", num_samples=1)
    weights = sum(4 * p.numel() for p in Ensemble([config], few).member(0).parameters())
    peak = costs.peak_memory(config, few)
    assert 4 * weights < peak < 6 * weights
    assert costs.peak_memory(configure(recipe="gst", estimator="gumbel_rao", num_samples=50), few) == peak


def test_table_5_trains_each_row_in_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the paper's figures where the data are its own, resumed where it was stopped."""
    monkeypatch.setattr(costs, "TABLE_5", {name: costs.TABLE_5[name] for name in ("STGS", "GR-MC100")})
    monkeypatch.setattr(costs, "CHUNKS", 16)
    console = Console(record=True, width=120)
    arguments = {"data": "digits", "device": "cpu"}
    found = costs.measure_table_5("gst-5", arguments, None, tmp_path, console)
    text = console.export_text()
    pairs = re.findall(r"(STGS|GR-MC100): .* -ELBO ([\d.]+) to ([\d.]+)", text)
    assert [name for name, _, _ in pairs] == ["STGS", "GR-MC100"]
    assert all(float(after) < float(before) - 3 for _, before, after in pairs)  # nats, in 80 steps
    times = {r.method: r.value for r in found if r.split == "time"}
    assert min(times.values()) > 0
    assert costs.measure_table_5("gst-5", arguments, None, tmp_path, console) == found
    costs.report_table_5(tmp_path / "a.md", found, True, console)
    text = (tmp_path / "a.md").read_text()
    for printed in ("0.023", "0.081", "5.03", "5.09", "3.52"):
        assert f"| {printed} |" in text
    costs.report_table_5(tmp_path / "a.md", found, False, console)
    assert "5.03" not in (tmp_path / "a.md").read_text()


def test_speeds_are_beside_straight_through(few: data.Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "ROUNDS", 3)
    monkeypatch.setattr(costs, "SPEED_LATENTS", ("8x4",))
    costs.report_speeds(tmp_path / "a.md", few, "cpu", "digits", Console(quiet=True))
    rows = [line.split(" | ") for line in (tmp_path / "a.md").read_text().splitlines() if line.startswith("| ")]
    assert [row[0].removeprefix("| ") for row in rows[2:]] == list(costs.SPEED_ROWS)
    assert rows[2][2] == "1.00"
    calls = {row[0]: float(row[2]) for row in rows[2:]}
    assert min(calls.values()) > 0


def test_committed_reports_are_of_the_committed_lines(tmp_path: Path) -> None:
    committed, quiet = Path(__file__).parents[1] / "tasks" / "results", Console(quiet=True)
    found = {name: results.read(committed, name) for name in ("br-1", "figure-br-1", "gst-5")}
    measured.report_table_1(tmp_path / "br-1.md", found["br-1"], True, quiet)
    measured.report_figure_1(tmp_path / "figure-br-1.md", found["figure-br-1"], quiet)
    costs.report_table_5(tmp_path / "gst-5.md", found["gst-5"], True, quiet)
    for name in found:
        assert (tmp_path / f"{name}.md").read_text() == (committed / f"{name}.md").read_text()
    for name, what in {"br-1": measured.table_1(), "figure-br-1": measured.figure_1()}.items():
        assert {r.column for r in found[name]} == set(what.columns("8x4"))  # of one experiment
        assert {r.method for r in found[name]} == set(what.estimators)
