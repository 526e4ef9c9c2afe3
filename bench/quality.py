"""What a gradient is worth for its time: bias, spread, and the direction that equal time buys.

The problem is that of the estimators' pages (docs/bias_variance.py): three latents of ten categories and a decoder,
enumerated, so that the exact gradient is known. A call at 3000x10 is a thousand samples of it. In the time of n samples
of the fastest formulation another one has fewer; their mean has the bias of one and a share of its spread, and so an
expected cosine with the exact gradient, ``<m, g> / (|g| sqrt(|m|^2 + std^2 / samples))``. The decoder's own time, the
same for all, is left out: what is compared is estimators.
"""

import importlib.util
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import discrete_ops as do

PAGE = Path(__file__).parent.parent / "docs" / "bias_variance.py"
PROBLEMS, DRAWS = 5, 20_000
BUDGETS = (1, 10, 100)  #: samples of the fastest formulation
ROWS, LATENTS, CATEGORIES = 3000, 3, 10


def measure(speed: Iterable[dict[str, Any]], problems: int = PROBLEMS, draws: int = DRAWS) -> list[dict[str, Any]]:
    """A record for each formulation that was timed at the centre, as it is."""
    spec = importlib.util.spec_from_file_location("bias_variance", PAGE)
    assert spec is not None
    assert spec.loader is not None
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    times = {key: seconds * LATENTS / ROWS for key, seconds in _seconds(list(speed)).items()}
    fastest = min(times.values(), default=0.0)
    found = []
    for estimator in dict.fromkeys(estimator for estimator, _ in times):
        measured = []
        for seed in range(problems):
            f, logits = page.problem(seed)
            measured.append(do.diagnostics.measure(do.estimator(estimator), f, logits, draws, seed=seed))
        for (name, who), seconds in times.items():
            if name != estimator:
                continue
            cosines = {
                f"cosine {budget}": statistics.median(at(m, budget * fastest / seconds) for m in measured)
                for budget in BUDGETS
            }
            figures = {
                key: statistics.median(getattr(m, key) for m in measured) for key in ("relative_bias", "relative_std")
            }
            found.append({"estimator": name, "who": who, "seconds": seconds, **figures, **cosines})
    return found


def _seconds(speed: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    """Of a call at the centre: of ours in one run of them all, and of a peer by its ratio to ours in theirs."""
    centre = [record for record in speed if record["columns"] == CATEGORIES]
    ours = {record["estimator"]: record["median"] for record in centre if record["section"] == "estimators"}
    beside = {
        (record["estimator"], record["who"]): record["median"]
        for record in centre
        if record["section"] == "peers" and "compiled" not in record["who"]
    }
    found = {(estimator, "ours"): seconds for estimator, seconds in ours.items()}
    for (estimator, who), seconds in beside.items():
        if estimator in ours and (estimator, "ours") in beside:
            found[estimator, who] = ours[estimator] * seconds / beside[estimator, "ours"]
    return dict(sorted(found.items(), key=lambda item: [*ours].index(item[0][0])))


def at(measurement: do.diagnostics.Measurement, samples: float) -> float:
    """The cosine that the mean of so many samples has with the exact gradient, about; a part of one counts as such."""
    mean, exact = measurement.mean, measurement.exact
    length = (mean.square().sum() + measurement.std**2 / samples).sqrt()
    return float((mean * exact).sum() / (exact.norm() * length))
