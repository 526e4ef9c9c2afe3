"""What the GST paper says of its estimators in passing: entropies, a decomposition of variance, Lemma 1's gap."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor

from discrete_ops import estimators, reference
from tasks.common import sheets
from tasks.common.pictures import COLORS, new_figure, save
from tasks.common.sheets import Sheet, number

from . import data
from .ensemble import Ensemble
from .recipes import configure
from .streams import Streams
from .tables import GST_ROWS

# ---------------------------------------------------------------------------------------------------
# GST 5.1.2: entropy of the surrogate's distribution

#: "For the first 100 steps at temperature 0.1, the entropy of GR-MC100, STGS, and GST-1.2 are 0.36, 0.15, 0.0007".
ENTROPIES = {"GR-MC100": 0.36, "STGS": 0.15, "GST-1.2": 0.0007}
ENTROPY_TAUS = (1.0, 0.5, 0.1, 0.01)
ENTROPY_ROWS = {name: GST_ROWS[name] for name in ("GR-MC100", "STGS", "GST-1.2", "GST-1.0")}


def entropies(tau: float, categories: int = 10, draws: int = 20_000) -> dict[str, float]:
    """Mean entropy in nats of the soft sample at uniform logits; of GR-MC100, that of the mean of its K samples."""
    logits = torch.zeros(draws, categories, dtype=torch.float64)
    found = {}
    for name, row in ENTROPY_ROWS.items():
        surrogate = configure(recipe="gst", estimator=row.estimator, tau=tau, **row.overrides).build_estimator()
        found[name] = float(torch.special.entr(surrogate(logits, hard=False, seed=0)).sum(-1).mean())
    return found


def training_entropies(images: data.Images, data_set: str, tau: float, steps: int = 100) -> dict[str, float]:
    """The same at the logits of a VAE in its first steps of training with the estimator, the mean over them."""
    found = {}
    for name, row in ENTROPY_ROWS.items():
        config = configure(recipe="gst", estimator=row.estimator, data=data_set, tau=tau, **row.overrides)
        run, surrogate = Ensemble([config], images), config.build_estimator()
        (block,) = run.blocks
        stream, total = Streams(config.seed, shared_order=False), 0.0
        seeds = stream.seeds("noise", steps)
        batches = torch.cat([stream.order(len(images.train)) for _ in range(1 + steps // run.steps_per_epoch)])
        for index, seed in zip(batches.split(config.batch_size)[:steps], seeds.split(1), strict=False):
            with torch.no_grad():
                logits = block.model.encode(run.images.train[index][None])
                soft = surrogate(logits, hard=False, seed=seed)
            total += float(torch.special.entr(soft.double()).sum(-1).mean()) / steps
            run.step(index[None], seed, torch.ones(1, dtype=torch.float64))
        found[name] = total
    return found


def report_entropies(path: Path, images: data.Images, data_set: str, console: Console) -> None:
    """Ours beside the paper's three figures."""
    found = {f"uniform, tau {tau}": entropies(tau) for tau in ENTROPY_TAUS}
    found["first 100 steps, tau 0.1"] = training_entropies(images, data_set, 0.1)
    header = ("", "paper, tau 0.1", *found)
    rows = [
        (name, f"{ENTROPIES[name]}" if name in ENTROPIES else "-", *(f"{each[name]:.3g}" for each in found.values()))
        for name in ENTROPY_ROWS
    ]
    notes = [
        "Entropy in nats of the surrogate's distribution (GST Eq. 19; of GR-MC100, of the mean of its K samples), ten "
        f"categories: at uniform logits, and at those of the first 100 steps of training ({data_set}, recipe gst, "
        "10x30, seed 0). The paper's figures are of the first 100 steps of MNIST-VAE at tau 0.1; it does not say more.",
    ]
    sheets.write(path, "GST 5.1.2: entropy of the surrogate", notes, [Sheet("Entropy", header, rows)], console)


# ---------------------------------------------------------------------------------------------------
# GST 4.3: the variance of GR-MCK is one term over K and another

#: K -> draws: those of a small K differ more.
VARIANCE_DRAWS = {1: 1_000_000, 10: 300_000, 100: 100_000}
VARIANCE_TAUS = (1.0, 0.5, 0.1)


class Problem(NamedTuple):
    """One latent with a quadratic loss, ``|A D - b|^2 / 2``."""

    logits: Tensor  # (N,)
    matrix: Tensor  # (N, N)
    target: Tensor  # (N,)

    def loss(self, codes: Tensor) -> Tensor:
        """``(n, N)`` codes -> ``(n,)``."""
        return (codes @ self.matrix.T - self.target).square().sum(-1) / 2


