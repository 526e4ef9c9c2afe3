"""torch.compile and torch.func: one sample a call, the eager sample for a seed, no recompilation from annealing."""

from dataclasses import replace

import pytest
import torch
from helpers import (
    CASES,
    CPU_BACKENDS,
    assert_close,
    compilers,
    draw_and_pull,
    every_estimator,
    make,
    naive_gradient,
    pairs,
)
from torch._dynamo.testing import CompileCounter
from torch.func import grad, vmap

import discrete_ops as do
from discrete_ops.estimators import GST

pytestmark = pytest.mark.usefixtures("fresh_dynamo")

LOGITS = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
V = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))


def compiled(f, backend: str = "aot_eager", **options):
    return torch.compile(f, fullgraph=True, backend=backend, **options)


# ---------------------------------------------------------------------------------------------------
# torch.compile


@pairs([n for n in CASES if n not in ("gst_0", "gst_4", "nz_gst", "reinmax_rk2_1.3")])  # no other code than theirs
def test_compiled_equals_eager_for_a_seed(backend, name):
    estimator = make(name, 0.7)

    def f(x, v):
        sample, index = estimator(x, seed=11, return_index=True, backend=backend)
        return (sample * v).sum(), sample, index

    eager_x, x = (LOGITS.clone().requires_grad_() for _ in range(2))
    want, got = f(eager_x, V), compiled(f)(x, V)
    assert torch.equal(got[1], want[1])
    assert torch.equal(got[2], want[2])
    want[0].backward()
    got[0].backward()
    assert_close(x.grad, eager_x.grad)


def own_gradients(samples, gradients):
    """Each gradient is the one of its own sample, by GST's naive formula."""
    for (sample, index), gradient in zip(samples, gradients, strict=True):
        assert torch.equal(sample.argmax(-1), index)
        want = naive_gradient(GST(0.7, 1.0), LOGITS.double(), sample.double(), V.double(), torch.ones(1, 40, 6))
        assert_close(gradient, want)


@compilers("aot_eager_decomp_partition")  # it merges equal calls too
def test_two_equal_calls_are_two_samples(compiler, backend):
    """Common-subexpression elimination must not merge them."""

    def f(x):
        return [do.gst(x, 0.7, 1.0, return_index=True, backend=backend) for _ in range(2)]

    torch.manual_seed(0)
    x = LOGITS.clone().requires_grad_()
    g = compiled(f, compiler)
    a, b = g(x)
    c, _ = g(x)
    assert not torch.equal(a[1], b[1])
    assert not torch.equal(a[1], c[1]), "nor is a call the last one again"
    agree = (a[1] == b[1]).float().mean().item()
    p = LOGITS.softmax(-1).square().sum(-1).mean().item()  # chance of two independent draws to agree
    assert abs(agree - p) < 4 * (p * (1 - p) / 40) ** 0.5
    gradients = [torch.autograd.grad(sample, x, V, retain_graph=True)[0] for sample, _ in (a, b)]
    own_gradients([(s.detach(), i) for s, i in (a, b)], gradients)
    assert not torch.equal(*gradients)


@pairs(["gumbel_rao", "nz_gst_pi"])
def test_two_equal_calls_of_other_estimators_are_two_samples(backend, name):
    estimator = make(name)
    x = LOGITS.clone().requires_grad_()
    torch.manual_seed(0)
    g = compiled(lambda x: (estimator(x, backend=backend), estimator(x, backend=backend)), "aot_eager_decomp_partition")
    a, b = g(x)
    assert not torch.equal(a, b)
    gradients = [torch.autograd.grad(sample, x, V, retain_graph=True)[0] for sample in (a, b)]
    assert not torch.equal(*gradients)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_inductor_equals_eager_for_a_seed(backend):
    def f(x, v, seed):
        sample = do.gumbel_rao(x, 0.7, 3, seed=seed, backend=backend)
        return (sample * v).sum(), sample

    seed = torch.tensor(2**40 + 1)
    eager_x, x = (LOGITS.clone().requires_grad_() for _ in range(2))
    want, got = f(eager_x, V, seed), compiled(f, "inductor")(x, V, seed)
    assert torch.equal(got[1], want[1])
    want[0].backward()
    got[0].backward()
    assert_close(x.grad, eager_x.grad)


