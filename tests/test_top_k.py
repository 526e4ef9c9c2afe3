"""k distinct categories of a row: the law of Plackett and Luce, and a gradient that is a sum over the draws."""

import itertools
import math

import pytest
import torch
import torch.distributed
from helpers import (
    FLOATS,
    TOLERANCE,
    assert_close,
    assert_mean,
    chi_squared,
    draw_and_pull,
    every_estimator,
    make,
    pairs,
)
from torch import Tensor
from torch.func import grad, jvp, vjp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

import discrete_ops as do
from discrete_ops import reference

inf, nan = math.inf, math.nan

#: What is compared with the definition: the case, the reference's name of it, its coefficient.
NAMES = {
    "straight_through": ("straight_through", 0.0),
    "gumbel_rao": ("gumbel_rao", 0.0),
    "gst_pi": ("gst_pi", 0.0),
    "nz_gst": (reference.NONZERO + "gst", 0.7),
    "reinmax_cv": ("reinmax_cv", 1.5),
    "reinmax_rk2_1.3": ("reinmax_rk2", 1.3),  # asymmetric, and without a tau
}


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def of(estimator, k):
    """A call of the estimator's, of k."""
    return lambda x, **options: do.top_k(x, k, estimator, **options)


# ---------------------------------------------------------------------------------------------------
# What it is


def one_by_one(logits: Tensor, v: Tensor, k: int, seed: int, parameters: Tensor, name: str) -> tuple[Tensor, ...]:
    """The definition on ``(rows, N)``: the reference's draws, one after the other, behind dense masks."""
    taken, pulled, order = torch.zeros_like(logits, dtype=torch.bool), torch.zeros_like(v), []
    for j in range(k):
        left, call = logits.masked_fill(taken, -inf), (torch.tensor([seed]), parameters)
        D, index = reference.sample(left, *call, first_row=j * len(logits))
        pulled = pulled + reference.surrogate_vjp(v, left, index, *call, name, 3, j * len(logits))
        taken, order = taken | (D == 1), [*order, index]
    return taken.double(), torch.stack(order, -1), pulled


@pairs(NAMES)
def test_it_is_one_draw_after_the_other(backend, name):
    """With a seed for each half of the rows, temperatures of their own, a mask."""
    logits, v, k = randn(12, 7), randn(12, 7, seed=1), 3
    mask = randn(12, 7, seed=2) > -0.8
    tau, sample_tau = (randn(12, 1, seed=seed).exp() for seed in (3, 4))
    parameters = torch.cat([tau, torch.full_like(tau, NAMES[name][1]), sample_tau], -1)
    rows = (logits.masked_fill(~mask, -inf).chunk(2), v.chunk(2), [k, k], [5, 6], parameters.chunk(2))
    halves = [one_by_one(*half, NAMES[name][0]) for half in zip(*rows, strict=True)]
    want = [torch.cat(x) for x in zip(*halves, strict=True)]
    options = {"seed": torch.tensor([5, 6]), "backend": backend, "sample_tau": sample_tau, "mask": mask}
    got = draw_and_pull(of(make(name, tau), k), logits, v, **options)
    for a, b in zip(got[:2], want[:2], strict=True):
        assert torch.equal(a, b)
    assert_close(got[2], want[2])
    assert want[2].abs().max() > 0.1


@every_estimator
def test_one_of_them_is_the_estimator(backend, name):
    """To the last bit; of several it is the first."""
    logits, v = randn(5, 6).float(), randn(5, 6, seed=1).float()
    want = draw_and_pull(make(name, 0.7), logits, v, seed=3, backend=backend)
    got = draw_and_pull(of(make(name, 0.7), 1), logits, v, seed=3, backend=backend)
    for a, b in zip(got, (want[0], want[1].unsqueeze(-1), want[2]), strict=True):
        assert torch.equal(a, b)
    _, index = do.top_k(logits, 3, make(name, 0.7), seed=3, backend=backend, return_index=True)
    assert torch.equal(index[..., 0], want[1])


