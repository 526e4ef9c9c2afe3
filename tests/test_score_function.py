"""The score functions: unbiased, exact where their outcomes can be enumerated, safe at masks and extremes."""

import itertools
import math
from functools import partial

import pytest
import torch
from helpers import FLOATS, assert_mean, conditional, noise
from torch import Tensor

import discrete_ops as do
from discrete_ops import score_function
from discrete_ops.score_function import disarm_tree, rebar, reinforce, rloo

COPIES = 20_000

CASES = {
    "reinforce": partial(reinforce),
    "reinforce_3_baseline": partial(reinforce, num_samples=3, baseline=0.7),
    "rloo_2": partial(rloo),
    "rloo_5": partial(rloo, num_samples=5),
    "disarm_tree_2": partial(disarm_tree),
    "disarm_tree_6": partial(disarm_tree, num_samples=6),
    "rebar": partial(rebar),
    "rebar_cold": partial(rebar, tau=0.1, eta=0.6),
    "rebar_tensor_tau": partial(rebar, tau=torch.tensor(0.9), eta=1.3),
}
every_case = pytest.mark.parametrize("estimate", CASES.values(), ids=CASES)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Network:
    """A small nonlinear f of the last ``event`` dims and the categories; it keeps the samples that it was given."""

    def __init__(self, *shape: int, offset: float = 0.0, dtype: torch.dtype = torch.float64):
        self.W, self.a = randn(*shape, 6, seed=1).to(dtype), randn(6, seed=2).to(dtype)
        self.shape, self.offset, self.samples = shape, offset, []

    def __call__(self, D: Tensor) -> Tensor:
        self.samples.append(D.detach())
        h = torch.tanh(D.flatten(D.ndim - len(self.shape)) @ self.W.flatten(0, -2))
        return h @ self.a + (h @ self.a) ** 2 + self.offset


def gradient(estimate, f, logits: Tensor, **options) -> tuple[Tensor, Tensor]:
    """Loss, and gradient at ``logits`` of its sum."""
    logits = logits.detach().requires_grad_()
    loss = estimate(f, logits, **options)
    return loss.detach(), torch.autograd.grad(loss.sum(), logits)[0]


# ---------------------------------------------------------------------------------------------------
# Unbiased


@every_case
@pytest.mark.parametrize("masked", [False, True])
def test_mean_is_the_exact_gradient(estimate, masked):
    f, logits = Network(3, 3), randn(3, 3, seed=3)
    if masked:
        logits[1, 2] = logits[2] = -torch.inf  # the last row is masked whole
    _, g = gradient(estimate, f, logits.expand(COPIES, 3, 3), seed=11)
    exact, allowed = do.diagnostics.exact_gradient(f, logits), logits > -torch.inf
    assert_mean(g[:, allowed], exact[allowed], sigmas=4.5)
    assert (g[:, ~allowed] == 0).all()


@every_case
def test_loss_is_a_sample_mean_of_f(estimate):
    f, logits = Network(2, 3), randn(2, 3, seed=3)
    loss, _ = gradient(estimate, f, logits.expand(COPIES, 2, 3), seed=12)
    assert_mean(loss[:, None], do.diagnostics.expectation(f, logits)[None], sigmas=4.5)