def test_compiled_seed_tensor_recompiles_nothing(backend):
    counter = CompileCounter()
    g = compiled(lambda x, seed: do.reinmax(x, seed=seed, backend=backend), counter)
    for seed in (1, 2, 2**50):
        assert torch.equal(g(LOGITS, torch.tensor(seed)), do.reinmax(LOGITS, seed=seed, backend=backend))
    assert counter.frame_count == 1


@pytest.mark.parametrize("name", ["gumbel_softmax", "gst_0.7", "reinmax", "reinmax_cv"])
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_annealing_a_tensor_recompiles_nothing(backend, name):
    counter = CompileCounter()
    g = compiled(lambda x, tau: make_with(name, tau)(x, seed=1, backend=backend), counter)
    for tau in (1.0, 0.9, 0.5, 0.1):
        x = LOGITS.clone().requires_grad_()
        gradient = torch.autograd.grad(g(x, torch.tensor(tau)), x, V)[0]
        assert_close(gradient, draw_and_pull(make(name, tau), LOGITS, V, seed=1, backend=backend)[2])
    assert counter.frame_count == 1


def make_with(name, tau):
    """The function of a case at a traced temperature."""
    functions = {
        "gumbel_softmax": lambda x, **o: do.gumbel_softmax(x, tau, True, **o),
        "gst_0.7": lambda x, **o: do.gst(x, tau, 0.7, **o),
        "reinmax": lambda x, **o: do.reinmax(x, tau, **o),
        "reinmax_cv": lambda x, **o: do.reinmax_cv(x, tau, 1.5, 3, **o),
    }
    return functions[name]


@compilers("aot_eager")
def test_annealing_a_tensor_through_a_compiled_backward(compiler, backend):
    """With the whole of autograd compiled ahead; a recompilation is an error here."""
    g = compiled(lambda x, tau: do.reinmax(x, tau, seed=1, backend=backend), compiler)
    for step, tau in enumerate((1.0, 0.7, 0.3)):
        with torch._dynamo.config.patch(error_on_recompile=step > 0):
            x = LOGITS.clone().requires_grad_()
            gradient = torch.autograd.grad(g(x, torch.tensor(tau)), x, V)[0]
        assert_close(gradient, draw_and_pull(make("reinmax", tau), LOGITS, V, seed=1, backend=backend)[2])


@pytest.mark.parametrize("name", ["gumbel_softmax", "gst_0.7"])
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_annealing_a_float_recompiles_once_at_most(backend, name):
    counter = CompileCounter()
    g = compiled(lambda x, tau: make_with(name, tau)(x, seed=1, backend=backend), counter)
    for tau in (1.0, 0.9, 0.5, 0.1):
        x = LOGITS.clone().requires_grad_()
        gradient = torch.autograd.grad(g(x, tau), x, V)[0]
        assert_close(gradient, draw_and_pull(make(name, tau), LOGITS, V, seed=1, backend=backend)[2])
    assert counter.frame_count <= 2


def test_a_new_batch_size_recompiles_once(backend):
    counter = CompileCounter()
    g = compiled(lambda x: do.gumbel_rao(x, 0.5, 3, seed=1, backend=backend), counter)
    for rows in (40, 30, 20, 10):
        x = LOGITS[:rows].clone().requires_grad_()
        gradient = torch.autograd.grad(g(x), x, V[:rows])[0]
        want = draw_and_pull(make("gumbel_rao", 0.5), LOGITS[:rows], V[:rows], seed=1, backend=backend)[2]
        assert_close(gradient, want)
    assert counter.frame_count <= 2


def test_a_bad_argument_is_an_error_when_compiled_too(backend):
    with pytest.raises(Exception, match="tau"):
        compiled(lambda x: do.reinmax(x, -1.0, backend=backend))(LOGITS)


@pytest.mark.parametrize("dim", [0, 1])
def test_compiled_dims(dim, backend):
    f = lambda x: do.reinmax(x, dim=dim, seed=3, backend=backend)  # noqa: E731
    assert torch.equal(compiled(f)(LOGITS), f(LOGITS))


