"""The number 0 as Gumbel-Rao's temperature: its limit, which is ReinMax at temperature 1."""

import itertools

import numpy as np
import pytest
import torch
from helpers import assert_close, draw_and_pull, pairs

import discrete_ops as do
from discrete_ops.estimators import GumbelRao, GumbelSoftmax, ReinMax

LOGITS, V = torch.randn(2, 40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("zero", [0, 0.0, -0.0, np.float32(0), np.int64(0)])
@pytest.mark.parametrize("options", [{}, {"sample_tau": 2.0}, {"hard": False}, {"mask": torch.arange(6) != 2}])
def test_tau_zero_is_reinmax_at_one(backend, zero, options):
    of_reinmax = {name: value for name, value in options.items() if name != "hard"}
    sample_tau = of_reinmax.pop("sample_tau", 1.0)
    want = draw_and_pull(ReinMax(1.0, sample_tau=sample_tau), LOGITS, V, seed=5, backend=backend, **of_reinmax)
    got = draw_and_pull(GumbelRao(zero, num_samples=3), LOGITS, V, seed=5, backend=backend, **options)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def of_every_outcome(estimator: GumbelRao, logits: torch.Tensor, v: torch.Tensor, seed: int) -> torch.Tensor:
    """The mean gradient over the rows that drew a category, one after the other; all rows are the same."""
    _, index, gradient = draw_and_pull(estimator, logits, v, seed=seed)
    return torch.stack([gradient[index == i].mean(0) for i in range(logits.shape[-1])])


def test_gumbel_rao_goes_to_it_as_tau_falls():
    """Half the temperature, less than two thirds of the distance, down to a hundredth of the limit's own size."""
    n = 5
    logits, v = (x[:1, :n].expand(5000, n).contiguous() for x in (LOGITS, V))
    limit = of_every_outcome(GumbelRao(0), logits, v, 3)
    distances = [
        float((of_every_outcome(GumbelRao(tau, 600), logits, v, 3) - limit).norm() / limit.norm())
        for tau in (0.2, 0.1, 0.05, 0.025)
    ]
    assert all(b < a / 1.5 for a, b in itertools.pairwise(distances)), distances
    assert distances[-1] < 0.02, distances


@pairs(("gumbel_rao",))
def test_the_limit_is_read_from_a_string_and_saved(backend, name):
    estimator = do.estimator("gumbel_rao(tau=0, num_samples=7)")
    assert estimator == GumbelRao(0, 7) == do.estimator(str(estimator))
    _, _, got = draw_and_pull(estimator, LOGITS, V, seed=1, backend=backend)
    assert_close(got, draw_and_pull(do.estimator("reinmax"), LOGITS, V, seed=1, backend=backend)[2])


def test_one_draw_has_no_limit_and_is_told_what_has():
    for call in (
        lambda: do.gumbel_softmax(LOGITS, 0),
        lambda: GumbelSoftmax(0.0),
        lambda: do.estimator("gumbel_softmax(tau=0)"),
    ):
        with pytest.raises(ValueError, match=r"^tau: got 0.*allowed.*diverges.*gumbel_rao\(tau=0\)"):
            call()


@pytest.mark.parametrize("tau", [torch.tensor(0.0), torch.tensor([[0.0]] * 20 + [[1.0]] * 20), -1e-9, False])
def test_nothing_else_is_zero(tau):
    """A tensor is a temperature of rows, which have none of another estimator."""
    with pytest.raises((TypeError, ValueError), match=r"^tau: got.*allowed"):
        do.gumbel_rao(LOGITS, tau)
    with pytest.raises((TypeError, ValueError), match=r"^tau: got.*allowed"):
        GumbelRao(tau)


def test_its_other_arguments_are_checked_all_the_same():
    for bad in ({"num_samples": 0}, {"hard": None}, {"return_index": "yes"}, {"dim": 7}):
        with pytest.raises((TypeError, ValueError), match=f"^{next(iter(bad))}: got"):
            do.gumbel_rao(LOGITS, 0, **bad)
