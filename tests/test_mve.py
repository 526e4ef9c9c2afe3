"""The minimum-variance estimator against its definition, and where its arithmetic is hardest.

The estimators here are matrices: row i of a call is the outcome ``D = i``, so that one call with a basis vector for v
gives a column of each. What is minimised and what is asked for is in ``discrete_ops/minimum_variance.py``.
"""

import math

import pytest
import torch
from helpers import assert_close, draw_and_pull, jacobian, naive_mve
from torch import Tensor

import discrete_ops as do
from discrete_ops import backends, minimum_variance, reference
from discrete_ops.minimum_variance import Cauchy, MinimumVariance, matrix

TEMPERATURES = (0.0, 1e-6, 0.5, 4.0, 100.0, 1e6)


def matrices(backend: str, name: str, coefficient: float, l: Tensor) -> Tensor:  # noqa: E741
    """``A[x]`` of every outcome x for one row of logits: ``(N, N, N)``."""
    n = len(l)
    rows, outcomes = l.expand(n * n, n).contiguous(), torch.arange(n).repeat_interleave(n)
    basis = torch.eye(n, dtype=l.dtype).repeat(n, 1)
    call = (torch.tensor([0]), (1.0, coefficient, 1.0), name, 1)
    pulled = backends.get(backend).surrogate_vjp(basis, rows, outcomes, *call)
    return pulled.view(n, n, n).transpose(1, 2)


def variance(p: Tensor, A: Tensor) -> float:
    """Of the gradient, where v is independent noise of unit variance: ``sum_x p_x |A_x|^2``."""
    return float((p[:, None, None] * A.square()).sum())


def squared_bias(p: Tensor, A: Tensor) -> float:
    """Expected over random quadratic losses: symmetric Q with elements of variance 1, and 2 on the diagonal."""
    n = len(p)
    error = p[:, None, None] * A  # what Q[x, j] is multiplied by in component k: [x, k, j]
    error = error.permute(1, 0, 2) - torch.diag_embed(jacobian(p, p)) / 2
    pairs = error + error.transpose(1, 2)
    off = torch.ones(n, n, dtype=p.dtype).triu(1)
    return float((pairs.square() * off).sum() + 2 * error.diagonal(dim1=1, dim2=2).square().sum())


def problem(seed: int, n: int = 5) -> Tensor:
    scale = 0.5 + 3 * (seed % 5) / 4
    return scale * torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("t", TEMPERATURES)
def test_it_solves_the_problem_that_defines_it(t: float, backend: str) -> None:
    """The optimality conditions, as one linear system in all elements of the family at once."""
    l = problem(3, 4)  # noqa: E741
    p, n = l.softmax(-1), 4
    J = jacobian(p, p)
    x, j = torch.arange(n).repeat_interleave(n), torch.arange(n).repeat(n)
    everyone = torch.arange(n * n)
    pairs = torch.zeros(n, n, n * n, dtype=torch.float64)  # what Q[x, j] is multiplied by
    pairs[x, j, everyone] = p[x]
    i, k = torch.tril_indices(n, n)
    pairs = torch.where((i != k)[:, None], pairs[i, k] + pairs[k, i], pairs[i, k])
    weight = torch.where(i == k, 2.0, 1.0).double()
    constraint = torch.zeros(n, n * n, dtype=torch.float64)
    constraint[j, everyone] = p[x]
    H = 2 * torch.diag(p[x]) + 2 * t * pairs.T @ (weight[:, None] * pairs)
    wanted = torch.where(i == k, J[:, i] / 2, 0.0)
    linear = 2 * t * (wanted * weight) @ pairs
    system = torch.cat([torch.cat([H, constraint.T], 1), torch.cat([constraint, H.new_zeros(n, n)], 1)])
    solved = torch.linalg.solve(system, torch.cat([linear, J], 1).T)[: n * n]
    want = solved.T.reshape(n, n, n).transpose(0, 1)  # [x, k, j]
    got = matrices(backend, "mve", t, l)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-9)


OTHERS = [("straight_through", 0.0), ("reinmax", 0.0), *(("mix", a) for a in (0.2, 0.5, 0.8))]


def test_no_other_of_its_class_has_less_of_both() -> None:
    """On 50 random rows, against every member of the class that the library has, and other temperatures."""
    others = [*OTHERS, *(("mve", t) for t in (0.1, 1.0, 4.0, 20.0, 1e3))]
    for seed in range(50):
        l = problem(seed, 3 + seed % 4)  # noqa: E741
        p = l.softmax(-1)
        figures = {other: (variance(p, A := matrices("reference", *other, l)), squared_bias(p, A)) for other in others}
        for t in (0.1, 1.0, 4.0, 20.0, 1e3):
            least, bias = figures["mve", t]
            for other, (its_variance, its_bias) in figures.items():
                assert least + t * bias <= (its_variance + t * its_bias) * (1 + 1e-9), (seed, t, other)
                if its_bias <= bias:
                    assert least <= its_variance * (1 + 1e-9), (seed, t, other)


