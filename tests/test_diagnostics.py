"""The expectations against the papers' equations, written with loops; the estimators against the expectations."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import discrete_ops as do
from discrete_ops import estimators, reference
from discrete_ops.diagnostics import (
    exact_gradient,
    expectation,
    first_order,
    measure,
    measure_loss,
    rk2,
    rk2_uncentred,
    second_order,
)

SHAPES = [(5,), (1, 5), (2, 3), (3, 4)]
BETAS = [-0.2, 0.0, 0.5, 1.0, 1.2]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def polynomial(shape: tuple[int, ...], degree: int):
    """A random polynomial of all entries of a code, with terms of every degree from 1 on."""
    size = math.prod(shape)
    coefficients = [randn(*(size,) * d, seed=d) for d in range(1, degree + 1)]

    def f(D: Tensor) -> Tensor:
        x, loss = D.flatten(1).to(torch.float64), 0.0
        for c in coefficients:
            i = "ijkl"[: c.ndim]
            loss = loss + torch.einsum(",".join([i, *("b" + letter for letter in i)]) + "->b", c, *[x] * c.ndim)
        return loss

    return f


def network(shape: tuple[int, ...]):
    W, a = randn(math.prod(shape), 6, seed=1), randn(6, seed=2)
    return lambda D: torch.exp(torch.tanh(D.flatten(1).to(torch.float64) @ W) @ a)


FUNCTIONS = {
    "quadratic": lambda shape: polynomial(shape, 2),
    "cubic": lambda shape: polynomial(shape, 3),
    "network": network,
}
every_function = pytest.mark.parametrize("name", FUNCTIONS)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


# ---------------------------------------------------------------------------------------------------
# The equations with loops


def codes(logits: Tensor) -> list[tuple[tuple[int, ...], Tensor, Tensor]]:
    """(categories, one-hot code ``(L, N)``, its probability) for each code; differentiable in ``(L, N)`` logits."""
    rows, columns = logits.shape
    pi, e = logits.softmax(-1), torch.eye(columns, dtype=logits.dtype)
    return [
        (d, e[list(d)], torch.stack([pi[r, j] for r, j in enumerate(d)]).prod())
        for d in itertools.product(range(columns), repeat=rows)
    ]


def gradient_at(f, D: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``grad f(D)``, ``(L, N)``."""
    D = D.clone().requires_grad_()
    return torch.autograd.grad(f(D.view(1, *shape)).sum(), D)[0]


def naive_mean(f, logits: Tensor, row_formula: Callable[[Tensor, list[Tensor]], Tensor]) -> Tensor:
    """Each row's formula of (pi, v_1 .. v_N), averaged over the codes of the other rows."""
    l = logits.view(-1, logits.shape[-1])  # noqa: E741
    e = torch.eye(l.shape[-1], dtype=l.dtype)
    total = torch.zeros_like(l)
    for r in range(len(l)):
        for d, D, p in codes(l):
            if d[r] != 0:
                continue  # one visit for each code of the others
            v = []
            for j in range(l.shape[-1]):
                D_j = D.clone()
                D_j[r] = e[j]
                v.append(gradient_at(f, D_j, tuple(logits.shape))[r])
            total[r] += p / l[r].softmax(-1)[0] * row_formula(l[r].softmax(-1), v)
    return total.view(logits.shape)


def equation_9(pi: Tensor, v: list[Tensor]) -> Tensor:
    """``sum_i sum_j pi_j <v_j, e_i - e_j> d pi_i/dl``."""
    e, n = torch.eye(len(pi), dtype=pi.dtype), range(len(pi))
    return sum(pi[j] * (v[j] @ (e[i] - e[j])) * pi[i] * (e[i] - pi) for i in n for j in n)


def equation_11(pi: Tensor, v: list[Tensor]) -> Tensor:
    """``sum_i sum_j pi_j <v_j + v_i, e_i - e_j> / 2 d pi_i/dl``."""
    e, n = torch.eye(len(pi), dtype=pi.dtype), range(len(pi))
    return sum(pi[j] * ((v[j] + v[i]) @ (e[i] - e[j])) / 2 * pi[i] * (e[i] - pi) for i in n for j in n)


