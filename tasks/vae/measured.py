"""BR Table 1 and Figure 1: estimators measured on an 8x4 VAE that ReinMax trains."""

import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from tasks.common import checkpoint, files, jsonl, papers, sheets
from tasks.common.errors import RunError
from tasks.common.progress import bar
from tasks.common.sheets import Sheet, number, printed

from . import data, results, train
from .ensemble import Ensemble
from .gradients import Spread, measure
from .progress import RunProgress
from .recipes import Config, configure
from .results import Result
from .tables import BR_METHODS

#: What both take: 1024 draws of each estimator for each image, a hundred images at a time, 50 epochs of training.
DRAWS, IMAGES, LAST = 1024, 100, 50
#: The paper has one minibatch; the figure depends on which.
BATCHES = 10


def epochs_until(last: int) -> tuple[int, ...]:
    """When BR Figure 1 measures: "increments of 5 epochs from 0 to 50"."""
    return (*range(0, last, 5), last)


@dataclass(frozen=True)
class Measurement:
    """What is measured on which VAE.

    Attributes:
        tau: of the training with ReinMax; optimiser and learning rate are those of BR Table 4.
        estimators: by name.
        splits: which figures of their ``Spread``.
        minibatches: how many, and whether a result's column names its minibatch.
    """

    tau: float
    estimators: Mapping[str, Any]
    splits: tuple[str, ...]
    minibatches: int = 1

    def columns(self, latent: str) -> list[str]:
        """A result's column, for each minibatch. It says what else decides the figure: others are other results."""
        what = f"{latent}, VAE tau {self.tau}, {IMAGES} images, {DRAWS} draws"
        return [what] if self.minibatches == 1 else [f"{what}, minibatch {k}" for k in range(self.minibatches)]


def _estimator(name: str, tau: float, **others: Any) -> Any:
    """At one temperature; eta and K are those of BR Table 4."""
    return configure(estimator=name, tau=tau, **others).build_estimator()


#: The rows of BR Figure 1.
PREVIOUS = ("STGS", "GR-MC100", "GST-1.0", "ST")
RAO, CV, REINMAX = "ReinMax-Rao", "ReinMax-CV", "ReinMax"
#: ReinMax-CV at tau .1: as Eq. 18 reads, with a control not over tau (eta * tau for eta), and with one of the Gumbels.
CV_AT_01: dict[str, dict[str, Any]] = {
    "ReinMax-CV, tau 0.1": {},
    "ReinMax-CV, tau 0.1, eta 0.15": {"eta": 0.15},
    "ReinMax-CV, tau 0.1, Gumbels": {"control": "gumbel"},
}


def figure_1() -> Measurement:
    """BR Figure 1: "all the temperatures here are 1, except tau = 0.1 for ReinMax-CV", which is shown at both.

    At .1 the soft sample is softmax(theta_D + soft sample), which has no tau of its own, over tau: ten times the term
    that it stands against, so that the mean gradient points the other way. Two other readings are measured beside it.
    """
    shown = {name: _estimator(BR_METHODS[name].estimator, 1.0) for name in (*PREVIOUS, RAO, CV)}
    shown |= {name: _estimator("reinmax_cv", 0.1, **others) for name, others in CV_AT_01.items()}
    shown[REINMAX] = _estimator("reinmax", 1.0)
    return Measurement(1.0, shown, ("cosine", "std", "relative_std"))


#: The rows of BR Table 1, as it prints them.
TABLE_1 = {
    "ReinMax": "reinmax",
    "Straight-Through": "straight_through",
    "ReinMax-Argmax": "reinmax_argmax",
}


def table_1() -> Measurement:
    """BR Table 1: "we use tau = 1.3 for all methods", which is Table 4's for ReinMax at 8x4, too."""
    shown = {name: _estimator(estimator, 1.3) for name, estimator in TABLE_1.items()}
    splits = ("relative_std", "std", "batch_relative_std", "batch_std")
    return Measurement(1.3, shown, splits, BATCHES)


def run(
    table: str,
    what: Measurement,
    *,
    epochs: Sequence[int],
    seeds: Sequence[int],
    images: data.Source,
    out: Path,
    folder: Path,
    console: Console,
    **overrides: Any,
) -> list[Result]:
    """Train a VAE for each seed, and measure estimators on it; what is known is not done again.

    Args:
        table: of the results that this adds, in ``folder``.
        what: to measure.
        epochs: after which to measure; 0 is the untrained VAE, training ends with the last.
        seeds: of the runs.
        images: to train on, and to measure some of.
        out: folder of the run's directory.
        overrides: of the runs' configs.

    Returns:
        All results of the table on this data set after these epochs.

    Raises:
        Occupied: at the end, if another process trains for some seed; the others are done.
    """
    config = configure(estimator="reinmax", tau=what.tau, epochs=epochs[-1], **overrides)
    columns = what.columns(config.latent)

    def known() -> list[Result]:
        found = results.read(folder, table)
        return [r for r in found if r.data == config.data and r.column in columns and r.epochs in epochs]

    done = {(r.seed, r.epochs, r.column, r.split, r.method) for r in known()}
    figures = list(itertools.product(columns, what.splits, what.estimators))
    jsonl.commit()  # of the code that runs, which may change on disk before the end
    with files.leaving_occupied() as piece:
        for seed in seeds:
            pending = [epoch for epoch in epochs if any((seed, epoch, *figure) not in done for figure in figures)]
            if not pending:
                continue
            config = configure(estimator="reinmax", tau=what.tau, seed=seed, epochs=epochs[-1], **overrides)
            with piece():
                paths = checkpoints(config, epochs, pending, images(), out, console)
                for epoch in pending:
                    trained = train.load(config, images(), paths[epoch]) if epoch else Ensemble([config], images())
                    found = _measure(trained, what, epoch, console)
                    commit = train.commits(_folder(out, config))
                    results.add(folder, _results(table, config, epoch, found, what, commit, trained.failed(0)))
                    if not console.is_terminal:
                        console.print(f"seed {seed}, epoch {epoch}: measured", highlight=False)
    return known()