def problem(categories: int = 10) -> Problem:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return Problem(draw(categories), draw(categories, categories), draw(categories))


class Variance(NamedTuple):
    """Of an estimator's gradient: traces of covariances."""

    total: float  #: over all draws
    within: float  #: E[V[. | D]]
    between: float  #: V[E[. | D]]


def gradients(estimator: Any, of: Problem, draws: int, seed: int) -> tuple[Tensor, Tensor]:
    """An estimator's gradients ``(draws, N)`` and the categories that were drawn."""
    logits = of.logits.expand(draws, -1).contiguous().requires_grad_()
    codes, index = estimator(logits, seed=seed, return_index=True)
    (gradient,) = torch.autograd.grad(of.loss(codes).sum(), logits)
    return gradient, index


def variance(estimator: Any, of: Problem, draws: int = 100_000, seed: int = 0) -> Variance:
    """The variance, and its two parts: D by enumeration, with its exact probabilities, the rest by draws."""
    gradient, index = gradients(estimator, of, draws, seed)
    means, within, weights = [], 0.0, []
    for category, p in enumerate(of.logits.softmax(-1).tolist()):
        mine = gradient[index == category]
        if len(mine) < 2:  # of a probability that is no part of what such draws show
            continue
        within += p * float(mine.var(0).sum())
        means.append(mine.mean(0))
        weights.append(p)
    mean, p = torch.stack(means), torch.tensor(weights, dtype=torch.float64)[:, None]
    between = float((p * (mean - (p * mean).sum(0)).square()).sum())
    return Variance(float(gradient.var(0).sum()), within, between)


def variances(tau: float, of: Problem) -> dict[str, Variance]:
    """Of GR-MCK for each K, and of GST and ST beside it, at one temperature."""
    found = {
        f"GR-MC{k}": variance(estimators.GumbelRao(tau=tau, num_samples=k), of, draws)
        for k, draws in VARIANCE_DRAWS.items()
    }
    others = {
        "GST-1.0": estimators.GST(tau=tau, gap=1.0),
        "GST-pi": estimators.GST(tau=tau, gap="pi"),
        "ST": estimators.StraightThrough(tau=tau),
    }
    return found | {name: variance(estimator, of) for name, estimator in others.items()}


def report_variances(path: Path, console: Console) -> None:
    """The two terms of each K beside GST's variance, which has no first term; a picture of the same."""
    of = problem()
    found = {tau: variances(tau, of) for tau in VARIANCE_TAUS}
    header = ("", "total", "first term", "second term", "their sum", "by the formula from GR-MC1")
    shown = []
    for tau, rows in found.items():
        one = rows["GR-MC1"]
        law = {f"GR-MC{k}": one.within / k + one.between for k in VARIANCE_DRAWS}
        cells = [(name, *map(number, (*v, v.within + v.between)), number(law.get(name))) for name, v in rows.items()]
        shown.append(Sheet(f"tau = {tau}", header, cells))
    notes = [
        "Variance of the gradient (the trace of its covariance) for one latent of ten categories with a quadratic "
        "loss. The first term is E[V[gradient given D]], which falls as 1 / K, the second V[E[gradient given D]]; "
        "GR-MC1 is STGS, and GST has no first term. D is enumerated with its exact probabilities, the rest is drawn "
        f"({', '.join(f'{draws} draws at K = {k}' for k, draws in VARIANCE_DRAWS.items())}), so the sum differs from "
        "the total by what such draws leave open.",
        "The paper gives the formula and no figures. It expects GST's variance to be very similar to the second term.",
    ]
    pictures = {f"{path.stem}.png": partial(plot_variances, found)}
    sheets.write(path, "GST 4.3: variance of GR-MCK and GST", notes, shown, console, pictures)


def plot_variances(found: dict[float, dict[str, Variance]], path: Path) -> None:
    """A panel for each temperature: the first term on top of the second, a dot for the total."""
    figure = new_figure((4.2 * len(found), 4.0))
    for axis, (tau, rows) in zip(figure.subplots(1, len(found), squeeze=False).flat, found.items(), strict=True):
        names, between, within = list(rows), [v.between for v in rows.values()], [v.within for v in rows.values()]
        axis.bar(names, between, label="second term: V[E[.|D]]", color=COLORS[0])
        axis.bar(names, within, bottom=between, label="first term: E[V[.|D]]", color=COLORS[4], hatch="//")
        axis.plot(names, [v.total for v in rows.values()], "kD", markersize=4, label="total, measured")
        for name, v in rows.items():
            over = {"xytext": (0, 5), "textcoords": "offset points", "ha": "center", "fontsize": "x-small"}
            axis.annotate(number(v.total), (name, v.total), **over)
        axis.set_title(f"tau = {tau}")
        axis.margins(y=0.1)
        axis.tick_params(axis="x", rotation=45)
        axis.grid(alpha=0.3, axis="y")
    figure.axes[0].set_ylabel("variance of the gradient")
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, fontsize="small")
    save(figure, path)