def test_infinite_temperature_has_less_variance_than_reinmax() -> None:
    """Of those without bias on quadratic losses."""
    ratios = []
    for seed in range(50):
        l = problem(seed, 3 + seed % 4)  # noqa: E741
        p = l.softmax(-1)
        mve, reinmax = (matrices("reference", name, t, l) for name, t in (("mve", 2.0**30), ("reinmax", 0.0)))
        assert squared_bias(p, mve) < 1e-12
        assert squared_bias(p, reinmax) < 1e-12
        ratios.append(variance(p, mve) / variance(p, reinmax))
    assert max(ratios) < 1 + 1e-9
    assert min(ratios) < 0.95, "the two would be one"


@pytest.mark.parametrize(("name", "t"), [*OTHERS, *(("mve", t) for t in TEMPERATURES)])
def test_unbiased_for_linear_losses(name: str, t: float, backend: str) -> None:
    for seed in range(5):
        l = problem(seed, 6)  # noqa: E741
        p = l.softmax(-1)
        mean = (p[:, None, None] * matrices(backend, name, t, l)).sum(0)
        torch.testing.assert_close(mean, jacobian(p, p), rtol=0, atol=1e-11 + 1e-15 * t)


@pytest.mark.parametrize("estimator", ["reinmax(tau=1.0)", "mix(a=1.0)", "mve(tau=inf)"])
def test_unbiased_for_quadratic_losses(estimator: str, backend: str) -> None:
    """By enumeration through the public call: the mean of the gradient is that of the expected loss."""
    generator = torch.Generator().manual_seed(0)
    n = 5
    Q, b = torch.randn(n, n, dtype=torch.float64, generator=generator), torch.linspace(-1, 1, n, dtype=torch.float64)
    f = lambda d: ((d @ Q) * d).sum(-1) + d @ b  # noqa: E731
    l = problem(1, n).requires_grad_()  # noqa: E741
    exact = torch.autograd.grad(l.softmax(-1) @ f(torch.eye(n, dtype=torch.float64)), l)[0]
    total, p = torch.zeros(n, dtype=torch.float64), l.detach().softmax(-1)
    seen: set[int] = set()
    for seed in range(1000):
        sample, index = do.estimator(estimator)(l, seed=seed, backend=backend, return_index=True)
        if int(index) not in seen:
            seen.add(int(index))
            total += p[index] * torch.autograd.grad(f(sample), l)[0]
        if len(seen) == n:
            break
    assert len(seen) == n
    torch.testing.assert_close(total, exact, rtol=0, atol=1e-8)


def test_temperature_zero_is_straight_through(backend: str) -> None:
    l = problem(2, 6)  # noqa: E741
    want = matrices(backend, "straight_through", 0.0, l)
    torch.testing.assert_close(matrices(backend, "mve", 0.0, l), want, rtol=0, atol=1e-13)


# ---------------------------------------------------------------------------------------------------
# Arithmetic


@pytest.mark.parametrize("t", TEMPERATURES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_extreme_rows(t: float, dtype: torch.dtype, backend: str) -> None:
    """Logits of +-1e4, masks, equal logits, one category left: right, and never NaN."""
    generator = torch.Generator().manual_seed(0)
    l = torch.randn(12, 7, dtype=torch.float64, generator=generator)  # noqa: E741
    l[0], l[1, 3:], l[2, 1:] = 0.0, -torch.inf, -torch.inf
    l[3:6] *= 5e3
    l[6:9] *= 20
    l[8, 0] = -torch.inf
    l, v = l.to(dtype), torch.randn(12, 7, dtype=torch.float64, generator=generator).to(dtype)  # noqa: E741
    for seed in range(3):
        sample, _, got = draw_and_pull(do.estimators.MVE(t), l, v, seed=seed, backend=backend)
        want = (naive_mve(t, l.double(), sample.double()) @ v.double()[..., None])[..., 0]
        assert_close(got, want)
        assert (got[l == -torch.inf] == 0).all()


@pytest.mark.parametrize("t", [4.0, 16.0, 1e6, math.inf])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_large_gradients_stay_finite(dtype: torch.dtype, t: float, backend: str) -> None:
    """Of few categories above all, whose gradients are scaled down the least."""
    estimator = do.estimators.MVE(t)
    l = torch.tensor([0.5, -0.5, -torch.inf], dtype=dtype).repeat(8, 1)  # noqa: E741
    v = torch.tensor([1.0, -1.0, 0.0], dtype=dtype).repeat(8, 1) * torch.finfo(dtype).max
    got = draw_and_pull(estimator, l, v, seed=0, backend=backend)[2]
    scale = 2.0**-110
    small = draw_and_pull(estimator, l, v * scale, seed=0, backend=backend)[2]
    assert got.isfinite().all()
    torch.testing.assert_close(got * scale, small, rtol=1e-5, atol=0)


def test_rows_of_one_temperature_each(backend: str) -> None:
    l, v = torch.randn(2, 20, 6, generator=torch.Generator().manual_seed(1))  # noqa: E741
    taus = torch.logspace(-3, 3, 20)[:, None]
    got = draw_and_pull(do.estimators.MVE(taus), l, v, seed=4, backend=backend)[2]
    index = reference.sample(l, torch.tensor([4]))[1]
    each = [
        reference.surrogate_vjp(v[i], l[i], index[i], torch.tensor([4]), (1.0, float(taus[i]), 1.0), "mve", 1)
        for i in range(20)
    ]
    assert_close(got, torch.stack(each))


def test_a_bad_temperature_shows_in_its_rows_alone(backend: str) -> None:
    """Of a tensor whose values nobody looked at, as on a GPU."""
    l, v = torch.randn(2, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))  # noqa: E741
    parameters = torch.tensor([[1.0, t, 1.0] for t in (4.0, -0.2, math.nan, math.inf)], dtype=torch.float64)
    call = (v, l, torch.arange(4), torch.tensor([0]), parameters, "mve", 1)
    got, want = (backends.get(name).surrogate_vjp(*call) for name in (backend, "reference"))
    assert_close(got[[0, 3]], want[[0, 3]])
    assert got[1:3].isnan().all()
    assert want[1:3].isnan().all()


