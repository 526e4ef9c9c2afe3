"""A table's picture: the paper's figures beside ours, a panel for each split and column."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.common.pictures import COLORS, far_off, new_figure, save

from .report import Cell

PAPER, OURS = "black", COLORS[0]
#: In a row the paper's lane is above the middle, ours below, so that neither covers the other.
LANES = {"paper": -0.18, "ours": 0.18}
BEYOND = " \N{RIGHTWARDS ARROW}"  #: off the axis


def plot(rows: Sequence[Cell], title: str, path: Path) -> None:
    """A bar for the paper's mean and +-, a dot for each of our seeds; what would rule the axis is told in words."""
    save(draw(rows, title), path)


def draw(rows: Sequence[Cell], title: str) -> Any:
    """The figure of :func:`plot`. Its legend has what was drawn, and a panel says where the paper prints nothing."""
    splits, columns = (list(dict.fromkeys(names)) for names in zip(*((r.split, r.column) for r in rows), strict=True))
    methods = list(dict.fromkeys(row.method for row in rows))
    across = len(columns) if len(splits) > 1 else min(len(columns), 3)
    down = -(-len(splits) * len(columns) // across)
    figure = new_figure((1.4 + 3.4 * across, 1.0 + down * (0.7 + 0.36 * len(methods))))
    axes = figure.subplots(down, across, squeeze=False, sharey=True).flat
    is_compared = any(row.paper for row in rows)
    handles: dict[str, Any] = {}
    for axis, (split, column) in zip(axes, ((s, c) for s in splits for c in columns), strict=False):
        inside = [row for row in rows if (row.split, row.column) == (split, column)]
        handles |= _panel(axis, inside, methods)
        silent = is_compared and not any(row.paper for row in inside)
        axis.set_title(f"{column}, {split}" + (" (the paper prints none)" if silent else ""), fontsize="medium")
        axis.set_xlabel("-ELBO (nats an image)", fontsize="small")
    for axis in axes:
        axis.set_axis_off()  # what the last row of panels leaves over
    figure.suptitle(title, fontsize="medium")
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=len(handles), fontsize="small")
    return figure


def _panel(axis: Any, rows: Sequence[Cell], methods: Sequence[str]) -> dict[str, Any]:
    """Draw a panel; returns what a legend shows, by label."""
    handles: dict[str, Any] = {}
    off = _off_axis(rows)
    for row in rows:
        y = methods.index(row.method)
        paper = row.paper
        words: dict[str, list[str]] = {lane: [] for lane in LANES}
        if paper and paper.value is None:
            words["paper"].append("X, cannot converge")
        elif paper and paper.value in off:
            words["paper"].append(f"{paper.value:.2f}{BEYOND}")
        elif paper:
            x, spread = paper.value, paper.spread
            bar = axis.errorbar(x, y + LANES["paper"], xerr=spread, color=PAPER, fmt="|", capsize=3, markersize=8)
            handles["paper: mean, and +- as printed"] = bar
        seen = [value for value in row.values if value not in off]
        if seen:
            dots = axis.plot(seen, [y + LANES["ours"]] * len(seen), "o", color=OURS, alpha=0.7, markersize=5)
            handles["ours: a dot for each seed"] = dots[0]
        beyond = sorted({f"{value:.1f}" for value in row.values if value in off})
        if beyond:
            what = "-".join((beyond[0], beyond[-1])[: len(beyond)])
            words["ours"].append(f"{what} (collapsed){BEYOND}" if row.collapsed else f"{what}{BEYOND}")
        words["ours"] += [f"X, not finite in epoch {epoch}" for epoch in row.failed]
        for lane, said in words.items():
            if said:
                _say(axis, y + LANES[lane], f"{lane}: {', '.join(said)}", PAPER if lane == "paper" else OURS)
    for method in set(methods) - {row.method for row in rows}:
        _say(axis, methods.index(method), "not run", "0.5")
    axis.set_yticks(range(len(methods)), methods)
    axis.set_ylim(len(methods) - 0.5, -0.5)
    axis.margins(x=0.08)
    axis.locator_params(axis="x", nbins=5)
    axis.grid(alpha=0.3)
    return handles


def _say(axis: Any, y: float, text: str, color: str) -> None:
    where = {"transform": axis.get_yaxis_transform(), "ha": "right", "va": "center"}
    axis.text(0.99, y, text, fontsize=7.5, color=color, **where)


def _off_axis(rows: Sequence[Cell]) -> set[float]:
    """Means that are not drawn, for all others would shrink to nothing: of runs that learned nothing, if others did,
    and the few that lie far off."""
    collapsed = {value for row in rows for value in row.collapsed}
    trained = [value for row in rows for value in row.trained]
    spans = {value: (value, value) for value in trained or collapsed}
    for row in rows:
        if row.paper and row.paper.value is not None:
            spread = row.paper.spread or 0.0
            spans[row.paper.value] = (row.paper.value - spread, row.paper.value + spread)
    far = {value for value, is_far in zip(spans, far_off(list(spans.values())), strict=True) if is_far}
    return far | (collapsed if trained else set())