def equation_26(beta: float) -> Callable[[Tensor, list[Tensor]], Tensor]:
    """``sum_i sum_j pi_j <(1 - beta) v_j + beta v_i, e_i - e_j> d pi_i/dl``."""

    def formula(pi: Tensor, v: list[Tensor]) -> Tensor:
        e, n, total = torch.eye(len(pi), dtype=pi.dtype), range(len(pi)), torch.zeros_like(pi)
        for i in n:
            for j in n:
                step = ((1 - beta) * v[j] + beta * v[i]) @ (e[i] - e[j])
                for k in n:
                    total[k] += pi[j] * step * pi[i] * (int(i == k) - pi[k])
        return total

    return formula


def dropped(beta: float) -> Callable[[Tensor, list[Tensor]], Tensor]:
    """What BR's Appendix A leaves out between its Eq. 34 and 35."""

    def formula(pi: Tensor, v: list[Tensor]) -> Tensor:
        e, n = torch.eye(len(pi), dtype=pi.dtype), range(len(pi))
        return -pi * sum(pi[i] * pi[j] * (((1 - beta) * v[j] + beta * v[i]) @ (e[i] - e[j])) for i in n for j in n)

    return formula


def equation_35(beta: float) -> Callable[[Tensor, list[Tensor]], Tensor]:
    """Component k: ``pi_k sum_j pi_j <(1 - beta) v_j + beta v_k, e_k - e_j>``."""

    def formula(pi: Tensor, v: list[Tensor]) -> Tensor:
        e, n = torch.eye(len(pi), dtype=pi.dtype), range(len(pi))
        inner = [sum(pi[j] * (((1 - beta) * v[j] + beta * v[k]) @ (e[k] - e[j])) for j in n) for k in n]
        return torch.stack([pi[k] * inner[k] for k in n])

    return formula


def law_of_estimator(f, logits: Tensor, estimator: str, coefficient: float = 0.0) -> list[tuple[Tensor, Tensor]]:
    """(p(D), pull-back of ``grad f(D)`` at temperature 1) for each code."""
    shape, seed = tuple(logits.shape), torch.tensor([0])
    l = logits.view(-1, shape[-1])  # noqa: E741

    def pulled(d: tuple[int, ...], D: Tensor) -> Tensor:
        v = gradient_at(f, D, shape)
        return reference.surrogate_vjp(v, l, torch.tensor(d), seed, (1.0, coefficient, 1.0), estimator, 1).view(shape)

    return [(p, pulled(d, D)) for d, D, p in codes(l)]


def assert_equal(got: Tensor, want: Tensor, tolerance: float = 1e-10) -> None:
    scale = max(1.0, float(want.abs().max()))
    torch.testing.assert_close(got, want, rtol=0, atol=tolerance * scale)


# ---------------------------------------------------------------------------------------------------
# The exact gradient


@every_shape
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_exact_gradient_is_autograd_of_the_expectation(shape, degree):
    f, logits = polynomial(shape, degree), randn(*shape).requires_grad_()
    l = logits.view(-1, shape[-1])  # noqa: E741
    explicit = sum(p * f(D.view(1, *shape))[0] for _, D, p in codes(l))
    (want,) = torch.autograd.grad(explicit, logits)
    assert_equal(exact_gradient(f, logits), want, 1e-12)
    assert_equal(expectation(f, logits), explicit.detach(), 1e-12)


@pytest.mark.parametrize("chunk_size", [1, 7, 64, 10**6])
def test_chunks_bound_what_f_sees_and_change_nothing(chunk_size):
    f, logits, seen = polynomial((3, 4), 3), randn(3, 4), []

    def counted(D: Tensor) -> Tensor:
        seen.append(len(D))
        return f(D)

    for quantity in (exact_gradient, expectation, first_order, second_order):
        seen.clear()
        assert_equal(quantity(counted, logits, chunk_size=chunk_size), quantity(f, logits), 1e-12)
        assert max(seen) <= chunk_size
        assert sum(seen) == 4**3


