"""The table of a benchmark run, as Markdown: python -m bench.report out.json"""

import json
import sys
from pathlib import Path


def rows(path: Path) -> list[str]:
    """Markdown lines: medians and their ratio, a case a line."""
    data = json.loads(path.read_text())
    medians: dict[tuple, dict[str, float]] = {}
    for benchmark in data["benchmarks"]:
        info = benchmark["extra_info"]
        case = (info["name"], info["rows"], info["columns"], info["threads"])
        medians.setdefault(case, {})[info["which"]] = benchmark["stats"]["median"] * 1e6
    cpu = data["machine_info"]["cpu"].get("brand_raw", data["machine_info"]["machine"])
    run = f"{cpu}; commit {data['commit_info']['id'][:10]}; {data['datetime'][:10]}"
    lines = [
        f"{run}; medians, forward + backward, float32",
        "",
        "| estimator | shape | threads | ours, us | plain, us | plain / ours |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for (name, n, columns, threads), by in medians.items():
        ratio = by["plain"] / by["ours"]
        lines.append(f"| {name} | {n}x{columns} | {threads} | {by['ours']:.0f} | {by['plain']:.0f} | {ratio:.1f} |")
    return lines


if __name__ == "__main__":
    print("\n".join(rows(Path(sys.argv[1]))))
