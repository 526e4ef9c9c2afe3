"""Pictures of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tasks.common.pictures import new_figure, save

from .ensemble import Ensemble, Record

COLUMNS = 10  #: images in a row


def write_run(run: Ensemble, out: Path) -> None:
    """``curves.png``, ``reconstructions.png`` and ``samples.png`` of one run in ``out``."""
    curves({run.config.estimator: run.history_of(0)}, out / "curves.png")
    inputs = run.images.test[:COLUMNS].cpu()
    tiles({"input": inputs, "output": reconstructions(run)}, out / "reconstructions.png")
    tiles({"": samples(run, 5 * COLUMNS)}, out / "samples.png")


def reconstructions(run: Ensemble) -> Tensor:
    """What one hard code of each of the first test images decodes to, ``(COLUMNS, P)``."""
    inputs = run.images.test[:COLUMNS]
    (block,) = run.blocks
    seed = torch.zeros(1, dtype=torch.int64, device=inputs.device)
    return block.model.reconstruct(inputs, block.draw, seed, run.config.backend)[0].cpu()


def samples(run: Ensemble, count: int) -> Tensor:
    """``(count, P)`` images decoded from uniform codes, the same codes for every run of one shape."""
    (block,) = run.blocks
    return block.model.sample_prior(count, torch.Generator().manual_seed(0))[0].cpu()


def curves(histories: Mapping[str, Sequence[Record]], path: Path) -> None:
    """-ELBO by epoch of each named run, training on the left, test on the right."""
    figure = new_figure((11, 4.5))
    axes = figure.subplots(1, 2, sharey=True)
    for axis, name in zip(axes, ("train", "test"), strict=True):
        for (label, history), style in zip(histories.items(), _styles(), strict=False):
            axis.plot(
                [record["epoch"] for record in history],
                [record[f"{name}_loss"] for record in history],
                style,
                label=label,
                linewidth=1.2,
                markersize=3,
                markevery=max(1, len(history) // 8),
            )
        axis.set(title=name, xlabel="epoch", ylabel="-ELBO (nats an image)")
        axis.label_outer()
        axis.grid(alpha=0.3)
    axes[1].legend(fontsize="small")
    save(figure, path)


def tiles(rows: Mapping[str, Tensor], path: Path) -> None:
    """Square images in [0, 1], ``(n, P)`` under each label, ``COLUMNS`` to a line."""
    lines: list[np.ndarray] = []
    ticks: list[float] = []
    for images in rows.values():
        side = round(images.shape[1] ** 0.5)
        grid = images.view(-1, COLUMNS, side, side).numpy()
        ticks.append((sum(line.shape[0] for line in lines) + grid.shape[0] * (side + 1) / 2) - 1)
        # One grey pixel to the right of and below each image keeps neighbours apart.
        padded = np.pad(grid, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=0.5)
        lines.append(padded.transpose(0, 2, 1, 3).reshape(-1, COLUMNS * (side + 1)))
    picture = np.concatenate(lines)
    figure = new_figure((7, 0.4 + 6 * picture.shape[0] / picture.shape[1]))
    axis = figure.subplots()
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
    axis.set_xticks([])
    axis.set_yticks(ticks, list(rows))
    axis.tick_params(length=0)
    axis.set_frame_on(False)
    save(figure, path)


def _styles() -> list[str]:
    """Nine that differ in colour and marker, so that grey print tells them apart too."""
    return [f"C{i}-{marker}" for i, marker in enumerate("osv^D*PX<")]
