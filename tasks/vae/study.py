"""Running a study: each column of a table as one ensemble, from its checkpoint on, to its lines in the results."""

import gc
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console

from tasks.common import files, jsonl
from tasks.common.errors import RunError

from . import data, logged, results, train
from .logged import Logged
from .progress import RunProgress
from .recipes import Config
from .results import Result
from .tables import FIGURES, STUDIES, TABLES, Table

MEMBERS = "members.json"  #: which runs an ensemble's directory is of

#: Every table that runs feed, figures included.
FED: dict[str, Table] = {**TABLES, **FIGURES}


class Member(NamedTuple):
    """One run of a study: a cell and a seed."""

    column: str
    method: str
    seed: int


@dataclass(frozen=True)
class Plan:
    """What to run of a study, and where.

    Attributes:
        study: a key of ``STUDIES``.
        columns, methods, seeds: which of its runs.
        overrides: of every run's config: data, device, epochs, ...
        out: folder of the ensembles' directories.
        folder: folder of the results' files.
    """

    study: str
    columns: Sequence[str]
    methods: Sequence[str]
    seeds: Sequence[int]
    overrides: dict[str, Any]
    out: Path
    folder: Path

    def config(self, member: Member) -> Config:
        return STUDIES[self.study].config(member.column, member.method, seed=member.seed, **self.overrides)

    def tables(self, member: Member) -> Iterator[tuple[str, Table]]:
        """The tables that show a run of the study."""
        return (
            (name, table)
            for name, table in FED.items()
            if table.study == self.study and table.has(member.column, member.method)
        )

    def pending(self, column: str) -> list[Member]:
        """The column's runs that a results' file lacks."""
        known = {result.key for result in self.known()}
        return [member for member in self.members(column) if not {*self.keys(member)} <= known]

    def known(self) -> list[Result]:
        """What the results' files hold of the study."""
        return [result for name, table in FED.items() if table.study == self.study for result in self.read(name)]

    def members(self, column: str) -> list[Member]:
        """All runs of a column."""
        return [Member(column, method, seed) for seed in self.seeds for method in self.methods]

    def keys(self, member: Member) -> Iterator[tuple[Any, ...]]:
        """Of the results that a finished run has."""
        config = self.config(member)
        for name, table in self.tables(member):
            for split in table.splits:
                yield name, *member, split, config.epochs, config.data, config.settings

    def read(self, table: str) -> list[Result]:
        return results.read(self.folder, table)

    def directory(self, members: Sequence[Member]) -> Path:
        """Where an ensemble of these runs lives."""
        first = self.config(members[0])
        names = hashlib.sha256(repr([tuple(member) for member in members]).encode()).hexdigest()[:8]
        name = f"{first.data}-{members[0].column}-{len(members)}x{first.epochs}-{names}"
        return files.for_device(self.out / self.study / name, first.device)

    def ensembles(self, column: str) -> Iterator[list[Member]]:
        """The column's pending runs: those that interrupted commands began, as they were begun, then all others.

        What a command began stays one ensemble even if another command has finished some of its runs since.
        """
        pending = self.pending(column)
        for members in self._begun(column):
            if not set(members).isdisjoint(pending):
                yield members
                pending = [member for member in pending if member not in members]
        if pending:
            yield pending

    def _begun(self, column: str) -> Iterator[list[Member]]:
        """Ensembles of runs of this plan that have a directory."""
        wanted = set(self.members(column))
        for path in sorted((self.out / self.study).glob(f"*/{MEMBERS}")):
            try:
                members = [Member(*member) for member in files.read_json(path)]
                is_of_plan = bool(members) and wanted.issuperset(members)
            except TypeError as error:
                raise RunError(f"{path}: not a list of runs ({error}); delete it") from error
            if is_of_plan and self.directory(members) == path.parent:
                yield members


def shown(found: Sequence[Result], table: Table, overrides: Mapping[str, Any]) -> list[Result]:
    """Of a table's results those of its cells as they are set today, on this data set after these epochs.

    Args:
        found: the results.
        table: what they are of.
        overrides: as of a :class:`Plan`.
    """
    configs = {
        (column, method): STUDIES[table.study].config(column, method, **overrides)
        for column in table.shown()
        for method in (*table.rows(), *table.more)
    }

    def belongs(r: Result) -> bool:
        config = configs.get((r.column, r.method))
        if config is None or (r.data, r.settings) != (config.data, config.settings):
            return False
        return r.epochs <= config.epochs if table.by_epoch else r.epochs == config.epochs

    return [r for r in found if belongs(r)]


