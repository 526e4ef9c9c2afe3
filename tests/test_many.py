"""``num_draws=R``: R samples a row, the same as the call on R copies of the logits."""

import pytest
import torch
from helpers import FLOATS, assert_close, chi_squared, every_estimator, every_soft, make
from torch.fx.experimental.proxy_tensor import make_fx

import discrete_ops as do
from discrete_ops import reference

R = 3


def both(estimator, logits, v, **options):
    """(sample, index, gradient) of R draws, and of the call on R copies."""
    for x, more in ((logits, {"num_draws": len(v)}), (logits.expand(len(v), *logits.shape), {})):
        sample, index = estimator(x, return_index=True, **options, **more)
        yield sample.detach(), index, torch.autograd.grad(sample, logits, v)[0]


def expect_equal(estimator, logits, v, **options):
    (sample, index, gradient), (samples, indices, sum_of_all) = both(estimator, logits, v, **options)
    assert sample.shape == v.shape
    assert torch.equal(index, indices)
    torch.testing.assert_close(sample, samples, rtol=1e-6, atol=0, equal_nan=True)
    finite = sum_of_all.isfinite()
    assert torch.equal(gradient.isnan(), ~finite)
    assert_close(gradient[finite], sum_of_all[finite])


def inputs(shape, dtype=torch.float64, draws=R):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    return logits, torch.randn((draws, *shape), generator=generator, dtype=torch.float64).to(dtype)


@every_estimator
def test_every_estimator_is_the_call_on_copies(backend, name):
    estimator = make(name, 0.7)
    options = {} if name.startswith("nz_") else {"backend": backend}
    logits, v = inputs((2, 3, 5))
    expect_equal(estimator, logits, v, seed=4, **options)
    expect_equal(estimator, logits, v[:1], seed=4, **options)


@every_soft
def test_soft_samples_too(backend, name):
    options = {} if name.startswith("nz_") else {"backend": backend}
    logits, v = inputs((2, 5))
    expect_equal(make(name, 0.7), logits, v, seed=4, hard=False, **options)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(17, 7), (5, 70)])
@pytest.mark.parametrize("name", ["straight_through", "gumbel_rao", "reinmax"])
def test_masks_dtypes_invalid_rows_and_lengths(backend, name, shape, dtype):
    logits, v = inputs(shape, dtype)
    with torch.no_grad():
        logits[0] = -torch.inf
        logits[1, 2] = torch.nan
        logits[2, :3] = -torch.inf
        logits[3, 1] = torch.inf
    expect_equal(make(name), logits, v, seed=4, backend=backend)
    sample, index = make(name)(logits, num_draws=R, seed=4, backend=backend, return_index=True)
    assert (index[:, [0, 1, 3]] == -1).all()
    assert (index[:, [2, 4]] >= 0).all()
    assert (sample[:, 0] == 0).all()
    assert sample[:, [1, 3]].isnan().all()


def test_any_strides_and_any_dim(backend):
    logits, v = inputs((4, 3, 6), torch.float32)
    samples, gradients = [], []
    for x, dim in ((logits, 1), (logits.movedim(1, -1).contiguous(), -1)):
        of = (v if dim == 1 else v.movedim(2, -1)).mT.contiguous().mT  # columns apart
        sample = do.gst(x, dim=dim, num_draws=R, seed=4, backend=backend)
        assert sample.shape == (R, *x.shape)
        samples.append(sample.movedim(2, -1) if dim == 1 else sample)
        gradients.append(torch.autograd.grad(sample, logits, of)[0])
    assert torch.equal(*samples)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("n", [20, 70])
@pytest.mark.parametrize("name", ["straight_through", "gst_0.7", "reinmax", "reinmax_rk2_1.3", "mix"])
def test_a_constant_in_the_gradient_costs_nothing(backend, name, n):
    """J is blind to it, so its rounding would show; and to what comes in where a category is masked."""
    logits, v = inputs((5, n), torch.float32)
    masked = torch.arange(n) % 4 == 1
    with torch.no_grad():
        logits[:, masked] = -torch.inf
    v = (64 * v).round() / 64
    pulled = []
    for incoming in (v, (v + 4096).masked_fill(masked, torch.nan)):  # both exact
        sample = make(name, 0.7)(logits, num_draws=R, seed=4, backend=backend)
        pulled.append(torch.autograd.grad(sample, logits, incoming)[0])
    torch.testing.assert_close(*pulled, rtol=1e-4, atol=1e-5)


