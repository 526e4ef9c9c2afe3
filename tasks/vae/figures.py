"""The papers' pictures that are not tables of trained runs: BR Figure 1, BR Table 1, GST Figures 1 and 2."""

import math
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from discrete_ops import estimators
from tasks.common import checkpoint, files
from tasks.common.pictures import new_figure, save
from tasks.common.progress import bar

from . import data, results, train
from .ensemble import Ensemble
from .gradients import Spread, measure
from .progress import RunProgress
from .recipes import Config, configure
from .results import Result
from .tables import BR_METHODS, Method

#: BR Figure 1, from the authors' run_check_cosine.py: a VAE trained with ReinMax at tau 1, after these epochs.
EPOCHS = (1, *range(5, 51, 5))
IMAGES, DRAWS = 100, 512
#: BR Table 1 divides means of std over norm. Images with hardly any gradient rule them: from one hundred images to the
#: next ST's differs by half.
TABLE_IMAGES = 1000
#: The rows of BR Figure 1: those of Tables 2 and 3.
FIGURE_1 = {name: row for name, row in BR_METHODS.items() if not row.overrides}
#: Those of BR Table 1: ReinMax with the argmax in place of the sample, beside what it is compared with.
TABLE_1 = {
    "ST": Method("straight_through"),
    "ReinMax": Method("reinmax"),
    "ReinMax-Argmax": Method("reinmax_argmax"),
}


def measured(
    table: str,
    estimators: Mapping[str, Any],
    *,
    tau: float | None,
    splits: Sequence[str],
    epochs: Sequence[int],
    seeds: Sequence[int],
    count: int,
    images: data.Source,
    out: Path,
    folder: Path,
    console: Console,
    **overrides: Any,
) -> list[Result]:
    """Train the 8x4 VAE with ReinMax for each seed, and measure estimators on it; what is known is not done again.

    Args:
        table: of the results that this adds, in ``folder``.
        estimators: by name.
        tau: of the training; None for Table 4's.
        splits: which figures of their ``Spread``.
        epochs: after which to measure; training ends with the last.
        seeds: of the runs.
        count: how many images to measure.
        images: to train on, and to measure some of.
        out: folder of the run's directory.
        overrides: of the runs' configs.

    Returns:
        All results of the table on this data set after these epochs.

    Raises:
        Occupied: at the end, if another process trains for some seed; the others are done.
    """
    done = {(r.seed, r.epochs) for r in results.read(folder, table) if r.data == overrides["data"]}
    results.commit()  # of the code that runs, which may change on disk before the end
    with files.leaving_occupied() as piece:
        for seed in seeds:
            pending = [epoch for epoch in epochs if (seed, epoch) not in done]
            if not pending:
                continue
            config = configure(estimator="reinmax", tau=tau, seed=seed, epochs=epochs[-1], **overrides)
            with piece():
                paths = _train(config, epochs, pending, images(), out, console)
                for epoch in pending:
                    run = train.load(config, images(), paths[epoch])
                    batch = _measured_images(run, count)
                    with bar(console) as progress:
                        task = progress.add_task(f"measuring epoch {epoch}", total=len(batch))
                        on_image = partial(progress.advance, task)
                        found = measure(run.member(0), batch, estimators, DRAWS, 1000 * epoch, on_image)
                    commit = train.commits(paths[epoch].parent)
                    results.add(folder, _results(table, config, epoch, found, splits, commit, run.failed(0)))
                    if not console.is_terminal:
                        console.print(f"seed {seed}, epoch {epoch}: measured", highlight=False)
    data_set = overrides["data"]
    return [r for r in results.read(folder, table) if r.data == data_set and r.epochs in epochs]


def _train(
    config: Config, epochs: Sequence[int], wanted: Sequence[int], images: data.Images, out: Path, console: Console
) -> dict[int, Path]:
    """Train the VAE that is measured; returns the checkpoint of each epoch, of those wanted for sure."""
    name = f"{config.data}-{config.latent}-reinmax-tau={config.tau}-{config.epochs}-{config.seed}"
    folder = files.for_device(out / name, config.device)
    paths = {epoch: folder / f"epoch-{epoch}.pt" for epoch in epochs}
    state = folder / "checkpoint.pt"
    reached = checkpoint.load(state, [config])["epoch"] if state.exists() else 0
    whole = all(paths[epoch].exists() for epoch in wanted if epoch <= reached)
    with RunProgress(console, config.epochs) as progress:
        train.fit(
            [config],
            images,
            folder,
            resume=whole,  # one of them was lost: only a new start brings it back
            keep=epochs,
            on_step=progress.on_step,
            on_epoch=progress.on_epoch,
        )
    return paths


def _measured_images(run: Ensemble, count: int) -> Tensor:
    """The training images to measure a VAE on: the first of an order drawn from its seed."""
    images = run.images.train
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(run.config.seed))
    return images[order[:count].to(images.device)]


def _results(
    table: str,
    config: Config,
    epoch: int,
    found: Mapping[str, Spread],
    splits: Sequence[str],
    commit: str,
    failed: int | None,
) -> list[Result]:
    return [
        Result.of(
            config,
            table=table,
            column=config.latent,
            method=method,
            split=split,
            value=getattr(spread, split),
            epochs=epoch,
            commit=commit,
            failed=failed,
        )
        for split in splits
        for method, spread in found.items()
    ]


def at_tau_1(methods: Mapping[str, Method]) -> dict[str, Any]:
    """The estimators of some rows at tau 1, where BR Figure 1 and Table 1 compare them; eta and K are Table 4's."""
    return {name: configure(estimator=row.estimator, tau=1.0).build_estimator() for name, row in methods.items()}


