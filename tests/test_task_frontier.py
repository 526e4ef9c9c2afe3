"""The frontier: figures that are known in closed form, the enumerations behind them, and the command."""

import importlib.util
import json
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

import discrete_ops as do
from discrete_ops import diagnostics
from tasks.frontier import cli, estimators, problems, report
from tasks.frontier.jacobians import Figures, Problem, figures, jacobians, problem
from tasks.polynomial.programming import Setting, losses
from tasks.vae import data
from tasks.vae.ensemble import Ensemble
from tasks.vae.gradients import Decoded
from tasks.vae.recipes import configure

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (2, 4)


def enumerated(f: diagnostics.Loss, logits: Tensor) -> Problem:
    L, N = logits.shape
    codes = torch.cartesian_prod(*[torch.arange(N)] * L)
    D = torch.nn.functional.one_hot(codes, N).float().requires_grad_()
    loss = f(D)
    (v,) = torch.autograd.grad(loss.sum(), D)
    p = logits.double().log_softmax(-1).gather(1, codes.T).sum(0).exp()
    return problem(logits, codes, p, loss.detach().double(), v)


def measured(text: str, found: Problem, draws: int = 64) -> Figures:
    return figures(jacobians(do.estimator(text), found.logits, draws), found)


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def form() -> Tensor:
    """A quadratic form of a code's entries."""
    return torch.randn(8, 8, generator=torch.Generator().manual_seed(1))


def linear(form: Tensor, D: Tensor) -> Tensor:
    return D.flatten(-2) @ form[0]


def quadratic(form: Tensor, D: Tensor) -> Tensor:
    return ((D.flatten(-2) @ form) * D.flatten(-2)).sum(-1)


def cubic(form: Tensor, D: Tensor) -> Tensor:
    return (D.flatten(-2) @ form).pow(3).sum(-1) / 10


# ---------------------------------------------------------------------------------------------------
# Figures


def test_bias_is_zero_where_theory_has_it(logits: Tensor, form: Tensor) -> None:
    """Straight-through is exact on linear losses, ReinMax on quadratic ones; neither on the next degree."""
    for text, exact, biased in (("straight_through", linear, quadratic), ("reinmax", quadratic, cubic)):
        figure = measured(text, enumerated(partial(exact, form), logits))
        assert figure.bias < 1e-4
        assert figure.cosine == pytest.approx(1, abs=1e-6)
        assert figure.std > 0.1 or exact is linear  # whose gradient at a code does not depend on the code
        assert measured(text, enumerated(partial(biased, form), logits)).bias > 0.05


def test_ends_of_the_mix_are_straight_through_and_reinmax(logits: Tensor, form: Tensor) -> None:
    found = enumerated(partial(cubic, form), logits)
    mix = estimators.CURVES["mix"]
    for end, other in (("0.0", "straight_through"), ("1.0", "reinmax")):
        assert measured(mix[end], found) == pytest.approx(measured(other, found), abs=1e-5)


def test_gumbel_rao_tends_to_reinmax() -> None:
    """Shekhovtsov, ICML 2023: as tau goes to 0, with the noise averaged out; the difference falls with tau."""
    logits = torch.tensor([[0.5, -1.0, 0.2]])
    wanted = jacobians(do.estimator("reinmax"), logits, 1).means[0]
    differences = []
    for tau in (1.0, 0.1, 0.02):
        found = jacobians(do.estimator(f"gumbel_rao(tau={tau}, num_samples=1000)"), logits, 2**13)
        differences.append(float((found.means.mean(0) - wanted).norm() / wanted.norm()))
    assert differences[0] > 0.3 > 0.15 > differences[1] > 0.04 > differences[2]


@pytest.mark.parametrize("text", ["gst(tau=0.5)", "reinmax_rk2(beta=0.3)", "gumbel_softmax(tau=0.5)", "reinmax_cv"])
def test_figures_are_those_of_draws(text: str, logits: Tensor, form: Tensor) -> None:
    """Against :func:`discrete_ops.diagnostics.measure`, which draws codes and noise."""
    f = partial(cubic, form)
    figure = measured(text, enumerated(f, logits), draws=8000)
    drawn = diagnostics.measure(do.estimator(text), f, logits, 20000, seed=0)
    noise = 4 * drawn.relative_std / 20000**0.5
    assert figure.bias == pytest.approx(drawn.relative_bias, abs=noise)
    assert figure.std == pytest.approx(drawn.relative_std, rel=0.04)
    assert figure.cosine == pytest.approx(drawn.cosine, abs=noise)


def test_frontier_is_what_nothing_beats() -> None:
    points = {"a": (0.1, 3.0), "b": (0.2, 2.0), "c": (0.2, 2.5), "d": (0.3, 2.0), "e": (0.1, 3.0), "f": (0.9, 0.1)}
    settings = {name: {"bias": bias, "std": std} for name, (bias, std) in points.items()}
    assert report.frontier(settings, lambda each: (each["bias"], each["std"])) == {"a", "b", "e", "f"}


# ---------------------------------------------------------------------------------------------------
# Problems


def test_exact_gradient_is_that_of_the_diagnostics(logits: Tensor, form: Tensor) -> None:
    f = partial(cubic, form)
    wanted = diagnostics.exact_gradient(f, logits)
    torch.testing.assert_close(enumerated(f, logits).exact.float(), wanted, rtol=0, atol=1e-5 * float(wanted.norm()))


