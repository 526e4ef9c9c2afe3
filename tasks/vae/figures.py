"""The papers' pictures: figures by epoch, by beta, and the simplex of GST Figures 1 and 2."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from discrete_ops import estimators, reference
from tasks.common.pictures import new_figure, save

from .results import Result
from .tables import CENTRED


def plot_by_epoch(found: Sequence[Result], titles: dict[str, str], path: Path, log: Sequence[str] = ()) -> None:
    """A panel for each split, a line for each method over epochs: means over the seeds that reached the last one."""
    last = max(r.epochs for r in found)
    whole = {(r.method, r.seed) for r in found if r.epochs == last}
    figure = new_figure((5.2 * len(titles) + 2.4, 4.2))
    for place, (split, title) in enumerate(titles.items()):
        axis = figure.add_subplot(1, len(titles), place + 1)
        for method in dict.fromkeys(r.method for r in found):
            by_epoch: dict[int, list[float]] = {}
            for r in found:
                if r.split == split and r.method == method and r.value is not None and (method, r.seed) in whole:
                    by_epoch.setdefault(r.epochs, []).append(r.value)
            epochs = sorted(by_epoch)
            axis.plot(epochs, [statistics.fmean(by_epoch[e]) for e in epochs], "o-", label=method, markersize=3)
        axis.set(title=title, xlabel="epoch", yscale="log" if split in log else "linear")
        axis.grid(alpha=0.3)
    lines = figure.axes[-1].get_legend_handles_labels()
    figure.legend(*lines, loc="outside right upper", fontsize="small")  # so many would cover the data
    save(figure, path)


def plot_betas(found: Sequence[Result], path: Path) -> None:
    """Final train loss against beta, a panel for each latent shape, a curve for each estimator: mean and spread over
    seeds; runs that failed are crosses on the upper edge."""
    columns = list(dict.fromkeys(r.column for r in found))
    figure = new_figure((5 * len(columns), 4))
    for place, column in enumerate(columns):
        axis = figure.add_subplot(1, len(columns), place + 1)
        for color, (is_centred, label) in enumerate(((False, "Eq. 27"), (True, "centred, mean Eq. 26"))):
            losses: dict[float, list[float]] = {}
            failed: set[float] = set()
            for r in found:
                if r.column == column and r.method.endswith(CENTRED) == is_centred:
                    beta = float(r.method.removesuffix(CENTRED).removeprefix("beta="))
                    losses.setdefault(beta, []).extend([] if r.value is None else [r.value])
                    failed |= {beta} if r.value is None else set()
            means = {beta: statistics.fmean(values) for beta, values in sorted(losses.items()) if values}
            if not means and not failed:
                continue
            spread = [statistics.stdev(losses[beta]) if len(losses[beta]) > 1 else 0.0 for beta in means]
            least = f", least at {min(means, key=means.__getitem__)}" if means else ""
            shown = axis.errorbar(list(means), list(means.values()), yerr=spread, fmt=f"C{color}o-", capsize=3)
            shown.set_label(label + least)
            edge = axis.get_xaxis_transform()
            axis.plot(sorted(failed), [1.0] * len(failed), f"C{color}x", transform=edge, clip_on=False, in_layout=False)
        axis.axvline(0.5, color="0.6", linestyle=":")
        axis.set(title=column, xlabel="beta", ylabel="train -ELBO (nats an image)")
        axis.legend(fontsize="small")
        axis.grid(alpha=0.3)
    save(figure, path)


# ---------------------------------------------------------------------------------------------------
# The simplex

PROBABILITIES = (0.5, 0.3, 0.2)
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(3) / 2]])


def plot_simplex_samples(path: Path, tau: float = 0.5, count: int = 400) -> None:
    """GST Figure 1: where each estimator's soft samples lie, by the category that was drawn."""
    shown = {
        "STGS": estimators.GumbelSoftmax(tau=tau),
        "GR-MC10": estimators.GumbelRao(tau=tau, num_samples=10),
        "GST-1.0": estimators.GST(tau=tau, gap=1.0),
    }
    logits = torch.tensor(PROBABILITIES).log().expand(count, -1)
    figure = new_figure((4 * len(shown), 3.8))
    for place, (name, estimator) in enumerate(shown.items()):
        axis = _simplex(figure, len(shown), place, f"{name}, tau = {tau}")
        soft, index = estimator(logits, hard=False, seed=0, return_index=True)
        for category in range(3):
            points = _flat(soft[index == category])
            axis.plot(*points.T, f"C{category}.", markersize=7 if name == "GST-1.0" else 3, alpha=0.6)
    save(figure, path)


def plot_simplex_moves(path: Path, tau: float = 1.0, gap: float = 1.0) -> None:
    """GST Figure 2: from softmax(l) by m1 to a tie with the largest, and by m2 to a lead of the gap, for each D."""
    logits = torch.tensor(PROBABILITIES, dtype=torch.float64).log()
    figure = new_figure((12, 3.8))
    for place in range(3):
        axis = _simplex(figure, 3, place, f"D = {place + 1}")
        index = torch.full((1,), place)
        steps = [logits[None], perturbed(logits[None], index, 0.0), perturbed(logits[None], index, gap)]
        points = _flat(torch.cat([(step / tau).softmax(-1) for step in steps]))
        for start, end, label in zip(points[:-1], points[1:], ("m1", "m2"), strict=True):
            if np.linalg.norm(end - start) > 1e-6:
                axis.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "0.3"})
                axis.annotate(label, (start + end) / 2, fontsize="small")
        for point, style in zip(points, ("ko", "C1s", "C0*"), strict=True):
            axis.plot(*point, style, markersize=8)
    save(figure, path)


def perturbed(logits: Tensor, index: Tensor, gap: float) -> Tensor:
    """``l + m1 - m2``: the logit of D raised to the largest, the others lowered to the gap below. GST Eq. 17-19."""
    return reference.perturbed(logits, one_hot(index, logits.shape[-1]), gap)


def _flat(points: Tensor) -> np.ndarray:
    """``(n, 3)`` probabilities -> ``(n, 2)`` in the plane of the triangle."""
    return points.numpy().astype(np.float64) @ CORNERS


def _simplex(figure: Any, across: int, place: int, title: str) -> Any:
    axis = figure.add_subplot(1, across, place + 1)
    axis.plot(*np.vstack([CORNERS, CORNERS[:1]]).T, "k-", linewidth=0.8)
    for corner, name in zip(CORNERS, ("1", "2", "3"), strict=True):
        axis.annotate(name, corner, ha="center", va="bottom" if corner[1] else "top")
    axis.set(title=title, aspect="equal")
    axis.axis("off")
    return axis
