"""The layer: what a training script does with a module, and that it is the function inside."""

import copy
import io
import math
import pickle

import pytest
import torch
import torch._dynamo.testing
from helpers import CASES, make

import discrete_ops as do

LOGITS = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
V = torch.randn(40, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def pull(layer, logits=LOGITS, v=V, **options):
    logits = logits.clone().requires_grad_()
    sample = layer(logits, seed=5, **options)
    return sample.detach(), torch.autograd.grad(sample, logits, v)[0]


@pytest.mark.parametrize("name", CASES)
def test_the_layer_is_its_estimator(name):
    estimator = make(name, 0.7)
    for layer in (do.nn.StraightThroughCategorical(estimator), do.nn.StraightThroughCategorical(str(estimator))):
        for a, b in zip(pull(layer), pull(estimator), strict=True):
            assert torch.equal(a, b)


def test_the_temperature_is_annealed_shown_and_kept():
    layer = do.nn.StraightThroughCategorical("gst(tau=1.0, gap=0.5)")
    model = torch.nn.Sequential(torch.nn.Linear(3, 6), layer)
    kept = layer.tau
    layer.tau = 0.5
    layer.tau *= 0.5
    assert layer.tau is kept  # what has captured it sees the change
    assert layer.tau == 0.25
    assert "gst(tau=0.25, gap=0.5)" in repr(model)
    assert str(layer.estimator) == "gst(tau=0.25, gap=0.5)"
    for a, b in zip(pull(layer), pull(do.estimators.GST(0.25, 0.5)), strict=True):
        assert torch.equal(a, b)
    buffer = io.BytesIO()
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": {"estimator": layer.estimator}}, buffer)
    buffer.seek(0)
    checkpoint = torch.load(buffer, weights_only=True)  # as Lightning keeps them
    other = torch.nn.Sequential(torch.nn.Linear(3, 6), do.nn.StraightThroughCategorical("gst(gap=0.5)"))
    other.load_state_dict(checkpoint["state_dict"])
    assert other[1].tau == 0.25
    again = do.nn.StraightThroughCategorical(checkpoint["hyper_parameters"]["estimator"])
    assert again.tau == 0.25
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        twin[1].tau = 2.0
        assert layer.tau == 0.25
        assert repr(twin[1]) == repr(do.nn.StraightThroughCategorical("gst(tau=2.0, gap=0.5)"))


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), "1", None, torch.tensor(-2.0)])
def test_a_bad_temperature_is_refused_and_the_old_one_stays(bad):
    layer = do.nn.StraightThroughCategorical("reinmax(tau=0.5)")
    with pytest.raises((TypeError, ValueError), match="tau: got"):
        layer.tau = bad
    assert layer.tau == 0.5
    with pytest.raises(AttributeError, match=r"tau: reinmax_rk2 has none, it has .*beta"):
        do.nn.StraightThroughCategorical("reinmax_rk2").tau = 0.5
    assert not hasattr(do.nn.StraightThroughCategorical("reinmax_rk2"), "tau")


def test_the_ends_of_a_temperature():
    """MVE's are values of a tensor; Gumbel-Rao's 0 is not, and is refused at once."""
    layer = do.nn.StraightThroughCategorical("mve(tau=4.0)")
    for tau in (0.0, math.inf):
        layer.tau = tau
        assert layer.tau == tau
        assert repr(layer) == f"StraightThroughCategorical(mve(tau={tau:g}))"
        for a, b in zip(pull(layer), pull(do.estimators.MVE(tau)), strict=True):
            assert torch.equal(a, b)
    layer = do.nn.StraightThroughCategorical("gumbel_rao(tau=0.5)")
    with pytest.raises(ValueError, match=r"tau: got 0, allowed in a layer: .*'reinmax'"):
        layer.tau = 0
    with pytest.raises(ValueError, match=r"tau: got 0, allowed in a layer: .*'reinmax'"):
        do.nn.StraightThroughCategorical("gumbel_rao(tau=0)")
    assert layer.tau == 0.5


