"""A sample's product with a table is that of the sample, in value and gradient, and needs no sample in memory."""

import pytest
import torch
from helpers import CPU_BACKENDS, FLOATS, TOLERANCE, every_estimator, make, pairs
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

import discrete_ops as do
from discrete_ops import embedding_rows, embeddings, parts

nan, inf = torch.nan, torch.inf
SOME = ["straight_through", "gumbel_rao", "nz_gst", "reinmax_cv", "reinmax_rk2"]  # draws, asymmetric; one code for all


@pytest.fixture(autouse=True)
def many_parts(monkeypatch):
    """Of 12 float64 numbers: one row of every table at least, a few rows, and not the rows of a seed."""
    monkeypatch.setitem(parts.BYTES, "cpu", 96)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def dense(e, logits, weight, soft=False, dim=-1, **options):
    """``estimator(logits) @ weight``, of tables a product for each latent."""
    look_up = "...ln,lnd->...ld" if weight.ndim == 3 else "...n,nd->...d"
    sample = e(logits, dim=dim, **options).movedim(dim, -1)
    if not soft:
        return torch.einsum(look_up, sample, weight).movedim(-1, dim)
    is_plain = isinstance(e, do.estimators.StraightThrough)
    p = (logits / e.tau).softmax(dim) if is_plain else e(logits, dim=dim, **options, hard=False)
    p = p.movedim(dim, -1).detach()
    value = torch.einsum(look_up, sample, weight.detach())
    through = torch.einsum(look_up, p, weight)
    return (value + through - through.detach()).movedim(-1, dim)


def expect(e, logits, weight, v=None, close=None, **options):
    """Value and gradients of the two, at logits, weight and tau."""
    results = []
    for f in (lambda x, w: do.embedding(x, w, e, **options), lambda x, w: dense(e, x, w, **options)):
        x, w = (y.detach().requires_grad_() for y in (logits, weight))
        y = f(x, w)
        v = randn(*y.shape, seed=5, dtype=y.dtype) if v is None else v
        tau = [e.tau] if isinstance(getattr(e, "tau", None), torch.Tensor) and e.tau.requires_grad else []
        results.append((y, *torch.autograd.grad(y, (x, w, *tau), v)))
    for got, want in zip(*results, strict=True):
        assert got.shape == want.shape
        assert got.dtype == want.dtype
        rtol = close or {torch.float32: 2e-6, torch.float64: 1e-12}.get(got.dtype, TOLERANCE[got.dtype])
        torch.testing.assert_close(got, want, rtol=rtol, atol=rtol * 2, equal_nan=True)
    return results[0]


# ---------------------------------------------------------------------------------------------------
# The product


@every_estimator
def test_it_is_the_product(backend, name):
    for dtype in (torch.float64, torch.float32):
        call = (make(name, 0.7), randn(7, 5, dtype=dtype), randn(5, 3, seed=1, dtype=dtype))
        expect(*call, seed=3, backend=backend)
        tables = (make(name, 0.7), randn(4, 2, 5, dtype=dtype), randn(2, 5, 3, seed=1, dtype=dtype))
        expect(*tables, seed=torch.tensor([3, 4]), backend=backend)


@pairs(["straight_through", "gumbel_rao", "gst_0.7", "gst_pi", "nz_gst"])
def test_the_weight_may_learn_from_the_soft_sample(backend, name):
    for weight, logits in ((randn(5, 3), randn(7, 5)), (randn(3, 5, 2), randn(4, 3, 5))):
        _, _, at_weight = expect(make(name, 0.7), logits, weight, soft=True, seed=3, backend=backend)
        hard = do.embedding(logits, weight.requires_grad_(), make(name, 0.7), seed=3, backend=backend)
        assert not torch.allclose(at_weight, torch.autograd.grad(hard.sum(), weight)[0])


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_dtype(backend, dtype):
    for soft in (False, True):
        logits, weight = randn(6, 2, 8, dtype=dtype), randn(2, 8, 4, seed=1, dtype=dtype)
        expect(make("gst_0.7"), logits, weight, soft=soft, seed=3, backend=backend)


