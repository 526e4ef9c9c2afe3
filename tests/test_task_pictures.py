"""The pictures keep what they promise: the paper's bars where they say so, no legend on data, nothing off unnoticed."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from tasks.common import pictures
from tasks.common.pictures import far_off
from tasks.listops import plots as listops_plots
from tasks.vae import figures, panels, plots, report, results, sketches, study
from tasks.vae.report import Cell
from tasks.vae.tables import TABLES

RESULTS = Path(__file__).parents[1] / "tasks" / "results"
COMMITTED = [name for name in TABLES if (RESULTS / f"{name}.jsonl").exists()]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures in place of files of them."""
    found: list[Figure] = []
    for module in (figures, sketches, plots, listops_plots):
        monkeypatch.setattr(module, "save", lambda figure, path: found.append(figure))
    return found


def cells(name: str) -> list[Cell]:
    found = study.shown(results.read(RESULTS, name), TABLES[name], {"data": "mnist"})
    return report.cells(name, found)


def history(start: float, end: float, epochs: int = 60) -> list[dict[str, float]]:
    """A run that falls steeply and then by little, as those of the demo do."""
    losses = [end + (start - end) * 0.3**epoch + 0.05 * (epochs - epoch) for epoch in range(epochs)]
    return [{"epoch": e, "train_loss": loss, "test_loss": loss + 0.1} for e, loss in enumerate(losses, 1)]


def listops_history() -> list[dict[str, float]]:
    f1 = {"valid_f1": 0.2, "valid_f1_random": 0.3, "valid_f1_left": 0.57, "valid_f1_right": 0.12}
    return [{"epoch": e, "train_accuracy": 0.1 * e, "valid_accuracy": 0.1 * e + 0.01, **f1} for e in range(1, 7)]


def points(figure: Figure) -> Iterator[np.ndarray]:
    """Pixels of every line and bar's edge, with many between two points of a line."""
    for axis in figure.axes:
        for line in axis.lines:
            path = line.get_path()
            if len(path.vertices):
                yield line.get_transform().transform_path(path.interpolated(50)).vertices
        for patch in axis.patches:
            yield patch.get_window_extent().corners()


def overlapping_legends(figure: Figure) -> list[Any]:
    figure.canvas.draw()
    legends = [*figure.legends, *(legend for axis in figure.axes if (legend := axis.get_legend()))]
    boxes = [legend.get_window_extent() for legend in legends]
    return [box for box in boxes for each in points(figure) if any(box.contains(*point) for point in each)]


@pytest.mark.parametrize("name", COMMITTED)
def test_tables_pictures_have_what_they_name(name: str) -> None:
    rows = cells(name)
    figure = panels.draw(rows, "a title")
    shown = [axis for axis in figure.axes if axis.get_title()]
    is_compared, bars = any(row.paper for row in rows), 0
    for axis in shown:
        column, split = axis.get_title().removesuffix(" (the paper prints none)").split(", ")
        inside = [row for row in rows if (row.split, row.column) == (split, column)]
        printed = [row for row in inside if row.paper and row.paper.value is not None]
        words = " ".join(text.get_text() for text in axis.texts)
        told = [row for row in printed if f"paper: {row.paper.value:.2f} " in words]  # type: ignore[union-attr]
        assert len(axis.containers) + len(told) == len(printed)
        assert words.count("paper: X") == sum(row.paper is not None and row.paper.value is None for row in inside)
        assert axis.get_title().endswith("(the paper prints none)") == (
            is_compared and not any(row.paper for row in inside)
        )
        low, high = axis.get_xlim()
        dots = {x for line in axis.lines for x in line.get_xdata() if line.get_marker() == "o"}
        assert all(low < x < high for x in dots)
        for row in inside:  # every figure of ours is a dot, or told
            gone = [value for value in row.values if value not in dots]
            assert all(f"{value:.1f}" in words for value in gone[:1])
        bars += len(axis.containers)
    (legend,) = figure.legends
    labels = [text.get_text().split(":")[0] for text in legend.get_texts()]
    assert ("paper" in labels) == (bars > 0)
    assert "ours" in labels
    assert not overlapping_legends(figure)


