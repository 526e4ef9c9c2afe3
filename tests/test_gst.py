"""GST: Algorithm 1 at many gaps, the gap of Lemma 1 at every probability, the NZ ablation."""

import itertools

import mpmath
import numpy as np
import pytest
import torch
from helpers import assert_close, draw_and_pull, naive_gradient, noise

import discrete_ops as do
from discrete_ops import backends, reference
from discrete_ops.estimators import GST


def exact_gap(row: list[float], i: int) -> mpmath.mpf:
    """``-log(1 - pi_i) / pi_i`` of the numbers as they are, to 60 digits beyond what cancels."""
    with mpmath.workdps(9000 if max(row) - min(row) > 400 else 400):
        e = [mpmath.exp(mpmath.mpf(x) - max(row)) for x in row]
        others = mpmath.fsum(e[:i] + e[i + 1 :])
        total = others + e[i]
        return mpmath.log(total / others) * total / e[i]


#: Log-odds of p = 1e-30, 1e-20, 1e-7, 1e-3, 1/3, 1/2, 0.9, 1 - 1e-7, 1 - 1e-16, 1 - 1e-40, and beyond both ends.
LOG_ODDS = [-2000.0, -69.0776, -46.05, -16.118, -6.9, -0.6931, -1e-4, 0.0, 2.2, 16.118, 36.84, 92.1, 2000.0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("a", LOG_ODDS)
def test_expected_gap_is_right_at_every_probability(a, dtype):
    for others in ([0.0], [0.0, 0.0, -1.0]):
        row = torch.tensor([*others, a], dtype=dtype)
        i = len(others)
        got = do.expected_gap(row, torch.tensor(i))
        assert got.dtype == dtype
        assert got.shape == ()
        want = float(exact_gap(row.tolist(), i))
        assert got.item() == pytest.approx(want, rel=4 * torch.finfo(dtype).eps)


def test_expected_gap_is_printed_formula_where_that_is_accurate():
    l = torch.randn(50, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))  # noqa: E741
    index = torch.arange(50) % 7
    p = l.softmax(-1).gather(-1, index[:, None])[:, 0]
    torch.testing.assert_close(do.expected_gap(l, index), -torch.log1p(-p) / p, rtol=1e-13, atol=0)


def test_expected_gap_shapes_and_ends():
    l = torch.randn(2, 3, 4)  # noqa: E741
    assert do.expected_gap(l, torch.zeros(2, 3, dtype=torch.int64)).shape == (2, 3)
    assert (do.expected_gap(l, torch.zeros(2, 3, dtype=torch.int64)) >= 1).all()
    assert do.expected_gap(torch.zeros(5, 1), torch.zeros(5, dtype=torch.int64)).isinf().all()  # nobody to lead
    assert do.expected_gap(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)).shape == (0,)
    masked = torch.tensor([1.0, -torch.inf, 0.0])
    torch.testing.assert_close(
        do.expected_gap(masked, torch.tensor(0)), do.expected_gap(masked[[0, 2]], torch.tensor(0))
    )


def test_expected_gap_is_the_mean_lead_of_the_winner():
    """Lemma 1, by simulation: logits plus Gumbel noise, the lead over the runner-up for each winner."""
    logits = torch.tensor([2.0, 0.0, -1.0, 0.5], dtype=torch.float64)
    u = np.random.default_rng(0).gumbel(size=(400_000, 4))
    y = logits + torch.from_numpy(u)
    top = y.topk(2, -1)
    lead, winner = top.values[:, 0] - top.values[:, 1], top.indices[:, 0]
    for i in range(4):
        leads = lead[winner == i]
        assert len(leads) > 1000
        want = do.expected_gap(logits, torch.tensor(i)).item()
        z = (leads.mean() - want) / (leads.std() / len(leads) ** 0.5)
        assert abs(z) < 4