LAYOUTS = {
    "one row": lambda: (randn(5), randn(5, 3), {}),
    "no rows": lambda: (randn(0, 2, 5), randn(2, 5, 3), {}),
    "no rows of rows": lambda: (randn(3, 0, 5), randn(5, 3), {}),
    "one category": lambda: (randn(4, 1), randn(1, 3), {}),
    "an image's": lambda: (randn(2, 5, 4, 3), randn(5, 3), {"dim": 1}),
    "an image's with tables": lambda: (randn(3, 2, 5, 6).transpose(1, 3), randn(2, 5, 3), {"dim": -2}),
    "dim 0": lambda: (randn(5, 7), randn(5, 3), {"dim": 0}),
    "expanded": lambda: (randn(1, 5).expand(6, 5), randn(5, 3), {}),
    "strided": lambda: (randn(6, 4, 10).transpose(0, 1)[::2, :, ::2], randn(3, 5).t(), {}),
    "masked": lambda: (randn(6, 5), randn(5, 3), {"mask": randn(6, 5, seed=2) > -0.5}),
    "seeds of rows": lambda: (randn(6, 5), randn(5, 3), {"seed": torch.arange(6)}),
    "seeds across tables": lambda: (randn(4, 3, 5), randn(3, 5, 2), {"seed": torch.arange(6)}),
}


@pytest.mark.parametrize("weight", [randn(5, 0), randn(4, 5, 0)], ids=["one table", "tables"])
def test_rows_of_no_length(weight):
    logits = randn(2, 4, 5).requires_grad_()
    result = do.embedding(logits, weight.requires_grad_())
    result.sum().backward()
    assert result.shape == (2, 4, 0)
    assert not logits.grad.any()


@pytest.mark.parametrize("soft", [False, True])
def test_the_result_may_be_changed_in_place(soft):
    logits, weight = randn(6, 5).requires_grad_(), randn(5, 3, seed=1).requires_grad_()
    want, got = (do.embedding(logits, weight, soft=soft, seed=3) for _ in range(2))
    want, got = (torch.autograd.grad(y, (logits, weight), want.detach()) for y in (want * 2, got.mul_(2)))
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(backend, layout):
    logits, weight, options = LAYOUTS[layout]()
    expect(make("reinmax"), logits, weight, **{"seed": 3, "backend": backend, **options})
    several = parts.BYTES["cpu"] * 3
    for size in (several, 2**20):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(parts.BYTES, "cpu", size)
            expect(make("reinmax"), logits, weight, **{"seed": 3, "backend": backend, **options})


@pairs(["straight_through", "gumbel_rao", "gst_pi"])
def test_the_gradient_at_tau(backend, name):
    for shape in ((), (6, 1, 1), (6, 2, 1)):
        tau = (randn(*shape, seed=7).abs() + 0.5).requires_grad_()
        _, _, _, at_tau = expect(make(name, tau), randn(6, 2, 5), randn(2, 5, 3), seed=3, backend=backend)
        assert at_tau.abs().min() > 0


def test_a_tau_of_each_row_and_a_temperature_of_the_sample(backend):
    tau, sample_tau = randn(6, 1).abs() + 0.5, randn(6, 1, seed=3).abs() + 0.5
    expect(make("reinmax_rao", tau), randn(6, 5), randn(5, 3), seed=3, sample_tau=sample_tau, backend=backend)


# ---------------------------------------------------------------------------------------------------
# Rows without a sample


def test_rows_without_a_sample_are_zero_or_nan_and_leave_the_others_alone(backend):
    logits = randn(6, 4, dtype=torch.float32)
    logits[1], logits[2, 1], logits[4, 0] = -inf, nan, inf
    logits, weight = logits.requires_grad_(), randn(4, 3, seed=1, dtype=torch.float32).requires_grad_()
    good = [0, 3, 5]
    for soft in (False, True):
        call = {"soft": soft, "return_index": True, "backend": backend}
        rows, index = do.embedding(logits, weight, "gst", seed=torch.arange(6), **call)
        kept, _ = do.embedding(logits[good], weight, "gst", seed=torch.arange(6)[good], **call)
        assert torch.equal(rows[good], kept)
        assert torch.equal(rows[1], torch.zeros(3))
        assert rows[[2, 4]].isnan().all()
        assert index[[1, 2, 4]].tolist() == [-1] * 3
        v = randn(6, 3, seed=2, dtype=torch.float32)
        at_logits, at_weight = torch.autograd.grad(rows, (logits, weight), v)
        assert (at_logits[1] == 0).all()
        assert at_logits[[2, 4]].isnan().all()
        want = torch.autograd.grad(kept, (logits, weight), v[good])
        assert torch.equal(at_logits[good], want[0][good])
        torch.testing.assert_close(at_weight, want[1])


