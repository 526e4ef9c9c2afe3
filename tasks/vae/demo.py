"""``python -m tasks.vae demo``: every estimator on the embedded data set, one table, a few pictures.

Each estimator trains in a process of its own, so that the peak memory it reports is its own.
"""

import json
import multiprocessing
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console

from discrete_ops import build_info
from discrete_ops.estimators import ESTIMATORS
from tasks.common import files, sheets
from tasks.common.errors import RunError
from tasks.common.progress import bar
from tasks.common.sheets import Sheet

from . import data, train
from .recipes import Config, configure

PROCESSES = 2  #: at a time, one thread each
COLUMNS = ("estimator", "train loss (-ELBO)", "test loss (-ELBO)", "seconds an epoch", "peak memory (MiB)")


class Result(NamedTuple):
    """One row of the table; losses in nats an image, of the last epoch."""

    estimator: str
    train_loss: float
    test_loss: float
    seconds_per_epoch: float  # median, wall time, test pass included
    peak_mib: float  # resident memory of the process that trained

    def cells(self) -> tuple[str, ...]:
        losses = f"{self.train_loss:.3f}", f"{self.test_loss:.3f}"
        return self.estimator, *losses, f"{self.seconds_per_epoch:.3f}", f"{self.peak_mib:.0f}"


def run(out: Path, epochs: int, fresh: bool, console: Console) -> int:
    """Train what is not finished in ``out``, then report on all estimators.

    Returns:
        Exit status: 1 if an estimator failed, a figure that is not finite included.
    """
    configs = [configure(estimator=name, epochs=epochs) for name in ESTIMATORS]
    if fresh:
        for config in configs:
            for name in ("result.json", "checkpoint.pt"):
                (out / config.estimator / name).unlink(missing_ok=True)
    pending = [config for config in configs if _finished(config, out) is None]
    first = configs[0]
    title = f"{first.data}, latents {first.latent}, recipe {first.recipe}, {epochs} epochs, backend {first.backend}"
    console.print(
        f"{title}; finished before: {len(configs) - len(pending)} of {len(configs)}", highlight=False, soft_wrap=True
    )
    failures = _train(pending, out, console)
    finished = {config: result for config in configs if (result := _finished(config, out)) is not None}
    if finished:
        _write(finished, title, out, console)
        console.print(f"{out}: summary.json, summary.md, curves.png, reconstructions.png, samples.png", soft_wrap=True)
    for failure in failures:
        console.print(f"error: {failure}", style="red", markup=False, highlight=False, soft_wrap=True)
    return 1 if failures else 0


def _finished(config: Config, out: Path) -> Result | None:
    """The result that a whole run of this config left in ``out``, if there is one."""
    path = out / config.estimator / "result.json"
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        same = content["config"] == json.loads(json.dumps(asdict(config)))  # JSON has no tuples
        return Result(**content["result"]) if same else None
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path}: not a result of this demo ({error!r}); delete it or give --fresh") from error


def _train(configs: list[Config], out: Path, console: Console) -> list[str]:
    """Run each config in a process of its own, ``PROCESSES`` at a time. Returns what went wrong."""
    with bar(console) as progress, ThreadPoolExecutor(PROCESSES) as pool:
        task = progress.add_task("training", total=sum(config.epochs for config in configs))
        done = dict.fromkeys((config.estimator for config in configs), 0)

        def train_one(config: Config) -> str | None:
            def on_epoch(epoch: int) -> None:
                done[config.estimator] = epoch
                progress.update(task, completed=sum(done.values()))

            failure = _in_process(config, out / config.estimator, on_epoch)
            progress.console.print(f"{config.estimator}: {'failed' if failure else 'done'}", highlight=False)
            return failure

        return [failure for failure in pool.map(train_one, configs) if failure]


def _in_process(config: Config, out: Path, on_epoch: Callable[[int], None]) -> str | None:
    """Train in a new process and wait for it. Returns what went wrong."""
    # spawn: a forked child would count its parent's memory as its own. (So does a spawned one between fork and exec;
    # this process therefore loads neither data nor matplotlib until the last child has been started.)
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(config, out, sender), daemon=True)
    process.start()
    sender.close()  # else the pipe would not end with the child
    failure = None
    while True:
        try:
            message = receiver.recv()
        except EOFError:
            break
        if isinstance(message, str):
            failure = message
        else:
            on_epoch(message)
    process.join()
    if process.exitcode and failure is None:
        failure = f"{config.estimator}: its process ended with exit status {process.exitcode}"
    return failure


def _work(config: Config, out: Path, sender: Connection) -> None:
    """Body of a child: train, write the run's directory, send each epoch done or the text of an error."""
    import resource  # absent on Windows

    from . import plots

    torch.set_num_threads(1)
    try:
        run = train.fit(
            config, data.load(config.data), out, on_epoch=lambda records: sender.send(int(records[0]["epoch"]))
        )
    except RunError as error:
        sender.send(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    unit = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss is in bytes there, in KiB elsewhere
    last = run.history_of(0)[-1]
    result = Result(
        estimator=config.estimator,
        train_loss=last["train_loss"],
        test_loss=last["test_loss"],
        seconds_per_epoch=statistics.median(record["seconds"] for record in run.history_of(0)),
        peak_mib=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1),
    )
    plots.write_run(run, out)
    files.write_json(out / "result.json", {"config": asdict(config), "result": result._asdict()})


def _write(finished: dict[Config, Result], title: str, out: Path, console: Console) -> None:
    """The table, the summaries and the pictures that show all estimators side by side."""
    from . import plots

    first = next(iter(finished))
    names = ("data", "recipe", "latent", "epochs", "seed", "device", "backend")
    common = {name: getattr(first, name) for name in names}
    results = [result._asdict() for result in finished.values()]
    files.write_json(out / "summary.json", {**common, "environment": build_info(), "results": results})
    sheet = Sheet(title, COLUMNS, [result.cells() for result in finished.values()])
    pictures = [f"{name}.png" for name in ("curves", "reconstructions", "samples")]
    sheets.write(out / "summary.md", title, [], [sheet], console, pictures)

    images = data.load(first.data)
    checkpoints = {config: out / config.estimator / "checkpoint.pt" for config in finished}
    runs = {config.estimator: train.load(config, images, path) for config, path in checkpoints.items()}
    plots.curves({name: run.history_of(0) for name, run in runs.items()}, out / "curves.png")
    outputs = {name: plots.reconstructions(run) for name, run in runs.items()}
    plots.tiles({"input": images.test[: plots.COLUMNS], **outputs}, out / "reconstructions.png")
    samples = {name: plots.samples(run, plots.COLUMNS) for name, run in runs.items()}
    plots.tiles(samples, out / "samples.png")
