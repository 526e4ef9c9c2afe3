"""Runs of both tasks that take a second or two, each in a process of its own, and whether two of them ended alike."""

import contextlib
import functools
import importlib
import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from tasks.common import checkpoint, pictures
from tasks.listops import cli as listops
from tasks.listops import data as listops_data
from tasks.vae import cli as vae
from tasks.vae import data as vae_data
from tasks.vae import plots as vae_plots
from tasks.vae import train as vae_train

#: Of a result, what differs between two runs of one kind.
VOLATILE = {"seconds", "cpu_seconds", "lines_per_second", "cpu_minutes", "commit"}
SIZES = {"train": 90, "valid": 30, "test": 30}  #: lines of ListOps
SLOW = ("tasks.vae.report", "tasks.listops.plots", "tasks.listops.parsing", "torch._dynamo", "pooch", "requests")
CRASHED = 99  #: the status of a process that an exception ended


@functools.cache
def warm() -> None:
    """Do here what each process would do first: import, read, draw a picture. The runs are what counts."""
    for name in SLOW:
        importlib.import_module(name)
    images()
    figure = pictures.new_figure((1, 1))
    figure.subplots().set(title="-")
    figure.savefig(io.BytesIO(), format="png")


@functools.cache
def images() -> vae_data.Images:
    """Two batches and a few test images."""
    digits = vae_data.load("digits")
    return vae_data.Images(digits.train[:200], digits.test[:20])


@dataclass(frozen=True)
class Command:
    """A command line, but for ``--out``.

    Attributes:
        name: in the report.
        main: of the task.
        flags: its arguments.
        seconds: between two checkpoints of the VAE task.
        draws: whether pictures of the run are drawn, which take longer than its training.
    """

    name: str
    main: Callable[[list[str]], int] = field(repr=False)
    flags: tuple[str, ...]
    seconds: float = 0.0
    draws: bool = False

    @property
    def epochs(self) -> int:
        return int([flag for flag in self.flags if flag.startswith("--epochs=")][-1].removeprefix("--epochs="))

    @property
    def is_table(self) -> bool:
        return self.flags[0] == "table"

    def longer(self, *flags: str) -> "Command":
        """With further flags, of which the last of a name counts."""
        return replace(self, flags=(*self.flags, *flags))

    def arguments(self, out: Path) -> list[str]:
        return [*(flag.replace("OUT", str(out)) for flag in self.flags), f"--out={out}"]

    def settle(self) -> None:
        """In the process of the run: small data, checkpoints as often as they are asked for."""
        vae_data.load = lambda name, data_dir=None: images()
        listops_data.SIZES = SIZES
        vae_train.SECONDS = self.seconds
        if not self.draws:
            vae_plots.write_run = lambda run, out: None
            listops.Run.draw = lambda self, trainer, out: None  # type: ignore[method-assign]


VAE = ("train", "--estimator=gst", "--epochs=60", "--threads=1")
BR_2 = ("table", "br-2", "--columns=8x4", "--methods", "ReinMax", "ST", "--data=digits", "--epochs=20", "--threads=1")
LINES = ("--hidden=8", "--lr=.05", "--max-tokens=20", "--patience=99", "--threads=1", "--data-dir=OUT/lines")
LISTOPS = ("train", *LINES, "--epoch-steps=2", "--epochs=30")
LISTOPS_EPOCHS = ("train", *LINES, "--batch-size=1", "--epochs=3")
GST_6 = ("table", "gst-6", *LINES, "--columns=tau=1.0", "--methods", "STGS", "GST-1.0", "--epoch-steps=2", "--epochs=4")

#: The two tasks' runs, as short as they can be, with a checkpoint each epoch.
TRAIN = {"vae": Command("VAE", vae.main, VAE), "listops": Command("ListOps", listops.main, LISTOPS)}
#: What else is killed at random moments: long intervals between checkpoints, pictures and tables.
COMMANDS = {
    **TRAIN,
    "vae-drawn": Command("VAE with pictures", vae.main, VAE, draws=True),
    "vae-seconds": Command("VAE, a checkpoint every .2 s", vae.main, VAE, 0.2),
    "vae-shipped": Command("VAE, a checkpoint every 20 s, as shipped", vae.main, VAE, vae_train.SECONDS),
    "vae-table": Command("VAE table, a checkpoint of its ensemble every .2 s", vae.main, BR_2, 0.2),
    "listops-drawn": Command("ListOps with pictures", listops.main, LISTOPS, draws=True),
    "listops-epochs": Command("ListOps, long epochs", listops.main, LISTOPS_EPOCHS),
    "listops-table": Command("ListOps table, two runs", listops.main, GST_6),
}


def nothing() -> None:
    pass


class Process:
    """A command that runs in a forked process, which leads a group of its own.

    Args:
        command: what to run.
        out: its ``--out``.
        prepare: called in the process before the command.
    """

    def __init__(self, command: Command, out: Path, prepare: Callable[[], object] = nothing) -> None:
        self._output, writing = os.pipe()
        self.id = os.fork()
        if self.id == 0:
            status = CRASHED
            try:
                os.setpgid(0, 0)
                os.dup2(writing, 1)
                os.dup2(writing, 2)
                sys.stdout = sys.stderr = os.fdopen(writing, "w", buffering=1)
                torch.set_num_threads(1)
                command.settle()
                prepare()
                status = command.main(command.arguments(out))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(writing)
        with contextlib.suppress(OSError):  # it may have done so itself, or ended
            os.setpgid(self.id, self.id)

    def signal(self, number: signal.Signals) -> None:
        """To it and all that it has started."""
        os.killpg(self.id, number)

    def end(self) -> tuple[int, str]:
        """Wait for it; its status, negative for a signal, and what it has printed."""
        with open(self._output, errors="replace") as file:
            text = file.read()
        return os.waitstatus_to_exitcode(os.waitpid(self.id, 0)[1]), text


def run(command: Command, out: Path, prepare: Callable[[], object] = nothing) -> tuple[int, str]:
    return Process(command, out, prepare).end()


def succeed(command: Command, out: Path, prepare: Callable[[], object] = nothing) -> None:
    """Run what the others are compared with, or go on from."""
    status, text = run(command, out, prepare)
    if status:
        raise RuntimeError(f"{command.name}: ended with status {status}: {text}")


def contents(out: Path) -> dict[str, bytes]:
    """All that lies in a directory, by name, to the byte."""
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def ending(out: Path) -> dict[str, Any]:
    """All that lies in the directory of runs that have ended, by name, but for times and commits."""
    return {str(path.relative_to(out)): _content(path) for path in sorted(out.rglob("*")) if path.is_file()}


def _content(path: Path) -> Any:
    if path.suffix == ".pt":
        return plain(checkpoint.read(path))
    if path.suffix == ".json":
        return plain(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [plain(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".md":
        return path.read_text().partition("commit")[0]
    return path.read_bytes()


def plain(value: Any) -> Any:
    """What two values that are alike bit by bit have in common, without what is volatile."""
    if isinstance(value, dict):
        return {str(name): plain(each) for name, each in value.items() if name not in VOLATILE}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
    return repr(value)


def differing(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """The names of the files that are not alike."""
    return [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]


def epochs_kept(out: Path) -> dict[Path, int]:
    """How many epochs each checkpoint has, by its run's directory."""
    return {path.parent: checkpoint.read(path)[1]["epoch"] for path in out.rglob("checkpoint.pt")}
