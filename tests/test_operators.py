"""Each estimator as an operator, and the calls that go to the kernels without it."""

import pytest
import torch
from helpers import (
    assert_close,
    draw_and_pull,
    every_estimator,
    make,
    pairs,
)
from torch.fx.experimental.proxy_tensor import make_fx

import discrete_ops as do
from discrete_ops import reference

LOGITS = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
V = torch.randn(7, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
T = torch.randn(7, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def parameters_of(name: str, tau: float = 0.7) -> tuple[torch.Tensor, tuple[str, int]]:
    """What the functions hand to the operators for a case: parameters, and estimator and number of samples."""
    graph = make_fx(lambda x: make(name, tau)(x, seed=0))(LOGITS)
    (call,) = (node.args for node in graph.graph.nodes if node.target is torch.ops.discrete_ops.draw.default)
    gap_or_eta = {"gst_0.7": 0.7, "gst_4": 4.0, "nz_gst": 0.7, "reinmax_cv": 1.5, "reinmax_cv_gumbel": 0.6}
    others = {"reinmax_rk2": 0.5, "reinmax_rk2_1.3": 1.3, "reinmax_rk2_centred": 0.4, "mix": 0.7}
    without_tau = {**others, "mve": 4.0, "mve_100": 100.0}
    numbers = (1.0 if name in without_tau else tau, {**gap_or_eta, **without_tau}.get(name, 0.0), 1.0)
    return torch.tensor([numbers], dtype=torch.float64), call[4:6]


@every_estimator
def test_the_operator_is_the_eager_call(backend, name):
    """Sample, index and gradient in every dtype: the two ways to the kernels are one call."""
    parameters, spec = parameters_of(name)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        logits, v = LOGITS.to(dtype), V.to(dtype)
        want = draw_and_pull(make(name, 0.7), logits, v, seed=3, backend=backend)
        x = logits.clone().requires_grad_()
        call = (torch.tensor([3]), parameters, True, *spec, 0, backend)
        sample, index = torch.ops.discrete_ops.draw(x, *call)
        assert torch.equal(sample, want[0])
        assert torch.equal(index, want[1])
        (gradient,) = torch.autograd.grad(sample, x, v)
        # A number's last bit is lost in Triton; and there MVE with a tensor of temperatures is computed in float64.
        in_double = backend == "triton" and name.startswith("mve")
        close = {torch.float32: 2e-6, torch.bfloat16: 2.0**-7}.get(dtype, 1e-14) if in_double else 1e-14
        torch.testing.assert_close(gradient, want[2], rtol=close, atol=close)


@pairs(["straight_through", "gumbel_rao", "gst_pi", "nz_gst", "reinmax_cv", "reinmax_rk2_1.3"])
@pytest.mark.parametrize("layout", ["contiguous", "permuted"])
def test_operators_pass_opcheck(backend, name, layout):
    parameters, spec = parameters_of(name)
    permuted = lambda x: x.t().contiguous().t() if layout == "permuted" else x.clone()  # noqa: E731
    logits, v, seed = permuted(LOGITS), permuted(V), torch.tensor([3])
    index = do.straight_through(LOGITS, seed=3, return_index=True)[1]
    named, spec = torch.ops.discrete_ops, (*spec, 0, backend)
    torch.library.opcheck(named.draw, (logits.requires_grad_(), seed, parameters, True, *spec))
    logits = logits.detach()
    for transposed in (False, True):
        call = (v.requires_grad_(), logits, index, seed, parameters, transposed, *spec)
        torch.library.opcheck(named.pull_back, call)
    if spec[0] in reference.WITH_SOFT_SAMPLE:
        torch.library.opcheck(named.tau_derivative, (logits, index, seed, parameters, *spec))
        torch.library.opcheck(named.draw, (logits, seed, parameters.requires_grad_(), False, *spec))


@pytest.mark.parametrize("first_row", [0, 3])
@every_estimator
def test_a_part_of_the_rows_is_drawn_as_the_whole(backend, name, first_row):
    parameters, spec = parameters_of(name)
    seed = torch.tensor([3])
    whole = draw_and_pull(make(name, 0.7), LOGITS, V, seed=3, backend=backend)
    x = LOGITS[first_row:].clone().requires_grad_()
    call = (seed, parameters, True, *spec, first_row, backend)
    sample, index = torch.ops.discrete_ops.draw(x, *call)
    assert torch.equal(sample, whole[0][first_row:])
    assert torch.equal(index, whole[1][first_row:])
    assert_close(torch.autograd.grad(sample, x, V[first_row:])[0], whole[2][first_row:])
