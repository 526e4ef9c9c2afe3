"""Stratified draws: each column's are a Latin hypercube in an order of its own, and no draw's law changes."""

import itertools

import pytest
import torch
from helpers import CPU_BACKENDS, chi_squared, expect_gradient
from scipy import stats

import discrete_ops as do
from discrete_ops import philox
from discrete_ops.estimators import GumbelRao, ReinMaxCV, ReinMaxRao

SEED = 2**41 + 5
STRATIFIED = {
    "gumbel_rao": lambda tau, k: GumbelRao(tau, k, draws="stratified"),
    "reinmax_rao": lambda tau, k: ReinMaxRao(tau, k, draws="stratified"),
    "reinmax_cv": lambda tau, k: ReinMaxCV(tau, 1.5, k, draws="stratified"),
    "reinmax_cv_gumbel": lambda tau, k: ReinMaxCV(tau, 0.6, k, control="gumbel", draws="stratified"),
}


def order(count: int, rows: int, columns: int, draws: torch.Tensor | None = None, first: int = 0) -> torch.Tensor:
    draws = torch.arange(first, first + count) if draws is None else draws
    return philox.stratum(torch.tensor([SEED]), draws, rows, columns, philox.Strata(first, count))


# ---------------------------------------------------------------------------------------------------
# The order of the strata


@pytest.mark.parametrize("count", [*range(1, 40), 63, 64, 65, 97, 100, 128, 257, 1000])
def test_every_column_has_a_permutation_of_its_own(count):
    x = order(count, 6, 5)
    assert torch.equal(x.sort(0).values, torch.arange(count)[:, None, None].expand(count, 6, 5))
    if count > 20:
        assert len({tuple(column) for column in x.flatten(1).t().tolist()}) == 30


