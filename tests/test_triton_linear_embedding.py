"""Triton's kernels of logits that are a product, against the same on logits that are held."""

import math

import pytest
import torch
from helpers import TARGETS
from torch import Tensor
from torch.nn.functional import linear

import discrete_ops as do
from discrete_ops import reference

pytest.importorskip("triton", reason="NOT COVERED: triton is not installed")

from discrete_ops.triton_kernels import linear_embedding as product

ON_TRITON = [target for target in TARGETS if target[0] == "triton"]
runs = pytest.mark.skipif(not ON_TRITON, reason="NOT COVERED: no GPU, and TRITON_INTERPRET=1 is not set")
DEVICE = ON_TRITON[-1][1] if ON_TRITON else "none"


def randn(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def tables(
    rows: int, features: int, outputs: int, columns: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, ...]:
    """grad, hidden, proj, bias with a masked category, weight."""
    shapes = (rows, outputs), (rows, features), (columns, features), (columns,), (columns, outputs)
    made = [randn(*shape, seed=seed, dtype=dtype) for seed, shape in enumerate(shapes)]
    made[3][columns // 2] = -math.inf
    return tuple(made)


def assert_same(got: Tensor, want: Tensor, close: float = 2e-6) -> None:
    torch.testing.assert_close(got, want.to(got.dtype), rtol=0, atol=close * want.abs().max().item(), equal_nan=True)


@runs
@pytest.mark.parametrize("estimator", product.ESTIMATORS)
@pytest.mark.parametrize(("shape", "has_bias"), [((6, 6, 20, 13), False), ((34, 20, 5, 70), True)])
def test_kernels_are_those_of_logits_that_are_held(estimator, shape, has_bias, monkeypatch):
    """Of float32, whose products round least; columns in parts, rows in two groups, parameters of each row."""
    monkeypatch.setattr(product, "PROGRAMS", 4)
    monkeypatch.setattr(product, "WIDE", 0)
    grad, hidden, proj, bias, weight = tables(*shape)
    bias = bias if has_bias else None
    rows, columns, seed = len(hidden), len(proj), torch.tensor([3, 4], device=DEVICE)
    numbers = [torch.linspace(0.5, 1.5, rows), torch.full((rows,), 0.5), torch.linspace(2.0, 0.5, rows)]
    parameters = torch.stack(numbers, -1).double().to(DEVICE)
    if estimator == "mix":
        parameters[:, 0] = 1.0
    logits = linear(hidden, proj, bias)
    index = reference.sample(logits, seed, parameters)[1]
    drawn, first_column = product.sample(hidden, proj, bias, weight.shape[1], seed, parameters, 0)
    assert torch.equal(drawn, index)
    assert not first_column.any()
    call = (grad, hidden, proj, bias, weight, index, parameters, estimator)
    at_hidden, at_proj, at_bias = product.pull_back(*call, 2, True, True)
    at_logits = reference.surrogate_vjp(linear(grad, weight), logits, index, seed, parameters, estimator, 1)
    assert_same(at_hidden, at_logits @ proj)
    halves = at_logits.view(2, rows // 2, columns)
    assert_same(at_proj, halves.mT @ hidden.view(2, rows // 2, -1))
    assert_same(at_bias, halves.sum(1))


@runs
@pytest.mark.parametrize("estimator", ["reinmax(tau=0.7)", "gst(tau=0.7)"])
def test_a_call_that_asks_for_triton(estimator):
    """In float16, which these kernels serve; with a row that is NaN and one that has no gradient."""
    grad, hidden, proj, bias, weight = tables(8, 6, 5, 40, torch.float16)
    assert product.serves("reinmax", hidden, weight)
    hidden[2, 1], grad[5] = math.nan, 0.0
    leaves = [x.requires_grad_() for x in (hidden, proj, bias, weight)]
    call = {"bias": bias, "seed": 3, "return_index": True}
    found = []
    for backend in ("triton", "reference"):
        out, index = do.linear_embedding(hidden, proj, weight, estimator, **call, backend=backend)
        found.append([out, index, *torch.autograd.grad(out, leaves, grad)])
    (out, index, *got), (want_out, want_index, *want) = found
    assert torch.equal(index, want_index)
    assert index[2] == -1
    torch.testing.assert_close(out, want_out, rtol=0, atol=0, equal_nan=True)
    assert got[1].isnan().all()
    assert want[1].isnan().all()
    valid = torch.arange(8, device=DEVICE) != 2
    assert got[0][2].isnan().all()
    assert not got[0][5].any()
    assert_same(got[0][valid], want[0][valid], 1e-3)
    assert_same(got[3], want[3])


@runs
def test_a_row_masked_whole_has_no_gradient():
    grad, hidden, proj, bias, weight = tables(4, 6, 5, 40, torch.float16)
    leaves = [x.requires_grad_() for x in (hidden, proj, torch.full_like(bias, -math.inf), weight)]
    out = do.linear_embedding(hidden, proj, weight, bias=leaves[2], seed=3, backend="triton")
    assert not out.any()
    assert not any(x.any() for x in torch.autograd.grad(out, leaves, grad))
