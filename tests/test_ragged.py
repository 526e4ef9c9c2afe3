"""Ragged rows: each is the row of the padded call, and nothing is padded to the longest."""

from itertools import accumulate, pairwise

import pytest
import torch
from helpers import CPU_BACKENDS, FLOATS, assert_close, chi_squared, draw_and_pull, every_estimator, make
from hypothesis import given
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils.rnn import pad_sequence

import discrete_ops as do
from discrete_ops import ops, parts, ragged

LENGTHS = [0, 1, 2, 64, 65, 300, 0, 3, 20, 64, 7, 1]


def offsets_of(lengths):
    return torch.tensor([0, *accumulate(lengths)])


OFFSETS = offsets_of(LENGTHS)
TOTAL = sum(LENGTHS)
RANDOM = torch.Generator().manual_seed(0)
LOGITS, V = torch.randn(2, TOTAL, generator=RANDOM, dtype=torch.float64)
BEGIN = {length: int(OFFSETS[LENGTHS.index(length)]) for length in LENGTHS}  # of the first row so long


def padded(flat, offsets=OFFSETS, filler=-torch.inf):
    rows = [flat[begin:end] for begin, end in pairwise(offsets.tolist())]
    return pad_sequence([flat.new_zeros(1), *rows], batch_first=True, padding_value=filler)[1:]


def unpadded(rows, offsets=OFFSETS):
    lengths = offsets.diff().tolist()
    return torch.cat([row[:length] for row, length in zip(rows, lengths, strict=True)])


def expect_the_padded_call(estimator, flat, v, offsets=OFFSETS, **options):
    sample, index, gradient = draw_and_pull(estimator, flat, v, offsets=offsets, **options)
    rows = padded(flat, offsets), padded(v, offsets, 0.0)
    want_sample, want_index, want_gradient = draw_and_pull(estimator, *rows, **options)
    assert torch.equal(index, want_index)
    assert torch.equal(sample.nan_to_num(7.0), unpadded(want_sample, offsets).nan_to_num(7.0))
    want_gradient = unpadded(want_gradient, offsets)
    assert torch.equal(gradient.isnan(), want_gradient.isnan())
    assert_close(gradient.nan_to_num(), want_gradient.nan_to_num())
    return sample, index, gradient


@every_estimator
def test_rows_are_those_of_the_padded_call(backend, name):
    """One with a masked category, one masked whole, one with a NaN, among them."""
    flat = LOGITS.float()
    flat[BEGIN[64] + 5] = flat[BEGIN[300] + 5] = flat[BEGIN[2] : BEGIN[2] + 2] = -torch.inf
    flat[BEGIN[20] + 3] = torch.nan
    options = {"backend": None if name.startswith("nz_") else backend, "seed": 3}
    sample, index, _ = expect_the_padded_call(make(name, 0.7), flat, V.float(), **options)
    without = [LENGTHS.index(length) for length in (0, 2, 20)] + [LENGTHS.index(0, 1)]
    assert (index[without] == -1).all()
    assert (index[[row for row in range(len(LENGTHS)) if row not in without]] >= 0).all()
    assert sample[BEGIN[20] : BEGIN[20] + 20].isnan().all()


