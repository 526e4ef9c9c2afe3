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
from tasks.common.pictures import far_off, new_figure, save, styles

from .results import Result
from .tables import CENTRED


def plot_by_epoch(found: Sequence[Result], titles: dict[str, str], path: Path, log: Sequence[str] = ()) -> None:
    """A panel for each split, a line for each method over epochs: means over the seeds that reached the last one.

    A line that would rule its panel's axis is told in words above it.
    """
    last = max(r.epochs for r in found)
    whole = {(r.method, r.seed) for r in found if r.epochs == last}
    methods = list(dict.fromkeys(r.method for r in found))
    figure = new_figure((5.2 * len(titles) + 2.6, 4.6))
    for axis, (split, title) in zip(figure.subplots(1, len(titles), squeeze=False).flat, titles.items(), strict=True):
        lines = {}
        for method in methods:
            by_epoch: dict[int, list[float]] = {}
            for r in found:
                if r.split == split and r.method == method and r.value is not None and (method, r.seed) in whole:
                    by_epoch.setdefault(r.epochs, []).append(r.value)
            lines[method] = {epoch: statistics.fmean(by_epoch[epoch]) for epoch in sorted(by_epoch)}
        spans = {method: (min(line.values()), max(line.values())) for method, line in lines.items() if line}
        is_far = [False] * len(spans) if split in log else far_off(list(spans.values()))
        far = {method: spans[method] for method, is_one in zip(spans, is_far, strict=True) if is_one}
        for style, (method, line) in zip(styles(len(methods)), lines.items(), strict=True):
            shown = {} if method in far else line
            axis.plot(list(shown), list(shown.values()), label=method, **style)
        told = "".join(f"\noff the axis: {method}, {least:.2f} to {most:.2f}" for method, (least, most) in far.items())
        axis.set_title(title + told, fontsize="medium")
        axis.set(xlabel="epoch", yscale="log" if split in log else "linear")
        axis.grid(alpha=0.3)
    handles = figure.axes[-1].get_legend_handles_labels()
    figure.legend(*handles, loc="outside right upper", fontsize="small")  # so many would cover the data
    save(figure, path)


def plot_betas(found: Sequence[Result], path: Path) -> None:
    """Final train loss against beta, a panel for each latent shape, a curve for each estimator: mean and spread over
    seeds; runs that failed are crosses on the upper edge."""
    columns = list(dict.fromkeys(r.column for r in found))
    figure = new_figure((1.0 + 4.6 * len(columns), 4.8))
    kinds = (False, "Eq. 27", "Eq. 27"), (True, "centred, mean Eq. 26", "centred")
    for axis, column in zip(figure.subplots(1, len(columns), squeeze=False).flat, columns, strict=True):
        least = []
        for style, (is_centred, label, name) in zip(styles(len(kinds)), kinds, strict=True):
            losses: dict[float, list[float]] = {}
            failed: set[float] = set()
            for r in found:
                # At 1/2 the two estimators are one, and the centred one is not trained again.
                if r.column == column and (r.method.endswith(CENTRED) == is_centred or r.method == "beta=0.5"):
                    beta = float(r.method.removesuffix(CENTRED).removeprefix("beta="))
                    losses.setdefault(beta, []).extend([] if r.value is None else [r.value])
                    failed |= {beta} if r.value is None else set()
            means = {beta: statistics.fmean(values) for beta, values in sorted(losses.items()) if values}
            spread = [statistics.stdev(losses[beta]) if len(losses[beta]) > 1 else 0.0 for beta in means]
            axis.errorbar(
                list(means), list(means.values()), yerr=spread if any(spread) else None, capsize=3, label=label, **style
            )
            if means:
                least.append(f"{name} at {min(means, key=means.__getitem__):g}")
            edge = {"transform": axis.get_xaxis_transform(), "clip_on": False, "in_layout": False}
            axis.plot(sorted(failed), [1.0] * len(failed), "x", color=style["color"], **edge)
        axis.axvline(0.5, color="0.6", linestyle=":", label="ReinMax, beta = 1/2")
        axis.set_title(f"{column}; least: {', '.join(least)}", fontsize="medium")
        axis.set(xlabel="beta", ylabel="train -ELBO (nats an image)")
        axis.grid(alpha=0.3)
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, fontsize="small")
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
    figure = new_figure((4 * len(shown), 4.2))
    for axis, (name, estimator) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
        _simplex(axis, f"{name}, tau = {tau}")
        soft, index = estimator(logits, hard=False, seed=0, return_index=True)
        for category, style in enumerate(styles(3)):
            points = _flat(soft[index == category])
            look = {"linestyle": "", "markersize": 8 if name == "GST-1.0" else 3.5, "alpha": 0.7}
            axis.plot(*points.T, **{**style, **look}, label=f"drawn: {category + 1}")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    save(figure, path)


#: What each point of Figure 2 is.
MOVES = {"ko": "softmax of the logits", "C1s": "after m1: a tie with the largest", "C0*": "after m2: a lead of the gap"}


def plot_simplex_moves(path: Path, tau: float = 1.0, gap: float = 1.0) -> None:
    """GST Figure 2: from softmax(l) by m1 to a tie with the largest, and by m2 to a lead of the gap, for each D."""
    logits = torch.tensor(PROBABILITIES, dtype=torch.float64).log()
    figure = new_figure((12, 4.2))
    for place, axis in enumerate(figure.subplots(1, 3)):
        _simplex(axis, f"D = {place + 1}")
        index = torch.full((1,), place)
        steps = [logits[None], perturbed(logits[None], index, 0.0), perturbed(logits[None], index, gap)]
        points = _flat(torch.cat([(step / tau).softmax(-1) for step in steps]))
        for start, end, label in zip(points[:-1], points[1:], ("m1", "m2"), strict=True):
            if np.linalg.norm(end - start) > 1e-6:
                axis.annotate(
                    "", end, start, arrowprops={"arrowstyle": "->", "color": "0.3", "shrinkA": 6, "shrinkB": 6}
                )
                across = np.array([start[1] - end[1], end[0] - start[0]]) / np.linalg.norm(end - start)
                beside = across * (14 if across[1] > 0.5 else -14)
                where = {"xytext": beside, "textcoords": "offset points", "ha": "center", "va": "center"}
                axis.annotate(label, (start + end) / 2, fontsize="small", **where)
        for point, (style, label) in zip(points, MOVES.items(), strict=True):
            axis.plot(*point, style, markersize=9, label=label, alpha=0.85)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    save(figure, path)


def perturbed(logits: Tensor, index: Tensor, gap: float) -> Tensor:
    """``l + m1 - m2``: the logit of D raised to the largest, the others lowered to the gap below. GST Eq. 17-19."""
    return reference.perturbed(logits, one_hot(index, logits.shape[-1]), gap)


def _flat(points: Tensor) -> np.ndarray:
    """``(n, 3)`` probabilities -> ``(n, 2)`` in the plane of the triangle."""
    return points.numpy().astype(np.float64) @ CORNERS


def _simplex(axis: Any, title: str) -> None:
    axis.plot(*np.vstack([CORNERS, CORNERS[:1]]).T, "k-", linewidth=0.8)
    for corner, name in zip(CORNERS, ("1", "2", "3"), strict=True):
        away = {"xytext": (0, 7 if corner[1] else -7), "textcoords": "offset points", "ha": "center"}
        axis.annotate(name, corner, va="bottom" if corner[1] else "top", **away)
    axis.set(title=title, aspect="equal", ylim=(-0.09, 0.98))
    axis.axis("off")