def plot_by_epoch(found: Sequence[Result], titles: dict[str, str], path: Path, log: Sequence[str] = ()) -> None:
    """A panel for each split, a line for each method over epochs: means over the seeds that reached the last one."""
    last = max(r.epochs for r in found)
    whole = {(r.method, r.seed) for r in found if r.epochs == last}
    figure = new_figure((5.2 * len(titles), 4.2))
    for place, (split, title) in enumerate(titles.items()):
        axis = figure.add_subplot(1, len(titles), place + 1)
        for method in dict.fromkeys(r.method for r in found):
            by_epoch: dict[int, list[float]] = {}
            for r in found:
                if r.split == split and r.method == method and r.value is not None and (method, r.seed) in whole:
                    by_epoch.setdefault(r.epochs, []).append(r.value)
            epochs = sorted(by_epoch)
            axis.plot(epochs, [statistics.fmean(by_epoch[e]) for e in epochs], "o-", label=method, markersize=3)
        axis.set(title=title, xlabel="epoch", yscale="log" if split in log else "linear")
        axis.grid(alpha=0.3)
    figure.axes[-1].legend(fontsize="x-small")
    save(figure, path)


def plot_betas(found: Sequence[Result], path: Path) -> None:
    """Final train loss against beta: mean and spread over seeds; runs that failed are crosses on the upper edge."""
    figure = new_figure((7, 4.5))
    axis = figure.add_subplot()
    losses: dict[float, list[float]] = {}
    failed: set[float] = set()
    for r in found:
        beta = float(r.method.removeprefix("beta="))
        if r.value is None:
            failed.add(beta)
        else:
            losses.setdefault(beta, []).append(r.value)
    betas = sorted(losses)
    spread = [statistics.stdev(losses[b]) if len(losses[b]) > 1 else 0.0 for b in betas]
    axis.errorbar(betas, [statistics.fmean(losses[b]) for b in betas], yerr=spread, fmt="o-", capsize=3)
    axis.plot(sorted(failed), [1.0] * len(failed), "rx", transform=axis.get_xaxis_transform(), clip_on=False)
    axis.set(xlabel="beta", ylabel="train -ELBO (nats an image)")
    axis.grid(alpha=0.3)
    save(figure, path)


# ---------------------------------------------------------------------------------------------------
# The simplex

PROBABILITIES = (0.5, 0.3, 0.2)
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(3) / 2]])


def plot_simplex_samples(path: Path, tau: float = 0.5, count: int = 400) -> None:
    """GST Figure 1: where each estimator's soft samples lie, by the category that was drawn."""
    shown = {
        "STGS": estimators.GumbelSoftmax(tau=tau),
        "GR-MC10": estimators.GumbelRao(tau=tau, num_samples=10),
        "GST-1.0": estimators.GST(tau=tau, gap=1.0),
    }
    logits = torch.tensor(PROBABILITIES).log().expand(count, -1)
    figure = new_figure((4 * len(shown), 3.8))
    for place, (name, estimator) in enumerate(shown.items()):
        axis = _simplex(figure, len(shown), place, f"{name}, tau = {tau}")
        soft, index = estimator(logits, hard=False, seed=0, return_index=True)
        for category in range(3):
            points = _flat(soft[index == category])
            axis.plot(*points.T, f"C{category}.", markersize=7 if name == "GST-1.0" else 3, alpha=0.6)
    save(figure, path)


def plot_simplex_moves(path: Path, tau: float = 1.0, gap: float = 1.0) -> None:
    """GST Figure 2: from softmax(l) by m1 to a tie with the largest, and by m2 to a lead of the gap, for each D."""
    logits = torch.tensor(PROBABILITIES, dtype=torch.float64).log()
    figure = new_figure((12, 3.8))
    for place in range(3):
        axis = _simplex(figure, 3, place, f"D = {place + 1}")
        index = torch.full((1,), place)
        steps = [logits[None], perturbed(logits[None], index, 0.0), perturbed(logits[None], index, gap)]
        points = _flat(torch.cat([(step / tau).softmax(-1) for step in steps]))
        for start, end, label in zip(points[:-1], points[1:], ("m1", "m2"), strict=True):
            if np.linalg.norm(end - start) > 1e-6:
                axis.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "0.3"})
                axis.annotate(label, (start + end) / 2, fontsize="small")
        for point, style in zip(points, ("ko", "C1s", "C0*"), strict=True):
            axis.plot(*point, style, markersize=8)
    save(figure, path)


def perturbed(logits: Tensor, index: Tensor, gap: float) -> Tensor:
    """``l + m1 - m2``: the logit of D raised to the largest, the others lowered to the gap below. GST Eq. 17-19."""
    top = logits.amax(-1, keepdim=True)
    others = torch.minimum(logits, top - gap)
    return torch.where(index[:, None] == torch.arange(logits.shape[-1]), top, others)


def _flat(points: Tensor) -> np.ndarray:
    """``(n, 3)`` probabilities -> ``(n, 2)`` in the plane of the triangle."""
    return points.numpy().astype(np.float64) @ CORNERS


def _simplex(figure: Any, across: int, place: int, title: str) -> Any:
    axis = figure.add_subplot(1, across, place + 1)
    axis.plot(*np.vstack([CORNERS, CORNERS[:1]]).T, "k-", linewidth=0.8)
    for corner, name in zip(CORNERS, ("1", "2", "3"), strict=True):
        axis.annotate(name, corner, ha="center", va="bottom" if corner[1] else "top")
    axis.set(title=title, aspect="equal")
    axis.axis("off")
    return axis
