"""Pictures of a run: its curves, and trees over a line of words."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from tasks.common.pictures import COLORS, LINES, name_ends, new_figure, save, styles

from .train import Record
from .trees import Baselines, Span


def curves(history: Sequence[Record], path: Path) -> None:
    """Accuracy, and parse F1 with that of trees that know nothing of a line, by epoch of a run."""
    figure = new_figure((11, 4.2))
    accuracy, f1 = figure.subplots(1, 2)
    epochs = [record["epoch"] for record in history]
    for axis, names in ((accuracy, ("train_accuracy", "valid_accuracy")), (f1, ("valid_f1",))):
        ends, colors = {}, {}
        for name, style in zip(names, styles(len(names)), strict=True):
            values = [record[name] for record in history]
            axis.plot(epochs, values, **style)
            label = f"{name.replace('_', ' ')} {values[-1]:.2f}"
            ends[label], colors[label] = (epochs[-1], values[-1]), style["color"]
        if axis is f1:
            for place, name in enumerate(Baselines._fields, 1):
                value, color = history[-1][f"valid_f1_{name}"], COLORS[place]
                axis.axhline(value, color=color, linestyle=LINES[place % len(LINES)], linewidth=1)
                label = f"{name} tree {value:.2f}"
                ends[label], colors[label] = (epochs[-1], value), color
        axis.set_title("accuracy" if axis is accuracy else "parse F1 of the greedy trees", fontsize="medium")
        axis.set(xlabel="epoch")
        axis.locator_params(axis="x", integer=True)
        axis.grid(alpha=0.3)
        name_ends(axis, ends, colors)
    save(figure, path)


def trees(words: Sequence[str], shapes: Mapping[str, Sequence[Span]], path: Path) -> None:
    """Trees over one line of words, one below the other, each under its title; the first is the gold one."""
    width = min(40, 2 + 0.42 * len(words))
    figure = new_figure((width, 0.4 + len(shapes) * min(12, 1.2 + 0.16 * len(words))))
    gold = set(next(iter(shapes.values())))
    for axis, (title, spans) in zip(figure.subplots(len(shapes), squeeze=False)[:, 0], shapes.items(), strict=True):
        _tree(axis, words, spans, gold)
        axis.set_title(title, fontsize="small", loc="left")
    handles = [Line2D([], [], **style) for style in KINDS.values()]
    figure.legend(handles, KINDS, loc="outside lower center", ncols=len(KINDS), fontsize="small")
    save(figure, path)


#: How the branches below a constituent are drawn.
KINDS: dict[str, dict[str, Any]] = {
    "below a constituent of the gold tree": {"color": COLORS[0], "linestyle": "-", "linewidth": 1.8},
    "below another": {"color": COLORS[1], "linestyle": "--", "linewidth": 1.0},
}


def _tree(axis: Axes, words: Sequence[str], spans: Sequence[Span], gold: Collection[Span]) -> None:
    """Each constituent over the middle of its words, as high as it is wide: then no two lines cross."""
    nodes = {(i, i + 1) for i in range(len(words))} | set(spans)
    right, wrong = KINDS.values()
    for start, end in spans:
        middle = next(i for i in range(start + 1, end) if {(start, i), (i, end)} <= nodes)
        for part in ((start, middle), (middle, end)):
            xs, ys = zip(*((sum(span) / 2 - 0.5, span[1] - span[0] - 1) for span in ((start, end), part)), strict=True)
            axis.plot(xs, ys, **(right if (start, end) in gold else wrong))
    for i, word in enumerate(words):
        axis.text(i, -0.25, word, ha="center", va="top", family="monospace", fontsize=8)
    axis.set_ylim(-1.5, None)
    axis.set_axis_off()
