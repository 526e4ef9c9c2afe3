"""Whatever captures a model keeps the gradient: export, tracing, make_fx, ONNX, compilers."""

import io
import warnings

import pytest
import torch
from helpers import CPU_BACKENDS, assert_close, compilers, draw_and_pull, make, pairs
from torch._dynamo.testing import CompileCounterWithBackend
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

import discrete_ops as do

pytestmark = [
    pytest.mark.usefixtures("fresh_dynamo"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch.jit
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
NAMES = ["gumbel_rao", "nz_gst", "reinmax_cv", "reinmax_rk2"]  # with draws, asymmetric; the operator is one for all
X = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
V = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
LOGITS = torch.randn(40, 6, generator=torch.Generator().manual_seed(2))


class Model(torch.nn.Module):
    def __init__(self, name: str, backend: str, seed: int | None = 7) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(5, 6)
        self.estimator, self.options = make(name, 0.7), {"backend": backend, "seed": seed}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.estimator(self.linear(x), **self.options)


def gradient(model: torch.nn.Module) -> torch.Tensor:
    """Of <V, sample> at the weights."""
    weight = dict(model.named_parameters())["linear.weight"]
    (got,) = torch.autograd.grad((model(X) * V).sum(), weight)
    return got


def expect_training(captured: torch.nn.Module, name: str, backend: str) -> None:
    assert torch.equal(captured(X), Model(name, backend)(X))
    want = gradient(Model(name, backend))
    torch.testing.assert_close(gradient(captured), want, rtol=0, atol=0)
    assert want.abs().max() > 0.1


def expect_new_samples(captured: torch.nn.Module) -> None:
    """Each call is a sample of its own."""
    first, second = captured(X), captured(X)
    assert not torch.equal(first, second)
    assert torch.equal(first.sum(-1), torch.ones(40))


# ---------------------------------------------------------------------------------------------------
# Graphs


@pairs(NAMES)
@pytest.mark.parametrize("strict", [True, False])
def test_an_exported_model_trains(backend, name, strict):
    program = torch.export.export(Model(name, backend), (X,), strict=strict)
    expect_training(program.module(), name, backend)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    expect_training(torch.export.load(file).module(), name, backend)
    expect_training(program.run_decompositions().module(), name, backend)


@pytest.mark.parametrize("strict", [True, False])
def test_an_exported_model_samples_anew(backend, strict):
    program = torch.export.export(Model("reinmax", backend, None), (X,), strict=strict)
    expect_new_samples(program.module())


def test_an_exported_batch_may_have_any_size(backend):
    batch = torch.export.Dim("batch", min=2, max=1000)
    for strict in (True, False):
        shapes = {"x": {0: batch}}
        program = torch.export.export(Model("gumbel_rao", backend), (X,), dynamic_shapes=shapes, strict=strict)
        for rows in (40, 3):
            model = Model("gumbel_rao", backend)
            want, got = model(X[:rows]), program.module()(X[:rows])
            assert torch.equal(got, want)


def test_an_exported_call_without_a_backend_runs_on_the_default_of_its_device():
    program = torch.export.export(Model("reinmax", None), (X,))  # type: ignore[arg-type]
    calls = [node for node in program.graph.nodes if node.target is torch.ops.discrete_ops.draw.default]
    assert [node.args[-1] for node in calls] == [""]
    with do.use_backend("reference"):
        assert torch.equal(program.module()(X), Model("reinmax", "reference")(X))


def test_the_exported_backward_graph_pulls_back(backend):
    from torch.export.experimental import _export_forward_backward

    class Loss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = Model("reinmax", backend)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.model(x) * V).sum()

    loss = Loss()
    joint = _export_forward_backward(torch.export.export(loss, (X,)))
    weights = {name: p.detach() for name, p in loss.named_parameters()}
    inputs = [weights.get(s.target, joint.constants.get(s.target, X)) for s in joint.graph_signature.input_specs]
    outputs = zip(joint.graph_signature.output_specs, joint.graph_module(*inputs), strict=True)
    got = {spec.target: value for spec, value in outputs if spec.kind.name.startswith("GRADIENT")}
    torch.testing.assert_close(got["model.linear.weight"], gradient(loss.model), rtol=1e-6, atol=1e-6)


@pairs(NAMES)
@pytest.mark.parametrize("with_grad", [True, False])
def test_a_traced_model_is_saved_and_trains(backend, name, with_grad):
    with torch.set_grad_enabled(with_grad):
        traced = torch.jit.trace(Model(name, backend), X)
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    expect_training(torch.jit.load(file), name, backend)


def test_a_traced_model_samples_anew(backend):
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)  # nothing is read that becomes a constant
        traced = torch.jit.trace(Model("reinmax", backend, None), X, check_trace=False)
    expect_new_samples(traced)


