"""Results as JSON lines, one dataclass a line, and the commit that a line names."""

import functools
import json
import subprocess
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from . import files
from .errors import RunError

T = TypeVar("T")
#: Where commands write what they measured.
RESULTS = ("tasks/results", "bench/results", "proof/results", "docs/reliability.md")


def read(path: Path, result: type[T]) -> list[T]:
    """Every result of a file; none if there is no file yet.

    Raises:
        RunError: a line is no result; it is named.
    """
    if not path.exists():
        return []
    kinds = get_type_hints(result)
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            fields = json.loads(line, parse_constant=_refuse)
            for name, value in fields.items():
                if name in kinds and not _is(value, kinds[name]):
                    raise TypeError(f"{name}: got {value!r}")
            found.append(result(**fields))
        except (ValueError, TypeError) as error:
            raise RunError(f"{path}: line {number} is not a result ({error}); mend or delete it") from error
    return found


def _is(value: Any, kind: Any) -> bool:
    """Whether a value of JSON is of a field's type; an int is a float, too, a bool is no int."""
    if isinstance(kind, UnionType):
        return any(_is(value, each) for each in get_args(kind))
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_is(each, *get_args(kind)) for each in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(_is(each, get_args(kind)[1]) for each in value.values())
    if kind is Any:
        return True
    return type(value) in (int, float) if kind is float else type(value) is kind


def _refuse(constant: str) -> None:
    raise ValueError(f"got {constant}")


def write(path: Path, results: Iterable[Any]) -> None:
    """The file is the old or the new, whole."""
    files.write_text(path, "".join(json.dumps(asdict(result)) + "\n" for result in results))


@functools.cache
def commit() -> str:
    """The commit of this checkout when first asked, with "-dirty" if tracked files differ; "unknown" outside of one.

    What is made of results does not count: the first command that adds a line would make all that follow it dirty.
    """
    found = _git("rev-parse", "--short", "HEAD")
    others = [f":(top,exclude){path}" for path in RESULTS]
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", *others)
    return "unknown" if found is None or changed is None else f"{found}-dirty" if changed else found


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