# ---------------------------------------------------------------------------------------------------
# GST Lemma 1: the expected gap of Gumbel-Softmax's two largest logits


LOG_ODDS = (-5.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 8.0)
OTHERS = (0.5, 0.3, 0.2)  #: shares of the categories that did not win in what the first left


class Gap(NamedTuple):
    """How far the first category's perturbed logit leads where it wins."""

    log_odds: float  #: ``l_1 - s``, which is ``log p_1 - log (1 - p_1)``
    lemma: float  #: Lemma 1, as GST-pi computes it
    mean: float  #: over draws of Gumbels
    error: float  #: standard error of the mean
    wins: int  #: draws that the first category won

    @property
    def probability(self) -> float:
        return 1 / (1 + math.exp(-self.log_odds))


def _logits(log_odds: float) -> Tensor:
    return torch.tensor([log_odds, *(math.log(share) for share in OTHERS)], dtype=torch.float64)


def lemma(log_odds: float) -> float:
    """The gap that GST-pi takes where the first category is drawn."""
    first = torch.eye(1 + len(OTHERS), dtype=torch.float64)[:1]
    return reference.pi_gap(_logits(log_odds)[None], first).item()


def gap(log_odds: float, draws: int = 1_000_000) -> Gap:
    """Lemma 1 beside the leads that Gumbel noise makes."""
    logits = _logits(log_odds)
    generator = torch.Generator().manual_seed(0)
    noise = torch.empty(draws, len(logits), dtype=torch.float64).exponential_(generator=generator).log().neg()
    top = (logits + noise).topk(2)
    leads = (top.values[:, 0] - top.values[:, 1])[top.indices[:, 0] == 0]
    return Gap(log_odds, lemma(log_odds), leads.mean().item(), (leads.std() / len(leads) ** 0.5).item(), len(leads))


def report_gaps(path: Path, console: Console) -> None:
    """A table and a picture of the gap by ``l_i - s``."""
    found = [gap(log_odds) for log_odds in LOG_ODDS]
    header = ("l_i - s", "p_i", "Lemma 1", "mean of draws", "standard error", "draws won")
    rows = [
        (f"{g.log_odds:g}", *(f"{x:.4f}" for x in (g.probability, g.lemma, g.mean, g.error)), f"{g.wins}")
        for g in found
    ]
    notes = [
        "Four categories, i the first; s is the logsumexp of the other three logits. The mean lead of the largest of "
        "l + G over the second where i is the largest, from a million draws of Gumbels, beside "
        "-log(1 - p_i) / p_i as GST-pi has it."
    ]
    pictures = {f"{path.stem}.png": partial(plot_gaps, found)}
    sheets.write(path, "GST Lemma 1: the expected gap", notes, [Sheet("Gap", header, rows)], console, pictures)


def plot_gaps(found: Sequence[Gap], path: Path) -> None:
    """The draws' means on the curve of the lemma, between its two limits."""
    figure = new_figure((6, 4))
    axis = figure.add_subplot()
    curve = torch.linspace(LOG_ODDS[0], LOG_ODDS[-1], 100).tolist()
    axis.plot(curve, [lemma(log_odds) for log_odds in curve], "-", color=COLORS[0], label="Lemma 1")
    means, errors = [g.mean for g in found], [2 * g.error for g in found]
    axis.errorbar(LOG_ODDS, means, yerr=errors, fmt="o", color=COLORS[1], label="draws, 2 s.e.")
    axis.axhline(1.0, color="0.5", linestyle=":", label="1, the limit on the left")
    axis.plot([1.0, LOG_ODDS[-1]], [1.0, LOG_ODDS[-1]], color="0.5", linestyle="--", label="l_i - s, that on the right")
    axis.set(xlabel="l_i - s", ylabel="expected gap")
    axis.legend(fontsize="small", loc="upper left")
    axis.grid(alpha=0.3)
    save(figure, path)


#: What ``figure`` calls by name; that of the entropies needs images, too.
REPORTS = {"gst-variance": report_variances, "gst-gap": report_gaps}
