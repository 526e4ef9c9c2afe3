"""What the ops are held to, and whether they are there: a verdict for each figure, from a run's results."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Results = dict[str, Any]
Figure = float | None


@dataclass(frozen=True)
class Target:
    """A figure that is asked for.

    Attributes:
        what: in words.
        sign: "<=" or ">=".
        limit: what it is held to.
        figure: finds it in the results; None where they do not have it.
        unit: of both.
    """

    what: str
    sign: str
    limit: float
    figure: Callable[[Results], Figure]
    unit: str = ""

    def asked(self) -> str:
        return f"{self.sign} {self.limit:g} {self.unit}".strip()

    def verdict(self, results: Results) -> tuple[Figure, str]:
        found = self.figure(results)
        if found is None:
            return None, "not measured"
        holds = {"<=": operator.le, ">=": operator.ge}[self.sign](found, self.limit)
        return found, "met" if holds else "missed"


def only(records: list[dict[str, Any]], figure: str, **names: Any) -> Figure:
    """The figure of the first record with these names."""
    return next((r[figure] for r in records if all(r[name] == value for name, value in names.items())), None)


def seconds(results: Results, estimator: str, who: str, shape: str, section: str) -> Figure:
    rows, columns = map(int, shape.split("x"))
    names = {"estimator": estimator, "who": who, "rows": rows, "columns": columns, "section": section}
    return only(results["speed"], "median", **names)


def _ratio(over: Figure, under: Figure) -> Figure:
    return over / under if over is not None and under else None


def _times_faster(
    estimator: str, who: str, shape: str = "3000x10", section: str = "peers"
) -> Callable[[Results], Figure]:
    """Both of one section, in which they took turns."""
    return lambda results: _ratio(*(seconds(results, estimator, name, shape, section) for name in (who, "ours")))


def _beside(estimator: str, other: str) -> Callable[[Results], Figure]:
    """The largest at 10 and 64 categories."""

    def figure(results: Results) -> Figure:
        ratios = [
            _ratio(*(seconds(results, name, "ours", shape, "estimators") for name in (estimator, other)))
            for shape in ("3000x10", "3000x64")
        ]
        return max((ratio for ratio in ratios if ratio is not None), default=None)

    return figure


def _largest_exponent(axis: str) -> Callable[[Results], Figure]:
    def figure(results: Results) -> Figure:
        of_ours = [r["exponent"] for r in results["exponents"] if r["axis"] == axis and r["who"] == "ours"]
        return max(of_ours, default=None)

    return figure


def _on_avx512(results: Results) -> Figure:
    """Of straight-through, in microseconds; the target is that of a core with AVX-512."""
    found = seconds(results, "straight_through", "ours", "3000x10", "peers")
    return 1e6 * found if found is not None and results["about"]["instruction_set"] == "avx512" else None


def _other(what: str, figure: str, over: dict[str, str], under: dict[str, str]) -> Callable[[Results], Figure]:
    return lambda results: _ratio(*(only(results["other"], figure, what=what, **names) for names in (over, under)))


def _draws_memory(results: Results) -> Figure:
    return _ratio(*(only(results["memory"], "bytes", estimator="gumbel_rao", who="ours", draws=k) for k in (1000, 1)))


TARGETS = (
    Target("`straight_through` 3000x10, a core with AVX-512", "<=", 45, _on_avx512, "us"),
    *(
        Target(f"`straight_through` 30000x10, times faster than {name}", ">=", 20, figure)
        for name, figure in (
            ("plain PyTorch (multinomial, scatter)", _times_faster("straight_through", "plain", "30000x10", "shapes")),
            ("the fastest PyTorch found", _times_faster("straight_through", "tuned", "30000x10", "shapes")),
        )
    ),
    Target(
        "`gumbel_softmax` 3000x10, times faster than `F.gumbel_softmax`",
        ">=",
        10,
        _times_faster("gumbel_softmax", "torch"),
    ),
    Target("the same, 64x8192", ">=", 9, _times_faster("gumbel_softmax", "torch", "64x8192", "shapes")),
    Target("the same, 4x10", ">=", 1, _times_faster("gumbel_softmax", "torch", "4x10", "shapes")),
    Target("`reinmax` 3000x10, times faster than the package `reinmax`", ">=", 20, _times_faster("reinmax", "reinmax")),
    Target(
        "`gumbel_rao`, 100 draws, 3000x10, times faster than plain PyTorch",
        ">=",
        40,
        _times_faster("gumbel_rao", "plain"),
    ),
    Target("`mix`, time to that of `reinmax`, 10 and 64 categories", "<=", 1.1, _beside("mix", "reinmax")),
    Target("`mve`, time to that of `reinmax`, 10 and 64 categories", "<=", 1.8, _beside("mve", "reinmax")),
    *(
        Target(f"`{name}`, 16 draws of one call, time to that of 16 calls", "<=", 0.5, figure)
        for name, figure in (
            (name, _other("many draws", "seconds", {"of": name, "who": "num_draws"}, {"of": name, "who": "calls"}))
            for name in ("straight_through", "gst", "reinmax", "mix")
        )
    ),
    Target(
        "`embedding` 4096x8192, times faster than plain PyTorch",
        ">=",
        5,
        _other("embedding", "seconds", {"who": "plain"}, {"who": "ours"}),
    ),
    Target(
        "its memory, to that of plain PyTorch",
        "<=",
        0.05,
        _other("embedding", "bytes", {"who": "ours"}, {"who": "plain"}),
    ),
    Target("`gumbel_rao`, memory of 1000 draws to that of one", "<=", 1.05, _draws_memory),
    Target(
        "`linear_embedding`, memory at 131072 categories to that at 32768",
        "<=",
        1.05,
        _other("linear_embedding", "bytes", {"of": "131072"}, {"of": "32768"}),
    ),
    *(
        Target(f"exponent of time in {axis}, the largest of ours", "<=", 1.05, _largest_exponent(name))
        for axis, name in (("rows", "rows"), ("categories", "columns"), ("draws", "draws"))
    ),
)
