"""Run the checks and write what came to docs/reliability.md.

python -m proof [NAME ...] [--short] [--again]     those checks, or all; a check passed at this commit is not repeated
python -m proof report                             the page alone, from proof/results

Each check is a module: ``run(**LONG)`` or ``run(**SHORT)``, which returns its lines, and ``PAGE``, how it is done.
"""

import argparse
import datetime
import importlib
import json
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from tasks.common import files, jsonl

from . import page
from .record import Line

RESULTS = Path(__file__).parent / "results"
#: In the order of the page. Name of the module: its heading.
CHECKS = {
    "fuzz": "Differential fuzzing",
    "sampling": "Sampling",
    "sanitizers": "Sanitizers",
    "allocation": "Out of memory",
    "processes": "Processes",
    "installs": "Installations",
    "builds": "Builds",
    "training": "Training",
    "sizes": "Sizes",
    "long_run": "A long run",
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m proof", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all, or of: {', '.join(CHECKS)}; report: the page")
    parser.add_argument("--short", action="store_true", help="the short form, as the tests run it; writes nothing")
    parser.add_argument("--again", action="store_true", help="also what this commit has passed")
    given = parser.parse_args(arguments)
    if unknown := set(given.names) - {*CHECKS, "report"}:
        parser.error(f"NAME: got {min(unknown)!r}, allowed: {', '.join(CHECKS)}, report")
    failed = []
    for name in CHECKS if not given.names else [name for name in given.names if name != "report"]:
        result = kept(name)
        if given.short or given.again or result is None:
            result = run(name, given.short)
            if not given.short:
                RESULTS.mkdir(exist_ok=True)
                files.write_text(RESULTS / f"{name}.json", json.dumps(result, indent=1) + "\n")
        show(name, result)
        failed += [line["what"] for line in result["lines"] if line["holds"] is False]
    if not given.short:
        files.write_text(page.PATH, page.filled(page.PATH.read_text(), checks()))
    for what in failed:
        print(f"does not hold: {what}", file=sys.stderr)
    return bool(failed)


def module_of(name: str) -> ModuleType:
    return importlib.import_module(f"proof.{name}")


def checks() -> dict[str, tuple[str, dict[str, Any] | None]]:
    """Of each check how it is done, and its result."""
    return {name: (module_of(name).PAGE, read(name)) for name in CHECKS}


def run(name: str, short: bool) -> dict[str, Any]:
    module = module_of(name)
    commit = jsonl.commit()  # of the code that runs, which may change on disk before the end
    began = time.monotonic()
    lines: list[Line] = module.run(**(module.SHORT if short else module.LONG))
    return {
        "commit": commit,
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "seconds": round(time.monotonic() - began, 1),
        "lines": [asdict(line) for line in lines],
    }


def kept(name: str) -> dict[str, Any] | None:
    """What this commit has passed, but for what this machine cannot try; nothing where no commit says what it was."""
    result, commit = read(name), jsonl.commit()
    if result is None or result["commit"] != commit or commit == "unknown" or commit.endswith("-dirty"):
        return None
    return None if any(line["holds"] is False for line in result["lines"]) else result


def read(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def machine() -> str:
    return f"{jsonl.processor()}; torch {torch.__version__}; Python {platform.python_version()}"


def show(name: str, result: dict[str, Any]) -> None:
    table = Table(title=f"{CHECKS[name]}: {result['commit']}, {result['seconds']} s", title_justify="left")
    for heading in ("what", "tried", "asked", "found", "holds"):
        table.add_column(heading, justify="right" if heading == "tried" else "left")
    for line in (Line(**each) for each in result["lines"]):
        table.add_row(line.what, f"{line.count:,} {line.unit}", line.asked, line.found, line.verdict)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
