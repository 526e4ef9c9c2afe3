"""Temperatures of every form, their gradient, the sample's own one; the other parameters as tensors."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import (
    TOLERANCE,
    assert_close,
    conditional,
    draw_and_pull,
    every_estimator,
    make,
    naive_gradient,
    naive_soft,
    noise,
    pairs,
)

import discrete_ops as do
from discrete_ops import estimators

LOGITS = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
V = torch.randn(7, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
T = torch.randn(7, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
WITH_TAU = ("straight_through", "gumbel_softmax", "gumbel_rao", "gst_0.7", "gst_pi", "nz_gst", "nz_gst_pi")


# ---------------------------------------------------------------------------------------------------
# Temperatures


def soft_derivative(name: str, tau: float, hard_sample: torch.Tensor, v: torch.Tensor, seed: int) -> torch.Tensor:
    """By autograd through the papers' soft sample, at a temperature of each row."""
    tau = torch.full((len(LOGITS), 1), tau, dtype=torch.float64, requires_grad=True)
    estimator = make(name, tau)
    E = noise(seed, 3, *LOGITS.shape)
    if name.startswith("gumbel"):
        draws = getattr(estimator, "num_samples", 1)
        soft = (conditional(LOGITS, hard_sample, E[:draws]) / tau).softmax(-1).mean(0)
    else:
        soft = naive_soft(estimator, LOGITS, hard_sample, E)
    return torch.autograd.grad((soft * v).sum(-1).sum(), tau)[0]


@pairs(WITH_TAU)
def test_the_gradient_at_tau_is_that_of_the_soft_sample(backend, name):
    estimator = lambda tau: make(name, tau)  # noqa: E731
    hard = estimator(0.7)(LOGITS, seed=3, backend=backend)
    want = soft_derivative(name, 0.7, hard, V, 3)
    for shape in ((7, 1), (1, 1), (1,), ()):
        tau = torch.full(shape, 0.7, dtype=torch.float64, requires_grad=True)
        for options in ({}, {"hard": False}) if name != "straight_through" else ({},):
            sample = estimator(tau)(LOGITS, seed=3, backend=backend, **options)
            assert options or torch.equal(sample, hard)
            (got,) = torch.autograd.grad(sample, tau, V)
            assert got.shape == shape
            assert_close(got, want.sum_to_size(shape))
            # forward mode: the derivative of every element along tau
            one = torch.ones_like(tau)
            call = lambda t, o=options: estimator(t)(LOGITS, seed=3, backend=backend, **o)  # noqa: E731
            assert_close((torch.func.jvp(call, (tau.detach(),), (one,))[1] * V).sum(), want.sum())


def test_the_gradient_at_tau_is_stocks_formula(backend):
    """``-(S (v - <S, v>) log S).sum() / tau`` for a soft sample S, which is what autograd makes of F.gumbel_softmax."""
    tau = torch.tensor(0.6, requires_grad=True)
    logits, v = LOGITS.float().requires_grad_(), V.float()
    S = do.gumbel_softmax(logits, tau, seed=5, backend=backend)
    at_logits, at_tau = torch.autograd.grad(S, (logits, tau), v)
    S = S.detach().double()
    want = -(S * (v - (S * v).sum(-1, keepdim=True)) * S.log()).sum() / 0.6
    torch.testing.assert_close(at_tau.double(), want, rtol=1e-5, atol=1e-6)
    assert_close(at_logits, S * (v - (S * v).sum(-1, keepdim=True)) / 0.6)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_saturated_soft_sample_has_a_finite_gradient_at_tau(backend, dtype):
    logits = torch.tensor([[200.0, -200.0, 0.0, -torch.inf], [5.0, 5.0, -torch.inf, -torch.inf]], dtype=dtype)
    v = torch.tensor([[1.0, 2.0, 3.0, torch.inf], [1.0, -1.0, torch.nan, torch.inf]], dtype=dtype)
    for name in ("straight_through", "gumbel_softmax", "gst_0.7", "gst_pi"):
        tau = torch.full((2, 1), 0.01, requires_grad=True)
        make(name, tau)(logits, seed=1, backend=backend).backward(v)
        assert tau.grad.isfinite().all()


