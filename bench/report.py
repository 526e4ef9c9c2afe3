"""The table of a benchmark run, as Markdown, and its figures as JSON.

python -m bench.report out.json [results.json]
"""

import json
import sys
from pathlib import Path
from typing import Any


def summary(path: Path) -> dict[str, Any]:
    """Device, commit, and the medians of each case in microseconds."""
    data = json.loads(path.read_text())
    cases: dict[tuple, dict[str, Any]] = {}
    for benchmark in data["benchmarks"]:
        info = benchmark["extra_info"]
        key = {name: info[name] for name in ("name", "rows", "columns", "threads")}
        case = cases.setdefault(tuple(key.values()), key)
        case[f"{info['which']}_us"] = round(benchmark["stats"]["median"] * 1e6, 1)
    cpu = data["machine_info"]["cpu"]
    return {
        "device": f"{cpu.get('brand_raw', data['machine_info']['machine'])}, {cpu.get('count', '?')} cores",
        "commit": data["commit_info"]["id"],
        "date": data["datetime"][:10],
        "what": "medians, forward + backward, float32",
        "cases": list(cases.values()),
    }


def markdown(results: dict[str, Any]) -> str:
    lines = [
        f"{results['device']}; commit {results['commit'][:10]}; {results['date']}; {results['what']}",
        "",
        "| estimator | shape | threads | ours, us | plain, us | plain / ours |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for case in results["cases"]:
        shape, ours, plain = f"{case['rows']}x{case['columns']}", case["ours_us"], case["plain_us"]
        lines.append(
            f"| {case['name']} | {shape} | {case['threads']} | {ours:.0f} | {plain:.0f} | {plain / ours:.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    results = summary(Path(sys.argv[1]))
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(json.dumps(results, indent=1) + "\n")
    print(markdown(results))