def test_any_dim():
    logits, v = randn(4, 5, 3), randn(4, 5, 3, seed=1)
    call = of("gumbel_softmax(tau=0.5)", 2)
    moved = draw_and_pull(call, logits.movedim(1, -1), v.movedim(1, -1), seed=2)
    got = draw_and_pull(call, logits, v, seed=2, dim=1)
    for a, b in zip(got, moved, strict=True):
        assert torch.equal(a, b.movedim(-1, 1))
    assert torch.equal(torch.zeros_like(logits).scatter(1, got[1], 1.0), got[0])


@pytest.mark.parametrize("dtype", FLOATS)
def test_any_dtype_and_no_rows(backend, dtype):
    """Half types as their values in float32, rounded once."""
    logits, v = randn(6, 9).to(dtype), randn(6, 9, seed=1).to(dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    got = draw_and_pull(of("reinmax", 4), logits, v, seed=3, backend=backend)
    want = draw_and_pull(of("reinmax", 4), logits.to(wide), v.to(wide), seed=3, backend=backend)
    assert got[0].dtype == got[2].dtype == dtype
    assert torch.equal(got[0], want[0].to(dtype))
    assert torch.equal(got[1], want[1])
    torch.testing.assert_close(got[2].double(), want[2].double(), rtol=TOLERANCE[dtype], atol=1e-7)
    for a, shape in zip(draw_and_pull(of("reinmax", 4), logits[:0], v[:0]), ((0, 9), (0, 4), (0, 9)), strict=True):
        assert a.shape == shape


# ---------------------------------------------------------------------------------------------------
# The law, by enumeration


def orders(logits: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Every order in which k of N may be drawn, ``(orders, k)``; its probability; those of each draw, with N."""
    order = torch.tensor(list(itertools.permutations(range(len(logits)), k)))
    D = torch.nn.functional.one_hot(order, len(logits))
    before = (D.cumsum(1) - D).bool()
    pi = logits.expand(D.shape).masked_fill(before, -inf).softmax(-1)
    return order, (pi * D).sum(-1).prod(-1), pi


@pytest.mark.parametrize("k", [2, 3])
def test_the_law_is_that_of_plackett_and_luce(backend, k):
    logits = torch.tensor([0.0, 1.0, -0.5, 0.3, 2.0])
    options = {"sample_tau": 1.5, "seed": 1, "backend": backend}
    _, index = do.top_k(logits.expand(20000, 5), k, "reinmax", return_index=True, **options)
    order, p, _ = orders(logits.double() / 1.5, k)
    base = 5 ** torch.arange(k)
    code = torch.full((5**k,), -1)
    code[(order * base).sum(-1)] = torch.arange(len(order))
    drawn = code[(index * base).sum(-1)]
    assert (drawn >= 0).all(), "distinct"
    assert chi_squared(drawn, p) > 1e-4
    least = (2**order).sum(-1)  # the sets: order does not matter
    sets, number = least.unique(return_inverse=True)
    of_sets = torch.zeros(len(sets), dtype=torch.float64).index_add(0, number, p)
    assert chi_squared(number[drawn], of_sets) > 1e-4


def test_it_is_the_law_of_the_largest_of_gumbels():
    logits, rows = torch.tensor([0.0, 1.0, -0.5, 0.3, 2.0]), 20000
    gumbels = -torch.empty(rows, 5).exponential_(generator=torch.Generator().manual_seed(0)).log()
    order, p, _ = orders(logits.double(), 2)
    code = torch.full((25,), -1)
    code[(order * torch.tensor([1, 5])).sum(-1)] = torch.arange(len(order))
    assert chi_squared(code[((logits + gumbels).topk(2).indices * torch.tensor([1, 5])).sum(-1)], p) > 1e-4


# ---------------------------------------------------------------------------------------------------
# The gradient, by enumeration


def means(logits: Tensor, v: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of ``<v, k_hot>``: the mean of straight-through's gradient, what it lacks, and the exact gradient."""
    logits = logits.clone().requires_grad_()
    order, p, pi = orders(logits, k)
    (exact,) = torch.autograd.grad((p * v[order].sum(-1)).sum(), logits)
    p, pi = p.detach()[:, None], pi.detach()
    D = torch.nn.functional.one_hot(order, len(v))
    reward = pi @ v
    after = reward.flip(1).cumsum(1).flip(1) - reward
    given = (p[..., None] * pi * (v - reward[..., None])).sum((0, 1))
    lacking = (p[..., None] * (D - pi) * after[..., None]).sum((0, 1))
    return given, lacking, exact


@pytest.mark.parametrize("k", [2, 3, 5])
def test_the_mean_gradient_is_the_documented_one(backend, k):
    logits, v = torch.tensor([0.0, 1.0, -0.5, 0.3, 2.0], dtype=torch.float64), torch.tensor([1.0, -1.0, 0.5, 2.0, -0.5])
    x = logits.expand(5000, 5)
    _, _, gradient = draw_and_pull(of("straight_through", k), x, v.expand_as(x).double(), seed=1, backend=backend)
    given, lacking, exact = means(logits, v.double(), k)
    assert_mean(gradient, given)
    torch.testing.assert_close(given + lacking, exact)
    if k == 5:
        torch.testing.assert_close(exact, torch.zeros(5, dtype=torch.float64))


@pytest.mark.parametrize(("k", "cosine", "length"), [(1, 1.0, 1.0), (2, 0.995, 1.14), (3, 0.98, 1.30), (4, 0.96, 1.52)])
def test_how_far_it_is_from_the_exact_gradient(k, cosine, length):
    """What the page says: in the mean of 20 problems with 8 categories."""
    of_each = []
    for problem in range(20):
        given, _, exact = means(randn(8, seed=problem), randn(8, seed=100 + problem), k)
        of_each.append((given @ exact / given.norm() / exact.norm(), given.norm() / exact.norm()))
    assert torch.tensor(of_each).mean(0).tolist() == pytest.approx([cosine, length], abs=0.005)


# ---------------------------------------------------------------------------------------------------
# Rows that have less


@pairs(["straight_through", "gumbel_rao", "reinmax_cv"])
def test_rows_with_too_few_categories_and_without_any(backend, name):
    logits, v = randn(6, 5), randn(6, 5, seed=1)
    logits[1, :3] = -inf  # two are left
    logits[2] = -inf
    logits[3, 0], logits[4, 2] = nan, inf
    v[0, 1] = 3.0
    sample, index, gradient = draw_and_pull(of(make(name), 4), logits, v, seed=3, backend=backend)
    assert sample[[0, 5]].sum(-1).tolist() == [4, 4]
    assert sample[1].tolist() == [0, 0, 0, 1, 1]
    assert sorted(index[1].tolist()) == [-1, -1, 3, 4]
    assert index[1, 2:].tolist() == [-1, -1], "those that there are come first"
    assert (sample[2] == 0).all()
    assert (gradient[2] == 0).all()
    assert (index[2:5] == -1).all()
    assert sample[3:5].isnan().all()
    assert gradient[3:5].isnan().all()
    assert gradient[[0, 1, 5]].isfinite().all()
    assert (gradient[1, :3] == 0).all()
    alone = draw_and_pull(of(make(name), 4), logits[:3], v[:3], seed=torch.tensor([3]), backend=backend)
    assert torch.equal(alone[1][:, 0], index[:3, 0]), "their neighbours draw on"


def test_all_of_them():
    sample, index, gradient = draw_and_pull(of("straight_through", 4), randn(3, 4), randn(3, 4, seed=1), seed=1)
    assert (sample == 1).all()
    assert torch.equal(index.sort(-1).values, torch.arange(4).expand(3, 4))
    assert gradient.abs().min() > 0, "as documented: given the draws before, each has a derivative"


def test_errors():
    logits = randn(4, 3)
    for k, error in ((0, ValueError), (-1, ValueError), (True, TypeError), (1.0, TypeError), (None, TypeError)):
        with pytest.raises(error, match="k: got"):
            do.top_k(logits, k)
    with pytest.raises(ValueError, match="k: got 4, allowed: at most 3, the number of categories"):
        do.top_k(logits, 4)
    with pytest.raises(ValueError, match="estimator: got 'argmax'"):
        do.top_k(logits, 2, "argmax")
    with pytest.raises(TypeError, match="return_index: got 1"):
        do.top_k(logits, 2, return_index=1)
    with pytest.raises(TypeError, match="logits: got list"):
        do.top_k([0.0, 1.0], 1)
    ragged = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged)
    with pytest.raises(TypeError, match="logits: got a tensor that is nested, allowed: a dense one"):
        do.top_k(ragged, 1)


def test_a_dtensor_is_refused():
    from torch.distributed.tensor import Replicate, distribute_tensor, init_device_mesh

    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        spread = distribute_tensor(randn(4, 3), init_device_mesh("cpu", (1,)), [Replicate()])
        with pytest.raises(TypeError, match="logits: got a DTensor, allowed"):
            do.top_k(spread, 2)
    finally:
        torch.distributed.destroy_process_group()


# ---------------------------------------------------------------------------------------------------
# The operators

LOGITS, V = randn(4, 5), randn(4, 5, seed=1)


@pytest.mark.parametrize("name", ["gumbel_rao", "reinmax_rk2_1.3"])
def test_the_operators_pass_opcheck(name):
    named, seed = torch.ops.discrete_ops, torch.tensor([3])
    parameters = torch.tensor([[0.7, NAMES[name][1], 1.0]], dtype=torch.float64)
    spec = (NAMES[name][0], 3, 0, "")
    index = do.top_k(LOGITS, 3, seed=3, return_index=True)[1]
    torch.library.opcheck(named.top_k, (LOGITS.clone().requires_grad_(), seed, parameters, 3, *spec))
    for transposed in (False, True):
        call = (V.clone().requires_grad_(), LOGITS, index, seed, parameters, transposed, *spec)
        torch.library.opcheck(named.top_k_pull_back, call)
    if name == "gumbel_rao":
        torch.library.opcheck(named.top_k_tau_derivative, (LOGITS, index, seed, parameters, *spec))


@pairs(["gumbel_rao", "reinmax_rk2_1.3"])
def test_derivatives_of_every_kind(backend, name):
    """Forward mode is the transpose; the pull-back is linear in v, and refuses to be differentiated in the logits."""
    f = lambda x: do.top_k(x, 3, make(name), seed=3, backend=backend)  # noqa: E731
    _, pull = vjp(f, LOGITS)
    T = randn(4, 5, seed=2)
    pulled, pushed = pull(V)[0], jvp(f, (LOGITS,), (T,))[1]
    torch.testing.assert_close((pushed * V).sum(), (pulled * T).sum())
    x, v = LOGITS.clone().requires_grad_(), V.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(f(x), x, v, create_graph=True)
    torch.testing.assert_close(torch.autograd.grad(gradient, v, T, retain_graph=True)[0], pushed)
    torch.testing.assert_close(jvp(lambda v: pull(v)[0], (V,), (T,))[1], pull(T)[0])
    with pytest.raises(RuntimeError, match="double backward"):
        torch.autograd.grad(gradient.square().sum(), x)


def test_the_gradient_at_tau_is_that_of_the_soft_samples(backend):
    """Of every draw, the draws held fixed; an estimator without soft samples refuses."""
    tau = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    sample, index = do.top_k(LOGITS, 3, do.estimators.StraightThrough(tau), seed=3, backend=backend, return_index=True)
    (got,) = torch.autograd.grad(sample, tau, V)
    taken = torch.nn.functional.one_hot(index, 5).cumsum(-2) - torch.nn.functional.one_hot(index, 5)
    left = LOGITS.unsqueeze(-2).masked_fill(taken.bool(), -1e6)  # finite, for the derivative of a quotient
    soft = (left / tau).softmax(-1).sum(-2)
    torch.testing.assert_close(got, torch.autograd.grad(soft, tau, V)[0])
    f = lambda tau: do.top_k(LOGITS, 3, do.estimators.StraightThrough(tau), seed=3, backend=backend)  # noqa: E731
    pushed = jvp(f, (tau.detach(),), (torch.ones_like(tau),))[1]
    torch.testing.assert_close((pushed * V).sum(), got)
    with pytest.raises(ValueError, match="tau"):
        do.top_k(LOGITS, 3, do.estimators.ReinMax(tau), seed=3, backend=backend)


@pairs(["gumbel_rao", "reinmax_cv"])
def test_vmap_is_a_loop(backend, name):
    """Over logits, seeds and temperatures."""
    batch, seeds, taus = randn(3, 4, 5, seed=4), torch.tensor([1, 2**40, 3]), torch.tensor([0.5, 1.0, 2.0])

    def pulled(x, seed, tau):
        def loss(x):
            sample = do.top_k(x, 2, make(name, tau), seed=seed, backend=backend)
            return (sample * V).sum(), sample

        return grad(loss, has_aux=True)(x)

    for in_dims in ((0, None, None), (None, 0, None), (0, 0, 0)):
        call = [x if dim == 0 else x[0] for x, dim in zip((batch, seeds, taus.double()), in_dims, strict=True)]
        gradient, sample = vmap(pulled, in_dims=in_dims)(*call)
        for b in range(3):
            want = pulled(*(x[b] if dim == 0 else x for x, dim in zip(call, in_dims, strict=True)))
            assert torch.equal(sample[b], want[1])
            assert_close(gradient[b], want[0])


class Model(torch.nn.Module):
    def __init__(self, estimator: str, **options: object) -> None:
        super().__init__()
        self.estimator, self.options = estimator, options

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return do.top_k(x.sin(), 2, self.estimator, return_index=True, **self.options)


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit
def test_what_captures_it_keeps_the_gradient():
    model = Model("gumbel_rao(tau=0.7, num_samples=2)", seed=3)
    want = draw_and_pull(lambda x, return_index: model(x), LOGITS, V)
    captured = {
        "export": torch.export.export(model, (LOGITS,)).module(),
        "trace": torch.jit.trace(model, LOGITS),
        "make_fx": make_fx(model, tracing_mode="symbolic")(LOGITS),
        "fx": torch.fx.symbolic_trace(model),
        "compile": torch.compile(model, fullgraph=True, backend="aot_eager"),
    }
    for how, call in captured.items():
        got = draw_and_pull(lambda x, return_index, call=call: call(x), LOGITS, V)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-14, msg=how)


@pytest.mark.usefixtures("fresh_dynamo")
def test_compiled_it_draws_anew_and_recomputes_what_it_drew():
    """At no memory budget at all: the gradient is that of the sample that was returned."""
    x, v = randn(40, 5).requires_grad_(), randn(40, 5, seed=1)
    with torch._functorch.config.patch(activation_memory_budget=0.0):
        call = torch.compile(Model("reinmax"), fullgraph=True, backend="aot_eager_decomp_partition")
        (sample, index), (other, _) = call(x), call(x)
        (gradient,) = torch.autograd.grad(sample, x, v)
    assert not torch.equal(sample, other)
    assert torch.equal(torch.zeros_like(x).scatter(-1, index, 1.0), sample)
    call = (torch.tensor([0]), torch.tensor([[1.0, 0.0, 1.0]]).double(), False, "reinmax", 1, 0, "reference")
    pulled = torch.ops.discrete_ops.top_k_pull_back(v, x.detach().sin(), index, *call)
    torch.testing.assert_close(gradient, pulled * x.detach().cos())
