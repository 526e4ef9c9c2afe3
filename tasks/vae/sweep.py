"""BR Appendix B: a grid search over optimiser, learning rate and temperature, ranked by final train loss.

For ReinMax-CV it is over temperature and eta, with the optimiser and learning rate of ReinMax. Trials train in
ensembles of ``group`` members, on local processes or on the workers of a Ray cluster; a trial that is done is not
trained again.
"""

import contextlib
import hashlib
import itertools
import math
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from tasks.common import sheets, workers
from tasks.common.errors import RunError
from tasks.common.progress import bar
from tasks.common.sheets import Sheet
from tasks.common.workers import Done

from . import data, results, train
from .recipes import Config, configure

OPTIMIZERS = ("adam", "radam")
LEARNING_RATES = (1e-3, 7e-4, 5e-4, 3e-4)
TEMPERATURES = (0.1, 0.3, 0.5, 0.7, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5)
ETAS = (0.1, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0)
ENGINES = ("local", "ray")
HEADER = ("optimizer", "lr", "tau", "eta", "seeds", "train", "test")


@dataclass(frozen=True)
class Job:
    """Trials that one process trains as an ensemble."""

    configs: tuple[Config, ...]
    out: Path
    data_dir: Path | None


def grid(
    estimator: str,
    seeds: Sequence[int],
    *,
    optimizers: Sequence[str] | None = None,
    lrs: Sequence[float] | None = None,
    taus: Sequence[float] | None = None,
    etas: Sequence[float] | None = None,
    **overrides: Any,
) -> list[Config]:
    """A config for each trial and seed; None: what the paper tries for that estimator."""
    if estimator == "reinmax_cv":
        reinmax = configure(estimator="reinmax", **overrides)
        optimizers, lrs = optimizers or (reinmax.optimizer,), lrs or (reinmax.lr,)
        etas = etas or ETAS
    return [
        configure(estimator=estimator, optimizer=optimizer, lr=lr, tau=tau, eta=eta, seed=seed, **overrides)
        for optimizer, lr, tau, eta, seed in itertools.product(
            optimizers or OPTIMIZERS, lrs or LEARNING_RATES, taus or TEMPERATURES, etas or (None,), seeds
        )
    ]


def run(
    configs: Sequence[Config],
    out: Path,
    *,
    data_dir: Path | None = None,
    engine: str = "local",
    processes: int = 1,
    group: int = 1,
    console: Console,
) -> None:
    """Train what is not done in ``out``, then print and write the ranking, ``sweep.md`` and ``trials.jsonl``.

    Raises:
        RunError: a job failed; the other jobs' trials are kept.
    """
    first, out = configs[0], out.resolve()  # a worker may have another current directory
    name = f"{first.estimator}/{first.latent}"
    known = {(r.column, r.seed, r.epochs, r.data) for r in results.read(out, "trials")}
    pending = [c for c in configs if (_column(c), c.seed, c.epochs, c.data) not in known]
    jobs = [
        Job(tuple(members), out, data_dir and data_dir.resolve())
        for members in (pending[start : start + group] for start in range(0, len(pending), group))
    ]
    console.print(f"sweep {name}: {len(configs) - len(pending)} of {len(configs)} runs done before", highlight=False)
    with bar(console) as progress:
        task = progress.add_task("runs", total=len(configs), completed=len(configs) - len(pending))
        failures = []
        with contextlib.closing(_finished(jobs, engine, processes)) as finished:
            for job, done in finished:
                progress.advance(task, len(job.configs))
                label = ", ".join(f"{_column(config)} seed={config.seed}" for config in job.configs)
                if done.failure:
                    kind = "" if isinstance(done.failure, RunError) else f"{type(done.failure).__name__}: "
                    failures.append(f"{label}: {kind}{done.failure}")
                text = f"failed: {label}" if done.failure else f"done: {label}; it was {done.text}"
                progress.console.print(text, highlight=False, soft_wrap=True)
    _report(configs, out, name, console)
    if failures:
        raise RunError("; ".join(failures))


