"""Calls as they are written in public training code, with the stock operator and with ours in its place: the same
shapes, dtypes and laws, and the same gradient in the mean.

For a loss that is linear in the sample, ``<v, sample>``, the gradient of a call is a random vector whose law depends on
logits, v and tau alone: two calls are compared by its mean over many rows, within 5 standard errors a category.
"""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from helpers import chi_squared
from torch import Tensor

import discrete_ops as do

inf = torch.inf


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def compare(ours: Callable, stock: Callable, logits: Tensor, v: Tensor, draws: int, dim: int = -1) -> None:
    """Both calls on the same logits, drawn ``draws`` times: law of the argmax, and mean gradient."""
    results = []
    for call in (ours, stock):
        torch.manual_seed(7)
        samples, gradients = [], []
        for _ in range(draws):
            leaf = logits.clone().requires_grad_()
            sample = call(leaf)
            assert sample.shape == logits.shape
            gradients.append(torch.autograd.grad(sample, leaf, v.to(sample.dtype))[0].double())
            samples.append(sample.detach())
        results.append((torch.stack(samples), torch.stack(gradients)))
    (sample, gradient), (theirs, their_gradient) = results
    assert sample.dtype == theirs.dtype
    counts, their_counts = sample.double().mean(0), theirs.double().mean(0)
    error = ((sample.double().var(0) + theirs.double().var(0)) / draws).sqrt()
    assert ((counts - their_counts).abs() <= 5 * error + 1e-9).all()
    error = ((gradient.var(0) + their_gradient.var(0)) / draws).sqrt()
    assert ((gradient.mean(0) - their_gradient.mean(0)).abs() <= 5 * error + 1e-6).all()
    assert gradient.abs().max() > 1e-3


def test_speech_quantizer_under_bf16_autocast():
    """wav2vec 2.0: ``F.gumbel_softmax(x.float(), tau, hard=True).type_as(x)`` on (B*T*groups, 320)."""
    B, T, G, N = 2, 25, 2, 320
    codebook = randn(1, G * N, 16, seed=3)
    for hook in (F.gumbel_softmax, do.gumbel_softmax):
        hidden, project = randn(B, T, 32).requires_grad_(), torch.nn.Linear(32, G * N)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = project(hidden).view(B * T * G, -1)
            assert x.dtype == torch.bfloat16
            x = hook(x.float(), tau=2.0, hard=True).type_as(x)
            assert x.dtype == torch.bfloat16
            assert torch.equal(x.sum(-1).float(), torch.ones(B * T * G))
            q = (x.view(B * T, -1).unsqueeze(-1) * codebook).view(B * T, G, N, -1).sum(-2)
        q.float().square().mean().backward()
        assert project.weight.grad.isfinite().all()
        assert project.weight.grad.abs().max() > 0
    layer = do.nn.StraightThroughCategorical("gumbel_softmax(tau=2.0)")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(randn(8, N).bfloat16()).dtype == torch.bfloat16
    logits, v = randn(4, N), randn(4, N, seed=1)
    compare(lambda x: layer(x), lambda x: F.gumbel_softmax(x, 2.0, hard=True), logits, v, 400)


def test_image_tokens_along_dim_1():
    """DALL-E's dVAE: ``F.gumbel_softmax(logits, tau, dim=1, hard=...)`` on (B, K, H, W), then an einsum."""
    logits, v = 2 * randn(2, 16, 4, 4), randn(2, 16, 4, 4, seed=1)
    compare(
        do.nn.StraightThroughCategorical("gumbel_softmax(tau=0.9)", dim=1),
        lambda x: F.gumbel_softmax(x, tau=0.9, dim=1, hard=True),
        logits,
        v,
        600,
    )
    soft = do.gumbel_softmax(logits, 0.9, dim=1)
    torch.testing.assert_close(soft.sum(1), torch.ones(2, 4, 4))
    codebook = randn(16, 8, seed=2)
    one_hot = do.gumbel_softmax(logits, 0.9, True, dim=1)
    torch.testing.assert_close(
        torch.einsum("bnhw,nd->bdhw", one_hot, codebook), codebook[one_hot.argmax(1)].movedim(-1, 1)
    )


def test_keep_or_drop_of_tokens():
    """DynamicViT: two categories on (B, N, 2), the first of which is kept, times the previous decision."""
    logits, v = randn(2, 9, 2).log_softmax(-1), randn(2, 9, 2, seed=1)
    compare(
        do.nn.StraightThroughCategorical("gumbel_softmax"), lambda x: F.gumbel_softmax(x, hard=True), logits, v, 800
    )
    keep = do.gumbel_softmax(logits.requires_grad_(), hard=True)[:, :, 0:1] * torch.ones(2, 9, 1)
    keep.mean().backward()
    assert logits.grad.abs().min() > 0


def test_tabular_columns_that_are_strided():
    """CTGAN: soft samples at tau .2 of slices of a wide output: ``F.gumbel_softmax(data[:, a:b], tau=0.2)``."""
    data, v = randn(500, 23), randn(500, 23, seed=1)
    for begin, end in ((1, 4), (4, 15), (15, 23)):
        assert not data[:, begin:end].is_contiguous()
        compare(
            lambda x, b=begin, e=end: torch.cat([x[:, :b], do.gumbel_softmax(x[:, b:e], tau=0.2), x[:, e:]], -1),
            lambda x, b=begin, e=end: torch.cat([x[:, :b], F.gumbel_softmax(x[:, b:e], tau=0.2), x[:, e:]], -1),
            data[:20],
            v[:20],
            600,
        )
    soft = do.gumbel_softmax(data[:, 4:15], tau=0.2)
    assert soft.isfinite().all()
    torch.testing.assert_close(soft.sum(-1), torch.ones(500))


