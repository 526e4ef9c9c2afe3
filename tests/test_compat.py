"""The signatures of other packages: the same results where they are random the same way, and the same law."""

import importlib
import inspect
import warnings

import pytest
import scipy.stats
import torch

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
