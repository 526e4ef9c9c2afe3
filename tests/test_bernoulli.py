"""Binary variables: two categories of which one is in no memory."""

import math

import pytest
import torch
from helpers import (
    CASES,
    CPU_BACKENDS,
    FLOATS,
    assert_close,
    assert_mean,
    chi_squared,
    every_estimator,
    make,
    pairs,
)
from torch import Tensor
from torch.autograd import forward_ad

import discrete_ops as do
from discrete_ops import reference

EXACT = "gumbel_rao"  # of all draws here; see test_bernoulli_mean.py
LOGITS = 2 * torch.randn(4, 15, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
V = torch.randn(4, 15, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def drawn(f, logits: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.detach().requires_grad_()
    x = f(logits)
    return x.detach(), torch.autograd.grad(x, logits, v)[0]


def binary(estimator, **options):
    return lambda x: do.bernoulli(x, estimator, **options)


def of_two(estimator, **options):
    return lambda x: estimator(torch.stack([x, torch.zeros_like(x)], -1), **options)[..., 0]


def backend_of(name: str, backend: str) -> str | None:
    return None if name.startswith("nz_") else backend


# ---------------------------------------------------------------------------------------------------
# Two categories


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@every_estimator
def test_is_the_first_of_two_categories(backend, name, dtype):
    logits, v = LOGITS.to(dtype), V.to(dtype)
    for tau in (1.0, 0.6) if dtype == torch.float64 else (0.6,):
        call = {"estimator": make(name, tau), "seed": 5, "backend": backend_of(name, backend)}
        x, gradient = drawn(binary(**call), logits, v)
        want, want_gradient = drawn(of_two(**call), logits, v)
        assert torch.equal(x, want)
        if name != EXACT:
            assert_close(gradient, want_gradient)
        assert gradient.dtype == x.dtype == dtype
        assert (gradient != 0).any() or name == "nz_gst_pi"  # where both categories move as the greater one does


@pairs([name for name in CASES if "gumbel_softmax" in name or "gst" in name])
def test_soft_is_the_first_of_two_categories(backend, name):
    options = {"seed": 5, "backend": backend_of(name, backend), "hard": False}
    x, gradient = drawn(binary(make(name, 0.7), **options), LOGITS, V)
    want, want_gradient = drawn(of_two(make(name, 0.7), **options), LOGITS, V)
    assert_close(x, want)
    assert_close(gradient, want_gradient)


LAYOUTS = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.t(),
    "every third": lambda x: x[:, ::3],
    "offset": lambda x: x.flatten()[3:],
    "expanded": lambda x: x[:1].expand(4, 15),
    "three dims swapped": lambda x: x.view(4, 5, 3).permute(1, 0, 2),
    "one": lambda x: x[0, :1],
    "0-dim": lambda x: x[0, 0],
    "empty": lambda x: x[:0],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_shape_and_strides(backend, layout):
    for dtype in (torch.float32, torch.bfloat16):
        logits, v = (LAYOUTS[layout](x.to(dtype)) for x in (LOGITS, V))
        x, gradient = drawn(binary("reinmax(tau=0.7)", seed=5, backend=backend), logits, v)
        want, want_gradient = drawn(of_two(make("reinmax", 0.7), seed=5, backend="reference"), logits, v)
        assert torch.equal(x, want)
        assert x.shape == logits.shape
        assert_close(gradient, want_gradient)


def test_groups_of_seeds_and_parameters_of_each_variable(backend):
    seeds = torch.tensor([3, 2**62])
    tau = torch.linspace(0.4, 3, 15, dtype=torch.float64)
    gap, cold = torch.rand(4, 1, dtype=torch.float64), torch.rand(4, 15, dtype=torch.float64) + 0.5
    ours = do.estimators.GST(tau, gap, sample_tau=cold)
    two = do.estimators.GST(tau[:, None], gap[..., None], sample_tau=cold[..., None])
    x, gradient = drawn(binary(ours, seed=seeds, backend=backend), LOGITS, V)
    want, want_gradient = drawn(of_two(two, seed=seeds, backend=backend), LOGITS, V)
    assert torch.equal(x, want)
    assert_close(gradient, want_gradient)


def test_the_gradient_at_tau(backend):
    tau = torch.rand(4, 1, dtype=torch.float64) + 0.4
    got, want = tau.clone().requires_grad_(), tau.clone().requires_grad_()
    x = do.bernoulli(LOGITS, do.estimators.GumbelSoftmax(got), seed=5, hard=False, backend=backend)
    of_two(do.estimators.GumbelSoftmax(want[..., None]), seed=5, hard=False, backend=backend)(LOGITS).backward(V)
    x.backward(V)
    assert_close(got.grad, want.grad)


# ---------------------------------------------------------------------------------------------------
# The law, the mean gradient


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_law(backend, dtype):
    for logit, sample_tau in ((0.0, 1.0), (-1.3, 1.0), (2.0, 0.5), (-4.0, 1.0)):
        logits = torch.full((2000,), logit, dtype=dtype)
        x = do.bernoulli(logits, "reinmax", seed=9, sample_tau=sample_tau, backend=backend)
        p = 1 / (1 + math.exp(-logit / sample_tau))
        assert chi_squared(x.long(), torch.tensor([1 - p, p])) > 1e-3


@pairs(["straight_through", "reinmax", "reinmax_rk2_centred"])
def test_mean_gradient_over_both_outcomes(backend, name):
    """Of ``f(x) = 2 x^2 - x / 2``: ReinMax has the gradient of its expectation exactly, as of any quadratic."""
    for logit in (-1.5, 0.3):
        logits = torch.full((64,), logit, dtype=torch.float64, requires_grad=True)
        x = do.bernoulli(logits, make(name), seed=1, backend=backend)
        (gradient,) = torch.autograd.grad((2 * x**2 - x / 2).sum(), logits)
        p = 1 / (1 + math.exp(-logit))
        mean = p * gradient[x == 1][0] + (1 - p) * gradient[x == 0][0]
        average = {"straight_through": p, "reinmax": 0.5, "reinmax_rk2_centred": 0.2 * (1 - p) + 0.8 * p}[name]
        assert mean.item() == pytest.approx(p * (1 - p) * (average * 3.5 + (1 - average) * -0.5), abs=1e-12)


def test_mean_over_draws_is_that_of_gumbel_softmax():
    """Gumbel-softmax draws the noise that Gumbel-Rao takes the mean over."""
    logits = torch.full((40000,), 0.7, dtype=torch.float64)
    for tau in (0.3, 2.0):
        x, one = drawn(binary(make("gumbel_softmax", tau), seed=1), logits, torch.ones_like(logits))
        _, mean = drawn(binary(make(EXACT, tau), seed=1), logits, torch.ones_like(logits))
        for outcome in (0, 1):
            assert_mean(one[x == outcome][:, None], mean[x == outcome][:1])


# ---------------------------------------------------------------------------------------------------
# The ends


@every_estimator
def test_certain_outcomes_have_no_gradient(backend, name):
    inf = math.inf
    for dtype in FLOATS:
        most = torch.finfo(dtype).max
        logits = torch.tensor([-inf, inf, math.nan, most, -most, 1e4, -1e4, 90.0, -90.0], dtype=dtype)
        for tau in (0.3, 4.0):
            f = binary(make(name, tau), seed=2, backend=backend_of(name, backend))
            v = torch.full_like(logits, most / 4)
            v[0], v[1] = inf, math.nan  # whatever comes in
            x, gradient = drawn(f, logits, v)
            assert x[:2].tolist() == [0, 1]
            assert gradient[:2].tolist() == [0, 0]
            assert x[2].isnan()
            assert gradient[2].isnan()
            assert x[3:].tolist() == [1, 0, 1, 0, 1, 0]
            assert gradient[3:].isfinite().all()
            assert (gradient[3:].double() / v[3:]).abs().max() < 1e-8 or tau > 1  # a power of the probabilities


def test_soft_samples_at_the_ends(backend):
    logits = torch.tensor([-math.inf, math.inf], dtype=torch.float64)
    for name in ("gumbel_softmax", EXACT, "gst_pi"):
        for tau in (0.2, 3.0):
            x = do.bernoulli(logits, make(name, tau), seed=1, hard=False, backend=backend)
            torch.testing.assert_close(x, torch.tensor([0.0, 1.0], dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_soft_sample_is_a_probability(backend):
    """To the last bit, at temperatures whose inverse is rounded: who takes the logarithm of the rest meets no NaN."""
    tau = torch.linspace(0.3, 3, 1000, dtype=torch.float64)
    logits = torch.tensor([30.0, 300.0], dtype=torch.float64)[:, None].expand(2, 1000)
    for estimator in (do.estimators.GumbelSoftmax(tau), do.estimators.GumbelRao(tau), do.estimators.GST(tau)):
        x = do.bernoulli(logits, estimator, seed=0, hard=False, backend=backend)
        assert ((x >= 0) & (x <= 1)).all()


# ---------------------------------------------------------------------------------------------------
# Captured and transformed

CAPTURED = pairs([EXACT, "nz_gst", "reinmax_rk2"])  # of all draws, asymmetric; the operator is one for all


@CAPTURED
def test_compiles_in_one_graph(backend, name, fresh_dynamo):
    f = binary(make(name, 0.7), seed=5, backend=backend_of(name, backend))
    got = drawn(torch.compile(f, fullgraph=True, backend="aot_eager"), LOGITS, V)
    for a, b in zip(got, drawn(f, LOGITS, V), strict=True):
        assert_close(a, b)


@CAPTURED
def test_an_exported_model_trains(backend, name):
    class Model(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return do.bernoulli(x, make(name, 0.7), seed=5, backend=backend_of(name, backend))

    captured = torch.export.export(Model(), (LOGITS,)).module()
    for a, b in zip(drawn(captured, LOGITS, V), drawn(Model(), LOGITS, V), strict=True):
        assert_close(a, b)


@CAPTURED
def test_transforms(backend, name):
    """vmap is a loop; the gradient of func.grad and the tangent of forward mode are those of backward."""
    seeds = torch.arange(4)

    def f(x: Tensor, seed: Tensor) -> Tensor:
        return do.bernoulli(x, make(name, 0.7), seed=seed, backend=backend_of(name, backend))

    def loss(x: Tensor, v: Tensor, seed: Tensor) -> Tensor:
        return (f(x, seed) * v).sum()

    got = torch.vmap(torch.func.grad(loss))(LOGITS, V, seeds)
    rows = zip(LOGITS, V, seeds, strict=True)
    want = torch.stack([drawn(lambda x: f(x, seed), row, v)[1] for row, v, seed in rows])  # noqa: B023
    assert_close(got, want)
    assert torch.equal(torch.vmap(f)(LOGITS, seeds), torch.stack([*map(f, LOGITS, seeds)]))
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(f(forward_ad.make_dual(LOGITS[0], V[0]), seeds[0])).tangent
    assert_close(tangent, want[0])  # a diagonal is its own transpose


@pairs([EXACT, "reinmax_rk2"])
def test_operators_pass_opcheck(backend, name):
    key, k = {EXACT: ("gumbel_rao", reference.ALL_DRAWS)}.get(name, (name, 1))
    spec = (reference.BINARY + key, k, 0, backend)
    named, parameters = torch.ops.discrete_ops, torch.tensor([[0.7, 0.5, 1.0]], dtype=torch.float64)
    logits, v, seed = LOGITS[..., None].clone(), V[..., None].clone(), torch.tensor([3])
    index = (do.bernoulli(LOGITS, "reinmax", seed=3) == 0).long()
    torch.library.opcheck(named.draw, (logits.requires_grad_(), seed, parameters, True, *spec))
    logits = logits.detach()
    for transposed in (False, True):
        torch.library.opcheck(named.pull_back, (v.requires_grad_(), logits, index, seed, parameters, transposed, *spec))
    if key in reference.WITH_SOFT_SAMPLE:
        torch.library.opcheck(named.tau_derivative, (logits, index, seed, parameters, *spec))


def test_a_proxy_takes_the_call():
    class Model(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return do.bernoulli(x, "gst(tau=0.5, gap=1.0)", seed=5)

    traced = torch.fx.symbolic_trace(Model())
    for a, b in zip(drawn(traced, LOGITS, V), drawn(Model(), LOGITS, V), strict=True):
        assert torch.equal(a, b)


# ---------------------------------------------------------------------------------------------------
# Arguments


def test_a_string_is_an_estimator():
    for text, estimator in (("reinmax", make("reinmax")), ("gst(tau=0.5, gap='pi')", make("gst_pi", 0.5))):
        assert torch.equal(do.bernoulli(LOGITS, text, seed=1), do.bernoulli(LOGITS, estimator, seed=1))


def test_draws_anew_and_from_a_generator():
    first, second = (do.bernoulli(LOGITS, "reinmax", generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(do.bernoulli(LOGITS, "reinmax"), do.bernoulli(LOGITS, "reinmax"))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"logits": [0.0]}, TypeError, "logits: got list, allowed: a tensor"),
        ({"logits": torch.ones(3, dtype=torch.int64)}, TypeError, "logits: got dtype torch.int64"),
        ({"estimator": "reimax"}, ValueError, "estimator: got 'reimax', allowed"),
        ({"estimator": None}, TypeError, "estimator: got NoneType, allowed"),
        ({"hard": False}, ValueError, "hard: got False with reinmax, allowed: with one of gumbel_softmax, gumbel_rao"),
        ({"hard": 1}, TypeError, "hard: got 1, allowed: True or False"),
        ({"seed": -1}, ValueError, "seed: got -1"),
        ({"seed": torch.zeros(7, dtype=torch.int64)}, ValueError, "seed: got 7 seeds for 60 rows"),
        ({"backend": "fast"}, ValueError, "backend: got 'fast'"),
        ({"sample_tau": 0.0}, ValueError, "sample_tau: got 0.0"),
        (
            {"estimator": do.estimators.ReinMax(torch.ones(4))},
            ValueError,
            r"tau: got a tensor of shape \(4,\), allowed: one that broadcasts to \(4, 15\), the logits' shape",
        ),
    ],
)
def test_bad_arguments(change, error, words):
    with pytest.raises(error, match=words):
        do.bernoulli(**{"logits": LOGITS, "estimator": "reinmax", **change})


@pytest.mark.skipif(CPU_BACKENDS == ("reference",), reason="NOT COVERED: no compiled backend is installed")
def test_a_compiled_backend_refuses_other_logits():
    from discrete_ops import cpp

    with pytest.raises(RuntimeError, match="logits: got 3 categories, allowed: one, of binary variables"):
        cpp.sample(torch.zeros(2, 3), torch.tensor([1]), binary=True)
