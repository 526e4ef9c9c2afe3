"""The curves as a table and a picture."""

import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from tasks.common import sheets
from tasks.common.pictures import new_figure, save, styles
from tasks.common.sheets import Sheet

from .programming import POINTS, Setting

TITLE = "Polynomial programming"
#: Power -> estimator -> a curve a seed.
Curves = Mapping[float, Mapping[str, Sequence[Sequence[float]]]]
#: Where on a curve the table looks, as shares of the steps.
SHOWN = (0.25, 0.5, 1.0)


def write(path: Path, found: Curves, setting: Setting, commits: Sequence[str], console: Console) -> None:
    """Print the table; write it and the picture."""
    header = ("p", "estimator", "seeds", *(f"step {round(share * setting.steps)}" for share in SHOWN))
    rows = []
    for power, curves in found.items():
        for name, seeds in curves.items():
            figures = [_figure(seeds, round(share * POINTS), power, setting) for share in SHOWN]
            rows.append((f"{power:g}", f"`{name}`", str(len(seeds)), *figures))
    notes = [
        f"{setting.latents} binary latents, c = {setting.c}, Adam at {setting.lr}, {setting.batch} samples a step; the "
        "problem and its setting are Liu et al.'s, NeurIPS 2023. Gumbel-Rao is the mean over all of its draws. Commit "
        f"{', '.join(commits)}.",
        "What the expected loss is above its minimum, c^p, in percent of what it is above it at the start: mean, +- "
        "standard deviation over seeds if several. 0 is solved, 100 is no progress.",
    ]
    pictures = {f"{path.stem}.png": partial(_draw, found, setting)}
    sheets.write(path, TITLE, notes, [Sheet(TITLE, header, rows, names=2)], console, pictures)


def left(curve: Sequence[float], power: float, c: float) -> list[float]:
    """Of the way from a curve's start to the minimum, what is left at each of its points."""
    least = c**power
    return [(loss - least) / (curve[0] - least) for loss in curve]


def _figure(seeds: Sequence[Sequence[float]], point: int, power: float, setting: Setting) -> str:
    values = [100 * left(curve, power, setting.c)[point] for curve in seeds]
    spread = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{spread}"


def _draw(found: Curves, setting: Setting, path: Path) -> None:
    """A panel for each power, a line for each estimator: mean over seeds, and their range."""
    figure = new_figure((1.0 + 3.6 * len(found), 4.2))
    for axis, (power, curves) in zip(figure.subplots(1, len(found), squeeze=False).flat, found.items(), strict=True):
        for style, (name, seeds) in zip(styles(len(curves)), curves.items(), strict=True):
            points = list(zip(*(left(curve, power, setting.c) for curve in seeds), strict=True))
            steps = [place * setting.steps / POINTS for place in range(len(points))]
            axis.plot(steps, [statistics.fmean(p) for p in points], label=name, markevery=5, **style)
            axis.fill_between(
                steps, [min(p) for p in points], [max(p) for p in points], color=style["color"], alpha=0.2
            )
        axis.set_title(f"p = {power:g}", fontsize="medium")
        axis.set(xlabel="step", yscale="log")
        axis.grid(alpha=0.3)
    figure.supylabel("left of the way to the minimum", fontsize="medium")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    save(figure, path)