# ---------------------------------------------------------------------------------------------------
# torch.func

BATCH = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
BATCH_V = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def pull(estimator, **options):
    """Gradient and sample of ``<v, sample>`` as a function that torch.func can transform."""

    def loss(x, v, **more):
        sample = estimator(x, **options, **more)
        return (sample * v).sum(), sample

    return grad(loss, has_aux=True)


@every_estimator
def test_vmap_is_a_loop(backend, name):
    """With one seed for all, given explicitly: every element is the call on it alone."""
    f = pull(make(name, 0.6), seed=7, backend=backend)
    gradient, sample = vmap(f)(BATCH, BATCH_V)
    for b in range(4):
        alone_gradient, alone = f(BATCH[b], BATCH_V[b])
        assert torch.equal(sample[b], alone)
        assert_close(gradient[b], alone_gradient)
    assert len(sample.argmax(-1).unique()) > 1


@every_estimator
def test_vmap_over_seeds(backend, name):
    estimator, seeds = make(name, 0.6), torch.tensor([1, 2**40, 3])
    f = lambda seed: pull(estimator, backend=backend)(BATCH[0], BATCH_V[0], seed=seed)  # noqa: E731
    gradient, sample = vmap(f)(seeds)
    for s, seed in enumerate(seeds):
        alone_gradient, alone = f(seed)
        assert torch.equal(sample[s], alone)
        assert_close(gradient[s], alone_gradient)
    assert not torch.equal(sample[0], sample[1])


@pairs([n for n in CASES if hasattr(make(n), "tau")])
def test_vmap_over_temperatures(backend, name):
    taus = torch.tensor([0.3, 1.0, 2.5], dtype=torch.float64)

    def f(tau):
        estimator = make(name)
        parameters = {**vars(estimator), "tau": tau}
        hard = {"hard": True} if name == "gumbel_softmax" else {}
        return pull(lambda x: type(estimator).function(x, **parameters, **hard, seed=3, backend=backend))(
            BATCH[0], BATCH_V[0]
        )

    gradient, sample = vmap(f)(taus)
    for t, tau in enumerate(taus):
        alone_gradient, alone = f(tau)
        assert torch.equal(sample[t], alone)
        assert_close(gradient[t], alone_gradient)
        one = replace(make(name), tau=tau.item())
        assert_close(gradient[t], draw_and_pull(one, BATCH[0], BATCH_V[0], seed=3, backend=backend)[2])


@pairs(["gumbel_rao", "gst_pi", "reinmax_cv", "nz_gst"])
def test_vmap_over_everything_at_once_and_other_dims(backend, name):
    """Logits along dim 1, a seed and a temperature each, output along dim 2; nested."""
    estimator, seeds = make(name), torch.tensor([5, 6, 7, 8])
    taus = torch.tensor([0.5, 1.0, 1.5, 2.0], dtype=torch.float64)
    parameters = {k: x for k, x in vars(estimator).items() if k != "tau"}

    def f(x, seed, tau):
        return (
            type(estimator).function(x, tau=tau, **parameters, hard=False, seed=seed, backend=backend)
            if soft
            else (type(estimator).function(x, tau=tau, **parameters, seed=seed, backend=backend))
        )

    soft = name != "reinmax_cv"
    out = vmap(f, in_dims=(1, 0, 0), out_dims=2)(BATCH.movedim(0, 1), seeds, taus)
    for b in range(4):
        assert_close(out[..., b], f(BATCH[b], seeds[b], taus[b]))
    nested = vmap(vmap(f, in_dims=(0, None, 0)), in_dims=(None, 0, None))(BATCH, seeds, taus)
    for s in range(4):
        for b in range(4):
            assert_close(nested[s, b], f(BATCH[b], seeds[s], taus[b]))


@every_estimator
def test_vmap_randomness(backend, name):
    row = LOGITS[:1].expand(60, 6)
    f = lambda x: make(name)(x, backend=backend)  # noqa: E731
    torch.manual_seed(0)
    different = vmap(f, randomness="different")(row)
    assert len(different.argmax(-1).unique()) > 1
    same = vmap(f, randomness="same")(row)
    assert len(same.argmax(-1).unique()) == 1
    assert (different.sum(-1) == 1).all()
    with pytest.raises(RuntimeError, match="randomness"):
        vmap(f)(row)