QUANTITIES = {
    "expectation": expectation,
    "exact_gradient": exact_gradient,
    "first_order": first_order,
    "second_order": second_order,
    "rk2": lambda f, logits: rk2(f, logits, 0.3),
    "rk2_uncentred": lambda f, logits: rk2_uncentred(f, logits, 0.3),
}
every_quantity = pytest.mark.parametrize("quantity", QUANTITIES.values(), ids=QUANTITIES)


@every_quantity
def test_masks_leave_the_problem_without_those_categories(quantity):
    f, logits = polynomial((2, 4), 3), randn(2, 4)
    logits[:, 2] = -torch.inf
    kept = [0, 1, 3]

    def only_allowed(D: Tensor) -> Tensor:  # at a masked code f need not exist, nor its slope towards one
        return torch.where((D[..., 2] != 0).any(-1), torch.nan, f(D) + D[..., 2].sqrt().sum(-1))

    def smaller(D: Tensor) -> Tensor:
        return f(D.new_zeros(len(D), 2, 4).index_copy(2, torch.tensor(kept), D))

    got, want = quantity(only_allowed, logits), quantity(smaller, logits[:, kept])
    assert got.isfinite().all()
    assert_equal(got[:, kept] if got.ndim else got, want, 1e-12)
    assert got.ndim == 0 or (got[:, 2] == 0).all()


@every_quantity
def test_a_row_masked_whole_is_a_zero_row(quantity):
    f, logits = polynomial((2, 3), 3), randn(2, 3)
    logits[1] = -torch.inf
    got = quantity(f, logits)
    want = quantity(lambda D: f(torch.stack([D, torch.zeros_like(D)], 1)), logits[0])
    assert_equal(got[0] if got.ndim else got, want, 1e-12)
    assert got.ndim == 0 or (got[1] == 0).all()


@every_quantity
def test_result_is_like_the_logits(quantity):
    f, logits = network((2, 3)), randn(2, 3)
    for dtype in (torch.float32, torch.float16):
        got = quantity(f, logits.to(dtype).requires_grad_())
        assert got.dtype == dtype
        assert not got.requires_grad
        # grad f(D) comes in the dtype of D, so each term is rounded once
        torch.testing.assert_close(got, quantity(f, logits.to(dtype).double()).to(dtype), rtol=2e-3, atol=2e-3)
    extreme = torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, -torch.inf]]).double()
    with torch.no_grad():
        assert quantity(f, extreme).isfinite().all()


# ---------------------------------------------------------------------------------------------------
# First order, second order, Runge-Kutta


ORDERS = {
    "straight_through": (0.0, first_order, equation_9),
    "reinmax": (0.0, second_order, equation_11),
    **{f"mix {2 * b}": (2 * b, lambda f, logits, b=b: rk2(f, logits, b), equation_26(b)) for b in BETAS},
    **{f"reinmax_rk2 {b}": (b, lambda f, logits, b=b: rk2_uncentred(f, logits, b), equation_35(b)) for b in BETAS},
}


@every_function
@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
@pytest.mark.parametrize("estimator", ORDERS)
def test_mean_of_an_estimator_is_its_equation(name, shape, estimator):
    f, logits = FUNCTIONS[name](shape), randn(*shape)
    coefficient, quantity, equation = ORDERS[estimator]
    want = naive_mean(f, logits, equation)
    assert_equal(quantity(f, logits), want)
    assert_equal(sum(p * g for p, g in law_of_estimator(f, logits, estimator.split()[0], coefficient)), want)


def test_which_orders_coincide():
    f, logits = network((2, 3)), randn(2, 3)
    for quantity in (rk2, rk2_uncentred):
        assert_equal(quantity(f, logits, 0.5), second_order(f, logits), 1e-12)
    assert_equal(rk2(f, logits, 0.0), first_order(f, logits), 1e-12)
    assert (rk2_uncentred(f, logits, 0.0) - first_order(f, logits)).abs().max() > 0.01


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
def test_the_means_of_rk2_differ_by_the_dropped_term_of_theorem_1(shape, beta):
    f, logits = network(shape), randn(*shape)
    centred, uncentred, off = rk2(f, logits, beta), rk2_uncentred(f, logits, beta), naive_mean(f, logits, dropped(beta))
    assert_equal(centred - uncentred, off)
    assert_equal(centred.sum(-1), torch.zeros(shape[:-1], dtype=torch.float64), 1e-12)
    if beta == 0.5:
        assert_equal(off, torch.zeros_like(off), 1e-12)
    else:
        assert off.abs().max() > 0.01
        assert uncentred.sum(-1).abs().max() > 0.01


