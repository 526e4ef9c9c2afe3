"""Figures made without pyplot, which would pick a display and hold on to them, and what keeps them readable."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .files import write_atomically

#: Okabe and Ito's, which the colour-blind tell apart; without their yellow, too pale for a line.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osv^D*PX<>"
LINES = ("-", "--", "-.")


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure of so many inches."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; ``path`` is the old one or the new, whole."""
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=120))


def styles(count: int) -> list[dict[str, Any]]:
    """Of so many lines: up to ten differ in marker, so that grey print tells them apart too."""
    return [
        {
            "color": COLORS[place % len(COLORS)],
            "marker": MARKERS[place % len(MARKERS)],
            "linestyle": LINES[place // len(COLORS) % len(LINES)],
            "markersize": 4,
            "linewidth": 1.2,
        }
        for place in range(count)
    ]


def far_off(spans: Sequence[tuple[float, float]]) -> list[bool]:
    """Which of some spans (least, most) would rule an axis: up to a quarter, beyond a gap wider than all others."""
    order = sorted(range(len(spans)), key=lambda place: spans[place])
    gaps: list[tuple[float, int]] = []
    reach = spans[order[0]][1] if spans else 0.0
    for count, place in enumerate(order[1:], 1):
        gaps.append((spans[place][0] - reach, count))
        reach = max(reach, spans[place][1])
    gap, count = max(gaps, default=(0.0, 0))
    below, above = order[:count], order[count:]
    few, many = sorted((below, above), key=len)
    if not few or 4 * len(few) > len(spans):
        return [False] * len(spans)
    width = max(spans[place][1] for place in many) - min(spans[place][0] for place in many)
    return [place in few and gap > width for place in range(len(spans))]


def name_ends(axis: Axes, ends: Mapping[str, tuple[float, float]], colors: Mapping[str, Any], bold: str = "") -> None:
    """Name each line at its end, right of the axis, as far apart as the names need; a thin line leads to each.

    Args:
        axis: whose limits are set.
        ends: of each name, where its line ends.
        colors: of each name.
        bold: the name that is set in bold.
    """
    if not ends:
        return
    axis.figure.canvas.draw()  # for the height that the axis gets
    height = axis.get_window_extent().height / axis.figure.dpi
    low, high = axis.get_ylim()
    step = (high - low) * 0.17 / height  # inches that a line of text takes
    names = sorted(ends, key=lambda name: ends[name][1])
    places = _spread([ends[name][1] for name in names], step)
    for name, place in zip(names, places, strict=True):
        x = axis.get_xlim()[1]
        axis.annotate(
            name,
            ends[name],
            xytext=(axis.transAxes.inverted().transform(axis.transData.transform((x, place)))[0] + 0.04, place),
            textcoords=("axes fraction", "data"),
            va="center",
            fontsize=8.5,
            color=colors[name],
            fontweight="bold" if name == bold else "normal",
            arrowprops={"arrowstyle": "-", "color": colors[name], "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3},
            annotation_clip=False,
        )


def _spread(values: Sequence[float], step: float) -> list[float]:
    """Ascending values moved to be ``step`` apart, each group about its own mean."""
    groups: list[list[float]] = []
    for value in values:
        groups.append([value])
        while len(groups) > 1 and _start(groups[-1], step) < _start(groups[-2], step) + step * len(groups[-2]):
            last = groups.pop()
            groups[-1] += last
    return [_start(group, step) + step * place for group in groups for place in range(len(group))]


def _start(group: Sequence[float], step: float) -> float:
    return sum(group) / len(group) - step * (len(group) - 1) / 2
