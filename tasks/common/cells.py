"""Figures that are computed once: a JSON file of settings and of what was computed with them, by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import files, jsonl
from .errors import RunError


class Cells:
    """What a task has computed so far, and a file that holds it: the old or the new, whole.

    Args:
        path: of the file. What it holds of other settings is not taken, and goes when the first cell is added.
        settings: all that decides the cells but their names.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path, self.settings = path, dict(settings)
        self.cells: dict[str, Any] = {}
        self.commits: list[str] = []
        self._read()

    def _read(self) -> None:
        content = files.read_json(self.path) if self.path.exists() else {}
        if not isinstance(content, dict) or (content and content.keys() != {"settings", "commits", "cells"}):
            raise RunError(f"{self.path}: not a file of settings, commits and cells; mend or delete it")
        if content.get("settings") == self.settings:
            self.cells |= content["cells"]
            self.commits = content["commits"]

    def __contains__(self, name: str) -> bool:
        return name in self.cells

    def __getitem__(self, name: str) -> Any:
        return self.cells[name]

    def add(self, found: Mapping[str, Any]) -> None:
        """Write the file with some more cells, plain values of JSON."""
        with files.locked(self.path.parent):
            self._read()  # what another process has added
            self.cells |= found
            self.commits = list(dict.fromkeys([*self.commits, jsonl.commit()]))
            content = {"settings": self.settings, "commits": self.commits, "cells": self.cells}
            files.write_json(self.path, content)
