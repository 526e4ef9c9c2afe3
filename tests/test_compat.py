"""The signatures of other packages: the same results where they are random the same way, and the same law."""

import functools
import importlib
import inspect
import sys
import types
import warnings

import pytest
import scipy.stats
import torch
from torch.nn.functional import gumbel_softmax as imported_before

import discrete_ops as do

pypi = importlib.import_module("reinmax.reinmax")  # the package hides this module behind its function


def inputs(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(sum(shape))
    return tuple(torch.randn(3, *shape, dtype=torch.float64, generator=g).to(dtype).unbind())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("shape", [(30, 6), (4, 5, 3)])
def test_reinmax_is_the_pypi_package_through_both_outputs(shape, tau, dtype, monkeypatch):
    logits, v_sample, v_probs = inputs(*shape, dtype=dtype)
    logits.requires_grad_()
    torch.manual_seed(0)
    sample, probs = do.compat.reinmax(logits, tau)
    index = sample.argmax(-1).reshape(-1, 1)
    monkeypatch.setattr(torch, "multinomial", lambda *_, **__: index)  # their draw becomes ours
    their_sample, their_probs = pypi.reinmax(logits, tau)
    assert torch.equal(sample, their_sample)
    torch.testing.assert_close(probs, their_probs)
    zero = torch.zeros_like(v_sample)
    for v in ((v_sample, v_probs), (v_sample, zero), (zero, v_probs)):
        ours, theirs = (
            torch.autograd.grad(x, logits, v, retain_graph=True)[0]
            for x in ((sample, probs), (their_sample, their_probs))
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6 * max(1, 1 / tau))
        assert ours.abs().max() > 1e-2


def test_reinmax_takes_what_the_package_takes():
    logits = torch.zeros(2, 3)
    for ours in (do.compat.reinmax(logits, 1.0, hard=True), do.compat.reinmax(logits=logits, tau=torch.tensor(1.0))):
        assert len(ours) == 2
    assert list(inspect.signature(do.compat.reinmax).parameters) == list(inspect.signature(pypi.reinmax).parameters)


def test_gumbel_softmax_has_torchs_signature():
    """Its parameters first, in its order, with its defaults; ours after them, by keyword."""
    theirs = list(inspect.signature(torch.nn.functional.gumbel_softmax).parameters.values())
    ours = list(inspect.signature(do.gumbel_softmax).parameters.values())
    for a, b in zip(theirs, ours, strict=False):
        assert (a.name, a.default, a.kind) == (b.name, b.default, b.kind)
    assert all(p.kind is p.KEYWORD_ONLY for p in ours[len(theirs) :])


def test_gumbel_softmax_warns_of_eps_as_torch_does():
    logits = torch.zeros(2, 3)
    for function in (torch.nn.functional.gumbel_softmax, do.gumbel_softmax):
        with pytest.warns(UserWarning, match="eps"):
            function(logits, eps=1e-5)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            function(logits, eps=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("hard", [True, False])
def test_gumbel_softmax_drops_in(hard, dim, dtype):
    """Positional as in torch: shape, dtype and row sums are torch's."""
    logits = inputs(4, 5, 3, dtype=dtype)[0].requires_grad_()
    ours = do.gumbel_softmax(logits, 0.7, hard, 1e-10, dim)
    theirs = torch.nn.functional.gumbel_softmax(logits, 0.7, hard, 1e-10, dim)
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    one = torch.ones_like(ours.sum(dim))
    torch.testing.assert_close(ours.sum(dim), one)
    ours.square().sum().backward()
    assert logits.grad.shape == logits.shape


def test_patch_torch_replaces_and_restores():
    original = torch.nn.functional.gumbel_softmax
    logits = torch.zeros(20, 5)
    with do.patch_torch():
        assert torch.nn.functional.gumbel_softmax is not original
        torch.manual_seed(2)
        inside = torch.nn.functional.gumbel_softmax(logits, tau=0.5, hard=True)
        torch.manual_seed(2)
        assert torch.equal(inside, do.gumbel_softmax(logits, tau=0.5, hard=True))
        with do.patch_torch():  # nested
            pass
        assert torch.nn.functional.gumbel_softmax is do.gumbel_softmax
    assert torch.nn.functional.gumbel_softmax is original
    with pytest.raises(KeyError), do.patch_torch():
        raise KeyError
    assert torch.nn.functional.gumbel_softmax is original


def test_patched_torch_keeps_the_law():
    logits = torch.tensor([1.0, 0.0, -1.0]).expand(20_000, 3)
    torch.manual_seed(0)
    theirs = torch.nn.functional.gumbel_softmax(logits, 0.8)
    with do.patch_torch():
        ours = torch.nn.functional.gumbel_softmax(logits, 0.8)
    assert not torch.equal(ours, theirs)
    for column in range(3):
        assert scipy.stats.ks_2samp(ours[:, column].numpy(), theirs[:, column].numpy()).pvalue > 1e-4


def test_patch_torch_reaches_names_that_were_imported_before():
    logits = torch.zeros(20, 5)
    stock, kept = imported_before, functools.partial(imported_before)
    with do.patch_torch():
        assert imported_before is do.gumbel_softmax
        torch.manual_seed(2)
        inside = imported_before(logits, hard=True)
        torch.manual_seed(2)
        assert torch.equal(inside, do.gumbel_softmax(logits, hard=True))
        assert kept.func is not do.gumbel_softmax  # as its docstring says
        assert "gumbel_softmax" in vars(do)
    assert imported_before is stock is torch.nn.functional.gumbel_softmax


@pytest.mark.parametrize("given", [False, True])
def test_gumbel_rao_has_the_repositorys_law_and_gradient(given):
    """Its formula, written out from its description: the mean softmax of k conditional Gumbels, D held fixed."""
    logits, v, _ = inputs(4000, 5)
    logits = logits[:1].expand(4000, 5)
    I = torch.arange(4000) % 5 if given else None  # noqa: E741
    leaf = logits.clone().requires_grad_()
    torch.manual_seed(1)
    sample = do.compat.gumbel_rao(leaf, 3, temp=0.7, I=I)
    index = sample.argmax(-1)
    if given:
        assert torch.equal(index, I)
    assert torch.equal(sample, torch.nn.functional.one_hot(index, 5).double())
    (gradient,) = torch.autograd.grad(sample, leaf, v[:1].expand(4000, 5))
    E = torch.distributions.Exponential(1.0).sample((30, 4000, 5)).double()
    D = torch.nn.functional.one_hot(index, 5).double()
    Ei, Z, e = (D * E).sum(-1, keepdim=True), logits.exp().sum(-1, keepdim=True), logits.exp()
    Y = D * (Z.log() - E.log()) - (1 - D) * (E / e + Ei / Z).log()
    p = (Y / 0.7).softmax(-1)
    want = p * (v[:1] - (p * v[:1]).sum(-1, keepdim=True)) / 0.7
    for category in range(5):
        rows = index == category
        error = gradient[rows].std(0) / rows.sum() ** 0.5 + want[:, rows].mean(0).std(0) / rows.sum() ** 0.5
        assert ((gradient[rows].mean(0) - want[:, rows].mean((0, 1))).abs() < 5 * error).all()


def test_gumbel_rao_of_a_given_index_is_the_op_that_drew_it(monkeypatch):
    logits, v, _ = inputs(50, 6)
    leaf, tau = logits.clone().requires_grad_(), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    sample, index = do.gumbel_rao(leaf, tau, 4, seed=11, return_index=True)
    drawn = torch.autograd.grad(sample, (leaf, tau), v)
    monkeypatch.setattr(do.compat.checks, "draw_seed", lambda *_: torch.tensor([11]))
    again = do.compat.gumbel_rao(leaf, 4, tau, index)
    assert torch.equal(again, sample)
    for a, b in zip(torch.autograd.grad(again, (leaf, tau), v), drawn, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    "bad", [{"k": 0}, {"k": 2, "temp": -1}, {"k": 2, "I": torch.full((50,), 6)}, {"k": 2, "I": [1]}]
)
def test_gumbel_rao_names_what_it_refuses(bad):
    with pytest.raises((TypeError, ValueError), match=f"^{[*bad][-1]}: got"):
        do.compat.gumbel_rao(inputs(50, 6)[0], **bad)


METHODS = {
    "gumbel": do.estimators.GumbelSoftmax(0.7),
    "st": do.estimators.StraightThrough(0.7),
    "reinmax": do.estimators.ReinMax(0.7),
    "rao_gumbel": do.estimators.GumbelRao(0.7, 100),
    "rao_gumbel-7": do.estimators.GumbelRao(0.7, 7),
    "gst-1.3": do.estimators.GST(0.7, 1.3),
    "gst-p": do.estimators.GST(0.7, "pi"),
    "nd_gst-0.5": do.estimators.GST(0.7, 0.5, detach_perturbation=False),
    "nd_gst-p": do.estimators.GST(0.7, "pi", detach_perturbation=False),
}


@pytest.mark.parametrize("method", METHODS)
def test_categorical_repara_takes_the_repositories_methods(method):
    logits, v, w = inputs(30, 6)
    logits.requires_grad_()
    torch.manual_seed(4)
    sample, probs = do.compat.categorical_repara(logits, 0.7, method)
    torch.manual_seed(4)
    want = METHODS[method](logits)
    assert torch.equal(sample, want)
    assert torch.equal(probs, logits.softmax(-1))
    torch.manual_seed(4)
    ours = torch.autograd.grad((sample, probs), logits, (v, w))[0]
    torch.testing.assert_close(ours, torch.autograd.grad((want, logits.softmax(-1)), logits, (v, w))[0])


@pytest.mark.parametrize("method", ["exact", "gst-", "gst", "gst-nan", "rao_gumbel-x", "rao", 3, "rao_gumbel-0"])
def test_categorical_repara_names_an_unknown_method(method):
    with pytest.raises(ValueError, match=r"^(method|num_samples): got"):
        do.compat.categorical_repara(torch.zeros(2, 3), 1.0, method)


def test_patch_torch_survives_odd_modules_threads_and_nesting():
    class ReadOnly(types.ModuleType):
        def __setattr__(self, name, value):
            raise AttributeError(name)

    class Broken:
        @property
        def __dict__(self):
            raise RuntimeError

    stock = torch.nn.functional.gumbel_softmax
    odd = ReadOnly("read_only")
    odd.__dict__["gumbel_softmax"] = stock
    sys.modules.update({"read_only": odd, "broken": Broken(), "none": None})
    try:
        first, second = do.patch_torch(), do.patch_torch()
        first.__enter__()
        second.__enter__()  # as in another thread
        assert torch.nn.functional.gumbel_softmax is do.gumbel_softmax
        assert odd.gumbel_softmax is stock
        first.__exit__(None, None, None)
        assert torch.nn.functional.gumbel_softmax is do.gumbel_softmax
        second.__exit__(None, None, None)
        assert torch.nn.functional.gumbel_softmax is stock
    finally:
        for name in ("read_only", "broken", "none"):
            del sys.modules[name]


def test_categorical_repara_names_its_temperature():
    with pytest.raises(ValueError, match=r"^temp: got"):
        do.compat.categorical_repara(torch.zeros(2, 3), -1.0, "st")