def test_a_long_row_over_threads_is_the_same():
    """Beyond a thread's share, where one row is split."""
    logits, v = inputs((1, 2**16), torch.float32)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(next(both(do.reinmax, logits, v, seed=4)))
        for one, two in zip(*results, strict=True):
            assert torch.equal(one, two)
    finally:
        torch.set_num_threads(threads)
    expect_equal(do.reinmax, logits, v, seed=4)


@pytest.mark.parametrize("shape", [(3, 1), (1, 1)])
def test_the_gradient_at_tau_sums_over_the_draws(backend, shape):
    logits, v = inputs((3, 5))
    at_tau = []
    for x, more in ((logits, {"num_draws": R}), (logits.expand(R, 3, 5), {})):
        tau = torch.linspace(0.5, 1.0, shape[0], dtype=torch.float64).view(shape).requires_grad_()
        sample = do.gst(x, tau, seed=4, backend=backend, **more)
        at_tau.append(torch.autograd.grad(sample, tau, v)[0])
    torch.testing.assert_close(*at_tau)


def test_each_seed_has_draws_of_its_own(backend):
    """As if its rows were the whole call; so has each element of vmap."""
    logits, v = inputs((4, 3, 5))
    seed = torch.tensor([5, 6])
    tau = torch.linspace(0.5, 1.0, 12, dtype=torch.float64).view(4, 3, 1)

    def call(x, s, t):
        return do.gumbel_rao(x, t, 2, num_draws=R, seed=s, backend=backend)

    sample = call(logits, seed, tau)
    each = torch.stack(
        [call(x, s, t) for x, s, t in zip(logits.view(2, 6, 5), seed, tau.view(2, 6, 1), strict=True)], 1
    )
    assert sample.is_contiguous()
    assert torch.equal(sample, each.view(R, 4, 3, 5))
    (together,) = torch.autograd.grad(sample, logits, v)
    (alone,) = torch.autograd.grad(each, logits, v.view(R, 2, 6, 5))
    torch.testing.assert_close(together, alone)

    x = logits.detach().view(2, 6, 5)

    def gradient(x, s, t, v):
        return torch.func.vjp(lambda x: call(x, s, t), x)[1](v)[0]

    mapped = torch.vmap(call, out_dims=1)(x, seed, tau.view(2, 6, 1))
    assert torch.equal(mapped, each)
    pulled = torch.vmap(gradient, in_dims=(0, 0, 0, 1))(x, seed, tau.view(2, 6, 1), v.view(R, 2, 6, 5))
    torch.testing.assert_close(pulled.view_as(alone), alone)


@pytest.mark.parametrize("name", ["straight_through", "reinmax_rk2_1.3"])
def test_forward_mode_and_double_backward(backend, name):
    """The tangent is the transpose of the pull-back; the pull-back is linear in what comes in."""
    logits, v = inputs((2, 4))
    u = torch.randn_like(logits)

    def call(x):
        return make(name)(x, num_draws=R, seed=4, backend=backend)

    pushed = torch.func.jvp(call, (logits.detach(),), (u,))[1]
    v.requires_grad_()
    (pulled,) = torch.autograd.grad(call(logits), logits, v, create_graph=True)
    torch.testing.assert_close((pushed * v).sum(), (u * pulled).sum())
    torch.testing.assert_close(torch.autograd.grad(pulled, v, u)[0], pushed)
    with pytest.raises(RuntimeError, match="double backward is not defined in the logits"):
        torch.autograd.grad(torch.autograd.grad(call(logits), logits, v, create_graph=True)[0].sum(), logits)


def test_the_tangent_of_tau(backend):
    logits, v = inputs((3, 4))
    tau = torch.rand(3, 1, dtype=torch.float64) + 0.5

    def call(t):
        return do.gst(logits.detach(), t, num_draws=R, seed=4, backend=backend)

    pushed = torch.func.jvp(call, (tau,), (torch.ones_like(tau),))[1]
    leaf = tau.clone().requires_grad_()
    torch.testing.assert_close((pushed * v).sum(), torch.autograd.grad(call(leaf), leaf, v)[0].sum())


