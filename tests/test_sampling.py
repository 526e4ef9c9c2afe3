"""The forward pass draws from softmax(logits): every category, in every dtype, however rare, independently."""

import numpy as np
import pytest
import scipy.stats
import torch
from helpers import CPU_BACKENDS, FLOATS, assert_one_hot, chi_squared

import discrete_ops as do
from discrete_ops import philox

LEAST_P = 1e-4  # the seeds are fixed: a test either passes for ever or has found something
PIECE = 2**20  # elements drawn at once


def draw(logits: torch.Tensor, count: int, seed: int, backend: str) -> torch.Tensor:
    """``count`` samples of one row of logits, as indices; in pieces of identical expanded rows."""
    size = max(1, PIECE // len(logits))
    pieces = []
    for number, start in enumerate(range(0, count, size)):
        rows = logits.expand(min(size, count - start), -1)
        sample, index = do.straight_through(rows, seed=seed + number, return_index=True, backend=backend)
        assert torch.equal(sample.argmax(-1), index)
        pieces.append(index)
    return torch.cat(pieces)


def probabilities(logits: torch.Tensor) -> torch.Tensor:
    return logits.double().softmax(-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("n", "count"), [(2, 100_000), (10, 100_000), (1000, 50_000), (50_000, 1500)])
def test_skewed_logits(n, count, dtype, backend):
    logits = torch.linspace(3, -3, n)[torch.randperm(n, generator=torch.Generator().manual_seed(n))].to(dtype)
    assert chi_squared(draw(logits, count, 1000 + n, backend), probabilities(logits)) > LEAST_P


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_uniform_logits(dtype, backend):
    logits = torch.zeros(37, dtype=dtype)
    assert chi_squared(draw(logits, 20_000, 7, backend), probabilities(logits)) > LEAST_P


def test_a_row_of_200000(backend):
    logits = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    index = draw(logits, 400, 3, backend)
    assert chi_squared(index, probabilities(logits), least=10) > LEAST_P
    assert (index >= 2**17).any()


@pytest.mark.parametrize("place", ["first", "last", "middle"])
def test_rare_categories_beside_a_dominant_one(place, backend):
    """50000 categories of 4e-7 each; a float32 running sum near 1 moves in steps of 6e-8."""
    n, rare = 50_001, 4e-7
    dominant = {"first": 0, "last": n - 1, "middle": n // 2}[place]
    logits = torch.full((n,), 0.0)
    logits[dominant] = np.log((1 - (n - 1) * rare) / rare)
    index = draw(logits, 3000, 11 + dominant, backend)
    assert chi_squared(index, probabilities(logits)) > LEAST_P


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("rare", [1e-7, 3e-9])
def test_rare_categories_are_not_hidden_by_rounding(place, rare, backend):
    """Seeds chosen so that the uniform falls on the rare side: there, all the rare ones are equally likely.

    They are 1.7 steps, or a twentieth of a step, of float32 below 1: a plain float32 running sum misses most.
    """
    n, rows = 20_001, 400
    tail = (n - 1) * rare
    seeds = torch.arange(int(1.3 * rows / tail)) if tail > 1e-3 else _seeds_in_tail(place, tail, rows)
    u = philox.uniform(seeds, len(seeds))[:, 0]
    # 1% inside the tail, out of reach of float32 rounding of the dominant category's own probability
    seeds = seeds[(u > 1 - 0.99 * tail) if place == "first" else (u < 0.99 * tail)][:rows]
    assert len(seeds) >= rows // 2
    logits = torch.zeros(n)
    dominant = 0 if place == "first" else n - 1
    logits[dominant] = np.log((1 - tail) / rare)
    pieces = [
        do.straight_through(logits.expand(len(s), n), seed=s, return_index=True, backend=backend)[1]
        for s in seeds.split(50)
    ]
    index = torch.cat(pieces)
    assert (index != dominant).all()
    p = torch.ones(n)
    p[dominant] = 0
    skipped = int(0.01 * (n - 1))  # the edge that the choice of seeds leaves out
    p[slice(1, 1 + skipped) if place == "first" else slice(n - 1 - skipped, n - 1)] = 0
    assert chi_squared(index, p) > LEAST_P
    assert len(index.unique()) > 0.95 * len(index), "20000 equally likely categories hardly repeat"


def _seeds_in_tail(place: str, tail: float, rows: int) -> torch.Tensor:
    found, start = [], 0
    while sum(map(len, found)) < rows:
        seeds = torch.arange(start, start + 2**20)
        u = philox.uniform(seeds, len(seeds))[:, 0]
        found.append(seeds[(u > 1 - tail) if place == "first" else (u < tail)])
        start += 2**20
    return torch.cat(found)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n", [1, 2, 5, 300, 5000])
def test_inverse_cdf_of_the_seeds_uniform(n, dtype, backend):
    """The category whose stretch of the running sum holds the uniform, up to the rounding of that sum."""
    rows = 200
    logits = (torch.randn(rows, n, generator=torch.Generator().manual_seed(n)) * 2).to(dtype)
    sample, index = do.straight_through(logits, seed=55, return_index=True, backend=backend)
    assert_one_hot(sample, index)
    p = logits.double().softmax(-1)
    upper = p.cumsum(-1).gather(-1, index[:, None])
    lower = upper - p.gather(-1, index[:, None])
    u = philox.uniform(torch.tensor([55]), rows)
    slack = 1e-13 if dtype == torch.float64 else 2e-6  # half types are computed in float32
    assert ((lower - slack <= u) & (u <= upper + slack)).all()


@pytest.mark.parametrize("backend", [b for b in CPU_BACKENDS if b == "reference"])
@pytest.mark.parametrize("word", [0, 2**32 - 1])
def test_extreme_uniforms_take_an_end_category_that_is_not_masked(word, backend, monkeypatch):
    monkeypatch.setattr(
        philox, "words", lambda seed, draw, rows, columns, first_row: torch.full((1, rows, columns), word)
    )
    logits = torch.randn(50, 40, generator=torch.Generator().manual_seed(1))
    logits[:, [0, 1, 38, 39]] = -torch.inf
    index = do.straight_through(logits, seed=0, return_index=True, backend=backend)[1]
    assert (index == (2 if word == 0 else 37)).all()


def test_impossible_categories_are_never_drawn(backend):
    logits = torch.zeros(20_000, 6)
    logits[:, [0, 3, 5]] = torch.tensor([-torch.inf, -200.0, -torch.inf])  # exp(-200) is 0 in float32
    index = do.straight_through(logits, seed=4, return_index=True, backend=backend)[1]
    assert set(index.unique().tolist()) == {1, 2, 4}


def _contingency(a: torch.Tensor, b: torch.Tensor, n: int) -> float:
    table = torch.bincount(a * n + b, minlength=n * n).view(n, n).numpy()
    p = scipy.stats.chi2_contingency(table).pvalue
    assert np.isfinite(p)
    return p


@pytest.mark.parametrize("lag", [1, 2, 4, 256])
def test_rows_are_independent(lag, backend):
    index = draw(torch.tensor([0.0, 0.5, -0.5, 1.0]), 50_000, 21, backend)
    assert _contingency(index[:-lag], index[lag:], 4) > LEAST_P


@pytest.mark.parametrize("difference", [1, 2, 2**31, 2**32])
def test_seeds_are_independent(difference, backend):
    logits = torch.tensor([0.0, 0.5, -0.5, 1.0])
    a, b = (draw(logits, 50_000, seed, backend) for seed in (5, 5 + difference))
    assert _contingency(a, b, 4) > LEAST_P


def test_calls_without_a_seed_are_independent(backend):
    torch.manual_seed(0)
    logits = torch.tensor([0.0, 0.5, -0.5, 1.0]).expand(50_000, 4)
    a, b = (do.straight_through(logits, return_index=True, backend=backend)[1] for _ in range(2))
    assert _contingency(a, b, 4) > LEAST_P
    assert chi_squared(torch.cat([a, b]), probabilities(logits[0])) > LEAST_P


def test_first_row_over_calls_without_a_seed(backend):
    """A model draws one small batch a step: what varies is the seed alone."""
    torch.manual_seed(1)
    logits = torch.tensor([[1.0, 0.0, -1.0]])
    index = torch.cat([do.straight_through(logits, return_index=True, backend=backend)[1] for _ in range(3000)])
    assert chi_squared(index, probabilities(logits[0])) > LEAST_P


@pytest.mark.parametrize("shift", [-1e4, 300.0, 1e4])
def test_a_constant_added_to_the_logits_changes_nothing(shift, backend):
    logits = torch.tensor([1.0, 0.5, 0.0, -2.0]).expand(1000, 4)
    plain = do.straight_through(logits, seed=8, backend=backend)
    assert torch.equal(do.straight_through(logits + shift, seed=8, backend=backend), plain)


def test_every_estimator_draws_the_same_sample(backend):
    logits = torch.randn(100, 9, generator=torch.Generator().manual_seed(2))
    first = do.straight_through(logits, seed=6, backend=backend)
    for estimator in do.estimators.ESTIMATORS.values():
        assert torch.equal(estimator()(logits, seed=6, backend=backend), first), estimator
