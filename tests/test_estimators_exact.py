"""Each estimator's pull-back against the papers' formulas, written naively in ``helpers.py``."""

import importlib
import itertools

import pytest
import torch
from helpers import (
    CASES,
    FLOATS,
    SOFT,
    TOLERANCE,
    assert_close,
    conditional,
    draw_and_pull,
    every_estimator,
    every_soft,
    expect_gradient,
    jacobian,
    make,
    naive_gradient,
    naive_soft,
    noise,
    pairs,
)
from hypothesis import given
from hypothesis import strategies as st

import discrete_ops as do
from discrete_ops import backends

pypi = importlib.import_module("reinmax.reinmax")  # the package hides this module behind its function

SEED = 2**40 + 77  # more than 32 bits


def inputs(rows: int, columns: int, dtype: torch.dtype = torch.float64, scale: float = 2.0):
    g = torch.Generator().manual_seed(rows * 1000 + columns)
    l, v = torch.randn(2, rows, columns, dtype=torch.float64, generator=g)  # noqa: E741
    return (l * scale).to(dtype), v.to(dtype)


@every_estimator
@pytest.mark.parametrize("tau", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("columns", [1, 2, 7, 33])
def test_pull_back_is_autograd_through_the_papers_formula(backend, name, tau, columns):
    expect_gradient(make(name, tau), *inputs(20, columns), SEED, backend)


@every_estimator
@pytest.mark.parametrize("dtype", FLOATS[1:])
@pytest.mark.parametrize("columns", [2, 10, 130])
def test_pull_back_in_lower_precision(backend, name, dtype, columns):
    expect_gradient(make(name, 0.7), *inputs(20, columns, dtype), SEED, backend)


@pairs(("gumbel_rao", "reinmax_rao", "reinmax_cv", "reinmax_cv_gumbel"))
@pytest.mark.parametrize("num_samples", [1, 2, 5, 64])
def test_number_of_samples(backend, name, num_samples):
    expect_gradient(make(name, 0.5, num_samples), *inputs(11, 6), SEED, backend)


@pairs(("gumbel_rao", "reinmax_rao", "reinmax_cv"))
def test_more_noise_than_is_held_at_once(backend, name):
    """10 x 30000 x 4 elements of noise: the draws come in chunks, the last one short."""
    expect_gradient(make(name, 0.5, 10), *inputs(30_000, 4), SEED, backend)


@pairs(("gumbel_rao", "gst_pi", "reinmax_cv"))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_length_of_row_and_batch(backend, name, dtype):
    """Kernels work in vectors of rows or of columns, and in blocks of them: every remainder is met."""
    for rows, columns in [(3, n) for n in (*range(1, 70), 127, 128, 129, 257)] + [
        (r, n) for n in (3, 67) for r in range(1, 36)
    ]:
        expect_gradient(make(name, 0.8, 2), *inputs(rows, columns, dtype), SEED, backend)


@pairs(("straight_through", "gumbel_softmax", "gst_pi"))
@pytest.mark.parametrize("columns", [1023, 4096, 50_001])
def test_long_rows(backend, name, columns):
    """Most elements are tiny: each within a share of its own size ``p (|v| + <p, |v|>) / tau``, not of the largest."""
    estimator = make(name, 0.8)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        l, v = inputs(2, columns, dtype)  # noqa: E741
        D, _, got = draw_and_pull(estimator, l, v, seed=SEED, backend=backend)
        l, v, D, E = l.double(), v.double(), D.double(), noise(SEED, 1, 2, columns, dtype)  # noqa: E741
        p = naive_soft(estimator, l, D, E)
        bound = TOLERANCE[dtype] * p * (v.abs() + (p * v.abs()).sum(-1, keepdim=True)) / 0.8
        error = (got.double() - naive_gradient(estimator, l, D, v, E)).abs()
        assert (error <= bound + torch.finfo(torch.float32).tiny).all()


@every_estimator
@given(data=st.data())
def test_pull_back_at_any_logits_and_temperature(backend, name, data):
    rows, columns = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
    numbers = st.lists(st.floats(-8, 8), min_size=rows * columns, max_size=rows * columns)
    logits, v = (torch.tensor(data.draw(numbers), dtype=torch.float64).view(rows, columns) for _ in range(2))
    if name.startswith("nz_"):  # a kink has no derivative: keep off the ties
        logits += torch.arange(columns).double() * 1e-3
    tau = data.draw(st.floats(0.1, 10))
    seed, num_samples = data.draw(st.integers(0, 2**63 - 1)), data.draw(st.integers(1, 4))
    expect_gradient(make(name, tau, num_samples), logits, v, seed, backend)


@every_estimator
@pytest.mark.parametrize("tau", [0.3, 1.0])
def test_masked_columns_are_as_if_they_were_not_there(backend, name, tau):
    """Naively on the kept columns alone, with the noise of their places."""
    estimator, rows, columns = make(name, tau), 15, 9
    keep = torch.tensor([1, 2, 4, 7])
    l, v = inputs(rows, columns)  # noqa: E741
    masked = torch.full_like(l, -torch.inf)
    masked[:, keep] = l[:, keep]
    sample, _, got = draw_and_pull(estimator, masked, v, seed=SEED, backend=backend)
    E = noise(SEED, 1 + getattr(estimator, "num_samples", 1), rows, columns)
    want = torch.zeros_like(got)
    want[:, keep] = naive_gradient(estimator, l[:, keep], sample[:, keep], v[:, keep], E[..., keep])
    assert sample[:, keep].sum() == rows
    assert_close(got, want)
    assert (got[masked == -torch.inf] == 0).all()


@pairs([name for name in CASES if name != "reinmax_rk2_1.3"])
def test_gradient_sums_to_zero_along_the_categories(backend, name):
    """A constant added to the logits changes no probability (BR Eq. 27 alone keeps this at beta = 1/2 only)."""
    l, v = inputs(30, 12, scale=5.0)  # noqa: E741
    _, _, gradient = draw_and_pull(make(name), l, v, seed=1, backend=backend)
    assert_close(gradient.sum(-1), torch.zeros(30, dtype=torch.float64))
    assert gradient.abs().max() > 1e-3


@every_soft
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("tau", [0.3, 2.5])
def test_hard_and_soft_share_draw_noise_and_gradient(backend, name, dtype, tau):
    estimator = make(name, tau)
    l, v = inputs(20, 7, dtype)  # noqa: E741
    hard, index, gradient = draw_and_pull(estimator, l, v, seed=SEED, backend=backend)
    soft, soft_index, soft_gradient = draw_and_pull(estimator, l, v, seed=SEED, backend=backend, hard=False)
    assert torch.equal(index, soft_index)
    assert torch.equal(gradient, soft_gradient)
    E = noise(SEED, 3, 20, 7, dtype)
    assert_close(soft, naive_soft(estimator, l.double(), hard.double(), E))
    if name != "gst_0":  # a gap of 0 ties
        assert torch.equal(soft.argmax(-1), index)


def test_gumbel_rao_of_one_draw_is_gumbel_softmax(backend):
    l, v = inputs(30, 7, torch.float32)  # noqa: E741
    one = draw_and_pull(make("gumbel_rao", 0.5, 1), l, v, seed=3, backend=backend)
    stgs = draw_and_pull(make("gumbel_softmax", 0.5), l, v, seed=3, backend=backend)
    for a, b in zip(one, stgs, strict=True):
        assert torch.equal(a, b)
    soft = do.gumbel_rao(l, 0.5, 1, hard=False, seed=3, backend=backend)
    assert torch.equal(soft, do.gumbel_softmax(l, 0.5, seed=3, backend=backend))


def test_gumbel_rao_is_the_mean_over_its_draws(backend):
    """K draws = K gradients of the naive single draw, averaged; no draw is used twice."""
    l, v = inputs(10, 5)  # noqa: E741
    D, _, got = draw_and_pull(make("gumbel_rao", 0.5, 6), l, v, seed=SEED, backend=backend)
    E, single = noise(SEED, 6, 10, 5), make("gumbel_softmax", 0.5)
    each = [naive_gradient(single, l, D, v, E[k : k + 1]) for k in range(6)]
    assert_close(got, sum(each) / 6)
    assert all(not torch.allclose(a, b) for a, b in itertools.combinations(each, 2))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("tau", [0.3, 1.0, 2.5])
def test_reinmax_is_the_pypi_package(dtype, tau, backend, monkeypatch):
    l, v = inputs(40, 7, dtype)  # noqa: E741
    sample, index, got = draw_and_pull(do.estimators.ReinMax(tau), l, v, seed=4, backend=backend)
    monkeypatch.setattr(torch, "multinomial", lambda *_, **__: index[:, None])
    l.requires_grad_()
    theirs, _ = pypi.reinmax(l, tau)
    assert torch.equal(theirs, sample)
    torch.testing.assert_close(got, torch.autograd.grad(theirs, l, v)[0], rtol=1e-6, atol=1e-6 * max(1, 1 / tau))


@pytest.mark.parametrize("tau", [0.3, 1.0])
def test_reinmax_as_shifted_softmaxes(tau, backend):
    """BR Eq. 12 by autograd: a softmax of logits moved, as constants, to ``log p_D``."""
    l, v = inputs(30, 6)  # noqa: E741
    D, _, got = draw_and_pull(do.estimators.ReinMax(tau), l, v, seed=4, backend=backend)
    l.requires_grad_()
    l_D = (((l / tau).softmax(-1) + D) / 2).log()
    pulled = 2 * (l + (l_D - l).detach()).softmax(-1) - l.softmax(-1) / 2
    assert_close(got, torch.autograd.grad(pulled, l, v)[0])


@pytest.mark.parametrize("control", ["soft", "gumbel"])
@pytest.mark.parametrize("tau", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("per_row", [False, True])
def test_reinmax_cv_as_shifted_softmaxes(tau, control, per_row, backend):
    """BR Eq. 18 by autograd: the terms weighted by eta are softmaxes at tau of logits moved, as constants."""
    l, v = inputs(30, 6)  # noqa: E741
    temperature = tau * torch.linspace(0.6, 1.4, 30, dtype=torch.float64)[:, None] if per_row else tau
    cv = do.estimators.ReinMaxCV(temperature, eta=1.5, num_samples=4, control=control)
    D, _, got = draw_and_pull(cv, l, v, seed=5, backend=backend)
    l_D, E = ((l.softmax(-1) + D) / 2).log(), noise(5, 5, *l.shape)
    soft_sample = (conditional(l, D, E[0]) / temperature).softmax(-1)
    nudged = temperature * (l_D + soft_sample) if control == "soft" else conditional(l_D, D, E[0])
    l.requires_grad_()

    def moved(to, tau):
        return ((l + (to - l).detach()) / tau).softmax(-1)

    of_rao = sum(moved(conditional(l_D, D, e), temperature) for e in E[1:]) / 4
    pulled = 2 * moved(l_D, 1.0) - l.softmax(-1) / 2 - 1.5 * moved(nudged, temperature) + 1.5 * of_rao
    assert_close(got, torch.autograd.grad(pulled, l, v)[0])


@pytest.mark.parametrize("control", ["soft", "gumbel"])
def test_reinmax_cv_of_weight_zero_is_reinmax(control, backend):
    l, v = inputs(30, 6)  # noqa: E741
    cv = do.estimators.ReinMaxCV(0.3, eta=0.0, num_samples=4, control=control)  # p_D is at temperature 1 whatever tau
    got = draw_and_pull(cv, l, v, seed=5, backend=backend)[2]
    want = draw_and_pull(do.estimators.ReinMax(1.0), l, v, seed=5, backend=backend)[2]
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)


def kernel(backend, name, coefficient, l, v):  # noqa: E741
    """Straight from the backend, at temperature 1: the pull-back in row i is that of the outcome D = i."""
    if name == "reinmax_rk2_centred":
        name, coefficient = "mix", 2 * coefficient
    arguments = v, l, torch.arange(len(l)), torch.tensor([0])
    return backends.get(backend).surrogate_vjp(*arguments, (1.0, coefficient, 1.0), name, 1)


@pytest.mark.parametrize("name", ["reinmax_rk2", "reinmax_rk2_centred"])
def test_rk2_of_one_half_is_reinmax(name, backend):
    l, v = inputs(6, 6)  # noqa: E741
    reinmax = kernel(backend, "reinmax", 0.0, l, v)
    assert_close(kernel(backend, name, 0.5, l, v), reinmax)
    assert (kernel(backend, name, 0.6, l, v) - reinmax).abs().max() > 1e-2


def test_centred_rk2_of_zero_is_straight_through(backend):
    l, v = inputs(6, 6)  # noqa: E741
    straight_through = kernel(backend, "straight_through", 0.0, l, v)
    assert_close(kernel(backend, "reinmax_rk2_centred", 0.0, l, v), straight_through)
    assert (kernel(backend, "reinmax_rk2", 0.0, l, v) - straight_through).abs().max() > 1e-2


@pytest.mark.parametrize("beta", [-0.2, 0.3, 1.0, 40.0])
def test_centred_rk2_is_a_mix_of_straight_through_and_zgr(beta, backend):
    """``2 a J(p_D) + (1 - 3 a / 2) J(pi)`` at a = 2 beta: the outer product of its definition is two Jacobians."""
    l, v = inputs(6, 6)  # noqa: E741
    a, pi, D = 2 * beta, l.softmax(-1), torch.eye(6, dtype=torch.float64)
    p_D = (pi + D) / 2
    mix = 2 * a * jacobian(p_D, p_D) + (1 - 1.5 * a) * jacobian(pi, pi)
    outer = (1 - beta) * jacobian(pi, pi) + beta * (D - pi)[:, :, None] * (D - pi)[:, None, :]
    torch.testing.assert_close(mix, outer, rtol=0, atol=1e-13 * max(1, a))
    assert_close(kernel(backend, "reinmax_rk2_centred", beta, l, v), (mix @ v[..., None])[..., 0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("beta", [1e30, -1e30])
@pytest.mark.parametrize("columns", [7, 70])
def test_centred_rk2_of_any_beta_is_finite_where_its_result_is(beta, dtype, columns, backend):
    """Where pi is D or a category is masked it is 0, and no product of beta and a large gradient."""
    l, v = inputs(6, columns, dtype)  # noqa: E741
    l[0, 1:], l[:, -1] = -1e4, -torch.inf
    v[0] *= 1e25
    got = kernel(backend, "reinmax_rk2_centred", beta, l, v)
    pi, D = l.double().softmax(-1), torch.eye(columns, dtype=torch.float64)[:6]
    outer = (v * (D - pi)).sum(-1, keepdim=True) * (D - pi)
    want = (1 - beta) * (jacobian(pi, pi) @ v.double()[..., None])[..., 0] + beta * outer
    assert got.isfinite().all()
    assert (got[0] == 0).all()
    assert (got[:, -1] == 0).all()
    assert_close(got, want)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 1.3])
@pytest.mark.parametrize("name", ["reinmax_rk2", "reinmax_rk2_centred"])
def test_rk2_is_unbiased_for_a_linear_function(name, beta, backend):
    """Enumerated over D with one v for all of them: the mean is ``J(pi) v`` whatever beta."""
    l, v = (x.expand(5, 5).contiguous() for x in inputs(1, 5))  # noqa: E741
    pi = l[0].softmax(-1)
    mean = (pi[:, None] * kernel(backend, name, beta, l, v)).sum(0)
    assert_close(mean, jacobian(pi, pi) @ v[0])


def test_reinmax_is_second_order(backend):
    """For a quadratic f, E_D of ReinMax at the gradient of f is the exact gradient of E f(D) (BR sec. 2)."""
    n = 5
    l = inputs(1, n)[0][0].requires_grad_()  # noqa: E741
    A = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    b = torch.linspace(-1, 1, n, dtype=torch.float64)
    D = torch.eye(n, dtype=torch.float64).requires_grad_()
    f = ((D @ A) * D).sum(-1) + D @ b
    exact = torch.autograd.grad(l.softmax(-1) @ f.detach(), l)[0]
    (v,) = torch.autograd.grad(f.sum(), D)
    each = kernel(backend, "reinmax", 0.0, l.detach().expand(n, n).contiguous(), v)
    assert_close((l.detach().softmax(-1)[:, None] * each).sum(0), exact)


@pairs([n for n in CASES if n not in ("straight_through", "gst_0")])
def test_jacrev_gives_the_whole_matrix(backend, name):
    """The pull-back is linear in v: its matrix column by column, and vmapped by torch.func."""
    estimator, n = make(name, 0.6), 5
    l = inputs(1, n)[0][0]  # noqa: E741
    rows = torch.func.jacrev(lambda x: estimator(x, seed=9, backend=backend))(l)
    E = noise(9, 4, 1, n)
    D = estimator(l, seed=9, backend=backend)
    for j, v in enumerate(torch.eye(n, dtype=torch.float64)):
        assert_close(rows[j], naive_gradient(estimator, l[None], D[None], v[None], E)[0])


def test_straight_through_is_the_softmaxs_jacobian(backend):
    l = inputs(1, 6)[0][0]  # noqa: E741
    p = (l / 0.5).softmax(-1)
    got = torch.func.jacrev(lambda x: do.straight_through(x, 0.5, seed=2, backend=backend))(l)
    assert_close(got, jacobian(p, p) / 0.5)


@every_estimator
def test_groups_of_seeds_equal_separate_calls(backend, name):
    estimator = make(name, 0.5)
    l, v = inputs(12, 5)  # noqa: E741
    seeds = [8, 2**50, 9]
    together = draw_and_pull(estimator, l, v, seed=torch.tensor(seeds), backend=backend)
    for group, seed in enumerate(seeds):
        part = slice(4 * group, 4 * group + 4)
        alone = draw_and_pull(estimator, l[part], v[part], seed=seed, backend=backend)
        assert torch.equal(together[0][part], alone[0])
        assert torch.equal(together[1][part], alone[1])
        assert_close(together[2][part], alone[2])


def test_every_public_function_is_under_test():
    tested = {type(make(name)) for name in CASES}
    assert tested == set(do.estimators.ESTIMATORS.values())
    assert set(SOFT) <= set(CASES)
