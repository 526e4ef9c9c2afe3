"""What the tests of the tasks' commands share."""

import json
from pathlib import Path
from typing import Any

from tasks.vae import cli


def run(out: Path, *arguments: str) -> int:
    return cli.main([*arguments, "--data", "digits", "--out", str(out)])


def lines(out: Path, table: str) -> list[dict[str, Any]]:
    """What the results say of the runs, without where they ran."""
    found = [json.loads(line) for line in (out / "results" / f"{table}.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "commit"} for line in found]
