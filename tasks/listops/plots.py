"""Pictures of a run: its curves, and trees over a line of words."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from tasks.common.pictures import new_figure, save

from .train import Record
from .trees import Baselines, Span


def curves(history: Sequence[Record], path: Path) -> None:
    """Accuracy, and parse F1 with that of trees that know nothing of a line, by epoch of a run."""
    figure = new_figure((9, 3.8))
    accuracy, f1 = figure.subplots(1, 2)
    epochs = [record["epoch"] for record in history]
    for axis, names in ((accuracy, ("train_accuracy", "valid_accuracy")), (f1, ("valid_f1",))):
        for name, style in zip(names, ("C0-o", "C1-s"), strict=False):
            axis.plot(epochs, [record[name] for record in history], style, label=name.replace("_", " "), markersize=3)
        axis.set(xlabel="epoch")
        axis.grid(alpha=0.3)
    for place, name in enumerate(Baselines._fields):
        f1.axhline(history[-1][f"valid_f1_{name}"], color=f"C{place + 2}", linestyle="--", label=f"{name} tree")
    for axis in (accuracy, f1):
        axis.legend(fontsize="small")
    save(figure, path)


def trees(words: Sequence[str], shapes: Mapping[str, Sequence[Span]], path: Path) -> None:
    """Trees over one line of words, one below the other, each under its title."""
    width = min(40, 2 + 0.42 * len(words))
    figure = new_figure((width, len(shapes) * min(12, 1.2 + 0.16 * len(words))))
    for axis, (title, spans) in zip(figure.subplots(len(shapes), squeeze=False)[:, 0], shapes.items(), strict=True):
        _tree(axis, words, spans)
        axis.set_title(title, fontsize="small", loc="left")
    save(figure, path)


def _tree(axis: Axes, words: Sequence[str], spans: Sequence[Span]) -> None:
    """Each constituent over the middle of its words, as high as it is wide: then no two lines cross."""
    nodes = {(i, i + 1) for i in range(len(words))} | set(spans)
    for start, end in spans:
        middle = next(i for i in range(start + 1, end) if {(start, i), (i, end)} <= nodes)
        for part in ((start, middle), (middle, end)):
            xs, ys = zip(*((sum(span) / 2 - 0.5, span[1] - span[0] - 1) for span in ((start, end), part)), strict=True)
            axis.plot(xs, ys, "C0-", linewidth=1)
    for i, word in enumerate(words):
        axis.text(i, -0.25, word, ha="center", va="top", family="monospace", fontsize=8)
    axis.set_ylim(-1.5, None)
    axis.set_axis_off()
