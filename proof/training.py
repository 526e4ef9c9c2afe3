"""Training that is killed, has no room, or finds wrong files: both tasks' commands, as they are given."""

from collections.abc import Callable, Mapping
from typing import Any

from . import bad_checkpoints, data_files, full_disk, kills, run_folders
from .record import Line
from .tiny_runs import COMMANDS

PAGE = """\
Each run is a command of `tasks.vae` or `tasks.listops` in a process of its own, with a tiny model or few lines, so that
it takes a second or two. After each kill or failure the same command is given again, and every file that it leaves is
compared with those of a run that nothing happened to: metrics, results and weights bit by bit (but for times and
commits), pictures and tables byte by byte, and no file more. Random moments are uniform over the time that the command
takes. A kill before a file operation comes from a hook on Python's own audit events; one inside a write from the
kernel, at a limit on the size of files. A full disk is a small file system in memory, mounted for the process alone.
"""

TASKS = ("vae", "listops")
DRAWN = ("vae-drawn", "listops-drawn")  #: the same with pictures


def _kills(commands: tuple[str, ...], kills_each: int) -> list[Line]:
    return [kills.at_random(name, kills_each, seed=1) for name in commands]


def _operations(of_each: Mapping[str, int | None]) -> list[Line]:
    return [kills.at_operations(name, count) for name, count in of_each.items()]


def _writes(commands: tuple[str, ...], count: int) -> list[Line]:
    return [kills.inside_writes(name, count, seed=0) for name in commands]


def _disks(commands: tuple[str, ...], limits: int, rooms: int) -> list[Line]:
    return [line for name in commands for line in full_disk.of_runs(name, limits, rooms, seed=0)]


PARTS: dict[str, Callable[..., list[Line]]] = {
    "kills": _kills,
    "operations": _operations,
    "writes": _writes,
    "disks": _disks,
    "results": full_disk.of_results,
    "checkpoints": bad_checkpoints.run,
    "data": data_files.run,
    "folders": run_folders.run,
}

SHORT: dict[str, Any] = {
    "kills": {"commands": ("vae-seconds", "listops"), "kills_each": 2},
    "operations": {"of_each": {"vae": 2, "listops": 8}},
    "writes": {"commands": TASKS, "count": 1},
    "disks": {"commands": TASKS, "limits": 1, "rooms": 1},
    "results": {"rooms": 1, "lines": 20},
    "checkpoints": {"flips": 60, "lengths": 20},
    "data": {"flips": 50},
    "folders": {"commands": 1, "cells": 4, "writes": 1},
}
LONG: dict[str, Any] = {
    "kills": {"commands": tuple(COMMANDS), "kills_each": 20},
    "operations": {"of_each": dict.fromkeys((*DRAWN, "vae-table", "listops-table"))},
    "writes": {"commands": DRAWN, "count": 20},
    "disks": {"commands": DRAWN, "limits": 20, "rooms": 20},
    "results": {"rooms": 7, "lines": 1000},
    "checkpoints": {"flips": 10_000, "lengths": 1000},
    "data": {"flips": 1000},
    "folders": {"commands": 5, "cells": 100, "writes": 5},
}


def run(**parts: Mapping[str, Any]) -> list[Line]:
    """Those of ``PARTS``, each with its arguments."""
    return [line for name, arguments in parts.items() for line in PARTS[name](**arguments)]
