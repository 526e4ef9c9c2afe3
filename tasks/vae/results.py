"""``<table>.jsonl``: one JSON line for each figure of a run that a table has seen, in the order they finished."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tasks.common import files, jsonl

from .recipes import Config

#: Nats an image. A code of less tells nothing of its image: the run stays on the plateau that it starts on, where the
#: decoder draws the mean image. In GST's tables such a run "cannot converge".
COLLAPSED = 0.5


@dataclass(frozen=True)
class Result:
    """A cell's figure of one seed."""

    table: str
    column: str
    method: str
    seed: int
    split: str
    value: float | None  # nats an image, or what the table says; None: the run failed
    epochs: int
    data: str
    device: str
    commit: str
    failed: int | None = None  # the first epoch with a figure that was not finite
    kl: float | None = None  # nats an image, of the last epoch's training; None: not noted, or of another figure
    settings: str = ""  # of the run: `Config.settings`
    log: str = ""  # of another run's epochs, which it is read from; "": it was trained to this end

    def __post_init__(self) -> None:
        if (self.value is None) != (self.failed is not None):
            raise ValueError(f"value: got {self.value}, failed: {self.failed}; one of them is null")

    @classmethod
    def of(
        cls,
        config: Config,
        *,
        table: str,
        column: str,
        method: str,
        split: str,
        value: float,
        epochs: int,
        commit: str,
        failed: int | None,
        kl: float | None = None,
        log: str = "",
    ) -> "Result":
        """What a run shows after so many epochs; ``failed``: its first epoch with a figure that was not finite."""
        if failed is None and not math.isfinite(value):
            failed = epochs
        is_failed = failed is not None and failed <= epochs
        return cls(
            table=table,
            column=column,
            method=method,
            seed=config.seed,
            split=split,
            value=None if is_failed else value,
            epochs=epochs,
            data=config.data,
            device=config.device,
            commit=commit,
            failed=failed if is_failed else None,
            kl=None if is_failed else kl,
            settings=config.settings,
            log=log,
        )

    @property
    def is_collapsed(self) -> bool:
        return self.kl is not None and self.kl < COLLAPSED

    @property
    def key(self) -> tuple[str, str, str, int, str, int, str, str]:
        """Two results with one key are the same figure of the same run. A cell whose settings changed has another."""
        return self.table, self.column, self.method, self.seed, self.split, self.epochs, self.data, self.settings


def read(folder: Path, table: str) -> list[Result]:
    """Every result of a table; none if there is no file yet."""
    return jsonl.read(folder / f"{table}.jsonl", Result)


def add(folder: Path, results: Iterable[Result]) -> None:
    """Append what the tables' files do not hold yet; each file is the old or the new, whole."""
    by_table: dict[str, list[Result]] = {}
    for result in results:
        by_table.setdefault(result.table, []).append(result)
    folder.mkdir(parents=True, exist_ok=True)
    with files.locked(folder):
        for table, new in by_table.items():
            known = {result.key: result for result in read(folder, table)}
            for result in new:
                known.setdefault(result.key, result)
            jsonl.write(folder / f"{table}.jsonl", known.values())