@pytest.mark.parametrize("hard", [True, False])
def test_the_operators_pass_opcheck(hard):
    logits, v = inputs((4, 5), torch.float32)
    seed, parameters = torch.tensor([5, 6]), torch.tensor([[0.7, 1.0, 1.0]], dtype=torch.float64)
    spec = ("gst", 1, 0, "")
    namespace = torch.ops.discrete_ops
    torch.library.opcheck(namespace.draw_many.default, (logits, seed, parameters, R, hard, *spec))
    index = namespace.draw_many(logits, seed, parameters, R, hard, *spec)[1]
    call = (v.requires_grad_(), logits.detach(), index, seed, parameters, *spec)
    torch.library.opcheck(namespace.pull_back_many.default, call)


@pytest.mark.usefixtures("fresh_dynamo")
def test_compiled_and_exported(backend):
    logits, v = inputs((4, 5), torch.float32)

    def call(x):
        return do.reinmax(x, num_draws=R, seed=4, backend=backend)

    sample = call(logits)
    (gradient,) = torch.autograd.grad(sample, logits, v)
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")(logits)
    assert torch.equal(compiled, sample)
    torch.testing.assert_close(torch.autograd.grad(compiled, logits, v)[0], gradient)

    class Model(torch.nn.Module):
        def forward(self, x):
            return call(x)

    program = torch.export.export(Model(), (logits.detach(),))
    assert any("draw_many" in str(node.target) for node in program.graph.nodes)
    exported = program.module()(logits)
    assert torch.equal(exported, sample)
    torch.testing.assert_close(torch.autograd.grad(exported, logits, v)[0], gradient)


def test_traced_it_takes_other_numbers_of_rows():
    def gradients(logits, tau, v):
        return torch.autograd.grad(do.gst(logits, tau, num_draws=R, seed=4), (logits, tau), v)

    tau = torch.ones(1, dtype=torch.float64, requires_grad=True)
    (four, of_four), (six, of_six) = (inputs((rows, 2, 5)) for rows in (4, 6))
    graph = make_fx(gradients, tracing_mode="symbolic")(four, tau, of_four)
    torch.testing.assert_close(graph(six, tau, of_six), gradients(six, tau, of_six))


def test_draws_of_a_row_are_independent():
    """Pairs of them fall as the product of their laws says."""
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    logits = p.log().float().expand(30000, 3)
    index = do.straight_through(logits, num_draws=R, seed=11, return_index=True)[1]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert chi_squared(3 * index[first] + index[second], torch.outer(p, p).flatten()) > 1e-4


def test_binary_variables(backend):
    logits, v = inputs((9,))
    results = []
    for x, more in ((logits, {"num_draws": R}), (logits.expand(R, 9), {})):
        sample = do.bernoulli(x, "gumbel_rao(tau=0.7)", seed=4, backend=backend, **more)
        results.append((sample, torch.autograd.grad(sample, logits, v)[0]))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1])


def test_a_layer_and_no_rows():
    logits, _ = inputs((4, 5))
    layer = do.nn.StraightThroughCategorical("gst(tau=0.5)")
    assert torch.equal(layer(logits, seed=4, num_draws=R), do.gst(logits, 0.5, seed=4, num_draws=R))
    likeliest = layer.eval()(logits, num_draws=R)
    assert torch.equal(likeliest, layer(logits).expand(R, 4, 5))
    sample, index = do.gst(logits[:0], num_draws=R, return_index=True)
    assert (sample.shape, index.shape) == ((R, 0, 5), (R, 0))
    sample.sum().backward()


def test_a_distribution_draws_as_the_call_on_copies():
    logits, v = inputs((4, 5))
    distribution = do.distributions.OneHotCategoricalStraightThrough(logits=logits, estimator="reinmax")
    torch.manual_seed(3)
    sample = distribution.rsample((2, 3))
    torch.manual_seed(3)
    copies = do.reinmax(logits.expand(2, 3, 4, 5))
    assert torch.equal(sample, copies)
    v = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(torch.autograd.grad(sample, logits, v), torch.autograd.grad(copies, logits, v))
    assert distribution.sample((0,)).shape == (0, 4, 5)