@pytest.mark.parametrize("count", [2**31 - 2, 2**30 + 1, 2**20])
def test_a_large_number_of_strata(count):
    """Draws at both ends of it and between: in range, and no two alike."""
    draws = torch.cat([torch.arange(500), torch.arange(500) * (count // 501) + 1000, count - 1 - torch.arange(500)])
    x = order(count, 3, 4, draws)
    assert ((x >= 0) & (x < count)).all()
    assert all(len(column.unique()) == len(draws.unique()) for column in x.flatten(1).t())


@pytest.mark.parametrize("count", [2, 7, 16, 100])
def test_a_draw_is_anywhere_in_any_two_columns(count):
    """The law of one draw: uniform in a column, and independent of its other columns."""
    x = order(count, 20_000 if count < 50 else 100_000, 6, torch.tensor([0, count // 2, count - 1]))
    for draw in x:
        assert chi_squared(draw, torch.ones(count)) > 1e-4
        for a, b in ((0, 1), (0, 3), (3, 4)):  # of one block of noise, and of two
            assert chi_squared(count * draw[:, a] + draw[:, b], torch.ones(count**2)) > 1e-4


def test_two_draws_keep_their_distance_as_seldom_as_any_other():
    """In two columns at once, over all pairs of draws: what would make their soft samples alike."""
    count = 32
    x = order(count, 3000, 2)
    distance = (x[:, None] - x[None]) % count
    a, b = distance[~torch.eye(count, dtype=torch.bool)].unbind(-1)
    assert float((a == b).double().mean()) == pytest.approx(1 / (count - 1), rel=0.1)


def test_the_first_draw_may_be_any():
    assert torch.equal(order(9, 3, 4, first=1), order(9, 3, 4, first=0))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_noise_has_one_draw_a_stratum_and_resolves_its_small_end(dtype):
    count, seed = 50, torch.tensor([SEED])
    E = philox.exponential(seed, torch.arange(count), 2000, 4, dtype, strata=philox.Strata(0, count)).double()
    u = -torch.expm1(-E)
    assert torch.equal((u * count - 1e-9).floor().long().sort(0).values[:, 0, 0].clamp(0), torch.arange(count))
    assert ((E > 0) & E.isfinite()).all()
    word = philox.words(seed, torch.arange(count), 2000, 4).double()
    small = order(count, 2000, 4) == 0
    torch.testing.assert_close(u[small], (word[small] + 0.5) * 2.0**-32 / count, rtol=1e-6, atol=0)
    assert stats.kstest(u[17].flatten().numpy(), "uniform").pvalue > 1e-4


# ---------------------------------------------------------------------------------------------------
# The estimators


@pytest.mark.parametrize("name", STRATIFIED)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_pull_back_is_the_papers_formula_on_stratified_noise(backend, name, dtype):
    g = torch.Generator().manual_seed(0)
    for columns, k in itertools.product((2, 7, 67), (1, 2, 5, 16)):
        logits, v = torch.randn(2, 5, columns, dtype=torch.float64, generator=g)
        expect_gradient(STRATIFIED[name](0.7, k), logits.to(dtype), v.to(dtype), SEED, backend)


def of_independent(estimator):
    return type(estimator)(**{**estimator._parameters(), "draws": "independent"})


def test_one_stratum_is_independent_draws(backend):
    logits = torch.randn(9, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for make in STRATIFIED.values():
        gradients = []
        for estimator in (make(0.5, 1), of_independent(make(0.5, 1))):
            x = logits.clone().requires_grad_()
            estimator(x, seed=2, backend=backend)[:, 0].sum().backward()
            gradients.append(x.grad)
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)


def moments(estimator, rows: int, seed: int):
    """Mean and variance of the gradient at one row's logits, by the category drawn, of ``<v, D>``."""
    g = torch.Generator().manual_seed(7)
    l, v = torch.randn(2, 5, dtype=torch.float64, generator=g)  # noqa: E741
    x = l.expand(rows, 5).clone().requires_grad_()
    D, index = estimator(x, return_index=True, seed=seed)
    D.backward(v.expand(rows, 5))
    return [(x.grad[index == i].mean(0), x.grad[index == i].var(0), int((index == i).sum())) for i in range(5)]


@pytest.mark.parametrize("name", STRATIFIED)
def test_the_mean_given_the_sample_is_that_of_independent_draws(name):
    few, many = (
        moments(STRATIFIED[name](0.5, 8), 4000, 11),
        moments(of_independent(STRATIFIED[name](0.5, 8)), 20_000, 12),
    )
    for (mean, variance, n), (want, its, m) in zip(few, many, strict=True):
        assert ((mean - want).abs() < 4.5 * (variance / n + its / m).sqrt() + 1e-12).all()


@pytest.mark.parametrize("name", ["gumbel_rao", "reinmax_rao"])
@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_sixteen_stratified_draws_vary_less_than_thirty_two_independent_ones(name, tau):
    def spread(estimator):
        return sum(float(variance.sum()) * n for _, variance, n in moments(estimator, 6000, 5)) / 6000

    sixteen = STRATIFIED[name](tau, 16)
    assert spread(sixteen) < spread(of_independent(STRATIFIED[name](tau, 32)))
    assert spread(sixteen) > spread(of_independent(STRATIFIED[name](tau, 1000)))


def test_a_soft_sample_and_its_derivative_in_tau(backend):
    logits = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    tau = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)

    def soft(tau):
        return do.gumbel_rao(logits, tau, 8, draws="stratified", hard=False, seed=3, backend=backend)

    v = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    (got,) = torch.autograd.grad(soft(tau), tau, v)
    step = 1e-5
    want = ((soft(0.6 + step) - soft(0.6 - step)) * v).sum() / (2 * step)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-8)


def test_the_default_is_independent_and_other_words_are_errors():
    assert GumbelRao() == GumbelRao(draws="independent") != GumbelRao(draws="stratified")
    assert do.estimator("reinmax_rao(draws='stratified')") == ReinMaxRao(draws="stratified")
    for call in (lambda d: GumbelRao(draws=d), lambda d: do.reinmax_cv(torch.zeros(2, 3), draws=d)):
        for bad in ("Stratified", None, True, ""):
            with pytest.raises(ValueError, match=r"^draws: got .*allowed: 'independent', 'stratified'"):
                call(bad)


def test_a_tensor_of_eta_is_called_by_its_name():
    with pytest.raises(ValueError, match=r"^eta: got"):
        do.reinmax_cv(torch.zeros(4, 3), eta=torch.ones(3, 1), draws="stratified")