def test_what_is_not_chosen_may_be_anything(backend):
    """Where a product would make NaN of it."""
    logits, weight = randn(6, 4), randn(4, 3, seed=1)
    mask = torch.tensor([True, True, False, True])
    poisoned = weight.clone()
    poisoned[2] = torch.tensor([inf, nan, -inf])
    results = []
    for w in (weight, poisoned):
        x, w = logits.clone().requires_grad_(), w.requires_grad_()
        rows = do.embedding(x, w, "reinmax", mask=mask, seed=3, backend=backend)
        results.append((rows, *torch.autograd.grad(rows.square().sum(), (x, w))))
    for clean, got in zip(*results, strict=True):
        assert torch.equal(clean, got)


# ---------------------------------------------------------------------------------------------------
# Derivatives


@pairs(SOME)
def test_double_backward(backend, name):
    """In the incoming gradient and in the weight, and from the weight's gradient to the logits; no further."""
    e, options = make(name, 0.7), {"seed": 3, "backend": backend}
    logits, weight, v = randn(4, 2, 5), randn(2, 5, 3, seed=1), randn(4, 2, 3, seed=2)
    t, u = randn(4, 2, 5, seed=3), randn(2, 5, 3, seed=4)
    results = []
    for f in (lambda x, w: do.embedding(x, w, e, **options), lambda x, w: dense(e, x, w, **options)):
        x, w, g = (y.clone().requires_grad_() for y in (logits, weight, v))
        at_logits, at_weight = torch.autograd.grad(f(x, w), (x, w), g, create_graph=True)
        first = torch.autograd.grad((at_logits * t).sum(), (w, g), create_graph=True)
        second = torch.autograd.grad((at_weight * u).sum(), (x, g))
        results.append((*first, *second))
        with pytest.raises(RuntimeError, match="double backward is not defined in the logits"):
            torch.autograd.grad((at_logits * t).sum(), x)
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want)


def test_double_backward_of_the_soft_samples_gradient(backend):
    e, options = make("gumbel_rao", 0.7), {"seed": 3, "backend": backend}
    x, w, g = (y.requires_grad_() for y in (randn(4, 5), randn(5, 3, seed=1), randn(4, 3, seed=2)))
    u = randn(5, 3, seed=4)
    rows = do.embedding(x, w, e, soft=True, **options)
    (at_weight,) = torch.autograd.grad(rows, w, g, create_graph=True)
    got = torch.autograd.grad((at_weight * u).sum(), (x, g))
    soft = e(x, hard=False, **options)
    want = torch.autograd.grad((soft.mT @ g * u).sum(), (x, g))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


@pairs(SOME)
def test_forward_mode(backend, name):
    e, options = make(name, 0.7), {"seed": 3, "backend": backend}
    logits, weight = randn(4, 2, 5), randn(2, 5, 3, seed=1)
    tangents = randn(4, 2, 5, seed=3), randn(2, 5, 3, seed=4)
    got = torch.func.jvp(lambda x, w: do.embedding(x, w, e, **options), (logits, weight), tangents)
    want = torch.func.jvp(lambda x, w: dense(e, x, w, **options), (logits, weight), tangents)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)
    with forward_ad.dual_level():
        dual = do.embedding(logits, forward_ad.make_dual(weight, tangents[1]), e, **options)
        again = do.embedding(logits, tangents[1], e, **options)
        assert torch.equal(forward_ad.unpack_dual(dual).tangent, again)


