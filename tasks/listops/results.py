"""``<table>-<preset>.jsonl``: one JSON line for each run that a table has seen, in the order they finished."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.common import files, jsonl

from .recipes import HYPER_PARAMETERS, Config
from .train import Record

#: Of a config, what a cell of a table decides, and where the run was.
OWN = ("estimator", "seed", "device", "backend", *HYPER_PARAMETERS)


@dataclass(frozen=True)
class Result:
    """What one run shows."""

    table: str
    column: str
    method: str
    seed: int
    settings: dict[str, Any]  #: of its config, what all cells of the table share
    data: str  #: name of the content of its training, validation and test lines
    is_published: bool  #: whether those of the test are the published ones
    figures: Record  #: as in result.json, and epochs and cpu_minutes that the training took
    valid_accuracy: list[float]  #: by epoch
    valid_f1: list[float]
    device: str
    commit: str

    @classmethod
    def of(
        cls,
        config: Config,
        *,
        table: str,
        column: str,
        method: str,
        data: str,
        is_published: bool,
        figures: Record,
        history: Iterable[Record],
    ) -> "Result":
        """A run by its config, its cell, its lines, the figures of its ``result.json`` and its epochs."""
        records = list(history)
        spent = {"epochs": len(records), "cpu_minutes": round(sum(r["cpu_seconds"] for r in records) / 60, 2)}
        return cls(
            table=table,
            column=column,
            method=method,
            seed=config.seed,
            settings=settings(config),
            data=data,
            is_published=is_published,
            figures={**figures, **spent},
            valid_accuracy=[round(record["valid_accuracy"], 4) for record in records],
            valid_f1=[round(record["valid_f1"], 4) for record in records],
            device=config.device,
            commit=jsonl.commit(),
        )

    @property
    def key(self) -> tuple[str, ...]:
        """Two results with one key are of the same run."""
        return self.column, self.method, str(self.seed), json.dumps(self.settings, sort_keys=True), self.data


def settings(config: Config) -> dict[str, Any]:
    """What all cells of a table share of their configs."""
    return {name: value for name, value in asdict(config).items() if name not in OWN}


def read(path: Path) -> list[Result]:
    """Every result of a file; none if there is none yet.

    Raises:
        RunError: a line is no result; it is named.
    """
    return jsonl.read(path, Result)


def add(path: Path, new: Result) -> None:
    """Append a result unless the file holds one of the same run; the file is the old or the new, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.locked(path.parent):
        known = read(path)
        if new.key not in {result.key for result in known}:
            jsonl.write(path, [*known, new])