def test_a_temperature_a_row_and_a_trained_one():
    rows = torch.linspace(0.3, 2.0, 40, dtype=torch.float64).unsqueeze(-1)
    layer = do.nn.StraightThroughCategorical("gumbel_softmax")
    layer.tau = rows
    assert torch.equal(layer.state_dict()["tau"], rows)
    loaded = do.nn.StraightThroughCategorical("gumbel_softmax")
    loaded.load_state_dict(layer.state_dict())
    assert torch.equal(loaded.tau, rows)
    for a, b in zip(pull(layer), pull(do.estimators.GumbelSoftmax(rows)), strict=True):
        assert torch.equal(a, b)
    trained = do.nn.StraightThroughCategorical(do.estimators.GST(torch.nn.Parameter(torch.tensor(0.8))))
    assert [name for name, _ in trained.named_parameters()] == ["tau"]
    (trained(LOGITS, seed=5) * V).sum().backward()
    tau = torch.tensor(0.8, requires_grad=True)
    (do.gst(LOGITS, tau, seed=5) * V).sum().backward()
    assert torch.equal(trained.tau.grad, tau.grad)
    assert tau.grad != 0
    trained.tau = 0.3  # a number sets it
    assert isinstance(trained.tau, torch.nn.Parameter)
    assert repr(trained) == "StraightThroughCategorical(gst(tau=0.3, gap=1.0))"
    twin = copy.deepcopy(trained)
    twin.tau = 0.9
    assert trained.tau.item() == pytest.approx(0.3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dim", [-1, 0])
def test_eval_takes_the_likeliest_category(dtype, dim):
    layer = do.nn.StraightThroughCategorical("reinmax", dim=dim).eval()
    logits = LOGITS.to(dtype).requires_grad_()
    sample = layer(logits)
    assert sample.dtype == dtype
    assert not sample.requires_grad
    assert torch.equal(sample.argmax(dim), logits.argmax(dim))
    assert torch.equal(sample.sum(dim), torch.ones_like(sample.sum(dim)))
    mask = torch.ones(40, 6, dtype=torch.bool).scatter(dim, logits.argmax(dim, keepdim=True), False)
    second = layer(logits, mask=mask)
    assert (second * sample == 0).all()
    assert torch.equal(layer.train()(logits, seed=1), do.reinmax(logits, seed=1, dim=dim))


def test_eval_keeps_the_rules_of_bad_rows():
    inf, nan = torch.inf, torch.nan
    logits = torch.tensor([[-inf, -inf, -inf], [0.0, nan, 1.0], [inf, 0.0, 0.0], [2.0, 2.0, -inf], [-inf, -inf, -1e30]])
    sample = do.nn.StraightThroughCategorical().eval()(logits)
    drawn = do.straight_through(logits)
    assert torch.equal(sample[:3].isnan(), drawn[:3].isnan())
    assert torch.equal(sample[[0, 3, 4]], torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 0, 1]]))


def test_moving_the_module_leaves_the_temperature_exact():
    layer = torch.nn.Sequential(do.nn.StraightThroughCategorical("reinmax(tau=0.3)"))
    for move in (lambda m: m.half(), lambda m: m.to(torch.bfloat16), lambda m: m.float(), lambda m: m.cpu()):
        assert move(layer)[0].tau.item() == 0.3
    with torch.device("meta"):
        made = do.nn.StraightThroughCategorical("reinmax(tau=0.3)")
    assert made.tau.is_meta
    assert made.to_empty(device="cpu").tau.item() == 0.3
    made.tau = 0.7
    made.reset_parameters()
    assert made.tau.item() == 0.3
    with torch.device("meta"):
        made = do.nn.StraightThroughCategorical("gst")
    made.load_state_dict(layer[0].state_dict(), assign=True)
    assert made.tau.item() == 0.3
    assert torch.equal(made(LOGITS, seed=3), do.gst(LOGITS, 0.3, seed=3))


