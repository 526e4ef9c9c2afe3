"""``python -m tasks.vae demo``: every estimator on the embedded data set, one table, a few pictures.

The seeds of an estimator train as one ensemble, the estimators on two processes.
"""

import contextlib
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console

from discrete_ops import build_info
from discrete_ops.estimators import ESTIMATORS
from tasks.common import files, sheets, workers
from tasks.common.errors import RunError
from tasks.common.progress import bar
from tasks.common.sheets import Sheet

from . import data, train
from .ensemble import Ensemble, Record
from .recipes import Config, configure

PROCESSES = 2  #: at a time, one thread each
SEEDS = range(3)
COLUMNS = ("estimator", "train loss (-ELBO)", "test loss (-ELBO)", "seconds an epoch")


class Result(NamedTuple):
    """One row of the table; losses in nats an image, of the last epoch, one a seed."""

    estimator: str
    train_losses: list[float]
    test_losses: list[float]
    seconds_per_epoch: float  # of one run: median wall time of the ensemble over its seeds, test pass included

    def cells(self) -> tuple[str, ...]:
        losses = (
            f"{statistics.fmean(each):.2f} +- {statistics.stdev(each):.2f}"
            for each in (self.train_losses, self.test_losses)
        )
        return self.estimator, *losses, f"{self.seconds_per_epoch:.3f}"


class Job(NamedTuple):
    """An estimator's runs, one a seed, and where they live."""

    configs: tuple[Config, ...]
    out: Path

    @property
    def estimator(self) -> str:
        return self.configs[0].estimator


def run(out: Path, epochs: int, fresh: bool, console: Console) -> int:
    """Train what is not finished in ``out``, then report on all estimators.

    Returns:
        Exit status: 1 if an estimator failed, a figure that is not finite included.
    """
    jobs = [Job(tuple(configure(estimator=e, epochs=epochs, seed=seed) for seed in SEEDS), out / e) for e in ESTIMATORS]
    if fresh:
        for job in jobs:
            for name in ("result.json", "checkpoint.pt"):
                (job.out / name).unlink(missing_ok=True)
    pending = [job for job in jobs if _finished(job) is None]
    first = jobs[0].configs[0]
    title = (
        f"{first.data}, latents {first.latent}, recipe {first.recipe}, {epochs} epochs, {len(SEEDS)} seeds, "
        f"backend {first.backend}"
    )
    console.print(
        f"{title}; finished before: {len(jobs) - len(pending)} of {len(jobs)}", highlight=False, soft_wrap=True
    )
    failures = _train(pending, console)
    finished = {job: result for job in jobs if (result := _finished(job)) is not None}
    if finished:
        _write(finished, title, out, console)
        console.print(f"{out}: summary.json, summary.md, curves.png, reconstructions.png, samples.png", soft_wrap=True)
    for failure in failures:
        console.print(f"error: {failure}", style="red", markup=False, highlight=False, soft_wrap=True)
    return 1 if failures else 0


def _finished(job: Job) -> Result | None:
    """The result that whole runs of these configs left, if there is one."""
    path = job.out / "result.json"
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        same = content["configs"] == json.loads(json.dumps([asdict(config) for config in job.configs]))
        return Result(**content["result"]) if same else None
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path}: not a result of this demo ({error!r}); delete it or give --fresh") from error


def _train(jobs: Sequence[Job], console: Console) -> list[str]:
    """Run the jobs, ``PROCESSES`` at a time. Returns what went wrong."""
    failures = []
    with bar(console) as progress, contextlib.closing(workers.finished(_work, jobs, PROCESSES)) as finished:
        task = progress.add_task("estimators", total=len(jobs))
        for job, done in finished:
            progress.advance(task)
            text = f"{job.estimator}: {'failed' if done.failure else f'done; it was {done.text}'}"
            progress.console.print(text, highlight=False, soft_wrap=True)
            if done.failure:
                kind = "" if isinstance(done.failure, RunError) else f"{type(done.failure).__name__}: "
                told = str(done.failure)
                failures.append(told if told.startswith(job.estimator) else f"{job.estimator}: {kind}{told}")
    return failures


def _work(job: Job) -> str:
    """In a process: train; returns where they began."""
    torch.set_num_threads(1)
    said: list[str] = []
    run = train.fit(job.configs, data.load(job.configs[0].data), job.out, finite=True, on_start=said.append)
    last = run.history[-1]
    result = Result(
        estimator=job.estimator,
        train_losses=[record["train_loss"] for record in last],
        test_losses=[record["test_loss"] for record in last],
        seconds_per_epoch=statistics.median(records[0]["seconds"] for records in run.history) / len(SEEDS),
    )
    content = {"configs": [asdict(config) for config in job.configs], "result": result._asdict()}
    files.write_json(job.out / "result.json", content)
    return "; ".join(said)


def _write(finished: dict[Job, Result], title: str, out: Path, console: Console) -> None:
    """The table, the summaries and the pictures that show all estimators side by side."""
    from . import plots

    first = next(iter(finished)).configs[0]
    names = ("data", "recipe", "latent", "epochs", "device", "backend")
    common = {name: getattr(first, name) for name in names}
    results = [result._asdict() for result in finished.values()]
    summary = {**common, "seeds": list(SEEDS), "environment": build_info(), "results": results}
    files.write_json(out / "summary.json", summary)

    images, runs = data.load(first.data), {}
    for job in finished:
        runs[job.estimator] = Ensemble(job.configs, images)
        train.restore(runs[job.estimator], job.out / "checkpoint.pt")
    means = {name: [_mean(records) for records in run.history] for name, run in runs.items()}
    samples = {name: plots.samples(run, plots.COLUMNS) for name, run in runs.items()}
    pictures = {
        "curves.png": partial(plots.curves, means, what=f", mean of {len(SEEDS)} seeds"),
        "reconstructions.png": partial(plots.contrast, runs),
        "samples.png": partial(plots.tiles, samples),
    }
    best_first = sorted(finished.values(), key=lambda result: statistics.fmean(result.test_losses))
    sheet = Sheet(title, COLUMNS, [result.cells() for result in best_first])
    notes = [f"Mean and standard deviation over {len(SEEDS)} seeds, the best test loss first; pictures of seed 0."]
    sheets.write(out / "summary.md", title, notes, [sheet], console, pictures)


def _mean(records: Sequence[Record]) -> Record:
    """Over the seeds."""
    return {name: statistics.fmean(record[name] for record in records) for name in records[0]}
