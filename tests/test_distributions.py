"""torch's one-hot distribution with any estimator: law, gradient, entropy and KL are torch's; masks make no NaN."""

import copy
import subprocess
import sys

import pyro
import pytest
import torch
from helpers import CASES, chi_squared, make
from torch.distributions import Categorical, Independent, OneHotCategorical, kl_divergence
from torch.distributions import OneHotCategoricalStraightThrough as Stock

from discrete_ops.distributions import OneHotCategoricalStraightThrough as Ours
from discrete_ops.pyro import OneHotCategoricalStraightThrough as InPyro

inf = torch.inf
LOGITS = 2 * torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
V = torch.randn(7, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_it_is_one_of_torchs():
    ours = Ours(logits=LOGITS)
    assert isinstance(ours, Stock)
    assert ours.has_rsample
    assert Independent(ours, 1).rsample().shape == (7, 5)
    said = "OneHotCategoricalStraightThrough(logits: torch.Size([7, 5]), estimator: straight_through(tau=1.0))"
    assert repr(ours) == said


@pytest.mark.parametrize("given", ["logits", "probs"])
def test_every_property_is_torchs(given):
    parameter = {"logits": LOGITS, "probs": 3 * LOGITS.softmax(-1)}[given]
    ours, stock = Ours(**{given: parameter}), Stock(**{given: parameter})
    for name in ("logits", "probs", "mean", "mode", "variance", "param_shape", "batch_shape", "event_shape"):
        torch.testing.assert_close(getattr(ours, name), getattr(stock, name))
    torch.testing.assert_close(ours.entropy(), stock.entropy())
    torch.testing.assert_close(ours.enumerate_support(), stock.enumerate_support())
    value = ours.sample((3,))
    torch.testing.assert_close(ours.log_prob(value), stock.log_prob(value))
    other = LOGITS.flip(0)
    for p, q in ((ours, Stock(logits=other)), (stock, Ours(logits=other)), (ours, Ours(logits=other))):
        torch.testing.assert_close(kl_divergence(p, q), kl_divergence(stock, Stock(logits=other)))


@pytest.mark.parametrize("given", ["logits", "probs"])
@pytest.mark.parametrize("quantity", ["entropy", "kl", "log_prob", "rsample"])
def test_every_gradient_is_torchs(given, quantity):
    """``rsample`` with the default estimator, which is the one that torch has."""
    index = torch.arange(7) % 5
    gradients = []
    for cls in (Ours, Stock):
        parameter = (LOGITS if given == "logits" else 3 * LOGITS.softmax(-1)).clone().requires_grad_()
        d = cls(**{given: parameter})
        if quantity == "rsample":
            loss = (d.rsample() * V).sum()  # linear: straight-through's gradient does not depend on the draw
        elif quantity == "kl":
            loss = (kl_divergence(d, cls(logits=LOGITS.flip(0))) * V[:, 0]).sum()
        elif quantity == "entropy":
            loss = (d.entropy() * V[:, 0]).sum()
        else:
            loss = (d.log_prob(torch.nn.functional.one_hot(index, 5).double()) * V[:, 0]).sum()
        gradients.append(torch.autograd.grad(loss, parameter)[0])
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 1e-3


@pytest.mark.parametrize("name", CASES)
def test_rsample_is_the_estimator(name):
    logits = LOGITS.clone().requires_grad_()
    torch.manual_seed(3)
    (ours,) = torch.autograd.grad(Ours(logits=logits, estimator=make(name)).rsample((4,)), logits, V.expand(4, 7, 5))
    torch.manual_seed(3)
    (direct,) = torch.autograd.grad(make(name)(logits.expand(4, 7, 5)), logits, V.expand(4, 7, 5))
    torch.testing.assert_close(ours, direct)


def test_samples_have_the_law_and_the_shapes():
    d = Ours(logits=LOGITS[:2], estimator="reinmax", unimix=0.1)
    samples = d.sample((30_000,))
    assert samples.shape == (30_000, 2, 5)
    assert not samples.requires_grad
    for row in range(2):
        want = 0.9 * LOGITS[row].softmax(-1) + 0.1 / 5
        torch.testing.assert_close(d.probs[row], want)
        assert chi_squared(samples[:, row].argmax(-1), want) > 1e-4
    assert Ours(logits=torch.zeros(0, 3)).rsample((2,)).shape == (2, 0, 3)
    assert Ours(logits=torch.zeros(3)).rsample().shape == (3,)


def test_unimix_keeps_the_gradient_of_the_mixture():
    """DreamerV3's formula, written out."""
    gradients = []
    for own in (True, False):
        logits = LOGITS.clone().requires_grad_()
        if own:
            d = Ours(logits=logits, unimix=0.01)
            sample = d.rsample()
        else:
            probs = 0.99 * logits.softmax(-1) + 0.01 / 5
            d = OneHotCategorical(logits=probs.log())
            sample = d.sample() + d.probs - d.probs.detach()
        loss = (sample * V).sum() + kl_divergence(d, OneHotCategorical(logits=LOGITS.flip(0))).sum()
        gradients.append(torch.autograd.grad(loss, logits)[0])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("unimix", [0.0, 0.05])
def test_masks_never_make_nan(dtype, unimix):
    mask = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
    logits = LOGITS[:4].to(dtype).requires_grad_()
    for p in (
        Ours(logits=logits, mask=mask, unimix=unimix),
        Ours(logits=logits.masked_fill(~mask, -inf), unimix=unimix),
        Ours(probs=logits.exp().masked_fill(~mask, 0.0), unimix=unimix),
    ):
        samples = p.rsample((200,))
        assert (samples.detach()[:, ~mask] == 0).all()
        assert torch.equal(samples.detach().sum(-1)[:, [0, 1, 3]], torch.ones(200, 3, dtype=dtype))
        assert (samples[:, 2] == 0).all()
        q = Ours(logits=torch.zeros(4, 5, dtype=dtype))
        values = [p.entropy(), p.log_prob(samples.detach()).sum(0), kl_divergence(p, q), kl_divergence(p, p)]
        assert all(value.isfinite().all() for value in values)
        assert p.entropy()[2] == p.log_prob(samples[0].detach())[2] == 0
        loss = sum(value.double().sum() for value in values) + (samples * 3).double().square().sum()
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        assert gradient.isfinite().all()
        assert (gradient[~mask] == 0).all()
        assert gradient[0].abs().sum() > 0
        torch.testing.assert_close(p.probs[0, mask[0]].sum().double(), torch.tensor(1.0).double(), rtol=1e-2, atol=1e-2)
        assert (kl_divergence(q, p)[:3] == inf).all()
        exact = Categorical(logits=logits[0, mask[0]].double())
        if not unimix and dtype == torch.float64:
            torch.testing.assert_close(p.entropy()[0], exact.entropy())
            torch.testing.assert_close(
                kl_divergence(p, q)[0], (exact.probs * (exact.logits + torch.tensor(5.0).log())).sum()
            )
        assert torch.equal(p.mode[0, mask[0]].argmax(), logits[0, mask[0]].argmax())
        assert (p.mode[2] == 0).all()


def test_expand_shares_the_parameters_and_keeps_the_estimator():
    logits = LOGITS.clone().requires_grad_()
    d = Ours(logits=logits, estimator="gst(tau=0.5)", unimix=0.1)
    e = d.expand((3, 7))
    assert isinstance(e, Ours)
    assert e.batch_shape == (3, 7)
    assert e.estimator is d.estimator
    assert e.rsample().shape == (3, 7, 5)
    torch.manual_seed(0)
    assert not torch.equal(*e.rsample()[:2])  # rows of their own
    torch.testing.assert_close(e.entropy(), d.entropy().expand(3, 7))
    torch.testing.assert_close(copy.deepcopy(Ours(logits=LOGITS)).probs, Ours(logits=LOGITS).probs)


def test_what_it_refuses():
    for given in ({}, {"logits": LOGITS, "probs": LOGITS.softmax(-1)}):
        with pytest.raises(ValueError, match="probs, logits: got"):
            Ours(**given)
    for bad in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="unimix: got"):
            Ours(logits=LOGITS, unimix=bad)
    with pytest.raises(TypeError, match=r"mask: got a tensor of torch\.float64"):
        Ours(logits=LOGITS, mask=LOGITS)
    with pytest.raises(ValueError, match="estimator: got 'nope'"):
        Ours(logits=LOGITS, estimator="nope")
    with pytest.raises(ValueError, match="logits: got values that are NaN"):
        Ours(logits=LOGITS.clone().fill_(torch.nan), validate_args=True)
    with pytest.raises(ValueError, match="probs: got values that are negative"):
        Ours(probs=LOGITS, validate_args=True)
    behind = LOGITS.clone()
    behind[:, 0] = torch.nan
    assert Ours(logits=behind, mask=torch.arange(5) > 0, validate_args=True).entropy().isfinite().all()
    assert Ours(logits=LOGITS.clone().fill_(torch.nan), validate_args=False).rsample().isnan().all()
    for value in (LOGITS, LOGITS[:, :4], [1.0, 0.0, 0.0, 0.0, 0.0]):
        with pytest.raises(ValueError, match=r"value argument|event_shape|must be a Tensor"):
            Ours(logits=LOGITS, validate_args=True).log_prob(value)
    for name in ("logits", "probs"):
        with pytest.raises(ValueError, match=f"^{name}: got a 0-dim"):
            Ours(**{name: torch.tensor(1.0)})
        with pytest.raises(TypeError, match=f"^{name}: got dtype torch.int64"):
            Ours(**{name: torch.tensor([1, 2])})