def outcomes_of_a_tree(row: Tensor) -> tuple[Tensor, Tensor]:
    """Every outcome of one row's tree: its uniforms ``(outcomes, levels, 2)`` and its probability ``(outcomes,)``."""
    size = 2 ** math.ceil(math.log2(len(row)))
    pi = torch.nn.functional.pad(row.softmax(-1), (0, size - len(row)))
    midpoints, widths = [], []
    while size > 1:  # the nodes of a level hold `size` leaves each; p is the right half's share
        halves = pi.view(-1, 2, size // 2).sum(-1)
        p = (halves[:, 1] / halves.sum(-1)).nan_to_num(0.0)
        edges = torch.cat([p, 1 - p, p.new_tensor([0.0, 1.0])]).unique()  # between them no decision changes
        midpoints += [(edges[1:] + edges[:-1]) / 2] * 2
        widths += [edges.diff()] * 2
        size //= 2
    weight = torch.cartesian_prod(*widths).prod(-1)
    return torch.cartesian_prod(*midpoints).view(len(weight), -1, 2), weight


@pytest.mark.parametrize("shape", [(1, 2), (1, 3), (1, 4), (1, 5), (2, 3)], ids=str)
@pytest.mark.parametrize("mask", [[], [0], [1, 2]], ids=str)
def test_disarm_tree_integrated_over_all_its_outcomes(monkeypatch, shape, mask):
    logits = randn(*shape, seed=shape[1]) * 2
    logits[0, [j for j in mask if j < shape[1]]] = -torch.inf
    trees = [outcomes_of_a_tree(row) for row in logits]
    choices = torch.cartesian_prod(*[torch.arange(len(w)) for _, w in trees]).view(-1, len(logits)).unbind(-1)
    u = torch.stack([u[choice] for (u, _), choice in zip(trees, choices, strict=True)], 1)
    weight = torch.stack([w[choice] for (_, w), choice in zip(trees, choices, strict=True)]).prod(0)
    monkeypatch.setattr(score_function, "_tree_uniforms", lambda seed, rows, levels: u.view(rows, levels, 2))

    f = Network(*shape)
    _, g = gradient(disarm_tree, f, logits.expand(len(u), *shape))
    exact = do.diagnostics.exact_gradient(f, logits)
    torch.testing.assert_close(torch.tensordot(weight, g, 1), exact, rtol=0, atol=1e-12)
    for samples in f.samples[:2]:  # z and z~ have the law of D, each
        torch.testing.assert_close(torch.tensordot(weight, samples, 1), logits.softmax(-1), rtol=0, atol=1e-12)


# ---------------------------------------------------------------------------------------------------
# The formulas, draw by draw


@pytest.mark.parametrize("baseline", [0.0, 2.5, "tensor"])
def test_reinforce_is_its_formula(baseline):
    f, logits = Network(2, 4), randn(5, 2, 4)
    baseline = randn(5, seed=9) if baseline == "tensor" else baseline
    loss, g = gradient(reinforce, f, logits, num_samples=3, baseline=baseline, seed=4)
    samples = list(f.samples)
    assert len(samples) == 3
    torch.testing.assert_close(loss, sum(f(D) for D in samples) / 3)
    l = logits.requires_grad_()  # noqa: E741
    log_p = [(l.log_softmax(-1) * D).sum((-1, -2)) for D in samples]
    surrogate = sum((f(D) - baseline) * lp for D, lp in zip(samples, log_p, strict=True)) / 3
    torch.testing.assert_close(g, torch.autograd.grad(surrogate.sum(), l)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("num_samples", [2, 4])
def test_rloo_is_its_formula(num_samples):
    f, logits = Network(2, 4), randn(5, 2, 4)
    loss, g = gradient(rloo, f, logits, num_samples=num_samples, seed=4)
    samples = list(f.samples)
    losses = [f(D) for D in samples]
    want = torch.zeros_like(logits)
    for k, D in enumerate(samples):
        others = [losses[j] for j in range(num_samples) if j != k]
        weight = losses[k] - sum(others) / (num_samples - 1)
        want += weight[:, None, None] * (D - logits.softmax(-1)) / num_samples
    torch.testing.assert_close(loss, sum(losses) / num_samples)
    torch.testing.assert_close(g, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("tau", "eta"), [(0.5, 1.0), (1.0, 0.3), (0.2, 0.0)])
def test_rebar_is_its_formula(tau, eta):
    f, logits, seed = Network(2, 4), randn(5, 2, 4), 2**40 + 3
    _, g = gradient(rebar, f, logits, tau=tau, eta=eta, seed=seed)
    D, s, s_tilde = f.samples

    l = logits.requires_grad_()  # noqa: E741
    rows, E = l.view(10, 4), noise(seed, 2, 10, 4)
    Y, Y_tilde = (conditional(rows, D.view(10, 4), e) for e in E)
    G = (Y - rows).detach()
    naive_s, naive_s_tilde = (((y / tau).softmax(-1)).view(5, 2, 4) for y in (rows + G, Y_tilde))
    torch.testing.assert_close(s, naive_s.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(s_tilde, naive_s_tilde.detach(), rtol=0, atol=1e-12)
    weight = (f(D) - eta * f(s_tilde)).detach()
    surrogate = weight * (l.log_softmax(-1) * D).sum((-1, -2)) + eta * f(naive_s) - eta * f(naive_s_tilde)
    torch.testing.assert_close(g, torch.autograd.grad(surrogate.sum(), l)[0], rtol=0, atol=1e-11)


def test_a_sample_is_the_packages_own():
    f, logits = Network(2, 4), randn(5, 2, 4)
    for estimate in (reinforce, rebar):
        f.samples.clear()
        gradient(estimate, f, logits, seed=8)
        assert torch.equal(f.samples[0], do.straight_through(logits, seed=8))


# ---------------------------------------------------------------------------------------------------
# What else the loss depends on


@every_case
def test_gradient_of_parameters_is_the_mean_over_the_samples(estimate):
    f, logits = Network(2, 3), randn(4, 2, 3).requires_grad_()
    f.W.requires_grad_()
    loss = estimate(f, logits, seed=6)
    (g,) = torch.autograd.grad(loss.sum(), f.W)
    samples = f.samples[:1] if estimate.func is rebar else list(f.samples)
    (want,) = torch.autograd.grad(sum(f(D).sum() for D in samples) / len(samples), f.W)
    torch.testing.assert_close(g, want, rtol=0, atol=1e-12)


@every_case
def test_what_f_takes_from_the_logits_itself_keeps_its_gradient(estimate):
    f, logits = Network(2, 3), randn(4, 2, 3)
    leaf, frozen = logits.clone().requires_grad_(), logits.clone()
    (g,) = torch.autograd.grad(estimate(lambda D: f(D) + (leaf**2).sum((-1, -2)), leaf, seed=6).sum(), leaf)
    _, score = gradient(estimate, lambda D: f(D) + (frozen**2).sum((-1, -2)), logits, seed=6)
    torch.testing.assert_close(g - score, 2 * logits, rtol=0, atol=1e-12)


@every_case
def test_backward_scales_each_batch_element(estimate):
    f, logits, scale = Network(2, 3), randn(4, 2, 3), randn(4, seed=3)
    leaf = logits.clone().requires_grad_()
    (g,) = torch.autograd.grad(estimate(f, leaf, seed=6), leaf, scale)
    torch.testing.assert_close(g, scale[:, None, None] * gradient(estimate, f, logits, seed=6)[1])


@every_case
def test_double_backward_is_refused(estimate):
    logits = randn(4, 3).requires_grad_()
    (g,) = torch.autograd.grad(estimate(Network(3), logits).sum(), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward is not defined"):
        g.sum().backward()


# ---------------------------------------------------------------------------------------------------
# Variance


def spread(estimate, f) -> Tensor:
    return gradient(estimate, f, randn(2, 4, seed=3).expand(4000, 2, 4), seed=2)[1].var(0).sum()


def test_baselines_remove_a_large_offset():
    f = Network(2, 4, offset=100.0)
    plain = spread(partial(reinforce, num_samples=2), f)
    for estimate in (rloo, disarm_tree, rebar, partial(reinforce, baseline=100.0)):
        assert spread(estimate, f) < plain / 20


# ---------------------------------------------------------------------------------------------------
# Seeds


@every_case
def test_equal_seed_equal_result(estimate):
    f, logits = Network(2, 3), randn(50, 2, 3)
    first, again, other = (gradient(estimate, f, logits, seed=s) for s in (7, torch.tensor(7), 8))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])
    with torch.no_grad():
        loss = estimate(f, logits.requires_grad_(), seed=7)
    assert torch.equal(loss, first[0])
    assert not loss.requires_grad


@every_case
def test_generator_and_global_state(estimate):
    f, logits = Network(2, 3), randn(50, 2, 3)
    drawn = [gradient(estimate, f, logits, generator=torch.Generator().manual_seed(1))[1] for _ in range(2)]
    assert torch.equal(*drawn)
    torch.manual_seed(1)
    assert torch.equal(gradient(estimate, f, logits)[1], drawn[0])
    assert not torch.equal(gradient(estimate, f, logits)[1], drawn[0])


@every_case
def test_one_seed_a_group_of_rows(estimate):
    f, logits = Network(2, 3), randn(2, 5, 2, 3)
    both = gradient(estimate, f, logits, seed=torch.tensor([5, 9]))
    for i, seed in enumerate((5, 9)):
        loss, g = gradient(estimate, f, logits[i], seed=seed)
        torch.testing.assert_close(both[0][i], loss, rtol=0, atol=1e-12)
        torch.testing.assert_close(both[1][i], g, rtol=0, atol=1e-12)


# ---------------------------------------------------------------------------------------------------
# Shapes, dtypes, masks, extremes


@every_case
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (4, 2, 3, 5), (0, 3, 5), (2, 1)])
def test_every_split_into_batch_and_event_dims(estimate, shape):
    logits = randn(*shape)
    for batch_dims in range(len(shape)):
        event = shape[batch_dims:]
        f = Network(*event)
        loss, g = gradient(estimate, f, logits, seed=3)
        assert loss.shape == shape[:batch_dims]
        assert g.shape == shape
        assert all(D.shape == shape for D in f.samples)