def test_a_traced_temperature_is_an_input(backend):
    f = lambda x, tau: do.gst(x, tau, hard=False, seed=3, backend=backend)  # noqa: E731
    traced = torch.jit.trace(f, (LOGITS, torch.tensor(0.5)))
    assert torch.equal(traced(LOGITS, torch.tensor(2.0)), f(LOGITS, 2.0))


@pairs(NAMES)
@pytest.mark.parametrize("pre_dispatch", [True, False])
def test_make_fx_keeps_the_gradient(backend, name, pre_dispatch):
    f = lambda x: make(name, 0.7)(x, seed=3, backend=backend)  # noqa: E731
    want = draw_and_pull(make(name, 0.7), LOGITS, V, seed=3, backend=backend)
    for mode in ("real", "fake", "symbolic"):
        graph = make_fx(f, pre_dispatch=pre_dispatch, tracing_mode=mode)(LOGITS)
        x = LOGITS.clone().requires_grad_()
        sample = graph(x)
        assert torch.equal(sample, want[0])
        assert torch.equal(torch.autograd.grad(sample, x, V)[0], want[2])


@pytest.mark.parametrize("mode", ["real", "symbolic"])
def test_make_fx_samples_anew(backend, mode):
    graph = make_fx(lambda x: do.reinmax(x, backend=backend), tracing_mode=mode)(LOGITS)
    first, second = graph(LOGITS), graph(LOGITS)
    assert not torch.equal(first, second)


