"""What each example learns with other estimators, over five seeds: the tables of examples.md.

python docs/example_figures.py          # measures, a quarter of an hour of one core; then writes the tables
python docs/example_figures.py --write  # from example_figures.json, without measuring
"""

import contextlib
import importlib
import io
import json
import re
import statistics
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent
SEEDS = 5
#: Of each example: the figure that is told, and the estimators.
FIGURES = {
    "speech_quantizer": (
        "last_loss",
        ("straight_through(tau=4.0)", "gumbel_softmax(tau=2.0)", "gst(tau=2.0)", "reinmax(tau=4.0)"),
    ),
    "table_generator": (
        "distance_after",
        ("straight_through", "gumbel_softmax(tau=0.2)", "gumbel_softmax(tau=1.0)", "gst(tau=1.0)", "reinmax"),
    ),
    "masked_policy": ("arrived_after", ("straight_through", "gumbel_softmax(tau=1.0)", "gst(tau=1.0)", "reinmax")),
    "architecture_cell": ("chosen_loss", ("straight_through", "gumbel_softmax(tau=2.0)", "gst(tau=2.0)", "reinmax")),
    "expert_router": (
        "test_loss",
        ("straight_through", "gumbel_softmax(tau=0.5)", "gumbel_softmax(tau=1.0)", "gst(tau=1.0)", "reinmax"),
    ),
    "world_model": ("imagined_error", ("straight_through", "gumbel_softmax(tau=1.0)", "gst(tau=1.0)", "reinmax")),
}


def measure() -> dict[str, dict[str, list[float]]]:
    """Example, estimator: the figure of each seed."""
    sys.path.insert(0, str(HERE.parent / "examples"))
    found: dict[str, dict[str, list[float]]] = {}
    for example, (figure, estimators) in FIGURES.items():
        module = importlib.import_module(example)
        for estimator in estimators:
            with contextlib.redirect_stdout(io.StringIO()):
                runs = [module.main(seed=seed, estimator=estimator) for seed in range(SEEDS)]
            found.setdefault(example, {})[estimator] = [round(getattr(run, figure), 4) for run in runs]
            print(example, estimator, found[example][estimator], flush=True)
    return found


def table(figures: dict[str, list[float]]) -> str:
    lines = ["| estimator | mean | least | most |", "|---|---:|---:|---:|"]
    for estimator, runs in figures.items():
        lines.append(f"| `{estimator}` | {statistics.mean(runs):.3f} | {min(runs):.3f} | {max(runs):.3f} |")
    return "\n".join(lines)


def page_text(text: str, found: dict[str, dict[str, list[float]]]) -> str:
    """The page with the tables that its ``<!-- figures of NAME -->`` ask for."""
    return re.sub(
        r"(<!-- figures of (\w+) -->\n)(?:\n(?:\|.*\n)+)?",
        lambda match: f"{match[1]}\n{table(found[match[2]])}\n",
        text,
    )


def main() -> None:
    torch.set_num_threads(1)
    results = HERE / "example_figures.json"
    if "--write" not in sys.argv[1:]:
        results.write_text(json.dumps(measure(), indent=2) + "\n")
    page = HERE / "examples.md"
    page.write_text(page_text(page.read_text(), json.loads(results.read_text())))


if __name__ == "__main__":
    main()
