"""The frontier as tables and pictures."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from matplotlib.ticker import LogLocator, NullFormatter
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
    """Print the tables; write them and the pictures. ``cells`` has the settings and commits."""
    summary = Sheet("Cosine, and noise in brackets", ("setting", *found), _summary(found))
    images, seeds, draws = (cells.settings[name] for name in ("images", "seeds", "draws"))
    notes = [
        "Bias is the norm of the mean gradient less the exact one, spread the standard deviation (the root of the "
        "total variance) of one sample's gradient, both over the norm of the exact gradient. Free of scale, as Adam "
        "is: cosine is that of the mean gradient to the exact one, noise the spread over the mean gradient's norm.",
        "On the frontier: no other setting here has less of both, of bias and spread, or of angle and noise. The mean "
        f"over samples is exact, by enumeration; that over Gumbel noise is of {draws} draws for each latent and "
        f"sample, where a call that averages over 100 counts as 8. Commit {', '.join(cells.commits)}.",
        "Polynomials: 128 binary latents at normal log-odds. Random two-layer losses: three latents of ten "
        "categories, those of docs/bias_variance.py; medians. VAEs: those of BR Figure 1, trained with ReinMax at "
        f"temperature 1; the cross-entropy's gradient at the logits of {images} training images as one vector; medians "
        f"over {seeds} seeds.",
    ]
    pictures = {
        f"{path.stem}.png": partial(_draw, found, ("spread", "bias"), _bias_and_spread),
        f"{path.stem}-angle.png": partial(_draw, found, ("noise", "angle (degrees)"), _angle_and_noise),
    }
    sheets.write(path, TITLE, notes, [summary, *_details(found)], console, pictures)


def _summary(found: Found) -> list[tuple[str, ...]]:
    def cell(each: Mapping[str, float]) -> str:
        return f"{each['cosine']:.2f} ({number(noise(each))})"

    texts = next(iter(found.values()))
    return [(f"`{text}`", *(cell(settings[text]) for settings in found.values())) for text in texts]


def _details(found: Found) -> Iterator[Sheet]:
    header = ("setting", "bias", "spread", "on the frontier", "cosine", "noise", "on the frontier")
    for panel, settings in found.items():
        best = [frontier(settings, by) for by in (_bias_and_spread, _angle_and_noise)]
        rows = []
        for text, each in settings.items():
            is_best = ["yes" if text in those else "" for those in best]
            figures = (number(each["bias"]), number(each["std"]), is_best[0])
            rows.append((f"`{text}`", *figures, f"{each['cosine']:.2f}", number(noise(each)), is_best[1]))
        yield Sheet(panel, header, rows)


def noise(each: Mapping[str, float]) -> float:
    """The spread over the norm of the mean gradient."""
    return each["std"] / each["norm"] if each["norm"] else math.inf


def _bias_and_spread(each: Mapping[str, float]) -> tuple[float, float]:
    return each["bias"], each["std"]


def _angle_and_noise(each: Mapping[str, float]) -> tuple[float, float]:
    return math.degrees(math.acos(max(-1.0, min(1.0, each["cosine"])))), noise(each)


#: Two figures of a setting, of which less is better.
By = Callable[[Mapping[str, float]], tuple[float, float]]


def frontier(settings: Mapping[str, Mapping[str, float]], by: By) -> set[str]:
    """Those that no other setting has less of one figure than, and not more of the other."""
    points = {text: by(each) for text, each in settings.items()}

    def is_beaten(point: tuple[float, float]) -> bool:
        return any(other[0] <= point[0] and other[1] <= point[1] and other != point for other in points.values())

    return {text for text, point in points.items() if not is_beaten(point)}


def _draw(found: Found, names: tuple[str, str], by: By, path: Path) -> None:
    """A panel for each problem, a line for each estimator; its ends say the setting."""
    down = math.ceil(len(found) / ACROSS)
    figure = new_figure((1.0 + 4.2 * ACROSS, 0.8 + 3.6 * down))
    axes = figure.subplots(down, ACROSS, squeeze=False).flat
    for axis, (panel, settings) in zip(axes, found.items(), strict=False):
        for style, (name, curve) in zip(styles(len(CURVES)), CURVES.items(), strict=True):
            points = [(label, *by(settings[text])) for label, text in curve.items()]
            _, up, across = zip(*points, strict=True)
            axis.plot(across, up, label=name, **style)
            for label, y, x in (points[0], points[-1]):
                axis.annotate(label, (x, y), (3, 3), textcoords="offset points", fontsize=6.5, color=style["color"])
        axis.set_title(panel, fontsize="medium")
        axis.set(xlabel=names[0], ylabel=names[1], xscale="log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.3, which="both")
    for axis in axes:
        axis.set_axis_off()  # what the last row leaves over
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4, fontsize="small")
    save(figure, path)