def _enumerated(backend: str, logits: torch.Tensor, tau: float, gap: float | str) -> tuple[torch.Tensor, torch.Tensor]:
    """Pull-back of v = (0, 1, ..., N-1) for every sampled index i, straight from the kernel, and naively."""
    n = len(logits)
    l = logits.expand(n, n).contiguous()  # noqa: E741
    v = torch.arange(n).to(l).expand(n, n).contiguous()
    estimator, number = ("gst_pi", 0.0) if gap == "pi" else ("gst", gap)
    kernel = backends.get(backend).surrogate_vjp
    got = kernel(v, l, torch.arange(n), torch.tensor([0]), (tau, number, 1.0), estimator, 1)
    D = torch.eye(n, dtype=torch.float64)
    return got, naive_gradient(GST(tau, gap), l.double(), D, v.double(), noise(0, 1, n, n))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("gap", [0.0, 1e-3, 0.5, 1.0, 3.0, 50.0, "pi"])
@pytest.mark.parametrize("tau", [0.1, 1.0, 3.0])
def test_algorithm_1_for_every_outcome(gap, tau, dtype, backend):
    logits = torch.tensor([0.3, -2.0, 1.7, 1.2, -0.1, 1.69], dtype=dtype)
    assert_close(*_enumerated(backend, logits, tau, gap))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_algorithm_1_at_ties(dtype, backend):
    for logits in (torch.zeros(4, dtype=dtype), torch.tensor([1.0, 1.0, 0.0], dtype=dtype)):
        for gap in (0.0, 1.0, "pi"):
            assert_close(*_enumerated(backend, logits, 0.5, gap))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("a", [-69.0776, -16.118, -1.0, 0.0, 3.0, 16.118, 36.84])
def test_pull_back_of_the_pi_gap_at_every_probability(a, dtype, backend):
    """Two categories: h is (0, -gap), whoever has the larger logit."""
    logits = torch.tensor([[a, 0.0]], dtype=dtype)
    v = torch.tensor([[0.0, 1.0]], dtype=dtype)
    kernel = backends.get(backend).surrogate_vjp
    got = kernel(v, logits, torch.tensor([0]), torch.tensor([0]), reference.AT_ONE, "gst_pi", 1)
    odds = np.exp(-float(exact_gap(logits[0].tolist(), 0)))
    want = odds / (1 + odds) ** 2 * torch.tensor([[-1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(got.double(), want, rtol=1e-4 if dtype == torch.float32 else 1e-9, atol=0)


def test_pi_gap_gradient_vanishes_as_the_sample_grows_certain(backend):
    gradients = []
    for a in (0.0, 2.0, 5.0, 10.0, 20.0, 100.0, 1e4):
        logits = torch.tensor([[a, 0.0, 0.0, -1.0]], dtype=torch.float64)
        v = torch.tensor([[1.0, -1.0, 2.0, 0.5]], dtype=torch.float64)
        args = (v, logits, torch.tensor([0]), torch.tensor([0]), reference.AT_ONE, "gst_pi", 1)
        gradients.append(backends.get(backend).surrogate_vjp(*args).abs().max().item())
    assert all(a > b for a, b in itertools.pairwise(gradients))
    assert gradients[0] > 0.1
    assert gradients[-1] < 1e-12


@pytest.mark.parametrize("tau", [0.3, 1.0])
@pytest.mark.parametrize("gap", [0.3, 1.0, 4.0])
def test_nonzero_gst_is_another_gradient_of_the_same_sample(tau, gap):
    g = torch.Generator().manual_seed(3)
    l, v = torch.randn(2, 40, 6, dtype=torch.float64, generator=g)  # noqa: E741
    gst, nz = (draw_and_pull(GST(tau, gap, flag), l, v, seed=7) for flag in (True, False))
    assert torch.equal(gst[0], nz[0])
    assert torch.equal(gst[1], nz[1])
    assert_close(nz[2], naive_gradient(GST(tau, gap, False), l, nz[0], v, noise(7, 1, 40, 6)))
    assert (gst[2] - nz[2]).abs().max() > 1e-5


@pytest.mark.parametrize("detach", [True, False])
def test_hard_gst_is_one_hot_and_soft_gst_is_algorithm_1s_softmax(detach):
    l = torch.randn(20, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))  # noqa: E741
    hard = do.gst(l, 0.5, 0.8, detach_perturbation=detach, seed=1)
    soft = do.gst(l, 0.5, 0.8, detach_perturbation=detach, seed=1, hard=False)
    assert set(hard.unique().tolist()) == {0.0, 1.0}
    h = torch.where(hard == 1, l.amax(-1, True), torch.minimum(l, l.amax(-1, True) - 0.8))
    assert_close(soft, (h / 0.5).softmax(-1))