@pytest.mark.parametrize(("num_draws", "error"), [(0, ValueError), (2.0, TypeError), (True, TypeError)])
def test_what_is_no_number_of_draws_is_refused(num_draws, error):
    with pytest.raises(error, match=r"num_draws: got .*, allowed: an int from 1"):
        do.gst(torch.zeros(2, 3), num_draws=num_draws)


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("name", ["gst(tau=0.7)", "gumbel_rao(tau=0.7, num_samples=2)"])
def test_rows_of_a_table_and_of_logits_that_are_a_product(backend, name, seeds):
    """Many draws of them are those of the same estimator's one-hots."""
    options = {"seed": torch.arange(seeds) + 3, "num_draws": R, "backend": backend, "return_index": True}
    hidden, proj, weight = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (6, 5, 5))
    logits = torch.nn.functional.linear(hidden, proj)
    sample, index = do.estimator(name)(logits, **options)
    v = torch.randn(R, 6, 3, dtype=torch.float64)
    want = torch.autograd.grad(sample @ weight, (logits, hidden, proj, weight), v, retain_graph=True)
    rows, of_rows = do.embedding(logits, weight, name, **options)
    fused, of_fused = do.linear_embedding(hidden, proj, weight, name, **options)
    for got, got_index in ((rows, of_rows), (fused, of_fused)):
        assert torch.equal(got_index, index)
        assert torch.equal(got, sample @ weight)
    layer = do.nn.StraightThroughEmbedding(5, 3, name, dtype=torch.float64)
    layer.weight = torch.nn.Parameter(weight.detach())
    assert torch.equal(layer(logits, **options)[0], rows)
    assert layer.eval()(logits, num_draws=R).shape == rows.shape
    at_logits, at_weight = torch.autograd.grad(rows, (logits, weight), v, retain_graph=True)
    assert_close(at_logits, want[0])
    assert_close(at_weight, want[3])
    for got, of in zip(torch.autograd.grad(fused, (hidden, proj, weight), v), want[1:], strict=True):
        assert_close(got, of)


def test_sums_over_draws_of_half_types_are_rounded_once():
    """A gradient is as that of the one-hots, whatever number of draws it is the sum of."""
    draws, v = 64, torch.randn(64, 6, 3).bfloat16()
    logits, weight = (torch.randn(*shape).bfloat16().requires_grad_() for shape in ((6, 5), (5, 3)))
    options = {"seed": 3, "num_draws": draws}
    exact = [x.detach().double().requires_grad_() for x in (logits, weight)]
    want = torch.autograd.grad(do.mix(exact[0], **options) @ exact[1], exact, v.double())
    for got, of in zip(
        torch.autograd.grad(do.embedding(logits, weight, "mix", **options), (logits, weight), v), want, strict=True
    ):
        torch.testing.assert_close(got.double(), of, rtol=2**-8, atol=2**-6)
    flat, offsets = logits.detach().flatten().requires_grad_(), torch.arange(7) * 5
    of_rows = (v @ weight.T).detach()
    want = torch.autograd.grad(do.mix(exact[0], **options), exact[0], of_rows.double())[0]
    (got,) = torch.autograd.grad(do.mix(flat, offsets=offsets, **options), flat, of_rows.flatten(1))
    torch.testing.assert_close(got.double(), want.flatten(), rtol=2**-8, atol=2**-6)


def test_ragged_rows(backend):
    lengths, logits = [2, 0, 5, 3], torch.randn(10, dtype=torch.float64, requires_grad=True)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    padded = torch.full((4, 5), -torch.inf, dtype=torch.float64)
    there = torch.arange(5) < torch.tensor(lengths)[:, None]
    rows = padded.masked_scatter(there, logits)
    v = torch.randn(R, 4, 5, dtype=torch.float64)
    options = {"seed": 3, "num_draws": R, "backend": backend, "return_index": True}
    want, of_rows = do.gst(rows, **options)
    got, index = do.gst(logits, offsets=offsets, **options)
    assert torch.equal(index, of_rows)
    assert torch.equal(got, want[:, there])
    (at_padded,) = torch.autograd.grad(want, logits, v, retain_graph=True)
    assert_close(torch.autograd.grad(got, logits, v[:, there])[0], at_padded)
    nested = torch.nested.nested_tensor_from_jagged(logits.detach(), offsets)
    with pytest.raises(ValueError, match="num_draws: got 3, allowed with a nested tensor: None"):
        do.gst(nested, num_draws=R)


def test_first_row_counts_on():
    """Of a part of rows that draws alone: the operator's own argument, which parts of a whole take."""
    logits, _ = inputs((4, 5))
    spec = ("gst", 1, 7, "")
    index = torch.ops.discrete_ops.draw_many(
        logits, torch.tensor([5]), torch.tensor([[1.0, 1.0, 1.0]], dtype=torch.float64), R, True, *spec
    )[1]
    copies = logits.expand(R, 4, 5)
    assert torch.equal(index, reference.sample(copies, torch.tensor([5]), first_row=7)[1])
