"""Figures made without pyplot, which would pick a display and hold on to them."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .files import write_atomically


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure of so many inches."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; ``path`` is the old one or the new, whole."""
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=120))