def test_expanded_inputs_with_minus_infinity():
    """One row for many samples, with categories that are not there."""
    row = torch.tensor([0.3, -inf, 1.2, 0.0, -inf])
    v = randn(5, seed=1).expand(64, 5)
    with_mask = row.expand(64, 5)
    index = do.gumbel_softmax(with_mask.expand(300, 64, 5), hard=True).argmax(-1)
    assert chi_squared(index.flatten(), row.softmax(-1)) > 1e-4
    leaf = row.clone().requires_grad_()
    gradients = [torch.autograd.grad(do.gumbel_softmax(leaf.expand(64, 5), 0.7, True), leaf, v)[0] for _ in range(300)]
    finite = torch.tensor([True, False, True, True, False])
    assert (torch.stack(gradients)[:, ~finite] == 0).all()  # stock's are NaN or 0
    short = row[finite].requires_grad_()
    stock = [
        torch.autograd.grad(F.gumbel_softmax(short.expand(64, 3), 0.7, True), short, v[:, finite])[0]
        for _ in range(300)
    ]
    ours, theirs = torch.stack(gradients)[:, finite], torch.stack(stock)
    error = ((ours.var(0) + theirs.var(0)) / 300).sqrt()
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 5 * error).all()


def test_world_model_latents():
    """DreamerV3: 32 latents of 32 classes, 1 % unimix, ``one_hot + probs - probs.detach()``."""
    logits, v = 2 * randn(2, 32, 32), randn(2, 32, 32, seed=1)

    def stock(x: Tensor) -> Tensor:
        probs = 0.99 * x.softmax(-1) + 0.01 / 32
        one_hot = torch.distributions.OneHotCategorical(probs=probs).sample()
        return one_hot + probs - probs.detach()

    def ours(x: Tensor) -> Tensor:
        return do.distributions.OneHotCategoricalStraightThrough(logits=x, unimix=0.01).rsample()

    a, b = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(ours(a), a, v), torch.autograd.grad(stock(b), b, v))
    index = ours(logits[:1, :1].expand(8000, 16, 32)).argmax(-1)
    assert chi_squared(index.flatten(), 0.99 * logits[0, 0].softmax(-1) + 0.01 / 32) > 1e-4
    big = 2 * randn(16, 32, 32)
    assert torch.equal(ours(big).sum(-1), torch.ones(16, 32))


def test_masked_policies():
    """(B, A) with invalid actions: never taken, in no gradient, and the entropy is of those that are left."""
    logits, mask = randn(6, 5), randn(6, 5, seed=1) > -0.5
    mask[0] = torch.tensor([False, True, False, False, False])
    policy = do.distributions.OneHotCategoricalStraightThrough(logits=logits.requires_grad_(), mask=mask)
    action = policy.rsample((2000,))
    assert (action.detach()[:, ~mask] == 0).all()
    stock = torch.distributions.OneHotCategorical(logits=logits.masked_fill(~mask, -1e9))
    torch.testing.assert_close(policy.log_prob(action.detach()), stock.log_prob(action.detach()))
    torch.testing.assert_close(policy.entropy(), stock.entropy(), atol=1e-6, rtol=1e-5)
    value = randn(6, 5, seed=2)
    (gradient,) = torch.autograd.grad(action.mean(0), logits, value)
    (exact,) = torch.autograd.grad((stock.probs * value).sum(), logits)
    torch.testing.assert_close(gradient, exact)  # straight-through is exact on linear values
    assert (gradient[~mask] == 0).all()
    assert policy.entropy()[0] == 0


def test_architecture_edges_with_a_temperature_tensor():
    """SNAS and GDAS: alphas (edges, ops) and a temperature that is a tensor, annealed in place."""
    alphas, tau, v = (0.5 * randn(14, 8)).requires_grad_(), torch.tensor(5.0), randn(14, 8, seed=1)
    for _ in range(3):
        (gradient,) = torch.autograd.grad(do.gumbel_softmax(alphas, tau, hard=True), alphas, v)
        assert gradient.isfinite().all()
        tau.mul_(0.5)
    tau = torch.tensor(2.0)
    compare(
        do.nn.StraightThroughCategorical(do.estimators.GumbelSoftmax(tau)),
        lambda x: F.gumbel_softmax(x, tau, hard=True),
        alphas.detach(),
        v,
        800,
    )


@pytest.mark.parametrize("view", ["transpose", "slice", "expand", "permute"])
def test_the_first_of_reinmaxs_results_on_views(view):
    """``reinmax(x, tau)[0]`` on what is not contiguous."""
    base = randn(6, 8, 10)
    logits = {
        "transpose": base.transpose(0, 1),
        "slice": base[:, 1::2, 2:9],
        "expand": base[:1].expand(6, 8, 10),
        "permute": base.permute(1, 2, 0),
    }[view]
    assert not logits.is_contiguous()
    v = randn(*logits.shape, seed=1)
    results = []
    for x in (logits, logits.contiguous()):
        leaf = x.detach().requires_grad_()
        torch.manual_seed(5)
        sample = do.compat.reinmax(leaf, 1.1)[0]
        results.append((sample.detach(), torch.autograd.grad(sample, leaf, v)[0]))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1])