def test_outlier_is_told_and_does_not_rule_the_axis() -> None:
    axis = panels.draw(cells("br-2"), "a title").axes[0]
    assert axis.get_title() == "8x4, train"
    assert axis.get_xlim()[1] < 140
    assert [text.get_text() for text in axis.texts] == ["ours: 191.3 \N{RIGHTWARDS ARROW}"]


def test_far_off_are_few_and_far() -> None:
    close = [(x, x + 0.5) for x in range(8)]
    assert far_off([]) == []
    assert not any(far_off(close))
    assert far_off([*close, (20.0, 21.0)]) == [False] * 8 + [True]
    assert far_off([(-30.0, -29.0), *close]) == [True] + [False] * 8
    assert not any(far_off([*close, (10.0, 11.0)]))  # no farther than the others are wide
    assert not any(far_off([*close[:3], (90.0, 91.0), (92.0, 93.0)]))  # two of five are no exception


def test_no_legend_covers_data(drawn: list[Figure], tmp_path: Path) -> None:
    figure_1 = results.read(RESULTS, "figure-br-1")
    figures.plot_by_epoch(figure_1, {"cosine": "cosine", "std": "deviation"}, tmp_path, log=("std",))
    figures.plot_betas(results.read(RESULTS, "figure-br-2"), tmp_path)
    figures.plot_simplex_samples(tmp_path, count=50)
    figures.plot_simplex_moves(tmp_path)
    sketches.plot_gaps([sketches.gap(log_odds, 1000) for log_odds in sketches.LOG_ODDS], tmp_path)
    variance = sketches.Variance(3.0, 1.0, 2.0)
    sketches.plot_variances({1.0: {"GR-MC1": variance, "GST-1.0": variance}}, tmp_path)
    plots.curves({"one": history(42, 24), "two": history(40, 25)}, tmp_path)
    listops_plots.curves(listops_history(), tmp_path)
    listops_plots.trees(["[MAX", "1", "]"], {"gold": [(0, 3), (0, 2)], "greedy": [(0, 3), (1, 3)]}, tmp_path)
    assert len(drawn) == 9
    for figure in drawn:
        assert not overlapping_legends(figure)
    cosines = drawn[0].axes[0]
    assert "off the axis: ReinMax-CV, tau 0.1, -0.99 to -0.71" in cosines.get_title()
    assert cosines.get_ylim()[0] > 0


def test_lines_are_named_at_their_ends(drawn: list[Figure], tmp_path: Path) -> None:
    """Where nine lines end within a nat: no two names overlap, none is on the data, the best stands out."""
    histories = {f"run{place}": history(42, 24 + 0.05 * place) for place in range(9)}
    plots.curves(histories, tmp_path)
    (figure,) = drawn
    figure.canvas.draw()
    for axis in figure.axes:
        names = list(axis.texts)
        assert {name.get_text().split()[0] for name in names} == set(histories)
        boxes = [Text.get_window_extent(name) for name in names]  # without the lines that lead there
        # A hair's breadth off: the boxes of lines of text are as high as the tallest letters.
        assert not any(a.shrunk(1, 0.8).overlaps(b.shrunk(1, 0.8)) for a, b in combinations(boxes, 2))
        assert all(box.x0 > axis.get_window_extent().x1 for box in boxes)
        (bold,) = (name.get_text() for name in names if name.get_fontweight() == "bold")
        assert bold.startswith("run0 ")
        assert bold.endswith(" (best)")
        assert axis.get_ylim()[1] < 30  # where the lines differ, not where they begin
        assert "above: the first epochs, up to 45" in axis.get_title()
    looks = [(line.get_color(), line.get_marker(), line.get_linestyle()) for line in figure.axes[0].lines]
    assert len({marker for _, marker, _ in looks}) == len(looks)
    assert len({(color, stroke) for color, _, stroke in looks}) == len(looks)


def test_every_line_up_to_ten_has_a_look_of_its_own() -> None:
    looks = pictures.styles(10)
    assert len({look["marker"] for look in looks}) == 10
    assert len({(look["color"], look["linestyle"]) for look in looks}) == 10