@pytest.mark.parametrize("in_dims", [(0, None, None), (None, 0, None), (1, 0, None), (0, 2, 0)])
def test_vmap(backend, in_dims):
    """Over logits, weight, both, and temperatures too; gradients under it and over it."""
    shapes, v = ((4, 2, 5), (2, 5, 3), ()), randn(4, 2, 3, seed=6)
    inputs = []
    for i, (shape, dim) in enumerate(zip(shapes, in_dims, strict=True)):
        x = randn(3, *shape, seed=i) if dim is not None else randn(*shape, seed=i)
        x = x.abs() + 0.5 if i == 2 else x
        inputs.append(x.movedim(0, dim) if dim is not None else x)

    def ours(x, w, tau):
        return do.embedding(x, w, do.estimators.GST(tau), seed=3, backend=backend)

    def each(f):
        slices = [
            [x.select(d, b) if d is not None else x for x, d in zip(inputs, in_dims, strict=True)] for b in range(3)
        ]
        return [f(*call) for call in slices]

    assert torch.equal(torch.vmap(ours, in_dims)(*inputs), torch.stack(each(ours)))
    gradients = torch.func.grad(lambda *call: (ours(*call) * v).sum(), (0, 1, 2))
    for got, want in zip(torch.vmap(gradients, in_dims)(*inputs), zip(*each(gradients), strict=True), strict=True):
        torch.testing.assert_close(got, torch.stack(want))
    leaves = [x.clone().requires_grad_() for x in inputs]
    over = torch.autograd.grad((torch.vmap(ours, in_dims)(*leaves) * v).sum(), leaves)
    leaves = inputs = [x.clone().requires_grad_() for x in inputs]
    want = torch.autograd.grad((torch.stack(each(ours)) * v).sum(), leaves)
    for a, b in zip(over, want, strict=True):
        torch.testing.assert_close(a, b)


def test_the_soft_gradient_under_vmap_and_of_many_gradients(backend):
    x, w, v = randn(3, 4, 5), randn(5, 2, seed=1).requires_grad_(), randn(3, 4, 2, seed=2)
    f = lambda x, w: do.embedding(x, w, "gst", soft=True, seed=3, backend=backend)  # noqa: E731
    at_weight = torch.vmap(torch.func.grad(lambda w, x, v: (f(x, w) * v).sum()), (None, 0, 0))(w, x, v)
    for b in range(3):
        torch.testing.assert_close(at_weight[b], torch.autograd.grad(f(x[b], w), w, v[b])[0])
    rows = f(x[0], w)
    batched = torch.autograd.grad(rows, w, v, is_grads_batched=True, retain_graph=True)[0]
    torch.testing.assert_close(batched[2], torch.autograd.grad(rows, w, v[2])[0])


# ---------------------------------------------------------------------------------------------------
# Captured


def test_operators_pass_opcheck():
    name, backend = "gumbel_rao", CPU_BACKENDS[-1]
    named, seed = torch.ops.discrete_ops, torch.tensor([3])
    parameters = torch.tensor([[0.7, 0.5, 1.0]], dtype=torch.float64)
    spec = (name, 2, 0, backend)
    logits, weight, grad = randn(3, 2, 5), randn(2, 5, 3, seed=1), randn(3, 2, 3, seed=2)
    index = named.embedding(logits, weight, seed, parameters, False, *spec)[1]
    trained = [x.clone().requires_grad_() for x in (logits, weight, grad)]
    torch.library.opcheck(named.embedding, (*trained[:2], seed, parameters, False, *spec))
    rest = (logits, index, seed, parameters)
    torch.library.opcheck(named.embedding_pull_back, (trained[2], trained[1], *rest, *spec))
    torch.library.opcheck(named.embedding_scatter, (trained[2], trained[0], *rest[1:], [2, 5], False, *spec))
    torch.library.opcheck(named.embedding_scatter, (grad, *rest, [2, 5], True, *spec))
    torch.library.opcheck(named.embedding_pull_back_to_parameters, (grad, weight, *rest, *spec))


class Model(torch.nn.Module):
    def __init__(self, backend, soft=False, seed=7):
        super().__init__()
        self.linear = torch.nn.Linear(4, 10)
        self.weight = torch.nn.Parameter(randn(2, 5, 3, dtype=torch.float32))
        self.options = {"soft": soft, "seed": seed, "backend": backend}
        with torch.no_grad():
            self.linear.weight.copy_(randn(10, 4, seed=1))

    def forward(self, x):
        return do.embedding(self.linear(x).unflatten(-1, (2, 5)), self.weight, "gst(tau=0.7)", **self.options)


X = randn(6, 4, seed=2, dtype=torch.float32)


def expect_training(captured, model):
    got, want = captured(X), model(X)
    torch.testing.assert_close(got, want)
    gradients = [
        torch.autograd.grad(y.square().sum(), dict(m.named_parameters()).values(), allow_unused=True)
        for y, m in ((got, captured), (want, model))
    ]
    names = [dict(m.named_parameters()) for m in (captured, model)]
    for key, value in zip(names[1], gradients[1], strict=True):
        torch.testing.assert_close(dict(zip(names[0], gradients[0], strict=True))[key], value, msg=key)


