"""How time grows: the exponent of a power law through the medians, by least squares on logarithms."""

import math
import statistics
from collections.abc import Iterable, Iterator
from typing import Any

#: Axis and from where on: what is smaller is a call's fixed part.
AXES = {"rows": 4000, "columns": 256, "draws": 10}


def exponent(points: Iterable[tuple[float, float]]) -> float:
    """The ``b`` of the ``y = a * x**b`` nearest to (x, y), all positive."""
    logs = [(math.log(x), math.log(y)) for x, y in points]
    return statistics.linear_regression(*zip(*logs, strict=True)).slope


def measured(speed: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A record for each formulation with three points or more on an axis."""
    speed = list(speed)
    for axis, least in AXES.items():
        lines: dict[tuple[str, str], dict[int, float]] = {}
        for record in speed:
            if record["section"] == axis and record[axis] >= least:
                lines.setdefault((record["estimator"], record["who"]), {})[record[axis]] = record["median"]
        for (estimator, who), line in lines.items():
            if len(line) >= 3:
                names = {"axis": axis, "estimator": estimator, "who": who, "from": min(line), "to": max(line)}
                yield {**names, "exponent": exponent(line.items())}
