"""Time against categories, time and memory against draws, and how near the memory's speed a call comes."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.common import files, pictures

from .cases import ONE_DRAW
from .speed_tables import Record

NAMES = {"ours": "ours", "plain": "plain PyTorch", "tuned": "tuned PyTorch", "torch": "F.gumbel_softmax"}
STYLE = {"svg.hashsalt": "discrete_ops", "svg.fonttype": "none", "font.size": 9}


def lines(axes: Axes, found: Mapping[str, Iterable[tuple[float, float]]]) -> None:
    for style, (label, points) in zip(pictures.styles(len(found)), found.items(), strict=True):
        axes.plot(*zip(*sorted(points), strict=True), label=label, **style)
    axes.set(xscale="log", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def by_columns(results: dict[str, Any]) -> Figure:
    """Of two estimators with their peers, 256 rows."""
    figure = pictures.new_figure((8, 3.4))
    names = [name for name in ("straight_through", "gumbel_softmax") if _line(results, "columns", name, "ours")]
    for place, estimator in enumerate(names):
        axes = figure.add_subplot(1, len(names), place + 1)
        found = _of_each(results, "columns", estimator, "median", 1e6)
        found["floor: a copy's speed"] = _line(results, "columns", estimator, "ours", "floor", 1e6)
        lines(axes, found)
        axes.set(title=f"{estimator}, 256 rows", xlabel="categories", ylabel="us, forward + backward")
    return figure


def by_draws(results: dict[str, Any]) -> Figure:
    """Time and memory of Gumbel-Rao at 3000x10."""
    figure = pictures.new_figure((8, 3.4))
    axes = figure.add_subplot(1, 2, 1)
    lines(axes, _of_each(results, "draws", "gumbel_rao", "median", 1e3))
    axes.set(title="gumbel_rao, 3000x10", xlabel="draws", ylabel="ms, forward + backward")
    axes = figure.add_subplot(1, 2, 2)
    memory: dict[str, list[tuple[float, float]]] = {}
    for record in results["memory"]:
        if record["estimator"] == "gumbel_rao":
            memory.setdefault(NAMES[record["who"]], []).append((record["draws"], record["bytes"] / 2**20))
    lines(axes, memory)
    axes.set(title="its peak beside its inputs", xlabel="draws", ylabel="MiB")
    return figure


def roofline(results: dict[str, Any]) -> Figure:
    """Bytes a second of ours, of every size, below those of a copy of the logits in the same run."""
    figure = pictures.new_figure((8, 3.6))
    axes = figure.add_subplot()
    found: dict[str, list[tuple[float, float]]] = {}
    for record in results["speed"]:
        given = (record["who"], record["passes"], record["dtype"], record["threads"])
        if given == ("ours", "both", "float32", 1) and record["estimator"] in ONE_DRAW:
            moved = record["moved"]
            found.setdefault("a copy of the logits", []).append((moved, moved / record["floor"] / 1e9))
            found.setdefault(record["estimator"], []).append((moved, moved / record["median"] / 1e9))
    lines(axes, found)
    for line in axes.get_lines():
        line.set_linestyle("none")
    axes.set(xlabel="bytes that have to be moved", ylabel="GB a second")
    axes.legend(fontsize=8, ncols=len(found))
    return figure


#: File name: what draws it.
PLOTS: dict[str, Callable[[dict[str, Any]], Figure]] = {
    "time_by_categories.svg": by_columns,
    "time_and_memory_by_draws.svg": by_draws,
    "roofline.svg": roofline,
}


def draw(results: dict[str, Any], folder: Path) -> None:
    with matplotlib.rc_context(STYLE):
        for name, make in PLOTS.items():
            figure = make(results)
            files.write_atomically(
                folder / name, lambda file, figure=figure: figure.savefig(file, format="svg", metadata={"Date": None})
            )


def _of_each(
    results: dict[str, Any], section: str, estimator: str, figure: str, unit: float
) -> dict[str, list[tuple[float, float]]]:
    found = {label: _line(results, section, estimator, who, figure, unit) for who, label in NAMES.items()}
    return {label: line for label, line in found.items() if line}


def _line(
    results: dict[str, Any], section: str, estimator: str, who: str, figure: str = "median", unit: float = 1.0
) -> list[tuple[float, float]]:
    wanted = {"section": section, "estimator": estimator, "who": who}
    records: list[Record] = [r for r in results["speed"] if all(r[key] == value for key, value in wanted.items())]
    return [(record[section], unit * record[figure]) for record in records]