@pytest.mark.parametrize("name", ["gst_pi", "gumbel_rao"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_every_dtype_stride_and_mask(backend, name, dtype):
    flat, v = torch.stack([LOGITS, V]).to(dtype)
    apart = torch.stack([flat, flat], 1)[:, 1]
    assert apart.stride() == (2,)
    mask = torch.rand(TOTAL, generator=torch.Generator().manual_seed(1)) < 0.8
    got = draw_and_pull(make(name, 0.7), apart, v, offsets=OFFSETS, mask=mask, seed=5, backend=backend)
    masked = flat.where(mask, -torch.inf)
    want = expect_the_padded_call(make(name, 0.7), masked, v, seed=5, backend=backend)
    assert all(torch.equal(mine, other) for mine, other in zip(got, want, strict=True))


def test_a_row_is_a_call_of_its_own(backend):
    """With the number that it has."""
    spec = ("stratified_gumbel_rao", 3)
    parameters, seed, v = (0.7, 0.0, 1.0), torch.tensor([3]), V
    sample, index = ragged.draw(OFFSETS, LOGITS, seed, parameters, True, *spec, 0, backend)
    pulled = ragged.pull_back(v, LOGITS, OFFSETS, index, seed, parameters, False, (*spec, 0, backend))
    for row, (begin, end) in enumerate(pairwise(OFFSETS.tolist())):
        if end > begin:
            own, at = LOGITS[None, begin:end], (*spec, row, backend)
            want, winner = ops.draw(own, seed, parameters, True, *at)
            assert torch.equal(index[row], winner[0])
            assert torch.equal(sample[begin:end], want[0])
            assert_close(
                pulled[begin:end], ops.pull_back(v[None, begin:end], own, winner, seed, parameters, False, at)[0]
            )


@pytest.mark.parametrize("hard", [True, False])
def test_seeds_and_temperatures_of_each_row(backend, hard):
    tau = torch.rand(12, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    seed, sample_tau = torch.tensor([3, 4, 5]), torch.linspace(0.5, 2, 12, dtype=torch.float64)[:, None]
    options = {"gap": 0.7, "hard": hard, "seed": seed, "backend": backend, "return_index": True}

    def call(logits, tau, v, **more):
        logits, tau = logits.clone().requires_grad_(), tau.clone().requires_grad_()
        result, index = do.gst(logits, tau, **options, **more)
        return (result.detach(), index, *torch.autograd.grad(result, (logits, tau), v))

    got = call(LOGITS, tau[:, 0], V, offsets=OFFSETS, sample_tau=sample_tau[:, 0])
    want = call(padded(LOGITS), tau, padded(V, filler=0.0), sample_tau=sample_tau)
    assert torch.equal(got[1], want[1])
    assert_close(got[0], unpadded(want[0]))
    assert_close(got[2], unpadded(want[2]))
    assert_close(got[3], want[3][:, 0])
    assert want[3].abs().max() > 0.01


@pytest.mark.parametrize("lengths", [[], [0], [0, 0, 0]])
def test_no_elements(backend, lengths):
    logits = torch.zeros(0, requires_grad=True)
    sample, index = do.gst(logits, offsets=offsets_of(lengths), return_index=True, backend=backend)
    assert sample.shape == (0,)
    assert index.tolist() == [-1] * len(lengths)
    sample.sum().backward()
    assert logits.grad.shape == (0,)


@given(st.lists(st.integers(0, 70), max_size=40), st.integers(0, 3))
def test_any_lengths(lengths, doubled):
    """As many seeds as one, two, four or eight equal groups of rows; more rows than are taken side by side, too."""
    lengths = lengths * 8
    offsets, seed = offsets_of(lengths), torch.arange(2**doubled)
    flat, v = torch.randn(2, sum(lengths), generator=torch.Generator().manual_seed(2))
    if lengths:
        expect_the_padded_call(make("reinmax_cv"), flat, v, offsets, seed=seed)


def test_parts_hold_no_more_than_they_may(monkeypatch):
    """In a backend that pads rows: the parts, each as wide as its own longest row, draw as the whole."""
    want = draw_and_pull(make("gumbel_rao"), LOGITS, V, offsets=OFFSETS, seed=3, backend="reference")
    shapes, pull_back = [], ops._pull_back
    monkeypatch.setitem(parts.BYTES, "cpu", 8 * 200)
    monkeypatch.setattr(ops, "_pull_back", lambda v, *call: shapes.append(v.shape) or pull_back(v, *call))
    got = draw_and_pull(make("gumbel_rao"), LOGITS, V, offsets=OFFSETS, seed=3, backend="reference")
    for mine, other in zip(got, want, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-15)
    assert sum(shape[0] for shape in shapes) == len(LENGTHS)
    assert all(shape.numel() <= 200 or shape[0] == 1 for shape in shapes)
    assert 1 < len(shapes) < len(LENGTHS)


def test_law():
    """Of one batch of rows of three lengths."""
    lengths = [1 + row % 3 for row in range(30000)]
    base = torch.tensor([0.3, -1.0, 0.8])
    flat = torch.cat([base[:length] for length in lengths])
    index = do.straight_through(flat, offsets=offsets_of(lengths), seed=11, return_index=True)[1]
    for length in (2, 3):
        assert chi_squared(index[length - 1 :: 3], base[:length].softmax(0)) > 1e-4
    assert (index[::3] == 0).all()


def test_nested_tensors():
    rows = [torch.randn(length, generator=RANDOM, dtype=torch.float64) for length in (3, 0, 70, 1)]
    offsets = offsets_of([3, 0, 70, 1])
    leaf = torch.nested.nested_tensor(rows, layout=torch.jagged, requires_grad=True)
    v = torch.randn(74, generator=RANDOM, dtype=torch.float64)
    sample, index = do.gst(leaf * 2, mask=leaf > -1, seed=3, return_index=True)
    (sample.values() * v).sum().backward()
    flat = torch.cat(rows)
    masked = (flat * 2).where(flat > -1, -torch.inf)
    want = draw_and_pull(make("gst_0.7"), masked, v, offsets=offsets, seed=3)
    assert sample.shape == leaf.shape
    assert torch.equal(sample.values(), want[0])
    assert torch.equal(index, want[1])
    want = draw_and_pull(do.estimators.GST(), masked, v, offsets=offsets, seed=3)[2]
    assert_close(leaf.grad.values(), 2 * want)


def test_layer(backend):
    layer = do.nn.StraightThroughCategorical("gst")
    assert torch.equal(layer(LOGITS, offsets=OFFSETS, seed=3), do.gst(LOGITS, offsets=OFFSETS, seed=3))
    layer.eval()
    flat = LOGITS.float().round()  # with equal ones
    flat[BEGIN[2] : BEGIN[2] + 2], flat[BEGIN[20] + 3] = -torch.inf, torch.nan
    want = unpadded(layer(padded(flat)))
    torch.testing.assert_close(layer(flat, offsets=OFFSETS), want, rtol=0, atol=0, equal_nan=True)
    nested = torch.nested.nested_tensor_from_jagged(flat, OFFSETS)
    torch.testing.assert_close(layer(nested).values(), want, rtol=0, atol=0, equal_nan=True)


# ---------------------------------------------------------------------------------------------------
# What transforms and captures a call

SMALL = offsets_of([3, 0, 1, 66])
X, T = LOGITS[:70], torch.randn(70, generator=RANDOM, dtype=torch.float64)
ASYMMETRIC = do.estimators.ReinMaxRK2(beta=1.3)


@pytest.mark.parametrize("name", ["gumbel_rao", "nz_gst", "reinmax_rk2_1.3"])
def test_both_modes_and_twice(backend, name):
    """The tangent is the transpose's, and the gradient's gradient in what came in that of the padded call."""
    backend = None if name.startswith("nz_") else backend
    f = lambda x, **more: make(name, 0.7)(x, seed=3, backend=backend, **more)  # noqa: E731
    ragged_rows, padded_rows = (lambda x: f(x, offsets=SMALL)), (lambda x: unpadded(f(padded(x, SMALL)), SMALL))
    for call in (
        lambda f: torch.func.jvp(f, (X,), (T,))[1],
        lambda f: torch.func.vjp(f, X)[1](T)[0],
        lambda f: torch.func.vjp(lambda v: torch.func.vjp(f, X)[1](v)[0], T)[1](X)[0],
    ):
        assert_close(call(ragged_rows), call(padded_rows))
    with pytest.raises(RuntimeError, match="double backward"):
        torch.func.grad(lambda x: (torch.func.vjp(ragged_rows, x)[1](T)[0] * T).sum())(X)


@pytest.mark.parametrize("own_offsets", [False, True])
def test_vmap(backend, own_offsets):
    """Of logits, and of offsets as well; with a temperature that has a gradient, in both modes."""
    logits = torch.stack([X, X + 1, -X])
    each = [offsets_of(lengths) for lengths in ([3, 0, 1, 66], [1, 2, 60, 7], [0, 0, 70, 0])]
    offsets = torch.stack(each) if own_offsets else SMALL
    tau = torch.tensor([0.5, 0.7, 1.1], dtype=torch.float64)

    def gradients(logits, offsets, tau):
        def loss(logits, tau):
            return (do.gumbel_rao(logits, tau, 3, offsets=offsets, seed=3, backend=backend) * T).sum()

        tangent = torch.func.jvp(lambda tau: loss(logits, tau), (tau,), (torch.ones_like(tau),))[1]
        return (*torch.func.grad(loss, (0, 1))(logits, tau), tangent)

    got = torch.vmap(gradients, (0, 0 if own_offsets else None, 0))(logits, offsets, tau)
    alone = [gradients(logits[b], each[b] if own_offsets else SMALL, tau[b]) for b in range(3)]
    for mine, others in zip(got, zip(*alone, strict=True), strict=True):
        assert_close(mine, torch.stack(others))
    assert_close(got[1], got[2])

    def batched(logits):
        draw = lambda x, o: do.gumbel_rao(x, 0.7, 3, offsets=o, seed=3, backend=backend)  # noqa: E731
        return torch.vmap(draw, (0, 0 if own_offsets else None))(logits, offsets)

    of_all = torch.func.vjp(batched, logits)[1](T.expand(3, -1))[0]
    assert_close(of_all[1], got[0][1])


@pytest.mark.parametrize("name", ["gumbel_rao", "reinmax_rk2"])
def test_operators_pass_opcheck(name):
    named, seed = torch.ops.discrete_ops, torch.tensor([3])
    parameters, spec = torch.tensor([[0.7, 0.5, 1.0]], dtype=torch.float64), (name, 2, 0, "")
    x, v = X.clone().requires_grad_(), T.clone().requires_grad_()
    index = named.draw_ragged(X, SMALL, seed, parameters, True, *spec)[1]
    torch.library.opcheck(named.draw_ragged, (x, SMALL, seed, parameters, True, *spec))
    torch.library.opcheck(named.pull_back_ragged, (v, X, SMALL, index, seed, parameters, False, *spec))
    if name == "gumbel_rao":
        torch.library.opcheck(named.tau_derivative_ragged, (X, SMALL, index, seed, parameters, *spec))


class Model(torch.nn.Module):
    def __init__(self, backend):
        super().__init__()
        self.weight, self.backend = torch.nn.Parameter(X.clone()), backend

    def forward(self, x, offsets):
        return do.gumbel_rao(self.weight * x, 0.7, 3, offsets=offsets, seed=3, backend=self.backend)


def expect_training(call, model):
    """With the offsets of now, not those of the first call."""
    for offsets in (SMALL, offsets_of([10, 20, 40, 0])):
        got, want = call(X, offsets), Model(model.backend)
        model.weight.grad = None
        (got * T).sum().backward()
        expected = want(X, offsets)
        (expected * T).sum().backward()
        assert torch.equal(got, expected)
        assert_close(model.weight.grad, want.weight.grad)


@pytest.mark.usefixtures("fresh_dynamo")
def test_compiled_whole(backend):
    model = Model(backend)
    expect_training(torch.compile(model, fullgraph=True, backend="aot_eager"), model)


def test_exported(backend):
    program = torch.export.export(Model(backend), (X, SMALL))
    assert "discrete_ops.draw_ragged" in str(program.graph)
    model = program.module()
    model.backend = backend
    expect_training(model, model)


@pytest.mark.parametrize("mode", ["real", "symbolic"])
def test_make_fx(mode):
    call = lambda x, offsets: do.reinmax(x, offsets=offsets, seed=3)  # noqa: E731
    assert torch.equal(make_fx(call, tracing_mode=mode)(LOGITS, OFFSETS)(LOGITS, OFFSETS), call(LOGITS, OFFSETS))


def test_the_sample_may_be_changed_in_place(backend):
    x = LOGITS.clone().requires_grad_()
    samples = [do.reinmax(x, offsets=OFFSETS, seed=3, backend=backend) for _ in range(2)]
    want, got = (torch.autograd.grad(y, x, V)[0] for y in (samples[0] * 2, samples[1].mul_(2)))
    assert torch.equal(got, want)


# ---------------------------------------------------------------------------------------------------
# What is refused

NESTED = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged)
OF_MATRICES = torch.nested.nested_tensor([torch.zeros(2, 3)], layout=torch.jagged)
WITH_LENGTHS = torch.nested.narrow(
    torch.zeros(2, 3), 1, torch.zeros(2, dtype=torch.int64), torch.ones(2, dtype=torch.int64), layout=torch.jagged
)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"offsets": [0, 3]}, TypeError, "offsets: got list, allowed: an int64"),
        ({"offsets": torch.tensor([0, 3], dtype=torch.int32)}, TypeError, "offsets: got torch.int32"),
        ({"offsets": torch.tensor([[0, 3]])}, ValueError, r"offsets: got shape \(1, 2\)"),
        ({"offsets": torch.tensor([1, 3])}, ValueError, "offsets: got 1 to 3, allowed: 0 to 3"),
        ({"offsets": torch.tensor([0, 2])}, ValueError, "offsets: got 0 to 2, allowed: 0 to 3"),
        ({"offsets": torch.tensor([0, 2, 1, 3])}, ValueError, "allowed: nondecreasing"),
        ({"offsets": torch.tensor([0, 3], device="meta")}, ValueError, "offsets: got a tensor on meta"),
        ({"offsets": torch.tensor([0, 3]), "dim": 0}, ValueError, "dim: got 0, allowed with offsets: -1"),
        ({"offsets": torch.tensor([0, 3]), "logits": torch.zeros(1, 3)}, ValueError, "logits: got shape"),
        ({"offsets": torch.tensor([0, 1, 3]), "tau": torch.ones(3)}, ValueError, r"tau: .* broadcasts to \(2,\)"),
        ({"offsets": torch.tensor([0, 1, 3]), "seed": torch.arange(3)}, ValueError, "seed: got 3 seeds for 2 rows"),
        ({"logits": NESTED, "offsets": torch.tensor([0, 2, 5])}, ValueError, "offsets: got some with nested"),
        ({"logits": NESTED, "mask": torch.ones(5, dtype=torch.bool)}, ValueError, "mask: .* a nested one"),
        ({"logits": OF_MATRICES}, TypeError, "logits: got a nested tensor of shape"),
        ({"logits": WITH_LENGTHS}, TypeError, "logits: got a nested tensor with lengths"),
        ({"logits": torch.nested.nested_tensor([torch.zeros(2)])}, TypeError, "nested, allowed: a dense one"),
    ],
)
def test_refused(options, error, words):
    with pytest.raises(error, match=words):
        do.gst(**{"logits": torch.zeros(3), **options})


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("offsets", [[0, 5, 3], [0, 2], [1, 3], [0, 2**62, 3]])
def test_operators_check_what_they_read(backend, offsets):
    """Where a compiled graph calls them, nobody did before."""
    call = (torch.tensor(offsets), torch.tensor([0]), torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64))
    with pytest.raises((RuntimeError, ValueError), match="offsets: got"):
        torch.ops.discrete_ops.draw_ragged(torch.zeros(3), *call, True, "gst", 1, 0, backend)


def test_an_index_is_its_rows():
    seed, parameters = torch.tensor([0]), (1.0, 0.0, 1.0)
    call = (seed, parameters, False, ("gst", 1, 0, "cpp"))
    with pytest.raises(RuntimeError, match="index: got 2 in row 1, allowed: -1 to 1"):
        ragged.pull_back(torch.zeros(5), torch.zeros(5), torch.tensor([0, 3, 5]), torch.tensor([2, 2]), *call)