def test_a_training_step_with_it_compiles_whole():
    """Strings, masks and unimix too; a sample has the gradient that it has without."""

    def step(logits, mask):
        d = Ours(logits=logits, estimator="gst(tau=0.5)", unimix=0.01, mask=mask, validate_args=False)
        kl = kl_divergence(d, Ours(logits=logits * 0, validate_args=False))
        return d.rsample(), d.entropy(), d.log_prob(d.mode), kl

    mask, gradients = V > -0.5, []
    for compiled in (False, True):
        logits = LOGITS.clone().requires_grad_()
        run = torch.compile(step, fullgraph=True, backend="aot_eager") if compiled else step
        sample, *rest = run(logits, mask)
        assert (sample.detach()[~mask] == 0).all()
        assert torch.equal(sample.sum(-1), torch.ones(7, dtype=torch.float64))
        gradients.append(torch.autograd.grad(sum(value.sum() for value in rest), logits)[0])
    torch.testing.assert_close(*gradients)


def test_pyros_distribution_traces_and_broadcasts():
    logits = LOGITS.clone().requires_grad_()

    def model():
        with pyro.plate("rows", 7):
            return pyro.sample("z", InPyro(logits=logits, estimator="reinmax", unimix=0.01))

    trace = pyro.poutine.trace(model).get_trace()
    site = trace.nodes["z"]
    assert site["value"].requires_grad
    trace.compute_log_prob()
    torch.testing.assert_close(site["log_prob"], Ours(logits=logits, unimix=0.01).log_prob(site["value"]))
    assert InPyro(logits=LOGITS).expand([3, 7]).to_event(1).sample().shape == (3, 7, 5)


