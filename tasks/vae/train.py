"""Training in a directory: one run, or an ensemble of runs, from its configs to its files.

``config.json`` (the config and all that it ran on), ``metrics.jsonl`` (one ``Record`` a line) and ``checkpoint.pt``.
Every random number comes from a generator whose state is in the checkpoint, so a run that was interrupted at any moment
and resumed ends with the figures of one that was not (bit for bit on a CPU with one thread).
"""

import contextlib
import copy
import json
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from discrete_ops import build_info
from tasks.common import checkpoint, events, files, interrupts, jsonl
from tasks.common.errors import RunError

from . import data
from .ensemble import Ensemble, Record
from .parallel import Processes
from .recipes import Config

#: Seconds between two checkpoints: after them the next whole epoch is saved; an interrupted run saves its last. The
#: ensemble of a table's column is a gigabyte, and on a GPU writing it would take as long as an epoch.
SECONDS = 20.0


class Steps(NamedTuple):
    """How far a run is, in optimiser steps."""

    done: int
    total: int


def fit(
    configs: Config | Sequence[Config],
    images: data.Images,
    out: Path,
    *,
    resume: bool = True,
    tensorboard: bool = False,
    finite: bool = False,
    keep: Collection[int] = (),
    processes: Processes | None = None,
    on_step: Callable[[Steps], None] = lambda steps: None,
    on_epoch: Callable[[list[Record]], None] = lambda records: None,
    on_start: Callable[[str], None] = lambda text: None,
) -> Ensemble:
    """Train in the directory ``out``, from its checkpoint on if there is one.

    Args:
        configs: what to run: one config, or an ensemble's, whose metrics are then told apart by ``member``.
        images: the data set that they name.
        out: made if missing.
        resume: False starts anew, over what lies in ``out``.
        tensorboard: also write TensorBoard's event files to ``out``.
        finite: whether a member with a figure that is not finite ends the ensemble, as it ends a lone run.
        processes: that share each batch; the first of them writes the files.
        keep: epochs whose checkpoint stays, as ``epoch-<n>.pt``.
        on_step, on_epoch: called after each optimiser step and with each epoch's records, one a config; ``on_step``
            also before the first.
        on_start: told whether the run goes on from a checkpoint, and from where.

    Interrupted by ^C, or by SIGTERM where that is raised, it keeps the last whole epoch.

    Raises:
        Occupied: another process trains in ``out``.
        RunError: the checkpoint is damaged, of another config or of other images; a file cannot be written; a figure
            of a lone run is not finite. A member of an ensemble may fail unless ``finite``; its records say so.
    """
    alone = isinstance(configs, Config)
    members = [configs] if isinstance(configs, Config) else list(configs)
    ensemble = Ensemble(members, images, processes=processes)
    is_first = ensemble.processes.rank == 0
    with files.locked(out, wait=False) if is_first else contextlib.nullcontext():
        path = out / "checkpoint.pt"
        was_there = path.exists()
        if resume and was_there:
            restore(ensemble, path)
        ensemble.processes.wait()  # for the others to have read what the first may write anew
        epochs = ensemble.config.epochs
        lost = "; config.json is lost: which commit trained them is unknown" * (
            ensemble.epoch > 0 and not environments(out)
        )
        on_start(checkpoint.beginning(path, ensemble.epoch, epochs, ensemble.epoch == epochs, was_there) + lost)
        written = _Files(out, ensemble, alone, tensorboard) if is_first else None
        try:
            _train(ensemble, members, written, alone or finite, keep, on_step, on_epoch)
        except KeyboardInterrupt:
            if written:
                with interrupts.ignored():
                    written.save_whole_epochs()
            raise
        finally:
            if written:
                written.close()
        ensemble.processes.wait()
    return ensemble


def _train(
    ensemble: Ensemble,
    members: list[Config],
    written: "_Files | None",
    finite: bool,
    keep: Collection[int],
    on_step: Callable[[Steps], None],
    on_epoch: Callable[[list[Record]], None],
) -> None:
    epochs = members[0].epochs
    done, total = ensemble.epoch * ensemble.steps_per_epoch, epochs * ensemble.steps_per_epoch

    def count_step() -> None:
        nonlocal done
        interrupts.raise_lost()
        done += 1
        on_step(Steps(done, total))

    on_step(Steps(done, total))
    while ensemble.epoch < epochs:
        records = ensemble.run_epoch(count_step)
        if finite:
            for config, record in zip(members, records, strict=True):
                _expect_finite(config, record)
        if written:
            written.add(records, ensemble, is_kept=ensemble.epoch in keep, is_last=ensemble.epoch == epochs)
        on_epoch(records)


