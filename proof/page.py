"""docs/reliability.md: between two marks a check, how it is done and the table of what came."""

import re
from pathlib import Path
from typing import Any

from .record import Line

PATH = Path(__file__).parent.parent / "docs" / "reliability.md"


def table(result: dict[str, Any]) -> str:
    lines = [
        f"Commit {result['commit']}, {result['date']}, {result['seconds']:.0f} s on {result['machine']}:",
        "",
        "| what | tried | asked | found | holds |",
        "|---|---:|---|---|---|",
    ]
    for line in (Line(**each) for each in result["lines"]):
        verdict = line.verdict if line.holds else f"**{line.verdict}**"
        cells = (line.what, f"{line.count:,} {line.unit}", line.asked, line.found, verdict)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def filled(text: str, checks: dict[str, tuple[str, dict[str, Any] | None]]) -> str:
    """The page with the words of each check and the table of its result, where there is one.

    Raises:
        ValueError: naming a check that has no place in the page.
    """
    for name, (words, result) in checks.items():
        parts = re.split(f"(<!-- {name} -->\n|<!-- end of {name} -->)", text)
        if len(parts) != 5:
            raise ValueError(
                f"{PATH.name}: has no one place for {name}, from <!-- {name} --> to <!-- end of {name} -->"
            )
        tables = [] if result is None else [table(result)]
        parts[2] = "\n\n".join([words.strip(), *tables]) + "\n"
        text = "".join(parts)
    return text