@every_case
@pytest.mark.parametrize("dtype", FLOATS)
def test_dtypes(estimate, dtype):
    f, logits = Network(3, 5, dtype=dtype), randn(4, 3, 5).to(dtype)
    loss, g = gradient(estimate, f, logits.mT.contiguous().mT, seed=3)
    assert loss.dtype == g.dtype == dtype
    assert all(D.dtype == dtype for D in f.samples)
    torch.testing.assert_close(g, gradient(estimate, f, logits, seed=3)[1])
    assert loss.isfinite().all()
    assert g.isfinite().all()


@pytest.mark.parametrize("estimate", [reinforce, rloo, disarm_tree])  # rebar's noise depends on the dtype
def test_float32_is_the_rounded_float64_gradient(estimate):
    f, logits = Network(3, 5), randn(40, 3, 5).float()
    _, g = gradient(estimate, lambda D: f(D.double()), logits, seed=3)
    _, want = gradient(estimate, f, logits.double(), seed=3)
    torch.testing.assert_close(g.double(), want, rtol=1e-6, atol=1e-6)


@every_case
@pytest.mark.parametrize("dtype", FLOATS[:2])
def test_masks_get_no_sample_and_no_gradient(estimate, dtype):
    logits = randn(200, 3, 6).to(dtype)
    logits[:, 0, ::2] = -torch.inf
    logits[:, 1, 1:] = -torch.inf  # one category is left
    logits[:, 2] = -torch.inf  # masked whole
    f = Network(3, 6, dtype=dtype)
    loss, g = gradient(estimate, f, logits, seed=3)
    masked = logits == -torch.inf
    assert loss.isfinite().all()
    assert (g[masked] == 0).all()
    assert g.isfinite().all()
    assert (g[:, 0] != 0).any()
    assert (g[:, 1] == 0).all()
    for samples in f.samples:
        assert (samples[masked] == 0).all()
        torch.testing.assert_close(samples.sum(-1), (~masked).any(-1).to(dtype))


