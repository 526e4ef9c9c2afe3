"""Pictures of a run, and of several side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor
from torch.nn.functional import binary_cross_entropy

from tasks.common.pictures import COLORS, name_ends, new_figure, save, styles

from .ensemble import Ensemble, Record

COLUMNS = 10  #: images in a row
CONTRASTED, DRAWS = 8, 32  #: images on which runs are held against each other, and codes drawn of each image
WAYS = ("train", "test")


def write_run(run: Ensemble, out: Path) -> None:
    """``curves.png``, ``reconstructions.png`` and ``samples.png`` of one run in ``out``."""
    curves({run.config.estimator: run.history_of(0)}, out / "curves.png")
    inputs = run.images.test[:COLUMNS]
    tiles({"input": inputs.cpu(), "output": reconstructions(run, inputs)}, out / "reconstructions.png")
    tiles({"": samples(run, 5 * COLUMNS)}, out / "samples.png")


def reconstructions(run: Ensemble, inputs: Tensor, seed: int = 0) -> Tensor:
    """What one hard code of each image decodes to, ``(B, P) -> (B, P)``, by the first member."""
    (block,) = run.blocks
    seeds = torch.full((len(run.configs),), seed, dtype=torch.int64, device=inputs.device)
    return block.model.reconstruct(inputs, block.draw, seeds, run.config.backend)[0].cpu()


def samples(run: Ensemble, count: int) -> Tensor:
    """``(count, P)`` images decoded from uniform codes, the same codes for every run of one shape."""
    (block,) = run.blocks
    return block.model.sample_prior(count, torch.Generator().manual_seed(0))[0].cpu()


def curves(histories: Mapping[str, Sequence[Record]], path: Path, what: str = "") -> None:
    """-ELBO by epoch of each named run, training on the left, test on the right; the best at the end stands out.

    Args:
        histories: by name.
        path: of the picture.
        what: the curves are, for the titles.
    """
    figure = new_figure((13, 5.2))
    axes = figure.subplots(1, 2, sharey=True)
    values = np.array([record[f"{way}_loss"] for each in histories.values() for record in each for way in WAYS])
    # The first epochs fall from far above to where the runs differ.
    least, usual, most = np.quantile(values, (0.0, 0.95, 1.0))
    is_cut = most - usual > (usual - least) / 2
    top = usual if is_cut else most
    axes[0].set_ylim(least - 0.04 * (top - least), top + 0.04 * (top - least))
    above = f" (above: the first epochs, up to {most:.1f})" if is_cut else ""
    for axis, way in zip(axes, WAYS, strict=True):
        axis.set(title=f"{way}{what}{above}", xlabel="epoch", ylabel="-ELBO (nats an image)")
        axis.label_outer()
        axis.grid(alpha=0.3)
        axis.locator_params(axis="x", integer=True)
        _curves(axis, way, histories)
    save(figure, path)


def _curves(axis: Axes, way: str, histories: Mapping[str, Sequence[Record]]) -> None:
    last = {name: history[-1][f"{way}_loss"] for name, history in histories.items()}
    best = min(last, key=last.__getitem__) if len(last) > 1 else ""
    ends, colors = {}, {}
    looks = styles(len(histories))
    for place, ((name, history), look) in enumerate(zip(histories.items(), looks, strict=True)):
        epochs, losses = [r["epoch"] for r in history], [r[f"{way}_loss"] for r in history]
        every = max(1, len(history) // 8)
        if name == best:
            look = {**look, "linewidth": 2.4, "markersize": 7, "zorder": 3}
        # The markers of close lines stand beside one another.
        axis.plot(epochs, losses, **look, markevery=(place * every // len(looks), every))
        label = f"{name} {last[name]:.2f}" + " (best)" * (name == best)
        ends[label], colors[label] = (epochs[-1], losses[-1]), look["color"]
    axis.margins(x=0.02)
    name_ends(axis, ends, colors, bold=f"{best} {last[best]:.2f} (best)" if best else "")


def contrast(runs: Mapping[str, Ensemble], path: Path) -> None:
    """What runs make of the test images on which they differ most: the mean of what codes of each decode to, beside
    its difference to the image. In each column the run with the least cross-entropy is framed."""
    images = next(iter(runs.values())).images.test
    means, nats = {}, {}
    for name, run in runs.items():
        outputs = torch.stack([reconstructions(run, images, seed) for seed in range(DRAWS)])
        targets = images.cpu().expand_as(outputs)
        means[name] = outputs.mean(0)
        nats[name] = binary_cross_entropy(outputs, targets, reduction="none").sum(-1).mean(0)
    table = torch.stack([*nats.values()])  # (runs, images)
    chosen = _unlike(images.cpu(), table.std(0, correction=0))
    inputs, order = images.cpu()[chosen], table.mean(1).argsort().tolist()
    names = [list(runs)[place] for place in order]
    figure = new_figure((13, 1.4 + 0.62 * (1 + len(runs))))
    left, right = figure.subplots(1, 2)
    rows = {"input": inputs, **{f"{name}  {nats[name].mean():.2f}": means[name][chosen] for name in names}}
    _show(left, rows, cmap="gray", vmin=0, vmax=1)
    left.set_title(f"mean of {DRAWS} codes' outputs; at the names: nats, mean over all test images", fontsize="medium")
    errors = {"input": torch.zeros_like(inputs), **{name: means[name][chosen] - inputs for name in names}}
    shown = _show(right, errors, cmap="RdBu_r", vmin=-1, vmax=1)
    right.set_title("output minus input; framed: the best in its column", fontsize="medium")
    right.set_yticks([])
    side = round(inputs.shape[1] ** 0.5) + 1
    for column, place in enumerate(table[order][:, chosen].argmin(0).tolist()):
        corner = (column * side - 1.0, (place + 1) * side - 1.0)
        for axis in (left, right):
            axis.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=COLORS[4], linewidth=2.5, clip_on=False))
    figure.colorbar(shown, ax=right, label="too dark \N{LEFTWARDS ARROW}   \N{RIGHTWARDS ARROW} too bright", shrink=0.8)
    save(figure, path)


def _unlike(images: Tensor, contrast: Tensor) -> Tensor:
    """Numbers of images with much contrast: of the quarter with most, one after another that is unlike the former."""
    pool = contrast.topk(max(CONTRASTED, len(images) // 4) if len(images) > CONTRASTED else len(images)).indices
    chosen = pool[:1]
    while len(chosen) < min(CONTRASTED, len(pool)):
        distance = torch.cdist(images[pool], images[chosen]).amin(1)
        chosen = torch.cat([chosen, pool[distance.argmax()][None]])
    return chosen


def tiles(rows: Mapping[str, Tensor], path: Path) -> None:
    """Square images in [0, 1], ``(n, P)`` under each label, ``COLUMNS`` to a line."""
    lines = sum(len(images) // COLUMNS for images in rows.values())
    figure = new_figure((7, 0.4 + 6 * lines / COLUMNS))
    _show(figure.subplots(), rows, COLUMNS, cmap="gray", vmin=0, vmax=1)
    save(figure, path)


def _show(axis: Axes, rows: Mapping[str, Tensor], across: int | None = None, **look: Any) -> Any:
    """Square images, ``(n, P)`` beside each label, ``across`` to a line (None: all); returns what has their colours."""
    lines: list[np.ndarray] = []
    ticks: list[float] = []
    for images in rows.values():
        side = round(images.shape[1] ** 0.5)
        grid = images.reshape(-1, across or len(images), side, side).numpy()
        ticks.append((sum(line.shape[0] for line in lines) + grid.shape[0] * (side + 1) / 2) - 1)
        # A pixel of no colour to the right of and below each image keeps neighbours apart.
        padded = np.pad(grid, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
        lines.append(padded.transpose(0, 2, 1, 3).reshape(grid.shape[0] * (side + 1), -1))
    shown = axis.imshow(np.concatenate(lines), **look)
    axis.set_facecolor("0.6")
    axis.set_xticks([])
    axis.set_yticks(ticks, list(rows))
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return shown