@pytest.mark.parametrize("soft", [False, True])
def test_an_exported_model_trains(backend, soft):
    model = Model(backend, soft)
    program = torch.export.export(model, (X,), dynamic_shapes={"x": {0: torch.export.Dim("batch", min=2)}})
    expect_training(program.module(), model)
    assert torch.equal(program.module()(X[:3]), model(X[:3]))
    if soft:
        expect_training(torch.jit.trace(model, X), model)


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize(("compiler", "soft"), [("aot_eager", True), ("inductor", False)])
def test_it_compiles_in_one_graph(compiler, soft):
    model = Model(CPU_BACKENDS[-1], soft)
    compiled = torch.compile(model, fullgraph=True, backend=compiler)
    got, want = compiled(X), model(X)
    torch.testing.assert_close(got, want)
    for a, b in zip(*(torch.autograd.grad(y.square().sum(), [*model.parameters()]) for y in (got, want)), strict=True):
        torch.testing.assert_close(a, b)
    model.options["seed"] = None
    torch._dynamo.reset()
    anew = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert not torch.equal(anew(X), anew(X))


def test_make_fx_and_symbolic_tracing_keep_the_gradient(backend):
    model = Model(backend)
    graph = make_fx(lambda x, w: do.embedding(x, w, "gst", seed=3, backend=backend), tracing_mode="symbolic")
    x, w = randn(6, 5), randn(5, 3)
    graph = graph(x, w)
    for y in (x, w):
        y.requires_grad_()
    want = do.embedding(x, w, "gst", seed=3, backend=backend)
    for a, b in zip(*(torch.autograd.grad(f.square().sum(), (x, w)) for f in (graph(x, w), want)), strict=True):
        assert torch.equal(a, b)
    traced = torch.fx.symbolic_trace(model)
    assert embeddings.look_up in [node.target for node in traced.graph.nodes]
    expect_training(traced, model)


def test_onnx_takes_the_product(tmp_path):
    import onnxruntime

    torch.onnx.export(Model(None, seed=None), (X,), dynamo=True, verbose=False).save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    run = lambda: torch.from_numpy(session.run(None, {session.get_inputs()[0].name: X.numpy()})[0])  # noqa: E731
    first, second = run(), run()
    assert not torch.equal(first, second)
    table = Model(None).weight.detach()
    assert (torch.cdist(first.transpose(0, 1), table).amin(-1) < 1e-5).all()


# ---------------------------------------------------------------------------------------------------
# What it costs