@every_case
@pytest.mark.parametrize("dtype", FLOATS)
def test_extreme_logits_are_finite(estimate, dtype):
    big = 1e4
    logits = torch.tensor(list(itertools.product([-big, 0.0, big, -torch.inf], repeat=4)), dtype=dtype)
    loss, g = gradient(estimate, Network(4, dtype=dtype), logits, seed=3)
    assert loss.isfinite().all()
    assert g.isfinite().all()
    assert (g[logits == -torch.inf] == 0).all()
    best = logits == logits.amax(-1, keepdim=True)
    assert (g[best.sum(-1) == 1] == 0).all()  # a certain category has no gradient


@every_case
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_bad_row_is_never_a_valid_looking_number(estimate, bad):
    logits = randn(4, 3)
    logits[2, 1] = bad
    loss, g = gradient(estimate, Network(3), logits, seed=3)
    assert loss.isnan().tolist() == [False, False, True, False]
    assert g.isnan().any(-1).tolist() == [False, False, True, False]


@every_case
def test_many_categories(estimate):
    """65: a tree of 7 levels, nearly half of it padding."""
    logits = randn(65) * 2
    f = Network(65)
    _, g = gradient(estimate, f, logits.expand(COPIES // 4, 65), seed=1)
    exact = do.diagnostics.exact_gradient(f, logits)
    error = (g.mean(0) - exact).norm()
    assert error < 3 * (g.var(0).sum() / len(g)).sqrt()


# ---------------------------------------------------------------------------------------------------
# Errors

LOGITS, LEAF = torch.zeros(4, 2, 3), torch.zeros(4, 2, 3, requires_grad=True)


def good(D: Tensor) -> Tensor:
    return D[..., 0].sum(-1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: reinforce(None, LOGITS), TypeError, "f: got NoneType"),
        (lambda: reinforce(good, [1.0]), TypeError, "logits: got list"),
        (lambda: reinforce(good, LOGITS.long()), TypeError, "logits: got dtype torch.int64"),
        (lambda: reinforce(lambda D: D.sum(), LOGITS[:, :, :0]), ValueError, "logits: got shape"),
        (lambda: reinforce(lambda D: D[..., 0].sum(0), LOGITS), ValueError, r"f: got a loss of shape \(2,\)"),
        (lambda: reinforce(lambda D: D, LOGITS), ValueError, r"f: got a loss of shape \(4, 2, 3\)"),
        (lambda: reinforce(lambda D: 1.0, LOGITS), TypeError, "f: got float"),
        (lambda: reinforce(lambda D: D.argmax(-1).sum(-1), LOGITS), TypeError, "f: got torch.int64"),
        (lambda: reinforce(good, LOGITS, 0), ValueError, "num_samples: got 0, allowed: an int from 1"),
        (lambda: reinforce(good, LOGITS, 1.5), TypeError, "num_samples: got 1.5"),
        (lambda: reinforce(good, LOGITS, baseline="a"), TypeError, "baseline: got 'a'"),
        (lambda: reinforce(good, LOGITS, baseline=torch.zeros(3)), ValueError, r"baseline: got shape \(3,\)"),
        (lambda: reinforce(good, LOGITS, seed=-1), ValueError, "seed: got -1"),
        (lambda: rloo(good, LOGITS, 1), ValueError, "num_samples: got 1, allowed: an int from 2"),
        (lambda: disarm_tree(good, LOGITS, 3), ValueError, "num_samples: got 3, allowed: an even int"),
        (lambda: rebar(good, LOGITS, 0.0), ValueError, "tau: got 0.0"),
        (lambda: rebar(good, LOGITS, eta=float("nan")), ValueError, "eta: got nan"),
        (lambda: rebar(lambda D: good(D.detach()), LOGITS + LEAF), ValueError, "f: got a loss with no gradient"),
    ],
)
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()