@every_shape
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_an_order_is_exact_up_to_its_degree(shape, degree):
    f, logits = polynomial(shape, degree), randn(*shape)
    exact = exact_gradient(f, logits)
    for order, quantity in enumerate((first_order, second_order), start=1):
        if degree <= order:
            assert_equal(quantity(f, logits), exact, 1e-12)
        else:
            assert (quantity(f, logits) - exact).abs().max() > 0.01


# ---------------------------------------------------------------------------------------------------
# Measuring


@pytest.mark.parametrize("shape", [(5,), (2, 3)], ids=str)
def test_reinmax_is_unbiased_on_a_quadratic(shape):
    f, logits, n = polynomial(shape, 2), randn(*shape), 20_000
    m = measure(estimators.ReinMax(), f, logits, n, seed=1, batch_size=5000)
    assert m.cosine > 0.99
    assert m.relative_bias < 2 * m.relative_std / n**0.5  # the Monte-Carlo error of the mean has norm std / sqrt(n)
    assert_equal(m.exact, exact_gradient(f, logits))


@pytest.mark.parametrize(
    ("estimator", "name"), [(estimators.StraightThrough(), "straight_through"), (estimators.ReinMax(), "reinmax")]
)
@pytest.mark.parametrize("shape", [(5,), (2, 3)], ids=str)
def test_figures_are_those_of_the_enumerated_law(estimator, name, shape):
    f, logits = network(shape), randn(*shape)
    law = law_of_estimator(f, logits, name)
    mean, square = sum(p * g for p, g in law), sum(p * g.square().sum() for p, g in law)
    std, exact = (square - mean.square().sum()).sqrt(), exact_gradient(f, logits)

    m = measure(estimator, f, logits, 20_000, seed=2, batch_size=6000)
    assert m.std == pytest.approx(float(std), rel=0.05)
    assert m.relative_std == pytest.approx(float(std / exact.norm()), rel=0.05)
    assert float((m.mean - mean).norm()) < 2 * float(std) / 20_000**0.5
    noise = 2 * m.relative_std / 20_000**0.5
    assert m.relative_bias == pytest.approx(float((mean - exact).norm() / exact.norm()), abs=noise)
    assert m.cosine == pytest.approx(float((mean * exact).sum() / mean.norm() / exact.norm()), abs=2 * noise)


def test_a_perfect_estimator():
    m = measure(lambda logits, seed: logits.softmax(-1), polynomial((2, 3), 1), randn(2, 3), 10, seed=0)
    assert m.cosine == pytest.approx(1, abs=1e-12)
    assert m.relative_bias == pytest.approx(0, abs=1e-12)
    assert m.std == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("batch_size", [1, 7, 100, 1000])
def test_batches_change_nothing(batch_size):
    f, logits = network((2, 3)), randn(2, 3)
    m, whole = (measure(do.gst, f, logits, 100, seed=3, batch_size=b) for b in (batch_size, 100))
    assert m[:4] == pytest.approx(whole[:4], rel=1e-10)
    assert_equal(m.mean, whole.mean, 1e-12)


@pytest.mark.parametrize("batch_size", [10, 1000])
def test_spread_survives_a_large_mean(batch_size):
    z = randn(1000, 3)
    batches = iter(z.split(batch_size))
    m = measure_loss(
        lambda copies, seed: (copies * (1e9 + next(batches))).sum(-1), network((3,)), randn(3), batch_size=batch_size
    )
    assert m.std == pytest.approx(float(z.var(0).sum().sqrt()), rel=1e-5)