def test_polynomial_is_a_sum_over_latents() -> None:
    """One latent of it, enumerated with the others present, has the gradient that it has alone."""
    setting = Setting(latents=3)
    (found,) = problems.polynomial(1.5, setting)

    def f(D: Tensor) -> Tensor:
        return losses(D[..., 0], 1.5, setting.c).mean(-1)

    wanted = diagnostics.exact_gradient(f, found.logits.double())
    torch.testing.assert_close(found.exact, wanted, rtol=0, atol=1e-12)
    whole = enumerated(f, found.logits)
    for text in ("straight_through", "reinmax(tau=1.3)"):
        alone, together = measured(text, found), measured(text, whole)
        assert (alone.bias, alone.cosine) == pytest.approx((together.bias, together.cosine), abs=1e-5)
        assert alone.std == pytest.approx(together.std, rel=1e-5)


def bias_variance() -> ModuleType:
    path = Path(__file__).parent.parent / "docs" / "bias_variance.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_two_layer_losses_are_those_of_the_pages() -> None:
    f, logits = bias_variance().problem(3)
    found = problems.two_layer(3)
    assert torch.equal(found.logits, logits)
    torch.testing.assert_close(found.exact.float(), diagnostics.exact_gradient(f, logits), rtol=0, atol=1e-5)


def test_vae_is_enumerated() -> None:
    """All images as one vector, each with its own gradient."""
    images = data.load("digits")
    model = (
        Ensemble([configure(latent="4x2", lr=1e-3, optimizer="adam", tau=1.0)], images).member(0).requires_grad_(False)
    )
    found = problems.of_vae(model, images.train[:2])
    assert found.logits.shape == (4, 4)
    decoded = Decoded(model)
    for place in range(2):
        logits, values = found.logits[2 * place : 2 * place + 2], decoded.losses(images.train[place])
        wanted = diagnostics.exact_gradient(lambda D, values=values: values[decoded.place(D)], logits.double())
        torch.testing.assert_close(found.exact[2 * place : 2 * place + 2], wanted, rtol=0, atol=1e-6)


# ---------------------------------------------------------------------------------------------------
# The command


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three curves of one or two settings, two random losses and small codes."""
    names = ("straight_through", "gumbel_softmax", "mix")
    curves = {name: dict(list(estimators.CURVES[name].items())[-2:]) for name in names}
    monkeypatch.setattr(estimators, "CURVES", curves)
    monkeypatch.setattr(report, "CURVES", curves)
    monkeypatch.setattr(problems, "PROBLEMS", 2)


@pytest.mark.usefixtures("few")
def test_command_measures_what_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = "--data digits --epochs 1 --seeds 1 --images 1 --draws 16 --powers 3"
    arguments = [*given.split(), "--out", str(tmp_path / "results"), "--runs", str(tmp_path / "runs")]
    assert cli.main(arguments) == 0
    path = tmp_path / "results" / "frontier.json"
    content = json.loads(path.read_text())
    panels = ("polynomial, p = 3", "2 random two-layer losses", "8x4 VAE, digits, epoch 1")
    assert list(content["cells"]) == [f"{panel}: {text}" for panel in panels for text in estimators.every()]
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    figure = content["cells"][f"{panels[1]}: gumbel_softmax(tau=1.0)"]
    text = path.with_suffix(".md").read_text()
    assert f"\n| `gumbel_softmax(tau=1.0)` | {figure['bias']:.2f} | {figure['std']:.2f} |" in text
    assert f"{figure['cosine']:.2f} ({figure['std'] / figure['norm']:.2f})" in text

    # One is lost: it alone is measured again, and is what it was.
    asked = []
    measure = cli.measure
    monkeypatch.setattr(cli, "measure", lambda each, *rest: asked.append(str(each)) or measure(each, *rest))
    lost = f"{panels[0]}: straight_through(tau=2.0)"
    path.write_text(json.dumps({**content, "cells": {k: v for k, v in content["cells"].items() if k != lost}}))
    assert cli.main(arguments) == 0
    assert asked == ["straight_through(tau=2.0)"]
    assert json.loads(path.read_text())["cells"] == content["cells"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--draws", "0"), "draws: got 0, allowed: an int from 1"),
        (("--powers", "1"), "powers: got (1.0,), allowed: numbers > 1"),
        (("--data-dir", "nowhere"), "data_dir: nowhere/train-images-idx3-ubyte.gz does not exist"),
    ],
)
def test_error_is_one_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results").mkdir()
    known = {"images": 10, "seeds": 3, "draws": 2048}
    panels = [*problems.sources((1.5, 3.0), problems.Trained("mnist", data.load, 1, 1, (), tmp_path, None))]  # type: ignore[arg-type]
    figure = {"bias": 0.0, "std": 0.0, "norm": 1.0, "cosine": 1.0}
    cells = {cli.cell(panel, text): figure for panel in panels for text in estimators.every()}
    content = {"settings": known, "commits": [], "cells": cells}
    (tmp_path / "results" / "frontier.json").write_text(json.dumps(content))
    assert cli.main([*arguments, "--out", str(tmp_path / "results"), "--runs", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