def test_annealing_compiles_nothing_new():
    layer = do.nn.StraightThroughCategorical("gumbel_rao(tau=1.0, num_samples=2)")
    counter, frames = torch._dynamo.testing.CompileCounterWithBackend("aot_eager"), []
    compiled = torch.compile(layer, fullgraph=True, backend=counter)
    for step in range(5):
        layer.tau = 0.9**step
        for a, b in zip(pull(compiled), pull(do.estimators.GumbelRao(0.9**step, 2)), strict=True):
            torch.testing.assert_close(a, b)
        frames.append(counter.frame_count)
    assert frames[0] == frames[-1] > 0


def test_it_is_exported_with_its_temperature():
    layer = do.nn.StraightThroughCategorical("gst(tau=0.5)")
    program = torch.export.export(layer, (LOGITS,))
    assert program.state_dict["tau"] == 0.5
    sample = program.module()(LOGITS)
    assert torch.equal(sample.sum(-1), torch.ones(40, dtype=torch.float64))


@pytest.mark.parametrize("bad", ["nope", "gst(gap=1", "gst(tau=x)", 3, None])
def test_a_bad_estimator_is_refused(bad):
    with pytest.raises((TypeError, ValueError), match="estimator: got"):
        do.nn.StraightThroughCategorical(bad)


def test_a_temperature_that_would_train_in_vain_is_refused():
    log_tau = torch.nn.Parameter(torch.zeros(()))
    with pytest.raises(ValueError, match="tau: got a tensor that requires grad"):
        do.nn.StraightThroughCategorical().tau = log_tau.exp()
    with pytest.raises(ValueError, match="tau: got a tensor that requires grad"):
        do.nn.StraightThroughCategorical(do.estimators.GST(log_tau.exp()))
    with pytest.raises(AttributeError, match="tau: reinmax_rk2 has none"):
        do.nn.StraightThroughCategorical("reinmax_rk2").tau = log_tau
    with pytest.raises(ValueError, match="tau: got"):
        do.nn.StraightThroughCategorical().tau = torch.nn.Parameter(torch.tensor(-1.0))
    layer = do.nn.StraightThroughCategorical(do.estimators.GST(torch.nn.Parameter(torch.tensor(0.01))))
    with torch.no_grad():
        layer.tau.sub_(0.02)  # what a step of an optimizer may do
    assert "gst(tau=-0.01" in repr(layer)
    with pytest.raises(ValueError, match="tau: got"):
        layer(LOGITS)
    layer.reset_parameters()
    assert layer.tau.item() == pytest.approx(0.01)


def test_a_temperature_set_inside_a_compiled_step_stays():
    layer = do.nn.StraightThroughCategorical("gumbel_softmax")

    def step(x, tau):
        layer.tau = tau
        sample = layer(x, seed=5)
        layer.tau *= 0.5
        return sample

    for backend in ("aot_eager", "inductor"):
        for tau in (0.1, 0.7):
            logits = LOGITS.clone().requires_grad_()
            sample = torch.compile(step, fullgraph=True, backend=backend)(logits, tau)
            (gradient,) = torch.autograd.grad(sample, logits, V)
            torch.testing.assert_close(gradient, pull(do.estimators.GumbelSoftmax(tau))[1])
            assert layer.tau.item() == 0.5 * tau


def test_it_is_one_leaf_to_symbolic_tracing_and_refuses_unknown_words_in_both_modes():
    layer = do.nn.StraightThroughCategorical("gst")
    for training in (True, False):
        layer.train(training)
        traced = torch.fx.symbolic_trace(torch.nn.Sequential(torch.nn.Identity(), layer))
        assert torch.equal(traced(LOGITS).sum(-1), torch.ones(40, dtype=torch.float64))
        assert torch.fx.symbolic_trace(layer)(LOGITS).shape == LOGITS.shape
        for words in ({"typo": 1}, {"return_index": True}, {"dim": 0}, {"tau": 1.0}):
            with pytest.raises(TypeError, match="unexpected keyword argument"):
                layer(LOGITS, **words)
    for dim in ("x", 1.5, True, None):
        with pytest.raises(TypeError, match="dim: got"):
            do.nn.StraightThroughCategorical(dim=dim)