def _folder(out: Path, config: Config) -> Path:
    name = f"{config.data}-{config.latent}-reinmax-tau={config.tau}-{config.epochs}-{config.seed}"
    return files.for_device(out / name, config.device)


def checkpoints(
    config: Config, epochs: Sequence[int], wanted: Sequence[int], images: data.Images, out: Path, console: Console
) -> dict[int, Path]:
    """Train the VAE that is measured; returns the checkpoint of each epoch but 0, of those wanted for sure."""
    folder = _folder(out, config)
    paths = {epoch: folder / f"epoch-{epoch}.pt" for epoch in epochs if epoch}
    state = folder / "checkpoint.pt"
    reached = checkpoint.load(state, [config])["epoch"] if state.exists() else 0
    whole = all(paths[epoch].exists() for epoch in wanted if 0 < epoch <= reached)
    with RunProgress(console, config.epochs) as progress:
        train.fit(
            [config],
            images,
            folder,
            resume=whole,  # one of them was lost: only a new start brings it back
            keep=tuple(paths),
            on_step=progress.on_step,
            on_epoch=progress.on_epoch,
            on_start=progress.on_start,
        )
    return paths


def _measure(trained: Ensemble, what: Measurement, epoch: int, console: Console) -> dict[str, dict[str, Spread]]:
    """Column -> estimator -> its spread."""
    images, config = trained.images.train, trained.config
    if len(images) < what.minibatches * IMAGES:
        raise RunError(f"data: {len(images)} training images, {what.minibatches * IMAGES} are measured")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(config.seed)).to(images.device)
    found = {}
    with bar(console) as progress:
        task = progress.add_task(f"measuring epoch {epoch}", total=what.minibatches * IMAGES)
        for k, column in enumerate(what.columns(config.latent)):
            batch: Tensor = images[order[k * IMAGES : (k + 1) * IMAGES]]
            seed = 1000 * epoch + IMAGES * k  # another one for each image
            on_image = partial(progress.advance, task)
            found[column] = measure(trained.member(0), batch, what.estimators, DRAWS, seed, on_image)
    return found


def _results(
    table: str,
    config: Config,
    epoch: int,
    found: Mapping[str, Mapping[str, Spread]],
    what: Measurement,
    commit: str,
    failed: int | None,
) -> list[Result]:
    return [
        Result.of(
            config,
            table=table,
            column=column,
            method=method,
            split=split,
            value=getattr(spread, split),
            epochs=epoch,
            commit=commit,
            failed=failed,
        )
        for column, rows in found.items()
        for split in what.splits
        for method, spread in rows.items()
    ]


# ---------------------------------------------------------------------------------------------------
# Reports


ST = "Straight-Through"

#: What each figure of a ``Spread`` is.
TITLES = {
    "cosine": "cosine to the exact gradient",
    "std": "standard deviation: an image's gradient at its logits, mean over images",
    "relative_std": "relative standard deviation: an image's over the norm of its mean gradient, mean over images",
    "batch_std": "standard deviation: the gradient of a minibatch's mean loss at all its logits as one vector",
    "batch_relative_std": "relative standard deviation: that of the minibatch over the norm of its mean gradient",
}


def _about(found: Sequence[Result]) -> str:
    commits = ", ".join(sorted({r.commit for r in found}))
    return f"{found[0].data}, seeds {', '.join(map(str, sorted({r.seed for r in found})))}; commit {commits}."


