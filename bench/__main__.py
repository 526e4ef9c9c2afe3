"""What the ops cost and are worth on this machine: a report in Markdown, its figures as JSON, and plots.

python -m bench [--full] [--device cuda] [--out build/bench]

Within five minutes on two cores, and with ``--full``, every shape, estimator and compiled form, if nothing else runs.
"""

import argparse
import datetime
import itertools
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import discrete_ops as do
from tasks.common import files, jsonl

from . import cases, fits, memory, other, quality, report
from .speed import Speed

INSTRUCTIONS = Path(__file__).parent / "results" / "instructions.json"
SECONDS = 1.0  #: that the formulations of a case take turns for
WIDTH = 160  #: of the console, at least: that of the widest table
SHOWN = 3  #: tables on the console: targets, every estimator, what is used today


def about(device: str, threads: int, full: bool) -> dict[str, Any]:
    return {
        "device": torch.cuda.get_device_name(device) if device != "cpu" else jsonl.processor(),
        "instruction_set": do.build_info()["instruction_set"] if device == "cpu" else "",
        "torch": torch.__version__,
        "commit": jsonl.commit(),
        "date": datetime.date.today().isoformat(),
        "threads": threads,
        "full": full,
    }


def _instructions(instruction_set: str) -> dict[str, Any]:
    """Of the committed counts, those of this processor's kernels, and what they were counted of."""
    committed = json.loads(INSTRUCTIONS.read_text())
    counted = f"commit {committed['commit'][:10]}, {committed['compiler']}"
    return {"of": counted, "counts": committed["counts"].get(instruction_set, {})}


def measure(
    table: Iterable[cases.Case], device: str, threads: int, full: bool, console: Console, seconds: float = SECONDS
) -> dict[str, Any]:
    """Everything a report is made of."""
    began, known = time.monotonic(), about(device, threads, full)
    speed, found = Speed(device, seconds), list[dict[str, Any]]()
    for case in table:
        for record in speed.measure([case]):
            found.append(record)
            names = f"{record['section']}: {record['estimator']}, {record['who']}, {record['rows']}x{record['columns']}"
            console.print(f"{names}: {1e6 * record['median']:.1f} us", highlight=False)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    results = {
        "about": known,
        "speed": found,
        "parity": speed.tried,
        "exponents": list(fits.measured(found)),
        "memory": list(memory.measure(device)),
        "resident": list(memory.processes()) if device == "cpu" else [],
        "quality": quality.measure(found),
        "other": list(other.measure(full)) if device == "cpu" else [],
        "instructions": _instructions(known["instruction_set"]),
    }
    torch.set_num_threads(before)
    known["seconds"] = time.monotonic() - began
    return results


def _rounded(value: Any) -> Any:
    """With five figures that count."""
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="every shape, estimator and compiled form")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="folder of the report")
    parser.add_argument("--write", action="store_true", help="make the report again from its JSON, without measuring")
    options = parser.parse_args()
    console, path = Console(width=max(Console().width, WIDTH)), options.out / "report.json"
    if options.write and not path.exists():
        parser.error(f"--write: got --out {options.out}, allowed: a folder with a report.json")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device: got cuda, allowed: cpu; torch.cuda.is_available() is False")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out: got {options.out}, allowed: a folder that can be written: {error}")
    if not options.write:
        threads = min(2, os.cpu_count() or 1) if options.device == "cpu" else 1
        table = cases.table(options.full, threads)
        results = measure(table, options.device, threads, options.full, console)
        files.write_text(path, json.dumps(_rounded(results), indent=1) + "\n")
    results = json.loads(path.read_text())
    for sheet in itertools.islice(report.sheets(results), SHOWN):
        sheet.print(console)
    console.print(f"{report.write(results, options.out)}, {path}")


if __name__ == "__main__":
    main()
