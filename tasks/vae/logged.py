"""Runs whose figures are in the log of a run as long or longer: the logs that are kept beside the tables.

Nothing in a run depends on how long it is to be, so that epoch 40 of 160 is the end of a run of 40.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from tasks.common import files
from tasks.common.errors import RunError

from .ensemble import Record, first_failure
from .recipes import Config

LOGS = "logs"  #: the folder beside the results


class Logged(NamedTuple):
    """The epochs of a run.

    Attributes:
        log: that they are read from; "" of one that was trained to this end.
        history: a record an epoch, NaN for what was not finite.
        commit: that trained it.
        failed: the first epoch with a figure that was not finite, if there was one.
    """

    log: str
    history: list[Record]
    commit: str
    failed: int | None


def find(folder: Path, configs: Sequence[Config]) -> dict[Config, Logged]:
    """Of some runs those whose every epoch is in a log of ``folder``; of two logs of a run, the first by name."""
    wanted = {_identity(config): config for config in configs}
    found: dict[Config, Logged] = {}
    for path in sorted(folder.glob("*.config.json")):
        content = files.read_json(path)
        for place, member in enumerate(content.get("members", [content])):
            config = wanted.get(_identity(_config(member)))
            if config is None or config in found:
                continue
            name = path.name.removesuffix(".config.json")
            history = [r for r in _records(folder / f"{name}.jsonl", place) if r["epoch"] <= config.epochs]
            if len(history) == config.epochs:
                found[config] = Logged(name, history, _commit(content), first_failure(history))
    return found


def _identity(config: Config) -> tuple[Any, ...]:
    """Two runs that agree in this differ at most in length and machine."""
    return config.settings, config.seed, config.data, config.shared_order


def _config(member: Mapping[str, Any]) -> Config:
    """As it was noted; fields that came later had their default in effect, those since gone said nothing."""
    known = {field.name for field in fields(Config)}
    return Config(**{name: value for name, value in member.items() if name in known})


def _commit(content: Mapping[str, Any]) -> str:
    """What the logs note; the first ones have one environment."""
    environments = content.get("environments") or [content.get("environment", {})]
    return "+".join(dict.fromkeys(environment.get("commit", "unknown") for environment in environments))


def _records(path: Path, member: int) -> Iterator[Record]:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            record = json.loads(line)
            if record.pop("member", 0) == member:
                yield {name: math.nan if value is None else value for name, value in record.items()}
        except (ValueError, AttributeError, TypeError) as error:
            raise RunError(f"{path}: line {number} is not a record ({error}); mend or delete it") from error