def test_the_gradient_at_tau_of_a_probability_below_float32s_is_precise(backend):
    """In float64: the probability is exp(-300) and the gradient 300 of it."""
    logits = torch.tensor([0.0, -300.0], dtype=torch.float64)
    tau = torch.ones(1, dtype=torch.float64, requires_grad=True)
    soft = do.gst(logits, tau, gap=0.0, hard=False, seed=0, backend=backend)
    (got,) = torch.autograd.grad(soft, tau, torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(got, torch.tensor([300 * math.exp(-300)], dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("columns", [4, 64, 5000])
@pytest.mark.parametrize("tau", [1.0, 1.5])
def test_weights_far_below_the_largest_are_as_precise(columns, tau, backend):
    """In float32, whose least normal number is exp(-87): a sample's weights and what a gradient has of each."""
    logits = torch.full((8, columns), -torch.inf)
    logits[:, :4] = torch.tensor([0.0, -45.0, -62.0, -77.0])
    v = torch.tensor([0.3, -1.0, 2.0, 0.7]).repeat(8, columns // 4)
    names = (backend, "reference")
    got, want = (do.gumbel_softmax(logits, tau, seed=3, backend=name) for name in names)
    torch.testing.assert_close(got, want, rtol=5e-5, atol=1e-37)
    got, want = (draw_and_pull(make("gumbel_rao", tau, 2), logits, v, seed=3, backend=name)[2] for name in names)
    torch.testing.assert_close(got[:, 1:], want[:, 1:], rtol=5e-5, atol=1e-37)  # that of the winner is a difference


@pytest.mark.parametrize(
    "form", ["array", "scalar array", "column", "one", "one of more dims", "parameter", "integers", "bfloat16"]
)
def test_temperatures_are_taken_as_stock_takes_them(backend, form):
    tau = {
        "array": np.linspace(0.5, 1.5, 7)[:, None],
        "scalar array": np.array(0.5),
        "column": torch.linspace(0.5, 1.5, 7)[:, None],
        "one": torch.ones(1) * 0.5,
        "one of more dims": torch.full((1, 1, 1), 0.5),
        "parameter": torch.nn.Parameter(torch.tensor(0.5)),
        "integers": torch.tensor([[1], [2], [1], [2], [1], [2], [3]]),
        "bfloat16": torch.tensor(0.5, dtype=torch.bfloat16),
    }[form]
    each = torch.as_tensor(tau).double().detach().reshape(-1, 1).expand(7, 1)
    gradient = draw_and_pull(estimators.GumbelRao(tau, 3), LOGITS, V, seed=3, backend=backend)[2]
    for row in range(7):
        want = draw_and_pull(estimators.GumbelRao(float(each[row]), 3), LOGITS, V, seed=3, backend=backend)[2]
        assert_close(gradient[row], want[row])
    soft = do.gst(LOGITS.t(), each.t(), dim=0, hard=False, seed=3, backend=backend)
    assert torch.equal(soft.t(), do.gst(LOGITS, each, hard=False, seed=3, backend=backend))


def test_temperatures_of_a_batch_broadcast(backend):
    """Of any dims of the logits, and with the gradient summed to their shape, as PyTorch's broadcasting."""
    logits, v = (x[:6].reshape(2, 3, 5) for x in (LOGITS, V))
    full = torch.rand(2, 3, 1, generator=torch.Generator().manual_seed(4), dtype=torch.float64) + 0.3
    for shape in ((3, 1), (2, 1, 1), (1, 3, 1)):
        tau = full.sum_to_size(shape).detach().requires_grad_()
        expanded = tau.detach().expand(2, 3, 1).clone().requires_grad_()
        a, b = (do.gumbel_softmax(logits, t, hard=True, seed=2, backend=backend) for t in (tau, expanded))
        assert torch.equal(a, b)
        (got,), (want,) = torch.autograd.grad(a, tau, v), torch.autograd.grad(b, expanded, v)
        assert_close(got, want.sum_to_size(shape))


def test_third_party_code_with_any_temperature_runs_under_patch_torch(backend):
    logits = LOGITS.float().requires_grad_()
    temperatures = (torch.ones(1), torch.rand(7, 1) + 0.3, np.array(0.5), torch.nn.Parameter(torch.tensor(1.0)), 1)
    with do.patch_torch(), do.use_backend(backend):
        for tau in temperatures:
            for hard in (False, True):
                sample = F.gumbel_softmax(logits, tau, hard)
                torch.testing.assert_close(sample.sum(-1), torch.ones(7))
                sample[:, 0].sum().backward()
    assert temperatures[3].grad is not None


@pytest.mark.parametrize("name", ["reinmax", "reinmax_rao", "reinmax_cv", "reinmax_argmax"])
def test_without_a_soft_sample_there_is_no_gradient_at_tau(backend, name):
    tau = torch.tensor(0.5, requires_grad=True)
    with pytest.raises(ValueError, match=r"^tau: got a tensor that requires grad, allowed: tau.detach\(\)"):
        make(name, tau)(LOGITS, backend=backend)
    with torch.no_grad():
        make(name, tau)(LOGITS, backend=backend)  # where none is wanted, it is a number
    with pytest.raises(ValueError, match=r"^tau: got a tensor that requires grad"):
        torch.func.jvp(lambda tau: make(name, tau)(LOGITS, backend=backend), (tau.detach(),), (tau.detach(),))


@pytest.mark.parametrize("argument", ["gap", "eta", "beta", "beta centred", "sample_tau"])
def test_other_parameters_are_tensors_without_a_gradient(backend, argument):
    call = {
        "gap": lambda x, value: do.gst(x, 0.7, value, seed=3, backend=backend),
        "eta": lambda x, value: do.reinmax_cv(x, 0.7, value, 2, seed=3, backend=backend),
        "beta": lambda x, value: do.reinmax_rk2(x, value, seed=3, backend=backend),
        "beta centred": lambda x, value: do.reinmax_rk2(x, value, centred=True, seed=3, backend=backend),
        "sample_tau": lambda x, value: do.straight_through(x, 0.7, sample_tau=value, seed=3, backend=backend),
    }[argument]
    each = torch.linspace(0.2, 2.0, 7, dtype=torch.float64)[:, None]

    def pulled(value):
        x = LOGITS.clone().requires_grad_()
        return torch.autograd.grad(call(x, value), x, V)[0]

    got = pulled(each)
    for row in range(7):
        assert_close(got[row], pulled(each[row].item())[row])
        assert_close(got[row], pulled(each[row])[row])  # a tensor of one
    if argument != "sample_tau":  # which no gradient but the sample's choice depends on
        assert (got - pulled(0.2)).abs().max() > 1e-3
    refused = pytest.raises(ValueError, match=f"^{argument.split()[0]}: got a tensor that requires grad")
    with refused:
        torch.func.jvp(lambda value: call(LOGITS, value), (each,), (each,))
    with refused:
        call(LOGITS, each.requires_grad_())


def test_an_empty_batch_has_an_empty_gradient_at_tau(backend):
    tau = torch.ones(0, 1, requires_grad=True)
    do.gumbel_softmax(torch.zeros(0, 4), tau, backend=backend).sum().backward()
    assert tau.grad.shape == (0, 1)


# ---------------------------------------------------------------------------------------------------
# The sample's own temperature, and seeds


@pytest.mark.parametrize("per_row", [False, True])
def test_the_sample_has_a_temperature_of_its_own(backend, per_row):
    """Decoupled straight-through: ``D ~ softmax(l / sample_tau)``, whatever tau."""
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0]).expand(20_000, 4)
    tau = torch.full((20_000, 1), 0.5) if per_row else 0.5
    sample, index = do.straight_through(logits, 3.0, sample_tau=tau, seed=1, return_index=True, backend=backend)
    p = (logits[0].double() / 0.5).softmax(-1)
    counts = torch.bincount(index, minlength=4).double()
    z = (counts - 20_000 * p) / (20_000 * p * (1 - p)).sqrt()
    assert (z.abs() < 4).all()
    assert torch.equal(sample.argmax(-1), index)
    # the gradient is the one at tau
    want = naive_gradient(
        estimators.StraightThrough(3.0), LOGITS, torch.zeros_like(LOGITS), V, torch.ones(1, *LOGITS.shape)
    )
    got = draw_and_pull(estimators.StraightThrough(3.0, sample_tau=0.5), LOGITS, V, seed=1, backend=backend)[2]
    assert_close(got, want)


@every_estimator
def test_sample_tau_scales_the_logits_of_the_draw_alone(backend, name):
    scaled = make(name, 0.7)(LOGITS / 1.7, seed=3, return_index=True, backend=backend)[1]
    assert torch.equal(make(name, 0.7)(LOGITS, sample_tau=1.7, seed=3, return_index=True, backend=backend)[1], scaled)


def test_equal_estimators_with_tensors_are_equal():
    make_one = lambda tau: estimators.GST(torch.tensor(tau), gap=torch.tensor([[0.5]]))  # noqa: E731
    a, b = make_one(0.5), make_one(0.5)
    assert a == b
    assert hash(a) == hash(b)
    assert len({a, b}) == 1
    assert a != make_one(0.6)
    assert a != estimators.GST(0.5, gap=torch.tensor([[0.5]]))
    assert a != estimators.ReinMax(torch.tensor(0.5))
    before = hash(a)
    assert estimators.GST(np.array([[0.5]])) == estimators.GST(torch.tensor([[0.5]], dtype=torch.float64))
    assert hash(estimators.GST(np.array(0.5))) == hash(estimators.GST(np.array(0.7)))
    a.tau.fill_(0.3)  # annealing changes no hash
    assert hash(a) == before
    assert a != b
