"""The frontier as tables and a picture."""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from rich.console import Console

from tasks.common import sheets
from tasks.common.cells import Cells
from tasks.common.pictures import new_figure, save, styles
from tasks.common.sheets import Sheet, number

from .estimators import CURVES

TITLE = "The frontier: bias against spread"
#: Panel -> setting -> figure.
Found = Mapping[str, Mapping[str, Mapping[str, float]]]
ACROSS = 3  #: panels in a row


def write(path: Path, found: Found, cells: Cells, console: Console) -> None:
    """Print the tables; write them and the picture. ``cells`` has the settings and commits."""
    header = ("setting", "bias", "spread", "cosine", "on the frontier")
    shown = []
    for panel, settings in found.items():
        best = frontier(settings)
        rows = [
            (f"`{text}`", *(number(each[name]) for name in ("bias", "std", "cosine")), "yes" if text in best else "")
            for text, each in settings.items()
        ]
        shown.append(Sheet(panel, header, rows))
    images, seeds, draws = (cells.settings[name] for name in ("images", "seeds", "draws"))
    notes = [
        "Bias is the norm of the mean gradient less the exact one, spread the standard deviation (the root of the "
        "total variance) of one sample's gradient, both over the norm of the exact gradient; cosine is that of the "
        "mean gradient to the exact one. On the frontier: no other setting here has less of both, bias and spread. The "
        f"mean over samples is exact, by enumeration; that over Gumbel noise is of {draws} draws for each latent and "
        f"sample, where a call that averages over 100 counts as 8. Commit {', '.join(cells.commits)}.",
        "Polynomials: 128 binary latents at normal log-odds. Random two-layer losses: three latents of ten "
        "categories, those of docs/bias_variance.py; medians. VAEs: those of BR Figure 1, trained with ReinMax at "
        f"temperature 1; the cross-entropy's gradient at the logits of {images} training images as one vector; medians "
        f"over {seeds} seeds.",
        "`reinmax_rk2(beta=a/2, centred=True)` is the mix of straight-through (a = 0) and ReinMax (a = 1).",
    ]
    pictures = {f"{path.stem}.png": partial(_draw, found)}
    sheets.write(path, TITLE, notes, shown, console, pictures)


def frontier(settings: Mapping[str, Mapping[str, float]]) -> set[str]:
    """Those that no other setting has less bias and less spread than."""

    def is_beaten(each: Mapping[str, float]) -> bool:
        return any(
            other["bias"] <= each["bias"]
            and other["std"] <= each["std"]
            and (other["bias"], other["std"]) != (each["bias"], each["std"])
            for other in settings.values()
        )

    return {text for text, each in settings.items() if not is_beaten(each)}


def _draw(found: Found, path: Path) -> None:
    down = math.ceil(len(found) / ACROSS)
    figure = new_figure((1.0 + 4.2 * ACROSS, 0.8 + 3.6 * down))
    axes = figure.subplots(down, ACROSS, squeeze=False).flat
    for axis, (panel, settings) in zip(axes, found.items(), strict=False):
        for style, (name, curve) in zip(styles(len(CURVES)), CURVES.items(), strict=True):
            points = [(label, settings[text]["std"], settings[text]["bias"]) for label, text in curve.items()]
            _, spread, bias = zip(*points, strict=True)
            axis.plot(spread, bias, label=name, **style)
            for label, *at in (points[0], points[-1]):
                axis.annotate(label, at, (3, 3), textcoords="offset points", fontsize=6.5, color=style["color"])
        axis.set_title(panel, fontsize="medium")
        axis.set(xlabel="spread", ylabel="bias", xscale="log")
        axis.grid(alpha=0.3, which="both")
    for axis in axes:
        axis.set_axis_off()  # what the last row leaves over
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4, fontsize="small")
    save(figure, path)
