"""docs/reliability.md: its tables are between two marks a check, the words around them are written by hand."""

import re
from pathlib import Path
from typing import Any

PATH = Path(__file__).parent.parent / "docs" / "reliability.md"


def table(result: dict[str, Any]) -> str:
    lines = [
        f"Commit {result['commit']}, {result['date']}, {result['seconds']:.0f} s on {result['machine']}:",
        "",
        "| what | tried | asked | found | holds |",
        "|---|---:|---|---|---|",
    ]
    for line in result["lines"]:
        cells = (line["what"], f"{line['count']:,} {line['unit']}", line["asked"], line["found"])
        escaped = " | ".join(cell.replace("|", "\\|") for cell in cells)
        lines.append(f"| {escaped} | {'yes' if line['holds'] else '**no**'} |")
    return "\n".join(lines)


def filled(text: str, results: dict[str, dict[str, Any] | None]) -> str:
    """The page with the tables of ``results``; those of checks without a result stay.

    Raises:
        ValueError: naming a check that has no place in the page.
    """
    for name, result in results.items():
        parts = re.split(f"(<!-- {name} -->\n|<!-- end of {name} -->)", text)
        if len(parts) != 5:
            raise ValueError(
                f"{PATH.name}: has no one place for {name}, between <!-- {name} --> and <!-- end of {name} -->"
            )
        if result is not None:
            parts[2] = table(result) + "\n"
            text = "".join(parts)
    return text