@pytest.mark.parametrize("t", [0.5, 4.0, 1e3, 2.0**30])
def test_products_and_solutions_without_the_matrix(t: float) -> None:
    """What long rows take instead of the dense solve."""
    generator = torch.Generator().manual_seed(0)
    for scale in (0.0, 1.0, 5.0, 30.0):
        p = (scale * torch.randn(3, 100, dtype=torch.float64, generator=generator)).softmax(-1)
        x = torch.randn(3, 100, dtype=torch.float64, generator=generator)
        K = 1 / (1 + t * (p[:, :, None] + p[:, None, :]))
        want = (K @ x[..., None])[..., 0]
        torch.testing.assert_close(Cauchy(p, t) @ x, want, rtol=0, atol=1e-11)
        D = torch.nn.functional.one_hot(p.argmax(-1), 100).double()
        estimator = MinimumVariance(p, D, t)
        y, dense = (jacobian(p, p) @ f(x)[..., None] for f in (estimator, _dense(estimator)))
        torch.testing.assert_close(y, dense, rtol=0, atol=1e-10)


def _dense(estimator: MinimumVariance):
    other = MinimumVariance(estimator.p, estimator.D, estimator.t)
    t = torch.full_like(other.p[:, :1], other.t)
    other.solve = lambda w: torch.linalg.solve(matrix(other.p, t), w[..., None])[..., 0]
    estimator.solve = estimator._solve_in_steps
    return other


def test_the_transpose_is_the_transpose() -> None:
    l, v, tangent = torch.randn(3, 8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))  # noqa: E741
    call = (l, torch.arange(8) % 6, torch.tensor([0]), (1.0, 4.0, 1.0), "mve", 1)
    pulled, pushed = reference.surrogate_vjp(v, *call), reference.surrogate_jvp(tangent, *call)
    torch.testing.assert_close((pulled * tangent).sum(-1), (pushed * v).sum(-1), rtol=0, atol=1e-13)


def test_a_long_row_takes_memory_of_its_length_alone() -> None:
    """20000 categories: a matrix of them would be 3 GB."""
    l, v = torch.randn(2, 1, 20_000, generator=torch.Generator().manual_seed(3))  # noqa: E741
    backend = backends.resolve(None, "cpu")
    got = draw_and_pull(do.estimators.MVE(), l, v, seed=0, backend=backend)[2]
    assert_close(got, draw_and_pull(do.estimators.MVE(), l, v, seed=0, backend="reference")[2])


# ---------------------------------------------------------------------------------------------------
# Arguments


def test_arguments() -> None:
    l = torch.randn(3, 4)  # noqa: E741
    for bad in (-1.0, math.nan, torch.tensor(-0.5)):
        with pytest.raises(ValueError, match=r"tau: got .*allowed: a number >= 0, math.inf"):
            do.mve(l, bad)
    with pytest.raises(TypeError, match="tau: got '4'"):
        do.mve(l, "4")
    for bad in (-0.1, 1.1, math.inf):
        with pytest.raises(ValueError, match=r"a: got .*allowed: a number from 0 to 1"):
            do.mix(l, bad)
    with pytest.raises(ValueError, match=r"tau: got a tensor that requires grad"):
        do.mve(l, torch.ones(3, 1, requires_grad=True))
    with pytest.raises(ValueError, match=r"a: got a tensor that requires grad"):
        do.mix(l, torch.full((3, 1), 0.5, requires_grad=True))
    with pytest.raises(ValueError, match=r"beta: got a tensor that requires grad"):
        do.reinmax_rk2(l, torch.full((3, 1), 0.5, requires_grad=True), centred=True)
    assert str(do.estimator("mve(tau=inf)")) == "mve(tau=inf)"
    assert minimum_variance.MOST_TEMPERATURE == 2.0**30
