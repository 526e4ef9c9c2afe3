"""Gumbel noise: the laws it must have, the means it must keep, and no NaN at any logits and temperature."""

import mpmath
import pytest
import scipy.stats
import torch
from helpers import (
    CPU_BACKENDS,
    assert_mean,
    chi_squared,
    draw_and_pull,
    every_estimator,
    jacobian,
    make,
    noise,
    pairs,
)
from hypothesis import example, given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import discrete_ops as do
from discrete_ops import backends

LEAST_P = 1e-4  # seeds are fixed

# ---------------------------------------------------------------------------------------------------
# Laws: D first and Y | D after it must be Y = l + G first and D = argmax Y after it

LOGITS = torch.tensor([1.0, 0.0, -1.5, 0.5], dtype=torch.float64)


def soft_samples(backend: str, tau: float, rows: int = 20_000, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    rows = LOGITS.to(dtype).expand(rows, -1)
    return do.gumbel_softmax(rows, tau, seed=31, backend=backend).double()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_differences_of_the_perturbed_logits_are_logistic(dtype, backend):
    """``Y_a - Y_b`` of independent Gumbels has the logistic law around ``l_a - l_b``, D mixed over."""
    log_soft = soft_samples(backend, 2.0, dtype=dtype).log() * 2.0
    for a, b in [(0, 1), (2, 1), (0, 2), (3, 0)]:
        difference = (log_soft[:, a] - log_soft[:, b]).numpy()
        law = scipy.stats.logistic(loc=(LOGITS[a] - LOGITS[b]).item())
        assert scipy.stats.kstest(difference, law.cdf).pvalue > LEAST_P


def test_argmax_of_the_soft_sample_is_categorical(backend):
    assert chi_squared(soft_samples(backend, 0.7).argmax(-1), LOGITS.softmax(-1)) > LEAST_P


@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_soft_samples_have_the_law_of_torchs(tau, backend):
    torch.manual_seed(1)
    theirs = torch.nn.functional.gumbel_softmax(LOGITS.expand(20_000, -1), tau)
    ours = soft_samples(backend, tau)
    for component in range(4):
        assert scipy.stats.ks_2samp(ours[:, component].numpy(), theirs[:, component].numpy()).pvalue > LEAST_P


def test_lead_of_the_winner_depends_on_the_winner_as_it_should(backend):
    """Given D = i the lead over any other j alone: P(Y_i - Y_j > t | D = i) for two categories, in closed form."""
    l = torch.tensor([1.2, 0.0], dtype=torch.float64)  # noqa: E741
    soft = do.gumbel_softmax(l.expand(40_000, 2), 1.0, seed=3, backend=backend).log()
    for i in (0, 1):
        lead = (soft[:, i] - soft[:, 1 - i])[soft.argmax(-1) == i]
        law = scipy.stats.logistic(loc=(l[i] - l[1 - i]).item())
        truncated = lambda t, law=law: (law.cdf(t) - law.cdf(0)) / law.sf(0)  # noqa: E731
        assert scipy.stats.kstest(lead.numpy(), truncated).pvalue > LEAST_P


def test_draws_of_one_row_are_independent_given_the_sample(backend):
    """Leads in draws 0 and 1 are uncorrelated; so GR of two draws halves the variance of STGS given D."""
    l = torch.zeros(40_000, 2, dtype=torch.float64)  # noqa: E741
    v = torch.tensor([1.0, 0.0], dtype=torch.float64).expand_as(l)
    one, two = (draw_and_pull(make("gumbel_rao", 1.0, k), l, v, seed=5, backend=backend)[2][:, 0] for k in (1, 2))
    first, second = one, 2 * two - one
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 4 / 200
    assert (first != second).all()


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operator returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [x.numel() for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        self.elements = max(self.elements, *sizes, 0)
        return out


@pairs(("gumbel_rao", "reinmax_rao", "reinmax_cv"))
def test_noise_held_at_once_is_bounded(backend, name):
    """40 draws of 2000 x 64 are 5 million numbers; never are more than 2 million of them there."""
    with Largest() as largest:
        draw_and_pull(make(name, 1.0, 40), torch.zeros(2000, 64), torch.ones(2000, 64), seed=1, backend=backend)
    assert 2000 * 64 <= largest.elements < 2**21


# ---------------------------------------------------------------------------------------------------
# Means

V = torch.tensor([0.3, -1.0, 2.0, 0.7], dtype=torch.float64)


def gradients(name: str, backend: str, rows: int, tau: float = 0.7, k: int = 4, seed: int = 17) -> torch.Tensor:
    l = LOGITS.expand(rows, -1)  # noqa: E741
    v = V + LOGITS.cos() * l.new_tensor(0.5)
    return draw_and_pull(make(name, tau, k), l, v.expand_as(l), seed=seed, backend=backend)[2]


def test_stgs_and_gumbel_rao_have_one_mean(backend):
    stgs, rao = gradients("gumbel_softmax", backend, 100_000), gradients("gumbel_rao", backend, 40_000, seed=18)
    error = (stgs.var(0) / len(stgs) + rao.var(0) / len(rao)).sqrt()
    assert (((stgs.mean(0) - rao.mean(0)) / error).abs() < 4).all()
    assert (rao.var(0) < 0.8 * stgs.var(0)).all()


def test_stgs_has_the_mean_of_torchs(backend):
    torch.manual_seed(0)
    l = LOGITS.expand(100_000, -1).clone().requires_grad_()  # noqa: E741
    v = V + LOGITS.cos() * 0.5
    theirs = torch.autograd.grad(torch.nn.functional.gumbel_softmax(l, 0.7, hard=True), l, v.expand_as(l))[0]
    ours = gradients("gumbel_softmax", backend, 100_000)
    error = (ours.var(0) / len(ours) + theirs.var(0) / len(theirs)).sqrt()
    assert (((ours.mean(0) - theirs.mean(0)) / error).abs() < 4).all()
    torch.testing.assert_close(ours.var(0), theirs.var(0), rtol=0.05, atol=0)


@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_reinmax_cv_with_a_gumbel_control_keeps_reinmaxs_mean(tau, backend):
    """Against the mean of ReinMax at temperature 1, enumerated over the four outcomes."""
    pi, v = LOGITS.softmax(-1), V + LOGITS.cos() * 0.5
    want = torch.zeros(4, dtype=torch.float64)
    for i, D in enumerate(torch.eye(4, dtype=torch.float64)):
        p_D = (pi + D) / 2
        want += pi[i] * (2 * jacobian(p_D, p_D) - jacobian(pi, pi) / 2) @ v
    assert_mean(gradients("reinmax_cv_gumbel", backend, 60_000, tau, k=2), want)


# ---------------------------------------------------------------------------------------------------
# Extremes, against 60 digits


def exact_rao(l: list[float], i: int, E: torch.Tensor, v: list[float], tau: float) -> list[float]:  # noqa: E741
    """Gumbel-Rao of one row as the paper prints it, in numbers that neither round nor overflow."""
    n, draws = len(l), len(E)
    kept = [j for j in range(n) if l[j] != -float("inf")]
    total = [mpmath.mpf(0)] * n
    with mpmath.workdps(60):
        x = {j: mpmath.mpf(l[j]) for j in kept}
        Z = mpmath.fsum(mpmath.exp(x[j]) for j in kept)
        for k in range(draws):
            e = [mpmath.mpf(z) for z in E[k].tolist()]
            y = {j: mpmath.log(Z) - mpmath.log(e[i]) if j == i else None for j in kept}
            y |= {j: -mpmath.log(e[j] / mpmath.exp(x[j]) + e[i] / Z) for j in kept if j != i}
            weight = {j: mpmath.exp((y[j] - y[i]) / tau) for j in kept}
            p = {j: weight[j] / mpmath.fsum(weight.values()) for j in kept}
            mean = mpmath.fsum(p[j] * v[j] for j in kept)
            for j in kept:
                total[j] += p[j] * (v[j] - mean) / (tau * draws)
        return [float(t) for t in total]


inf = float("inf")
ROWS = [
    [1e4, -1e4, 0.0, 9999.0, 9998.5],
    [-1e4, -1e4, -1e4 - 3, -1e4 + 1, -2e4],
    [1e4, 1e4, 1e4, 1e4, 1e4],
    [46.0, 50.0, 47.0, -3.0, 90.0],  # from 46 on, float32 formulas with exp(l) break
    [1e4, -inf, 9999.0, -inf, -1e4],
    [-inf, -1e4, -inf, -inf, 1e4],
    [-inf, -inf, 3.0, -inf, -inf],
    [1e-40, -1e-40, 0.0, 1e-45, 5e-324],
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("tau", [1e-3, 0.01, 1.0, 1e3])
@pytest.mark.parametrize("row", range(len(ROWS)))
def test_gumbel_rao_at_extreme_logits(row, tau, dtype, backend):
    """For every outcome that is not masked, however unlikely: straight from the kernel."""
    draws = 3
    logits = torch.tensor(ROWS[row], dtype=dtype)
    index = torch.tensor([j for j in range(5) if logits[j] != -inf])
    count = len(index)
    v = torch.tensor([1.0, -2.0, 0.5, 3.0, -0.25], dtype=dtype)
    spread = lambda x: x.expand(count, 5).contiguous()  # noqa: E731
    kernel = backends.get(backend).surrogate_vjp
    got = kernel(spread(v), spread(logits), index, torch.tensor([12]), (tau, 0.0, 1.0), "gumbel_rao", draws)
    E = noise(12, draws, count, 5, dtype)
    want = [exact_rao(logits.tolist(), int(i), E[:, r], v.tolist(), tau) for r, i in enumerate(index)]
    # As a share of 1/tau, the largest gradient there is. In float32 the exponent log(.)/tau carries an error of
    # 1e-7 of itself, which is up to 100 before its exponential is 0.
    slack = 1e-9 if dtype == torch.float64 else 3e-5
    torch.testing.assert_close(got.double() * tau, torch.tensor(want, dtype=torch.float64) * tau, rtol=0, atol=slack)
    assert (got[:, logits == -inf] == 0).all()


def assert_sane(backend: str, name: str, tau: float, logits: torch.Tensor) -> None:
    """No NaN, no inf, rows one-hot (or zero where masked whole), gradients within their bound."""
    v = torch.linspace(-1, 1, logits.numel()).view_as(logits).to(logits.dtype)
    estimator = make(name, tau)
    sample, index, gradient = draw_and_pull(estimator, logits, v, seed=2, backend=backend)
    alive = (logits != -inf).any(-1)
    assert torch.equal(sample.sum(-1), alive.to(sample.dtype))
    assert torch.equal(index >= 0, alive)
    assert not sample[logits == -inf].any()
    assert gradient.isfinite().all()
    # |J(p, q; v)| <= 2 max |v|; the weights: 2 + 1/2 (+ eta + eta / tau), 2 beta, or 2 / tau
    assert (gradient.abs() <= 12 * max(1.0, 1 / tau)).all()
    assert not gradient[logits == -inf].any()


EXTREMES = [0.0, 1.0, -1.0, 1e4, -1e4, 1e38, -1e38, 3e38, -3e38, 1e-38, 1e-40, -1e-40, 1e-45, -inf, 88.0, -104.0, 46.0]


@every_estimator
@pytest.mark.parametrize("tau", [1e-3, 0.01, 1.0, 1e3])
def test_every_pair_of_extreme_logits(backend, name, tau):
    values = torch.tensor(EXTREMES)
    logits = torch.cartesian_prod(values, values)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        assert_sane(backend, name, tau, logits.to(dtype))
    assert_sane(backend, name, tau, logits.clamp(-65504, 65504).masked_fill(logits == -inf, -inf).half())


@every_estimator
@given(data=st.data())
def test_never_nan(backend, name, data):
    n = data.draw(st.integers(1, 6))
    number = st.one_of(st.sampled_from(EXTREMES), st.floats(width=32, allow_nan=False, max_value=2.0**127))
    rows = data.draw(st.lists(st.lists(number, min_size=n, max_size=n), min_size=1, max_size=3))
    tau = data.draw(st.one_of(st.sampled_from([1e-3, 0.01, 1e3]), st.floats(1e-3, 1e3)))
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    assert_sane(backend, name, tau, torch.tensor(rows, dtype=dtype))


@pytest.mark.parametrize("name", ["gumbel_softmax", "gst_pi", "reinmax_rao", "reinmax_cv"])
@pytest.mark.parametrize("backend", CPU_BACKENDS)
@given(scale=st.floats(-320, 308))
@example(scale=308.0)
@example(scale=-320.0)
def test_never_nan_over_the_whole_range_of_float64(backend, name, scale):
    logits = torch.tensor([[1.0, -1.0, 0.5], [1.0, 1.0, -1.0]], dtype=torch.float64) * 10.0**scale
    assert_sane(backend, name, 0.01, logits)


@pytest.mark.parametrize("tau", [1e-3, 0.01])
def test_soft_samples_grow_hard_as_tau_falls(tau, backend):
    l = torch.randn(1000, 8, generator=torch.Generator().manual_seed(0)) * 3  # noqa: E741
    soft, index = do.gumbel_softmax(l, tau, seed=1, return_index=True, backend=backend)
    assert torch.equal(soft.argmax(-1), index)
    assert (soft.amax(-1) > 0.999).float().mean() > 0.9
    torch.testing.assert_close(soft.sum(-1), torch.ones(1000))


def test_soft_samples_grow_uniform_as_tau_rises(backend):
    l = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))  # noqa: E741
    soft = do.gumbel_softmax(l, 1e6, seed=1, backend=backend)
    torch.testing.assert_close(soft, torch.full_like(soft, 1 / 8), rtol=1e-3, atol=0)