@pytest.mark.parametrize("compiler", ["eager", "aot_eager", "inductor"])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_compiled_vmap_randomness(backend, compiler, requires_grad):
    rows = LOGITS[:1].expand(60, 6).clone().requires_grad_(requires_grad)
    f = lambda x: do.reinmax(x, backend=backend)  # noqa: E731
    different = compiled(vmap(f, randomness="different"), compiler)(rows)
    assert len(different.argmax(-1).unique()) > 1
    same = compiled(vmap(f, randomness="same"), compiler)(rows)
    assert len(same.argmax(-1).unique()) == 1
    with pytest.raises(Exception, match="randomness"):
        compiled(vmap(f), compiler)(rows)


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compiled_without_a_seed_and_without_a_gradient(backend, compiler):
    """Of an input alone that wants none; where another one does; and of torch.func's."""
    weights = torch.randn(6, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    pulled = lambda x: grad(lambda x: (do.reinmax(x, backend=backend) * V).sum())(x)  # noqa: E731
    for f in (lambda x: do.reinmax(x, backend=backend), lambda x: do.reinmax(x, backend=backend) @ weights, pulled):
        g = compiled(f, compiler)
        assert not torch.equal(g(LOGITS), g(LOGITS))


def test_a_new_number_of_samples_recompiles_once():
    counter = CompileCounter()
    g = compiled(lambda x, k: do.gumbel_rao(x, 0.5, k, seed=1), counter)
    for k in range(1, 13):
        assert torch.equal(g(LOGITS, k), do.gumbel_rao(LOGITS, 0.5, k, seed=1))
    assert counter.frame_count <= 3  # 1 is a constant of its own


def test_vmap_grad_of_independent_samples(backend):
    """Per-sample gradients, each of its own sample."""
    rows, v = LOGITS[:1].double().expand(200, 1, 6), V[:1].double()

    def loss(x):
        sample = do.gst(x, 0.7, 1.0, backend=backend)
        return (sample * v).sum(), sample

    torch.manual_seed(0)
    gradient, sample = vmap(grad(loss, has_aux=True), randomness="different")(rows)
    assert len(sample.argmax(-1).unique()) > 2
    want = naive_gradient(GST(0.7, 1.0), rows[:, 0], sample[:, 0], v.expand(200, 6), torch.ones(1, 200, 6))
    assert_close(gradient[:, 0], want)


def test_vmap_of_index_and_dim(backend):
    f = lambda x: do.reinmax(x, dim=0, seed=3, return_index=True, backend=backend)  # noqa: E731
    sample, index = vmap(f)(BATCH)
    assert index.shape == (4, 6)
    for b in range(4):
        assert torch.equal(sample[b], f(BATCH[b])[0])
        assert torch.equal(index[b], f(BATCH[b])[1])


@pytest.mark.parametrize("transform", ["vmap", "grad", "vmap of grad", "jvp"])
def test_compiled_transforms_keep_the_gradient(backend, transform):
    """In one graph, without a break."""
    weights = torch.linspace(-1, 1, BATCH.shape[-1], dtype=BATCH.dtype)

    def loss(x):
        return (do.gumbel_rao(x, 0.5, 2, seed=3, backend=backend) * weights).sum()

    f = {"vmap": vmap(loss), "grad": torch.func.grad(loss), "vmap of grad": vmap(torch.func.grad(loss))}
    f = {**f, "jvp": lambda x: torch.func.jvp(loss, (x,), (x.cos(),))[1]}[transform]
    x = BATCH.detach().requires_grad_(transform == "vmap")
    got, want = compiled(f)(x), f(x)
    torch.testing.assert_close(got, want, rtol=0, atol=0)
    if transform == "vmap":
        got, want = (torch.autograd.grad(y.sum(), x)[0] for y in (got, want))
        torch.testing.assert_close(got, want, rtol=0, atol=0)
    assert want.abs().max() > 0.01