def test_symbolic_trace_makes_one_leaf(backend):
    class Call(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return do.gumbel_rao(x * 2, 0.7, 3, seed=3, backend=backend) + 1

    traced = torch.fx.symbolic_trace(Call())
    assert [node.target for node in traced.graph.nodes if node.op == "call_function"][1] is do.functional.draw
    x, y = (LOGITS.clone().requires_grad_() for _ in range(2))
    got, want = traced(x), Call()(y)
    assert torch.equal(got, want)
    assert torch.equal(torch.autograd.grad(got, x, V)[0], torch.autograd.grad(want, y, V)[0])
    leaf = torch.fx.symbolic_trace(lambda x, i: do.expected_gap(x, i))
    assert [node.target for node in leaf.graph.nodes if node.op == "call_function"] == [do.expected_gap]


def test_a_tensor_subclass_stays_one():
    class Named(torch.Tensor):
        pass

    x = LOGITS.clone().as_subclass(Named).requires_grad_()
    sample = do.reinmax(x, seed=1)
    assert type(sample) is Named
    sample.backward(V)
    want = draw_and_pull(make("reinmax"), LOGITS, V, seed=1)
    assert torch.equal(sample.detach().as_subclass(torch.Tensor), want[0])
    assert torch.equal(x.grad.as_subclass(torch.Tensor), want[2])


def scripted(x: torch.Tensor) -> torch.Tensor:
    return do.reinmax(x)


def test_script_refuses_and_names_the_place():
    """TorchScript knows no keyword-only arguments; tracing and export take the call."""
    with pytest.raises(torch.jit.frontend.NotSupportedError, match=r"(?s)keyword-only arguments.*functional\.py"):
        torch.jit.script(scripted)


def test_onnx_takes_the_formulas_and_samples_anew(tmp_path):
    import onnxruntime

    def runner(model):
        torch.onnx.export(model, (X,), dynamo=True, verbose=False).save(tmp_path / "model.onnx")
        session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
        return lambda: torch.from_numpy(session.run(None, {session.get_inputs()[0].name: X.numpy()})[0])

    for name in ("gumbel_softmax", "gumbel_rao", "gst_pi"):
        model = Model(name, None)  # type: ignore[arg-type]
        model.options["hard"] = False
        torch.testing.assert_close(runner(model)(), model(X).detach(), rtol=1e-4, atol=1e-5)
    run = runner(Model("reinmax", None, None))  # type: ignore[arg-type]
    expect_new_samples(lambda _: run())  # type: ignore[arg-type]
    p = Model("reinmax", "reference").linear(X).softmax(-1).detach().double()
    counts = sum(run().double() for _ in range(200))
    z = (counts - 200 * p).sum(0) / (200 * p * (1 - p)).sum(0).sqrt()  # each row's are independent draws
    assert (z.abs() < 4).all()


SCORES = {
    "reinforce": lambda x: do.score_function.reinforce(square, x, 2, seed=3),
    "rloo": lambda x: do.score_function.rloo(square, x, 4, seed=3),
    "disarm_tree": lambda x: do.score_function.disarm_tree(square, x, 2, seed=3),
    "rebar": lambda x: do.score_function.rebar(square, x, seed=3),
}


def square(sample: torch.Tensor) -> torch.Tensor:
    return (sample - torch.linspace(0, 1, 6)).square().sum(-1)


@pytest.mark.parametrize("name", SCORES)
def test_score_functions_keep_their_gradients(name):
    f = SCORES[name]
    x = LOGITS.clone().requires_grad_()
    weights = torch.linspace(-1, 1, 40)
    (want,) = torch.autograd.grad(f(x), x, weights)
    captured = {"make_fx": make_fx(f)(LOGITS)}
    if name != "rebar":  # which differentiates f: those refuse it

        class Call(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return f(x)

        captured["export"] = torch.export.export(Call(), (LOGITS,)).module()
        captured["trace"] = torch.jit.trace(f, LOGITS)
    for how, graph in captured.items():
        (got,) = torch.autograd.grad(graph(x), x, weights)
        torch.testing.assert_close(got, want, msg=how)
    torch.testing.assert_close(torch.func.grad(lambda x: (f(x) * weights).sum())(LOGITS), want)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(f(forward_ad.make_dual(LOGITS, V))).tangent
    for each in (torch.func.jvp(f, (LOGITS,), (V,))[1], tangent):
        torch.testing.assert_close((each * weights).sum(), (want * V).sum())


def test_what_cannot_capture_rebar_says_so():
    class Call(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return SCORES["rebar"](x)

    for capture in (torch.export.export, torch.jit.trace):
        with pytest.raises(Exception, match=r"rebar: .*allowed"):
            capture(Call(), (LOGITS,))


# ---------------------------------------------------------------------------------------------------
# torch.compile


@pytest.mark.parametrize(
    ("compiler", "backend"), [*(("aot_eager", b) for b in CPU_BACKENDS), ("inductor", CPU_BACKENDS[-1])]
)
def test_numbers_that_change_at_every_step_recompile_once(compiler, backend):
    def f(x, tau, gap, sample_tau):
        return do.gst(x, tau, gap, sample_tau=sample_tau, seed=1, backend=backend)

    counter = CompileCounterWithBackend(compiler)
    compiled = torch.compile(f, fullgraph=True, backend=counter)
    for step in range(12):
        numbers = (1.0 / (1 + step), 0.1 * step + 0.5, 1.0 + 0.1 * step)
        x, y = (LOGITS.clone().requires_grad_() for _ in range(2))
        got, want = compiled(x, *numbers), f(y, *numbers)
        assert torch.equal(got, want)
        assert_close(torch.autograd.grad(got, x, V)[0], torch.autograd.grad(want, y, V)[0])
    assert counter.frame_count <= 2


@compilers("aot_eager")
def test_rebar_compiles_in_one_graph(compiler, backend):
    target = torch.linspace(0, 1, 6)
    scale = torch.ones(6, requires_grad=True)

    def f(x):
        loss = lambda z: ((z - target) ** 2 * scale).sum(-1)  # noqa: E731
        return do.score_function.rebar(loss, x, 0.5, 1.0, seed=3)

    x, y = (LOGITS.clone().requires_grad_() for _ in range(2))
    with do.use_backend(backend):
        got, want = torch.compile(f, fullgraph=True, backend=compiler)(x), f(y)
    torch.testing.assert_close(got, want)
    for a, b in zip(*(torch.autograd.grad(o.sum(), (z, scale)) for o, z in ((got, x), (want, y))), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_the_gradient_at_tau_compiles(backend):
    def f(x, tau):
        return do.gumbel_rao(x, tau, 3, seed=3, backend=backend)

    results = []
    for run in (f, torch.compile(f, fullgraph=True, backend="aot_eager")):
        x, tau = LOGITS.clone().requires_grad_(), torch.full((40, 1), 0.6, requires_grad=True)
        results.append(torch.autograd.grad(run(x, tau), (x, tau), V))
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want)


def test_a_gradient_that_is_not_defined_is_refused_in_a_captured_graph(backend):
    class Call(torch.nn.Module):
        def forward(self, x: torch.Tensor, gap: torch.Tensor) -> torch.Tensor:
            return do.gst(x, 0.5, gap, seed=1, backend=backend)

    module = torch.export.export(Call(), (LOGITS, torch.tensor(0.5))).module()
    gap = torch.tensor(0.7, requires_grad=True)
    sample = module(LOGITS.clone().requires_grad_(), gap)
    with pytest.raises(RuntimeError, match=r"^gap: got a tensor that requires grad"):
        sample.sum().backward()