def test_equal_calls_give_equal_bits(backend):
    logits, weight, v = randn(40, 5, dtype=torch.float32), randn(5, 3, dtype=torch.float32), randn(40, 3).float()
    for soft in (False, True):
        first, second = (
            expect(make("gst_0.7"), logits, weight, v, 1e-4, soft=soft, seed=3, backend=backend) for _ in "ab"
        )
        for a, b in zip(first, second, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("soft", [False, True])
def test_memory_is_that_of_the_gradient(monkeypatch, soft):
    """Of the profiler's allocations none but the gradient at the logits is ``(rows, N)``."""
    monkeypatch.setitem(parts.BYTES, "cpu", 2**14)
    logits, weight = (
        randn(1000, 64, dtype=torch.float32).requires_grad_(),
        randn(64, 2, dtype=torch.float32).requires_grad_(),
    )
    for wants, most in (((logits, weight), 1), ((weight,), 0)):
        with torch.profiler.profile(profile_memory=True) as profile:
            rows = do.embedding(logits if most else logits.detach(), weight, "gst", soft=soft, seed=3)
            torch.autograd.grad(rows.sum(), wants)
        sizes = [event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
        large = [size for size in sizes if size >= 1000 * 64 * 4 // 4]
        assert len(large) <= 2 * most, sizes  # allocated, and freed


def test_only_the_gradients_that_are_wanted_are_computed(monkeypatch):
    called = []
    for name in ("pull_back", "scatter"):
        function = getattr(embedding_rows, name)
        monkeypatch.setattr(embedding_rows, name, lambda *call, n=name, f=function: called.append(n) or f(*call))
    logits, weight = randn(6, 5), randn(5, 3)
    for wanted, what in ((weight, "scatter"), (logits, "pull_back")):
        called.clear()
        wanted.requires_grad_()
        do.embedding(logits, weight, "reinmax").sum().backward()
        wanted.requires_grad_(False)
        assert called == [what]


# ---------------------------------------------------------------------------------------------------
# Arguments


def test_autocast_casts_the_weight():
    logits, weight = randn(6, 5, dtype=torch.bfloat16), randn(5, 3, dtype=torch.float32).requires_grad_()
    with pytest.raises(
        TypeError, match=r"weight: got dtype torch\.float32, allowed: the logits' dtype, torch\.bfloat16"
    ):
        do.embedding(logits, weight)
    with torch.autocast("cpu", torch.bfloat16):
        rows = do.embedding(logits, weight, seed=3)
        want = do.straight_through(logits, seed=3) @ weight
        assert rows.dtype == want.dtype == torch.bfloat16
        assert torch.equal(rows, want)
        (at_weight,) = torch.autograd.grad(rows.float().square().sum(), weight)
    assert at_weight.dtype == torch.float32
    x, w = randn(6, 5, dtype=torch.float32).requires_grad_(), weight.detach()
    want = torch.autograd.grad(do.embedding(x, w, seed=3).sum(), x)[0]
    with torch.autocast("cpu", torch.bfloat16):  # float32 logits stay so, and so does the backward pass
        assert torch.equal(torch.autograd.grad(do.embedding(x, w, seed=3).sum(), x)[0], want)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([[1.0]], "weight: got list, allowed: a tensor"),
        (randn(5), r"weight: got shape \(5,\) for logits of shape \(4, 2, 5\), allowed: \(5, D\) or \(2, 5, D\)"),
        (randn(4, 3), r"weight: got shape \(4, 3\)"),
        (randn(3, 5, 3), r"weight: got shape \(3, 5, 3\)"),
        (randn(1, 2, 5, 3), r"weight: got shape \(1, 2, 5, 3\)"),
        (randn(5, 3).to_sparse(), "weight: got a .*sparse.*, allowed: a dense tensor"),
        (randn(5, 3).to("meta"), "weight: got a tensor on meta, allowed: the logits' device, cpu"),
        (randn(5, 3).float(), r"weight: got dtype torch\.float32, allowed: the logits' dtype, torch\.float64"),
    ],
)
def test_a_weight_that_does_not_fit_is_named(weight, message):
    with pytest.raises((TypeError, ValueError), match=message):
        do.embedding(randn(4, 2, 5), weight)


def test_other_arguments_are_named():
    logits, weight = randn(4, 5), randn(5, 3)
    for options, message in (
        ({"soft": True, "estimator": "reinmax"}, "soft: got True with reinmax, allowed: with one of straight_through"),
        ({"soft": 1}, "soft: got 1, allowed: True or False"),
        ({"estimator": "nope"}, "estimator: got 'nope'"),
        ({"tau": 0.5}, "embedding: got an unexpected keyword argument 'tau', allowed: logits, weight, estimator"),
        ({"hard": False}, "embedding: got an unexpected keyword argument 'hard'"),
        ({"dim": 5}, "dim: got 5, allowed: -2 to 1"),
        ({"offsets": torch.tensor([0, 4])}, "offsets: got some, allowed here: None"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            do.embedding(logits, weight, **options)
    nested = torch.nested.nested_tensor([randn(2), randn(3)], layout=torch.jagged)
    for call in (lambda: do.embedding(nested, weight), lambda: do.top_k(nested, 1)):
        with pytest.raises(TypeError, match="logits: got a tensor that is nested, allowed: a dense one"):
            call()
    with pytest.raises(
        ValueError, match=r"weight: got shape \(1, 5, 3\) for logits of shape \(5,\), allowed: \(5, D\)"
    ):
        do.embedding(randn(5), randn(1, 5, 3))


def test_no_rows_of_no_tables():
    logits, weight = torch.randn(4, 0, 8, requires_grad=True), torch.randn(0, 8, 3, requires_grad=True)
    do.embedding(logits, weight).sum().backward()
    assert logits.grad.shape == logits.shape
    assert weight.grad.shape == weight.shape
    (at_logits,) = torch.vmap(torch.func.grad(lambda x: do.embedding(x, torch.ones(8, 3), seed=1).sum(), (0,)))(
        torch.randn(0, 4, 8)
    )
    assert at_logits.shape == (0, 4, 8)