def _by_place(found: Sequence[Result], **where: Any) -> dict[tuple[int, str], float]:
    """(Seed, column) -> figure, of the results with these fields; the failed ones are left out."""
    chosen = [r for r in found if all(getattr(r, name) == value for name, value in where.items())]
    return {(r.seed, r.column): r.value for r in chosen if r.value is not None}


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def report_table_1(path: Path, found: Sequence[Result], compare: bool, console: Console) -> None:
    """BR Table 1, each reading of its standard deviation beside the paper's figures.

    Args:
        path: of the Markdown.
        found: the results.
        compare: whether the paper's figures are of the same data and epochs.
        console: to print on.
    """
    theirs = {row: cells["Std"] for row, cells in papers.figures("BR Table 1").items()} if compare else {}
    header = ("", "paper", "ours", "spread over minibatches", "least", "most", "paper, to ST", "ours, to ST", "spread")
    shown = []
    for split in ("relative_std", "std", "batch_relative_std", "batch_std"):
        rows = []
        for method in TABLE_1:
            mine, st = (_by_place(found, split=split, method=name) for name in (method, ST))
            each, ratios = list(mine.values()), [mine[place] / st[place] for place in mine.keys() & st.keys()]
            paper = theirs.get(method)
            rows.append(
                (
                    method,
                    printed(paper),
                    number(_mean(each)),
                    *(number(f(each) if len(each) > 1 else None) for f in (statistics.stdev, min, max)),
                    number(None if paper is None else paper.over(theirs[ST])),
                    number(_mean(ratios)),
                    number(statistics.stdev(ratios) if len(ratios) > 1 else None),
                )
            )
        shown.append(Sheet(TITLES[split], header, rows))
    notes = [
        f"{_about(found)} An 8x4 VAE after {found[0].epochs} epochs, trained with ReinMax by BR Table 4 (tau 1.3, Adam "
        f"5e-4); all estimators at tau 1.3, {DRAWS} draws for each of {IMAGES} images; {BATCHES} such minibatches a "
        "seed, whose mean and standard deviation over minibatches (and seeds) stand here.",
        "The paper does not say which estimator trained the VAE, how many images the minibatch has, nor how the "
        "standard deviation is pooled over entries and images, so four readings of it follow. The gradient is that of "
        "the cross-entropy at the logits of the latents.",
    ]
    sheets.write(path, "BR Table 1: standard deviation of the gradient", notes, shown, console)


#: Epoch -> estimator -> mean over seeds.
Rows = dict[int, dict[str, float]]


def _by_row(found: Sequence[Result], split: str) -> Rows:
    rows: Rows = {}
    for epoch in sorted({r.epochs for r in found}):
        for method in dict.fromkeys(r.method for r in found):
            mean = _mean([*_by_place(found, split=split, method=method, epochs=epoch).values()])
            if mean is not None:
                rows.setdefault(epoch, {})[method] = mean
    return rows


def _count(rows: Rows, names: Sequence[str], holds: Callable[[dict[str, float]], bool]) -> str:
    """At how many epochs something holds, of those that have all of some estimators' figures."""
    whole = [row for row in rows.values() if set(names) <= row.keys()]
    return f"{sum(map(holds, whole))} of {len(whole)}"


def _between(rows: Rows, cv: str) -> str:
    """At how many epochs one of the CV rows lies between Rao and ReinMax."""
    return _count(rows, (RAO, cv, REINMAX), lambda row: row[RAO] < row[cv] < row[REINMAX])


def _above_previous(rows: Rows) -> str:
    return _count(rows, (RAO, *PREVIOUS), lambda row: all(row[RAO] > row[name] for name in PREVIOUS))


def report_figure_1(path: Path, found: Sequence[Result], console: Console) -> None:
    """BR Figure 1 as tables and a picture: means over seeds by epoch. Arguments as of :func:`report_table_1`."""
    from . import figures  # matplotlib is slow to import

    epochs = sorted({r.epochs for r in found})
    shown = []
    for split in dict.fromkeys(r.split for r in found):
        rows, by_row = [], _by_row(found, split)
        for method in dict.fromkeys(r.method for r in found):
            means = [by_row.get(epoch, {}).get(method) for epoch in epochs]
            there = [mean for mean in means if mean is not None]
            rows.append((method, *(number(mean) for mean in means), number(_mean(there))))
        shown.append(Sheet(TITLES[split], ("epoch", *map(str, epochs), "mean"), rows))
    cosines, deviations = (_by_row(found, split) for split in ("cosine", "std"))
    notes = [
        f"{_about(found)} An 8x4 VAE trained with ReinMax (tau 1, Adam 5e-4; 0: untrained), {IMAGES} images, {DRAWS} "
        "draws of each estimator for each image. All temperatures are 1 but where a row says .1; eta 1.5 and K 100 are "
        "BR Table 4's. Means over seeds.",
        "The paper prints no figures. Its text: the cosine of ReinMax > ReinMax-CV > ReinMax-Rao > all others, the "
        "variance of ReinMax > CV > Rao; CV at tau .1. Of the epochs here, "
        + "; ".join(
            f"{cv} lies between Rao and ReinMax at {_between(cosines, cv)} in cosine, at {_between(deviations, cv)} in "
            "standard deviation"
            for cv in (CV, *CV_AT_01)
        )
        + f"; Rao's cosine is above all previous estimators' at {_above_previous(cosines)}.",
    ]
    titles = {"cosine": "cosine to the exact gradient", "std": "standard deviation"}
    titles["relative_std"] = "standard deviation over the mean's norm"
    pictures = {f"{path.stem}.png": partial(figures.plot_by_epoch, found, titles, log=("std", "relative_std"))}
    sheets.write(path, "BR Figure 1: bias and spread by epoch", notes, shown, console, pictures)