def run(plan: Plan, images: data.Source, console: Console) -> None:
    """Train what is pending, column by column, and add its results.

    Raises:
        Occupied: at the end, if another process was at work on some of it; all else is done.
    """
    jsonl.commit()  # of the code that runs, which may change on disk before the end
    with files.leaving_occupied() as piece:
        for place, column in enumerate(plan.columns, 1):
            _take_logged(plan, column, console)
            _tell_known(plan, column, console)
            for members in plan.ensembles(column):
                with piece():
                    _train(plan, members, images, f"{column} ({place} of {len(plan.columns)} columns)", console)
                gc.collect()  # an ensemble and its captured step refer to each other: the next needs the GPU's memory


def _tell_known(plan: Plan, column: str, console: Console) -> None:
    """Say what is not trained, since its results are there, of which device if it is not the one that was asked for;
    and what is run although there are lines of it, of other settings."""
    tell = partial(console.print, highlight=False, soft_wrap=True)
    members = plan.members(column)
    wanted = {key for member in members for key in plan.keys(member)}
    pending = plan.pending(column)
    if not pending:
        tell(f"{plan.study} {column}: all {len(members)} runs are known, from {plan.folder}")
    cells = {key[:-1]: key for member in pending for key in plan.keys(member)}
    others = {(r.method, r.seed) for r in plan.known() if cells.get(r.key[:-1], r.key) != r.key}
    if others:
        text = f"{len(others)} runs in {plan.folder} are of other settings than today's, or note none"
        tell(f"{plan.study} {column}: {text}: they are run again, from a checkpoint if there is one")
    device = torch.device(plan.config(members[0]).device).type
    elsewhere = [r for r in plan.known() if r.key in wanted and torch.device(r.device).type != device]
    runs = {(r.method, r.seed) for r in elsewhere}
    if runs:
        devices = ", ".join(sorted({r.device for r in elsewhere}))
        tell(f"{plan.study} {column}: {len(runs)} runs are known already, from {devices}")


def _train(plan: Plan, members: list[Member], images: data.Source, label: str, console: Console) -> None:
    """Train one ensemble and add its results."""
    configs, out = [plan.config(member) for member in members], plan.directory(members)
    console.print(f"{plan.study} {label}: {len(members)} runs in {out}", highlight=False, soft_wrap=True)
    with files.locked(out, wait=False):
        files.write_json(out / MEMBERS, members)
    with RunProgress(console, configs[0].epochs) as progress:
        ensemble = train.fit(
            configs, images(), out, on_step=progress.on_step, on_epoch=progress.on_epoch, on_start=progress.on_start
        )
    runs = [
        Logged("", ensemble.history_of(place), train.commits(out), ensemble.failed(place))
        for place in range(len(members))
    ]
    results.add(plan.folder, (result for pair in zip(members, runs, strict=True) for result in _results(plan, *pair)))


def _take_logged(plan: Plan, column: str, console: Console) -> None:
    """Add the results of pending runs that are in the logs beside the results."""
    pending = {plan.config(member): member for member in plan.pending(column)}
    found = logged.find(plan.folder / logged.LOGS, list(pending))
    for config, run in found.items():
        results.add(plan.folder, _results(plan, pending[config], run))
    if found:
        names = ", ".join(sorted({run.log for run in found.values()}))
        text = f"{len(found)} runs are read from the logs {names}"
        console.print(f"{plan.study} {column}: {text}", highlight=False, soft_wrap=True)


def _results(plan: Plan, member: Member, run: Logged) -> Iterator[Result]:
    for name, table in plan.tables(member):
        for record in run.history if table.by_epoch else run.history[-1:]:
            for split in table.splits:
                yield Result.of(
                    plan.config(member),
                    table=name,
                    column=member.column,
                    method=member.method,
                    split=split,
                    value=record[split if split == "variance" else f"{split}_loss"],
                    epochs=int(record["epoch"]),
                    commit=run.commit,
                    failed=run.failed,
                    kl=record["train_kl"],
                    log=run.log,
                )
