"""Derivatives of every kind that PyTorch has, against the surrogate's own Jacobian: forward mode, double backward,
finite gradients of any size, checkpoints."""

import pytest
import torch
from helpers import (
    CASES,
    assert_close,
    draw_and_pull,
    every_estimator,
    make,
    naive_gradient,
    noise,
    pairs,
)
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

import discrete_ops as do

LOGITS = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
V = torch.randn(7, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
T = torch.randn(7, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def naive(name: str, tau: float, logits: torch.Tensor, v: torch.Tensor, seed: int) -> torch.Tensor:
    """The gradient of the papers' formulas."""
    estimator = make(name, tau)
    sample = estimator(logits, seed=seed)
    return naive_gradient(estimator, logits, sample, v, noise(seed, 4, *logits.shape))


def jacobians(name: str, tau: float, seed: int) -> torch.Tensor:
    """``(rows, N, N)``: column j of a row's is its pull-back of unit vector j, so it is the Jacobian transposed."""
    n = LOGITS.shape[1]
    return torch.stack([naive(name, tau, LOGITS, e.expand_as(LOGITS), seed) for e in torch.eye(n).double()], -1)


# ---------------------------------------------------------------------------------------------------
# Forward mode


@every_estimator
def test_a_tangent_is_pushed_through_the_surrogates_jacobian(backend, name):
    f = lambda x: make(name, 0.7)(x, seed=3, backend=backend)  # noqa: E731
    want = torch.einsum("rij,ri->rj", jacobians(name, 0.7, 3), T)
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(f(forward_ad.make_dual(LOGITS, T)))
    assert torch.equal(dual.primal, f(LOGITS))
    assert_close(dual.tangent, want)
    primal, tangent = torch.func.jvp(f, (LOGITS,), (T,))
    assert torch.equal(primal, f(LOGITS))
    assert_close(tangent, want)


def test_jacobians_of_both_modes_are_one(backend):
    f = lambda x: do.reinmax_rk2(x, 1.3, seed=3, backend=backend)  # noqa: E731
    assert_close(torch.func.jacfwd(f)(LOGITS), torch.func.jacrev(f)(LOGITS))
    assert torch.func.jacfwd(f)(LOGITS).abs().max() > 0.1


# ---------------------------------------------------------------------------------------------------
# Double backward: the pull-back is linear in v


def test_double_backward_in_v_of_six_equal_categories(backend):
    w, logits = torch.ones(6, requires_grad=True), torch.zeros(1, 6, requires_grad=True)
    loss = (do.straight_through(logits, seed=0, backend=backend) * w).sum()
    (g,) = torch.autograd.grad(loss, logits, create_graph=True)
    (got,) = torch.autograd.grad(g[0, 0], w)
    torch.testing.assert_close(got, torch.tensor([5 / 36, *[-1 / 36] * 5]))


@every_estimator
def test_double_backward_in_v_is_the_transpose(backend, name):
    logits, v = LOGITS.clone().requires_grad_(), V.clone().requires_grad_()
    sample = make(name, 0.7)(logits, seed=3, backend=backend)
    (g,) = torch.autograd.grad(sample, logits, v, create_graph=True)
    (got,) = torch.autograd.grad(g, v, T, create_graph=True)
    assert_close(got.detach(), torch.einsum("rij,ri->rj", jacobians(name, 0.7, 3), T))
    # and a third time
    u = T.clone().requires_grad_()
    (twice,) = torch.autograd.grad(torch.autograd.grad(g, v, u, create_graph=True)[0], u, V)
    assert_close(twice, naive(name, 0.7, LOGITS, V, 3))


@pytest.mark.parametrize("name", CASES)  # which is the operator's own, whatever runs below
def test_what_is_refused_is_the_derivative_in_the_logits(name):
    f = lambda x: (make(name, 0.7)(x, seed=1) * V).sum()  # noqa: E731
    for of in (torch.autograd.functional.hessian, lambda f, x: torch.func.hessian(f)(x)):
        with pytest.raises(RuntimeError, match=r"discrete_ops: double backward is not defined in the logits"):
            of(lambda x: f(x) ** 2, LOGITS)
    grad, jvp = torch.func.grad, torch.func.jvp
    pushed = lambda x: jvp(f, (x,), (T,))[1]  # noqa: E731
    for nested in (
        lambda: jvp(grad(f), (LOGITS,), (T,)),
        lambda: grad(lambda x: (grad(f)(x) * T).sum())(LOGITS),
        lambda: grad(pushed)(LOGITS),
        lambda: jvp(pushed, (LOGITS,), (T,)),
        lambda: torch.vmap(grad(lambda x: grad(lambda y: f(y[None]))(x).sum()))(LOGITS),
    ):
        with pytest.raises(RuntimeError, match="double backward is not defined"):
            nested()


@every_estimator
def test_torch_func_nests_where_the_derivative_is_defined(backend, name):
    """In v: the inner gradient is linear in it."""
    grad = torch.func.grad
    f = lambda x, v: (make(name, 0.7)(x, seed=1, backend=backend) * v).sum()  # noqa: E731
    g = lambda v: (grad(f)(LOGITS, v) * T).sum()  # noqa: E731
    want = torch.einsum("rij,ri->rj", jacobians(name, 0.7, 1), T)
    assert_close(grad(g)(V), want)
    assert_close(torch.func.jvp(g, (V,), (V,))[1], (want * V).sum())
    assert_close(torch.vmap(grad(g))(torch.stack([V, T])), want.expand(2, 7, 5))


# ---------------------------------------------------------------------------------------------------
# Gradients of any size


@pytest.mark.parametrize("columns", [4, 40, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_largest_gradients_are_pulled_back(backend, dtype, columns):
    """The row's sum and the distance from its mean are beyond the finite range, the result is not."""
    largest = {torch.float64: 1.7e308}.get(dtype, 3e38)
    v = torch.full((1, columns), -largest, dtype=dtype)
    v[0, 0] = largest
    logits = torch.zeros(1, columns, dtype=dtype, requires_grad=True)
    for estimator in (do.straight_through, lambda x, **o: do.gst(x, gap=0.0, **o)):
        got = torch.autograd.grad(estimator(logits, seed=0, backend=backend), logits, v)[0].double()
        p = 1 / columns
        want = torch.full((1, columns), -2 * p * p * largest, dtype=torch.float64)
        want[0, 0] = 2 * p * (1 - p) * largest if columns > 2 else largest / 2
        torch.testing.assert_close(got, want, rtol={torch.bfloat16: 1e-2}.get(dtype, 1e-5), atol=0)


@pairs([n for n in CASES if not n.startswith("nz_")])
@pytest.mark.parametrize("tau", [1e-3, 1.0, 1e3])
def test_no_finite_gradient_makes_nan(backend, name, tau):
    v = torch.tensor([[3e38, -3e38, -3e38, -3e38]]).repeat(6, 1)
    for logits in (torch.zeros(6, 4), LOGITS[:6, :4].float()):
        gradient = draw_and_pull(make(name, tau), logits, v, seed=0, backend=backend)[2]
        assert not gradient.isnan().any()
        small = draw_and_pull(make(name, tau), logits, v / 1e6, seed=0, backend=backend)[2]
        finite = gradient.isfinite()
        torch.testing.assert_close(gradient[finite], (small.double() * 1e6).float()[finite], rtol=1e-5, atol=1e34)


@pairs([n for n in CASES if not n.startswith("nz_")])
@pytest.mark.parametrize("columns", [4, 300])
def test_the_smallest_gradients_are_pulled_back(backend, name, columns):
    logits = torch.randn(5, columns, generator=torch.Generator().manual_seed(3))
    v = torch.linspace(-1, 1, columns).expand_as(logits)
    want = draw_and_pull(make(name), logits, v, seed=0, backend=backend)[2]
    got = draw_and_pull(make(name), logits, v * 2.0**-100, seed=0, backend=backend)[2]
    torch.testing.assert_close(got * 2.0**100, want, rtol=2e-6, atol=1e-6)


# ---------------------------------------------------------------------------------------------------
# Checkpoints


def test_checkpointing_restores_no_generator(backend):
    """The documented rule: a generator goes on where it stood, so that what is recomputed is another sample."""
    generator, drawn = torch.Generator().manual_seed(0), []

    def f(x):
        drawn.append(do.reinmax(x, generator=generator, backend=backend))
        return (drawn[-1] * x.cos()).sum() ** 2

    x = LOGITS.repeat(10, 1).requires_grad_()
    checkpoint(f, x, use_reentrant=False).backward()
    assert len(drawn) == 2
    assert not torch.equal(*drawn)


@every_estimator
def test_checkpointing_with_a_seed_drawn_outside(backend, name):
    """The rule where there is a generator: draw the seed before the checkpoint."""
    generator = torch.Generator().manual_seed(0)
    seed = torch.randint(2**63 - 1, (1,), generator=generator)
    f = lambda x: (make(name)(x, seed=seed, backend=backend) * x.cos()).sum() ** 2  # noqa: E731
    gradients = []
    for run in (f, lambda x: checkpoint(f, x, use_reentrant=False)):
        x = LOGITS.clone().requires_grad_()
        gradients.append(torch.autograd.grad(run(x), x)[0])
    assert torch.equal(*gradients)