def test_seeds():
    f, logits, seen = network((2, 3)), randn(2, 3), []

    def spy(copies: Tensor, seed: Tensor) -> Tensor:
        seen.append(seed)
        return do.gumbel_rao(copies, 0.5, 3, seed=seed)

    def figures(**options):
        return measure(spy, f, logits, 500, **options)[:4]

    assert figures(seed=5) == figures(seed=torch.tensor([5])) != figures(seed=6)
    assert len(torch.cat(seen).unique()) == 1000  # neighbouring seeds share no draw
    assert figures(generator=torch.Generator().manual_seed(1)) == figures(generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["rloo", "disarm_tree", "rebar"])
def test_score_functions_are_measured_too(name):
    f, logits, n = network((2, 3)), randn(2, 3), 20_000
    score = getattr(do.score_function, name)
    m = measure_loss(lambda copies, seed: score(f, copies, seed=seed), f, logits, n, seed=4)
    assert m.relative_bias < 2 * m.relative_std / n**0.5


def test_measuring_leaves_no_trace():
    W = randn(3, seed=1).requires_grad_()
    logits = randn(2, 3).requires_grad_()
    with torch.no_grad():
        m = measure(do.reinmax, lambda D: (D @ W).sum(-1) ** 2, logits, 10, seed=0)
    assert W.grad is None
    assert logits.grad is None
    assert not m.mean.requires_grad


def test_float32_logits_masks_and_a_known_exact_gradient():
    f, logits = polynomial((2, 4), 2), randn(2, 4).float()
    logits[0, 1] = -torch.inf
    exact = exact_gradient(f, logits)
    m = measure(do.reinmax, f, logits, 5000, exact=exact, seed=0)
    assert m.mean.dtype == m.exact.dtype == torch.float64
    assert torch.equal(m.exact, exact.double())
    assert m.mean[0, 1] == 0
    assert m.relative_bias < 2 * m.relative_std / 5000**0.5


# ---------------------------------------------------------------------------------------------------
# Errors


def good(D: Tensor) -> Tensor:
    return D.sum((-1, -2)) ** 2


LOGITS = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: exact_gradient(good, [0.0]), TypeError, "logits: got list"),
        (
            lambda: exact_gradient(good, torch.zeros(2, 2, 3)),
            ValueError,
            r"logits: got shape \(2, 2, 3\), allowed: \(L",
        ),
        (lambda: exact_gradient(good, torch.zeros(0, 3)), ValueError, r"logits: got shape \(0, 3\)"),
        (lambda: exact_gradient(good, LOGITS / 0), ValueError, "logits: got NaN"),
        (
            lambda: exact_gradient(good, torch.zeros(27, 2)),
            ValueError,
            r"about 10\*\*8.1 codes, allowed: at most 2\*\*26",
        ),
        (lambda: exact_gradient(good, torch.zeros(512, 8)), ValueError, r"about 10\*\*462.4 codes"),
        (lambda: exact_gradient(lambda D: D.sum(), LOGITS), ValueError, r"f: got shape \(\) for codes \(9, 2, 3\)"),
        (lambda: exact_gradient(lambda D: 1.0, LOGITS), ValueError, "f: got float"),
        (lambda: exact_gradient(good, LOGITS, chunk_size=0), ValueError, "chunk_size: got 0"),
        (lambda: first_order(lambda D: D.detach().sum((-1, -2)), LOGITS), ValueError, "f: got a loss with no gradient"),
        (lambda: rk2(good, LOGITS, float("inf")), ValueError, "beta: got inf"),
        (lambda: measure("reinmax", good, LOGITS), TypeError, "estimator: got str"),
        (lambda: measure(do.reinmax, good, LOGITS, 1), ValueError, "num_samples: got 1, allowed: an int from 2"),
        (lambda: measure(do.reinmax, good, LOGITS, batch_size=0), ValueError, "batch_size: got 0"),
        (lambda: measure(do.reinmax, good, LOGITS, seed=torch.tensor([1, 2])), ValueError, "seed: got 2 seeds"),
        (lambda: measure(do.reinmax, good, LOGITS, exact=torch.zeros(3)), ValueError, r"exact: got shape \(3,\)"),
        (lambda: measure(lambda x, seed: x.detach(), good, LOGITS), ValueError, "estimator: got samples with no grad"),
        (lambda: measure_loss(lambda x, seed: x.sum(), good, LOGITS), ValueError, r"loss: got shape \(\)"),
    ],
)
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()