@pytest.mark.parametrize("given", ["logits", "probs"])
def test_kl_where_torchs_own_has_a_probability_of_zero(given):
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.5, 0.25, 0.25])
    ours, stock = (
        (lambda x: Ours(**{given: x if given == "probs" else x.log()})),
        (lambda x: OneHotCategorical(probs=x)),
    )
    want = (p[:2] * (p[:2] / q[:2]).log()).sum()
    for a, b in ((ours, ours), (ours, stock), (stock, ours)):
        assert kl_divergence(a(p), b(p)) == 0
        assert kl_divergence(a(q), b(p)) == inf
        torch.testing.assert_close(kl_divergence(a(p), b(q)), want)
    far = torch.tensor([0.0, -200.0])  # no mask: its probability is too small for float32
    assert kl_divergence(Ours(logits=-far), OneHotCategorical(logits=far)).isfinite()


def test_torch_func_takes_it():
    """A validation reads values, which vmap has not."""
    entropy = torch.vmap(lambda x: Ours(logits=x, validate_args=True).entropy())(LOGITS)
    torch.testing.assert_close(entropy, Stock(logits=LOGITS).entropy())
    gradient = torch.func.grad(lambda x: (Ours(logits=x).rsample() * V).sum())(LOGITS)
    torch.testing.assert_close(gradient, torch.func.grad(lambda x: (x.softmax(-1) * V).sum())(LOGITS))


def test_its_kl_compiles_in_a_fresh_process():
    code = """
import torch
from discrete_ops.distributions import OneHotCategoricalStraightThrough as D
kl = lambda x: torch.distributions.kl_divergence(D(logits=x), D(logits=x * 0))
print(torch.compile(kl, fullgraph=True, backend="eager")(torch.zeros(3, 4)).tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[0.0, 0.0, 0.0]\n", done.stderr
