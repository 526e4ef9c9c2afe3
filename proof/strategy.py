"""Which calls the fuzzer draws: any estimator, in any form, mostly small, with ends of the ranges now and then."""

import math
from typing import Any

from hypothesis import strategies as st

from .cases import LAYOUTS, SPECIAL, SPECIAL_HIDDEN, WITH_SOFT_SAMPLE, Case

CALLS = (
    *("rows", "rows", "rows", "rows", "part", "ragged", "ragged", "bernoulli", "embedding"),
    *("top_k", "linear_embedding"),
)
CHOICES = {
    "straight_through": ("tau",),
    "gumbel_softmax": ("tau",),
    "gumbel_rao": ("limit", "num_samples", "draws"),
    "gst": ("tau", "gap"),
    "reinmax": ("tau",),
    "reinmax_argmax": ("tau",),
    "reinmax_rao": ("tau", "num_samples", "draws"),
    "reinmax_cv": ("tau", "num_samples", "draws", "eta", "control"),
    "reinmax_rk2": ("beta", "centred"),
    "mix": ("a",),
    "mve": ("trade",),
}
TEMPERATURES = ("limit", "trade")  # what the argument tau of two of them may be
WITH_HARD = ("gumbel_softmax", "gumbel_rao", "gst")
_SIZES = (1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 9, 17)
_COLUMNS = (*range(1, 41), 48, 63, 64, 65, 66, 90, 127, 128, 129, 200, 255, 256, 257, 300)


def _powers(least: float, most: float) -> st.SearchStrategy[float]:
    """Of 10, between two exponents; 1 is the simplest."""
    return st.floats(least, most).map(lambda exponent: 10.0**exponent)


_TAU = st.one_of(st.just(1.0), _powers(-1, 1), _powers(-4, 4), st.sampled_from([1e-4, 1e4]))
_WEIGHT = st.one_of(st.floats(-3, 3), st.sampled_from([0.0, 1.0, 1.5, 300.0, -1e4, 1e30]))
ARGUMENTS: dict[str, st.SearchStrategy[Any]] = {
    "tau": _TAU,
    "sample_tau": _TAU,
    "limit": st.one_of(_TAU, _TAU, _TAU, st.just(0.0)),
    "num_samples": st.sampled_from([1, 1, 2, 2, 3, 3, 4, 5, 7, 9, 17, 33, 70]),
    "few_num_samples": st.sampled_from([1, 2, 3]),
    "draws": st.sampled_from(["independent", "stratified"]),
    "gap": st.one_of(st.just("pi"), st.floats(0, 10), st.sampled_from([0.0, 1.0, 1e3])),
    "eta": _WEIGHT,
    "control": st.sampled_from(["soft", "gumbel"]),
    "beta": _WEIGHT,
    "centred": st.booleans(),
    "a": st.floats(0, 1),
    "trade": st.one_of(st.just(4.0), st.floats(0, 100), st.sampled_from([0.0, 16.0, 17.0, 1e6, math.inf])),
}


@st.composite
def cases(draw: st.DrawFn, elements: int = 3000) -> Case:
    """One call of any estimator, of at most so many logits and draws, but for the seldom long rows of a default."""
    call = draw(st.sampled_from(CALLS))
    estimator = draw(st.sampled_from(list(CHOICES)))
    small = elements < 3000
    arguments = {
        "tau" if name in TEMPERATURES else name: draw(
            ARGUMENTS[f"few_{name}" if small and name == "num_samples" else name]
        )
        for name in (*CHOICES[estimator], *(("sample_tau",) if draw(st.booleans()) else ()))
    }
    of_rows = tuple(
        name
        for name, value in arguments.items()
        if isinstance(value, float) and 0 < abs(value) < math.inf and draw(st.integers(0, 3)) == 3
    )
    shape, columns = draw(_shapes(call, elements))
    rows = math.prod(shape)
    if not rows:
        of_rows = ()
    dtype = draw(st.sampled_from(["float32", "float64", "float16", "bfloat16"]))
    dims = 1 if call in ("ragged", "bernoulli") else len(shape) + 1
    special = SPECIAL_HIDDEN if call == "linear_embedding" else SPECIAL
    has_soft = {"embedding": WITH_SOFT_SAMPLE, "top_k": (), "linear_embedding": ()}.get(call, WITH_HARD)
    return Case(
        call=call,
        estimator=estimator,
        arguments=arguments,
        of_rows=of_rows,
        shape=shape,
        columns=columns,
        dim=draw(st.integers(0, dims - 1)) if call != "linear_embedding" else len(shape),
        dtype=dtype,
        layout=draw(st.sampled_from(LAYOUTS)),
        grad_layout=draw(st.sampled_from(LAYOUTS)),
        scale=draw(st.one_of(st.just(1.0), _powers(-1, 2), _powers(-30, 30))),
        grad_scale=draw(st.sampled_from([1.0] * 8 + [1e-3, 1e3, 1e3 if dtype == "float16" else 1e30])),
        special=tuple(draw(st.lists(st.sampled_from(special), max_size=2, unique=True))) if draw(st.booleans()) else (),
        mask=draw(st.booleans()) and draw(st.booleans()) and call != "bernoulli",
        hard=estimator not in has_soft or draw(st.booleans()),
        seed=draw(st.one_of(st.integers(0, 99), st.integers(0, 2**63 - 1))),
        seeds=draw(st.sampled_from([groups for groups in range(1, min(rows, 9) + 1) if rows % groups == 0] or [1])),
        num_draws=draw(st.one_of(st.none(), st.integers(1, 4))) if call not in ("part", "top_k") else None,
        first_row=draw(st.sampled_from([0, 1, 1000, 2**32 - 2, 2**40])) if call == "part" else 0,
        contents=draw(st.integers(0, 2**32)),
        k=draw(st.integers(1, min(columns, 6))) if call == "top_k" else 1,
        features=draw(st.integers(1, 8)) if call == "linear_embedding" else 1,
    )


@st.composite
def _shapes(draw: st.DrawFn, call: str, elements: int) -> tuple[tuple[int, ...], int]:
    """Of the rows, and how many categories: a few thousand elements, seldom more in one or two rows."""
    sizes = draw(
        st.lists(st.sampled_from(_SIZES), min_size=int(call == "ragged"), max_size=1 if call == "ragged" else 4)
    )
    seldom = draw(st.integers(0, 99))
    if seldom == 99 and elements >= 3000:
        return (draw(st.integers(1, 2)),), draw(st.sampled_from([8191, 8192, 8193])) if call != "bernoulli" else 1
    columns = 1 if call == "bernoulli" else draw(st.sampled_from(_COLUMNS))
    if seldom >= 96 and sizes:
        sizes[0] = 0
    while math.prod(sizes) * columns > max(elements, columns):
        sizes = sizes[:-1] or [max(1, elements // columns)]
    return tuple(sizes), columns