def work(job: Job) -> str:
    """Train a job's trials and add their results; returns where it began. Runs in a process or on a worker."""
    torch.set_num_threads(1)
    images = data.load(job.configs[0].data, job.data_dir)
    label = "+".join(f"{_column(config)}-{config.seed}" for config in job.configs)
    name = hashlib.sha256(label.encode()).hexdigest()[:12]
    folder = job.out / "runs" / f"{job.configs[0].data}-{job.configs[0].epochs}-{name}"
    said: list[str] = []
    ensemble = train.fit(list(job.configs), images, folder, on_start=said.append)
    found = []
    for place, config in enumerate(job.configs):
        failed, record = ensemble.failed(place), ensemble.history_of(place)[-1]
        found += [
            results.Result.of(
                config,
                table="trials",
                column=_column(config),
                method=config.estimator,
                split=split,
                value=record[f"{split}_loss"],
                epochs=config.epochs,
                commit=train.commits(folder),
                failed=failed,
            )
            for split in ("train", "test")
        ]
    results.add(job.out, found)
    return "; ".join(said)


def _column(config: Config) -> str:
    eta = "" if config.eta is None else f" eta={_exact(config.eta)}"
    return f"{config.optimizer} lr={_exact(config.lr)} tau={_exact(config.tau)}{eta}"


def _exact(value: float | None) -> str:
    """As short as names a float alone."""
    return repr(value).removesuffix(".0")


def _finished(jobs: Iterable[Job], engine: str, processes: int) -> Generator[tuple[Job, Done], None, None]:
    """Each job when it is done."""
    if engine not in ENGINES:
        raise RunError(f"engine: got {engine!r}, allowed: {', '.join(map(repr, ENGINES))}")
    return workers.finished(work, jobs, processes) if engine == "local" else _ray(jobs, processes)


def _ray(jobs: Iterable[Job], processes: int) -> Generator[tuple[Job, Done], None, None]:
    """On the cluster that RAY_ADDRESS names, whose nodes see the same files, or on one started here with ``processes``
    CPUs."""
    try:
        import ray
    except ImportError as error:
        raise RunError("engine: ray is not installed; pip install ray") from error
    import os

    if not ray.is_initialized():
        ray.init(num_cpus=None if "RAY_ADDRESS" in os.environ else processes, log_to_driver=False)
    submit = ray.remote(work)
    waiting = {
        submit.options(num_gpus=1 if torch.device(job.configs[0].device).type == "cuda" else 0).remote(job): job
        for job in jobs
    }
    while waiting:
        (ready, *_), _ = ray.wait(list(waiting))
        job = waiting.pop(ready)
        try:
            done = Done(ray.get(ready), None)
        except ray.exceptions.RayError as error:
            done = Done("", error)
        yield job, done


def _report(configs: Sequence[Config], out: Path, name: str, console: Console) -> None:
    """The trials by mean train loss over seeds, the best first; failed ones last."""
    found = results.read(out, "trials")
    rows: list[tuple[float, tuple[str, ...]]] = []
    for column in dict.fromkeys(_column(config) for config in configs):
        mine = [r for r in found if r.column == column and r.epochs == configs[0].epochs and r.data == configs[0].data]
        means = []
        for split in ("train", "test"):
            values = [r.value if r.value is not None else math.inf for r in mine if r.split == split]
            means.append(sum(values) / len(values) if values else math.inf)
        config = next(c for c in configs if _column(c) == column)
        figures = tuple(f"{mean:.3f}" if math.isfinite(mean) else "X" for mean in means)
        seeds = str(len({r.seed for r in mine}))
        eta = "-" if config.eta is None else _exact(config.eta)
        rows.append((means[0], (config.optimizer, _exact(config.lr), _exact(config.tau), eta, seeds, *figures)))
    rows.sort(key=lambda row: row[0])
    title = f"sweep {name}, {configs[0].epochs} epochs: -ELBO, the best train loss first"
    sheets.write(out / "sweep.md", title, [], [Sheet(title, HEADER, [cells for _, cells in rows])], console)
