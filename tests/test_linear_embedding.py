"""Logits that are a product and never held whole: everything against the formulation that holds them."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import CPU_BACKENDS, FLOATS, TOLERANCE, every_estimator, make
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import linear
from torch.profiler import ProfilerActivity, profile

import discrete_ops as do
from discrete_ops import parts

LEADING, N, H, D = (2, 6), 13, 4, 5
SHAPES = {"hidden": (*LEADING, H), "proj": (N, H), "bias": (N,), "weight": (N, D)}
NAMES = (*SHAPES, "tau")
TAU = torch.linspace(0.5, 1.5, 6, dtype=torch.float64).unsqueeze(-1)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def inputs(dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    """hidden, proj, bias, weight."""
    return [randn(*shape, seed=seed + place, dtype=dtype) for place, shape in enumerate(SHAPES.values())]


def ours(hidden: Tensor, proj: Tensor, bias: Tensor | None, weight: Tensor, e: Any = "gst", **options: Any) -> Any:
    return do.linear_embedding(hidden, proj, weight, e, bias=bias, **{"seed": 3, **options})


def dense(hidden: Tensor, proj: Tensor, bias: Tensor | None, weight: Tensor, e: Any = "gst", **options: Any) -> Any:
    return do.estimator(e)(linear(hidden, proj, bias), **{"seed": 3, **options}) @ weight


def of_tau(call: Callable[..., Any]) -> Callable[..., Any]:
    """With a temperature a row as the last argument."""
    return lambda *given: call(*given[:4], do.estimators.GST(given[4], gap=0.5))


def gradients(call: Callable[..., Any], given: Any, v: Tensor, *more: Any, **options: Any) -> list[Tensor]:
    """Result, and gradients at all that is given."""
    leaves = [x.detach().clone().requires_grad_() for x in given]
    out = call(*leaves, *more, **options)
    return [out.detach(), *torch.autograd.grad(out, leaves, v)]


def assert_same(got: Any, want: Any, dtype: torch.dtype = torch.float64) -> None:
    """To 2e-6 of the largest element, in float32."""
    close = {torch.float32: 2e-6}.get(dtype, TOLERANCE[dtype])
    for mine, other in zip(torch.utils._pytree.tree_leaves(got), torch.utils._pytree.tree_leaves(want), strict=True):
        scale = other.abs().max().item() if other.numel() else 1.0
        torch.testing.assert_close(mine, other, rtol=0, atol=close * scale)


@pytest.fixture(autouse=True, params=[5])
def rows_of_a_part(request, monkeypatch):
    """Of float64 logits; twice as many of float32 ones."""
    monkeypatch.setitem(parts.PRODUCT_BYTES, "cpu", request.param * N * 8)


# ---------------------------------------------------------------------------------------------------
# Value and gradients


@every_estimator
def test_value_and_gradients_are_those_of_the_whole_logits(backend, name):
    e, given, v = make(name, 0.7), inputs(torch.float32), randn(*LEADING, D, seed=9, dtype=torch.float32)
    options = {"seed": torch.tensor([3, 4, 5]), "backend": None if name.startswith("nz_") else backend}
    assert_same(gradients(ours, given, v, e, **options), gradients(dense, given, v, e, **options), torch.float32)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_temperatures_of_rows_have_their_gradient(backend):
    given, v = (*inputs(), TAU), randn(*LEADING, D, seed=9)
    assert_same(gradients(of_tau(ours), given, v), gradients(of_tau(dense), given, v))
    options = {"sample_tau": TAU.detach(), "backend": backend}
    assert_same(gradients(ours, given[:4], v, **options), gradients(dense, given[:4], v, **options))


@pytest.mark.parametrize("leading", [(), (1,), (7,), (0,), (2, 0), (2, 3, 2)])
def test_any_leading_dims_with_tied_tables_and_no_bias(leading):
    hidden, table, v = randn(*leading, H), randn(N, H, seed=1), randn(*leading, H, seed=2)
    tied = [lambda x, t, call=call: call(x, t, None, t, "reinmax") for call in (ours, dense)]
    got, want = (gradients(call, (hidden, table), v) for call in tied)
    assert_same(got, want)
    out, index = ours(hidden, table, None, table, return_index=True)
    assert index.shape == leading
    assert torch.equal(out, table[index])


def test_strides_make_no_difference():
    given, v = inputs(), randn(*LEADING, D, seed=9)
    strided = [x.mT.contiguous().mT if x.ndim > 1 else x.repeat_interleave(2)[::2] for x in given]
    assert_same(gradients(ours, strided, v), gradients(ours, given, v))
    one, u = given[0][:1, :1].expand(*LEADING, H), v[:1, :1].expand(*LEADING, D)
    assert_same(gradients(ours, (one, *given[1:]), u), gradients(dense, (one, *given[1:]), u))


def test_the_result_may_be_changed_in_place():
    given, v = inputs(), randn(*LEADING, D, seed=9)
    assert_same(gradients(lambda *x: ours(*x).mul_(2), given, v), gradients(lambda *x: 2 * ours(*x), given, v))


def test_rows_of_no_length():
    hidden, proj, bias, _ = inputs()
    assert ours(hidden, proj, bias, randn(N, 0)).shape == (*LEADING, 0)


@pytest.mark.parametrize("wanted", [("hidden",), ("proj",), ("bias",), ("weight",), ("hidden", "weight")])
def test_gradients_at_some_of_them(wanted):
    given, v = inputs(), randn(*LEADING, D, seed=9)
    both = []
    for call in (ours, dense):
        leaves = [x.clone().requires_grad_(name in wanted) for name, x in zip(SHAPES, given, strict=True)]
        both.append(torch.autograd.grad(call(*leaves), [x for x in leaves if x.requires_grad], v))
    assert_same(*both)


# ---------------------------------------------------------------------------------------------------
# Half types


@pytest.mark.parametrize("dtype", FLOATS[2:])
def test_half_types(dtype):
    given, v = inputs(dtype), randn(*LEADING, D, seed=9, dtype=dtype)
    got, want = gradients(ours, given, v), gradients(dense, given, v)
    assert torch.equal(got[0], want[0])
    assert_same(got, want, dtype)


@pytest.mark.parametrize("dtype", FLOATS[2:])
def test_sums_over_many_rows_of_half_types_are_rounded_once(dtype):
    """Of 4096 equal rows: added up in bfloat16, a sum of ones stays at 256."""
    rows = 4096
    hidden, proj = torch.ones(rows, 1, dtype=dtype), torch.zeros(2, 1, dtype=dtype)
    weight, v = torch.tensor([[1.0], [-1.0]], dtype=dtype), torch.ones(rows, 1, dtype=dtype)
    even, sure = torch.tensor([[0.0, 0.0], [0.0, -20.0]], dtype=dtype)
    _, _, at_proj, at_bias, _ = gradients(ours, (hidden, proj, even, weight), v, "straight_through")
    assert at_proj.flatten().tolist() == at_bias.tolist() == [rows / 2, -rows / 2]
    assert gradients(ours, (hidden, proj, sure, weight), v)[4].flatten().tolist() == [rows, 0]


def test_autocast_is_that_of_the_formulation():
    given, v = inputs(torch.float32), randn(*LEADING, D, seed=9, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, want = gradients(ours, given, v), gradients(dense, given, v)
    assert torch.equal(got[0], want[0])
    assert [x.dtype for x in got] == [x.dtype for x in want]
    assert_same([x.float() for x in got], [x.float() for x in want], torch.bfloat16)


# ---------------------------------------------------------------------------------------------------
# Rows without a sample


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_invalid_row_is_nan_and_no_other_is(backend, bad):
    hidden, proj, bias, weight = inputs()
    hidden[1, 2, 0] = bad
    leaves = [x.requires_grad_() for x in (hidden, proj, bias, weight)]
    out, index = ours(*leaves, return_index=True, backend=backend)
    at_hidden, at_proj, at_bias, at_weight = torch.autograd.grad(out.sum(), leaves)
    where = index == -1
    assert where.nonzero().tolist() == [[1, 2]]
    for x in (out, at_hidden):
        assert torch.equal(x.isnan().any(-1), where)
        assert torch.equal(x.isnan().all(-1), where)
    assert at_proj.isnan().all()
    assert at_bias.isnan().all()
    counts = torch.bincount(index[~where], minlength=N).double()
    assert torch.equal(at_weight, counts[:, None].expand(N, D))
    of_weight = torch.func.jvp(lambda w: ours(hidden, proj, bias, w, backend=backend), (weight,), (weight,))[1]
    assert torch.equal(of_weight.isnan().all(-1), where)
    assert torch.equal(of_weight.isnan().any(-1), where)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_a_mask_in_the_bias(backend):
    hidden, proj, bias, weight = inputs()
    bias[::2] = -math.inf
    v = randn(*LEADING, D, seed=9)
    got, want = (gradients(call, (hidden, proj, bias, weight), v, backend=backend) for call in (ours, dense))
    assert_same(got, want)
    assert not got[3][::2].any()
    whole = torch.full_like(bias, -math.inf)
    masked = gradients(ours, (hidden, proj, whole, weight), v, backend=backend)
    assert not any(x.any() for x in masked)
    of_weight = torch.func.jvp(lambda w: ours(hidden, proj, whole, w, backend=backend), (weight,), (weight,))[1]
    assert not of_weight.any()


# ---------------------------------------------------------------------------------------------------
# What PyTorch may do with it


def test_forward_mode():
    given, tangents = (*inputs(), TAU), [randn(*x.shape, seed=20 + k) for k, x in enumerate((*inputs(), TAU))]
    got, want = (torch.func.jvp(of_tau(call), tuple(given), tuple(tangents)) for call in (ours, dense))
    assert_same(got, want)
    for name in ("reinmax_rk2_1.3", "mve"):  # their pull-back is not its own transpose
        of = [lambda *x, call=call, name=name: call(*x, make(name)) for call in (ours, dense)]
        assert_same(*(torch.func.jvp(call, tuple(given[:4]), tuple(tangents[:4])) for call in of))


def test_double_backward_in_the_incoming_gradient_alone():
    given, v = [x.requires_grad_() for x in (*inputs(), TAU)], randn(*LEADING, D, seed=9).requires_grad_()
    both = []
    for call in (ours, dense):
        first = torch.autograd.grad(of_tau(call)(*given), given, v, create_graph=True)
        both.append(torch.autograd.grad(sum((x * randn(*x.shape, seed=k)).sum() for k, x in enumerate(first)), v))
    assert_same(*both)
    for place in range(5):
        first = torch.autograd.grad(of_tau(ours)(*given), given[0], v, create_graph=True)
        with pytest.raises(RuntimeError, match="allowed: in the incoming gradient"):
            torch.autograd.grad(first[0].sum(), given[place], allow_unused=True)


def test_vmap_gives_each_element_its_own_gradients_at_the_tables():
    hidden, *tables = *inputs(), TAU
    v = randn(*LEADING, D, seed=9)

    def all_of(call: Callable[..., Any]) -> Any:
        pulled = lambda v, *given: torch.func.vjp(of_tau(call), *given)[1](v)  # noqa: E731
        each = torch.vmap(pulled, in_dims=(0, 0, *[None] * 4))(v, hidden, *tables)
        seeds = torch.vmap(lambda x, seed: call(x, *tables[:3], seed=seed))(hidden, torch.tensor([[3], [4]]))
        forward = torch.func.jacfwd(of_tau(call), argnums=(0, 1, 3))(hidden, *tables)
        return each, seeds, forward, torch.func.jacrev(of_tau(call), argnums=(0, 1, 2, 3, 4))(hidden, *tables)

    assert_same(all_of(ours), all_of(dense))

    def twice(call: Callable[..., Any]) -> Any:
        pulled = lambda v, x: torch.func.vjp(lambda x: call(x, *tables[:3]), x)[1](v)[0]  # noqa: E731
        return torch.vmap(torch.vmap(pulled))(v, hidden)

    assert_same([twice(ours)], [twice(dense)])
    with pytest.raises(RuntimeError, match="allowed: over hidden, or a loop over tables"):
        torch.vmap(lambda proj: ours(hidden, proj, *tables[1:3]))(torch.stack([tables[0]] * 2))


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_compiled_whole(backend):
    given, v = inputs(), randn(*LEADING, D, seed=9)
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    assert_same(gradients(compiled, given, v, backend=backend), gradients(ours, given, v, backend=backend))
    out, index = compiled(*given, "gumbel_rao(num_samples=2)", seed=None, return_index=True, backend=backend)
    assert torch.equal(out, given[3][index])


def test_traced_and_exported():
    given, v = inputs(), randn(*LEADING, D, seed=9)
    pulled = lambda *given: gradients(ours, given, v)  # noqa: E731
    assert_same(make_fx(pulled)(*given)(*given), pulled(*given))

    class Model(torch.nn.Module):
        def forward(self, hidden: Tensor, proj: Tensor) -> Any:
            return do.linear_embedding(hidden, proj, proj, "reinmax", seed=1)

    want = Model()(*given[:2])
    assert torch.equal(torch.fx.symbolic_trace(Model())(*given[:2]), want)
    exported = torch.export.export(Model(), (*given[:2],), dynamic_shapes=({0: torch.export.Dim.AUTO}, None))
    assert torch.equal(exported.module()(*given[:2]), want)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_operators_pass_opcheck(backend):
    given, v, index = inputs(), randn(*LEADING, D, seed=9), torch.zeros(LEADING, dtype=torch.int64)
    seed, parameters, named = torch.tensor([3]), torch.tensor([[0.7, 0.5, 1.0]]).double(), torch.ops.discrete_ops
    hidden, proj, _, weight = given
    leaves = [x.clone().requires_grad_() for x in given]
    spec = ("gst", 1, 0, backend)
    torch.library.opcheck(named.linear_embedding, (*leaves, seed, parameters, *spec))
    saved = (hidden, proj, None, weight, index, seed, parameters)
    wanted = [True, False, False, True, False]
    torch.library.opcheck(named.linear_embedding_pull_back, (v.requires_grad_(), *saved, False, wanted, [], *spec))
    torch.library.opcheck(named.linear_embedding_push, (*leaves, None, *saved, True, [], *spec))


# ---------------------------------------------------------------------------------------------------
# Memory, errors


def most_memory(call: Callable[[], Any]) -> int:
    """Of what it allocates, the most bytes at a time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        call()
    held = most = 0
    for event in sorted(seen.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


@pytest.mark.parametrize("rows_of_a_part", [512], indirect=True)
@pytest.mark.parametrize("backend", ["cpp"])
def test_memory_beyond_the_gradients_is_that_of_parts(backend):
    """Of logits of 16 MiB, in parts of 52 KiB."""
    rows, columns = 512, 8192
    given = [randn(*shape, dtype=torch.float32).requires_grad_() for shape in ((rows, H), (columns, H), (columns, D))]
    out: list[Tensor] = []
    forward = most_memory(lambda: out.append(do.linear_embedding(*given, seed=1, backend=backend)))
    v = torch.ones_like(out[0])
    backward = most_memory(lambda: torch.autograd.grad(out[0], given, v))
    part = max(parts.PRODUCT_BYTES["cpu"], columns * 4)
    inputs_and_gradients = 4 * (rows + columns) * (H + D)
    assert forward < 4 * part + inputs_and_gradients
    assert backward < 6 * part + inputs_and_gradients
    whole = most_memory(lambda: dense(given[0], given[1], None, given[2]).backward(v))
    assert whole > 4 * rows * columns > 8 * (6 * part + inputs_and_gradients)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": [1.0]}, "hidden: got list, allowed: a tensor"),
        ({"hidden": torch.zeros(3, H, dtype=torch.int64)}, "hidden: got dtype torch.int64, allowed: float64"),
        ({"hidden": torch.zeros(3, 0)}, r"hidden: got shape \(3, 0\), allowed: at least one"),
        ({"proj": None}, "proj: got NoneType, allowed: a tensor"),
        ({"proj": torch.zeros(N)}, rf"proj: got shape \({N},\), allowed: \(N, {H}\)"),
        ({"proj": torch.zeros(N, 7)}, rf"proj: got shape \({N}, 7\), allowed: \({N}, {H}\)"),
        ({"proj": torch.zeros(0, H), "weight": torch.zeros(0, D)}, "allowed: at least one category"),
        ({"weight": torch.zeros(N + 1, D)}, rf"weight: got shape \({N + 1}, {D}\), allowed: \({N}, D\)"),
        ({"weight": torch.zeros(N, D).to_sparse()}, "weight: got a tensor that is torch.sparse_coo, allowed: a dense"),
        ({"proj": torch.zeros(0, H)}, rf"proj: got shape \(0, {H}\), allowed: at least one category"),
        ({"weight": torch.zeros(N, D).half()}, "weight: got torch.float16 on cpu, allowed: hidden's, torch.float32"),
        ({"bias": torch.zeros(N, 1)}, rf"bias: got shape \({N}, 1\), allowed: \({N},\)"),
        ({"estimator": "gst(tau=0)"}, "tau: got 0"),
        ({"estimator": do.estimators.GST(torch.ones(7))}, "tau: got a tensor of shape"),
        ({"seed": -1}, "seed: got -1"),
        ({"return_index": 1}, "return_index: got 1, allowed: True or False"),
        ({"backend": "fast"}, "backend: got 'fast'"),
    ],
)
def test_messages(change, message):
    given = {"hidden": torch.zeros(3, H), "proj": torch.zeros(N, H), "weight": torch.zeros(N, D), **change}
    with pytest.raises((TypeError, ValueError), match=message):
        do.linear_embedding(**given)
