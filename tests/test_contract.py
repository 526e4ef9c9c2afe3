"""Corners of the contract: many dimensions, foreign devices, ends of the ranges, symbolic shapes, reading nothing."""

import numpy as np
import pytest
import torch

import discrete_ops as do
from discrete_ops import checks, estimators

LARGEST_TAU = 2.0**126


def test_more_separately_strided_dimensions_than_a_kernel_addresses(backend):
    logits = torch.randn((2,) * 11, generator=torch.Generator().manual_seed(0)).permute(*reversed(range(11)))
    v = torch.randn((2,) * 11, generator=torch.Generator().manual_seed(1)).permute(*reversed(range(11)))

    def pull(x, upstream):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(do.reinmax(x, seed=4, backend=backend), x, upstream)[0]

    want = pull(logits.contiguous(), v.contiguous())
    for x, upstream in ((logits, v), (logits.contiguous(), v), (logits, v.contiguous())):
        assert torch.equal(pull(x, upstream), want)


def test_a_temperature_on_a_foreign_device_is_named():
    with pytest.raises(ValueError, match=r"tau: .*meta.*cpu"):
        do.gst(torch.zeros(2, 3), torch.tensor(0.5, device="meta"))


def test_a_temperature_on_the_cpu_serves_logits_elsewhere():
    """An annealed ``torch.tensor(tau)``: it is read where that costs nothing, so nothing waits for a GPU."""
    assert isinstance(checks.temperature("tau", torch.tensor(0.5)), float)
    assert do.gst(torch.zeros(2, 3, device="meta"), torch.tensor(0.5)).device.type == "meta"


@pytest.mark.parametrize("tau", [1e39, 1e-39, 10**400, torch.tensor(1e39, dtype=torch.float64)])
def test_temperatures_without_a_float32_inverse_are_refused(tau):
    with pytest.raises(ValueError, match="tau: "):
        do.gumbel_softmax(torch.zeros(2, 3), tau)


@pytest.mark.parametrize("name", ["gumbel_softmax", "gumbel_rao", "gst"])
def test_largest_temperature_is_uniform(backend, name):
    logits = torch.randn(40, 7, generator=torch.Generator().manual_seed(0))
    soft = getattr(do, name)(logits, LARGEST_TAU, hard=False, backend=backend)
    torch.testing.assert_close(soft, torch.full_like(soft, 1 / 7))


def test_a_difference_beyond_the_finite_range_is_no_mask(backend):
    logits = torch.tensor([[3e38, -3e38, 0.0, -torch.inf]])
    soft = do.gst(logits, 8e37, gap=0.0, hard=False, backend=backend, seed=0)
    torch.testing.assert_close(soft.sum(), torch.tensor(1.0))
    assert (soft[0, :3] > 0).all()
    assert soft[0, 3] == 0


@pytest.mark.parametrize(
    "make", [lambda w: estimators.ReinMaxCV(eta=w), lambda w: estimators.ReinMaxRK2(beta=w)], ids=["eta", "beta"]
)
def test_weights_beyond_float32_are_refused(make):
    make(1e30)
    with pytest.raises(ValueError, match=r"(eta|beta): .*1e30"):
        make(1e31)


def test_numpy_integers_are_dimensions():
    logits = torch.zeros(3, 2)
    assert torch.equal(do.reinmax(logits, dim=np.int64(0), seed=1), do.reinmax(logits, dim=0, seed=1))


def test_symbolic_sizes_and_temperatures(backend, fresh_dynamo):
    compiled = torch.compile(
        lambda x, tau: do.gst(x, tau, seed=3, backend=backend), fullgraph=True, dynamic=True, backend="aot_eager"
    )
    for rows, tau in ((4, 1.0), (7, 0.5), (9, 0.25)):
        x = torch.randn(rows, 5, generator=torch.Generator().manual_seed(rows))
        assert torch.equal(compiled(x, tau), do.gst(x, tau, seed=3, backend=backend))


def test_expected_gap_under_vmap_and_compile(fresh_dynamo):
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    index = torch.tensor([0, 5, 2, 2])
    want = do.expected_gap(logits, index)
    torch.testing.assert_close(torch.vmap(do.expected_gap)(logits, index), want)
    compiled = torch.compile(do.expected_gap, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits, index), want)
    with pytest.raises(ValueError, match="index: "):
        do.expected_gap(logits, index + 1)


def test_gradients_in_a_batch(backend):
    """``is_grads_batched``, as in ``jacobian(vectorize=True)``: the same as one after the other."""
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    v = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1))
    sample = do.gst(logits, seed=1, backend=backend)
    (batched,) = torch.autograd.grad(sample, logits, v, is_grads_batched=True, retain_graph=True)
    single = [torch.autograd.grad(sample, logits, each, retain_graph=True)[0] for each in v]
    assert torch.equal(batched, torch.stack(single))


def test_a_lazy_minus_is_seen(backend):
    negated = torch.randn(4, 5, dtype=torch.complex64, generator=torch.Generator().manual_seed(0)).conj().imag
    assert negated.is_neg()
    assert torch.equal(do.gst(negated, seed=1, backend=backend), do.gst(negated.clone(), seed=1, backend=backend))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_torch_jit_trace_keeps_the_kernel(backend):
    first, other = (torch.randn(4, 5, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    traced = torch.jit.trace(lambda x: do.straight_through(x, seed=3, backend=backend), first, check_trace=False)
    assert torch.equal(traced(other), do.straight_through(other, seed=3, backend=backend))
