"""``<table>.jsonl``: one JSON line for each figure of a run that a table has seen, in the order they finished."""

import functools
import json
import math
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tasks.common import files
from tasks.common.errors import RunError

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
    value: float | None  # nats an image; None: the run failed
    epochs: int
    data: str
    device: str
    commit: str
    failed: int | None = None  # the first epoch with a figure that was not finite
    kl: float | None = None  # nats an image, of the last epoch's training; None: not noted

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
        )

    @property
    def is_collapsed(self) -> bool:
        return self.kl is not None and self.kl < COLLAPSED

    @property
    def key(self) -> tuple[str, str, str, int, str, int, str]:
        """Two results with one key are the same figure of the same run."""
        return self.table, self.column, self.method, self.seed, self.split, self.epochs, self.data


def read(folder: Path, table: str) -> list[Result]:
    """Every result of a table; none if there is no file yet."""
    path = folder / f"{table}.jsonl"
    if not path.exists():
        return []
    results = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            results.append(Result(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise RunError(f"{path}: line {number} is not a result ({error}); mend or delete it") from error
    return results


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
            text = "".join(json.dumps(asdict(result)) + "\n" for result in known.values())
            files.write_text(folder / f"{table}.jsonl", text)


@functools.cache
def commit() -> str:
    """The commit of this checkout when first asked, with "-dirty" if tracked files differ; "unknown" outside of one.

    The results themselves do not count: the first command that adds a line would make all that follow it dirty.
    """
    found = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)tasks/results")
    return "unknown" if found is None or changed is None else f"{found}-dirty" if changed else found


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