class _Files:
    """What a run writes beside its checkpoints."""

    def __init__(self, out: Path, ensemble: Ensemble, alone: bool, tensorboard: bool) -> None:
        self.out, self.path, self.alone, self.configs = out, out / "metrics.jsonl", alone, ensemble.configs
        self.saved = time.monotonic()
        self.unsaved: dict[str, Any] | None = None  # the state after the last epoch, if no checkpoint has it
        out.mkdir(parents=True, exist_ok=True)
        if ensemble.epoch == 0:  # a run that starts anew must not be taken for the one that lay here
            (out / "checkpoint.pt").unlink(missing_ok=True)
        configs = [asdict(config) for config in ensemble.configs]
        what = configs[0] if alone else {"members": configs}
        files.write_json(out / "config.json", {**what, "environments": self._environments(ensemble)})
        # The checkpoint is behind metrics.jsonl if the run was killed between two checkpoints.
        files.write_text(self.path, "".join(_lines(records, alone) for records in ensemble.history))
        self.writer = events.Events(out, ensemble.epoch) if tensorboard else None

    def _environments(self, ensemble: Ensemble) -> list[dict[str, Any]]:
        """What has trained the run, each once, in the order in which they came."""
        known = environments(self.out) or [{"commit": "unknown"}] if ensemble.epoch else []
        if ensemble.epoch < ensemble.config.epochs:
            this = {"commit": jsonl.commit(), **build_info(), "threads": torch.get_num_threads()}
            known += [this] if json.loads(json.dumps(this)) not in known else []
        return known

    def add(self, records: list[Record], ensemble: Ensemble, is_kept: bool, is_last: bool) -> None:
        state = ensemble.state_dict()
        is_due = is_kept or is_last or time.monotonic() - self.saved >= SECONDS
        self.unsaved = state if is_due else copy.deepcopy(state)
        files.append(self.path, _lines(records, self.alone))
        if self.writer:
            named = {
                name if self.alone else f"{name}/{member}": value
                for member, record in enumerate(records)
                for name, value in record.items()
            }
            self.writer.add(named, ensemble.epoch)
        if is_kept:
            checkpoint.save(self.out / f"epoch-{ensemble.epoch}.pt", ensemble.configs, state)
        if is_due:
            self.save_whole_epochs()

    def save_whole_epochs(self) -> None:
        """Write the checkpoint of the last epoch, unless it is there."""
        if self.unsaved is not None:
            checkpoint.save(self.out / "checkpoint.pt", self.configs, self.unsaved)
            self.saved, self.unsaved = time.monotonic(), None

    def close(self) -> None:
        if self.writer:
            self.writer.close()


def load(config: Config, images: data.Images, path: Path) -> Ensemble:
    """The run of the checkpoint at ``path``."""
    ensemble = Ensemble([config], images)
    restore(ensemble, path)
    return ensemble


def restore(ensemble: Ensemble, path: Path) -> None:
    """Put an ensemble into the state of the checkpoint at ``path``.

    Raises:
        RunError: the file is damaged, of another config or other images, or of a machine that groups the members
            differently.
    """
    checkpoint.restore(path, ensemble.configs, ensemble.load_state_dict, ensemble.data_hashes)


def environments(out: Path) -> list[dict[str, Any]]:
    """What has trained the run in ``out``: commit, build, torch, machine, threads."""
    path = out / "config.json"
    found = files.read_json(path).get("environments", []) if path.exists() else []
    return list(found)


def commits(out: Path) -> str:
    """The commits that have trained the run in ``out``, in their order; "unknown" of one that did not note them."""
    return "+".join(dict.fromkeys(environment["commit"] for environment in environments(out))) or "unknown"


def _expect_finite(config: Config, record: Record) -> None:
    for name, value in record.items():
        if not math.isfinite(value):
            raise RunError(f"{config.estimator}: {name} is {value} in epoch {record['epoch']}")


def _lines(records: list[Record], alone: bool) -> str:
    """JSON lines; null for a figure that is not finite, which JSON cannot say."""
    text = ""
    for member, record in enumerate(records):
        figures = {name: value if math.isfinite(value) else None for name, value in record.items()}
        text += json.dumps(figures if alone else {"member": member, **figures}) + "\n"
    return text
