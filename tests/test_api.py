"""What a caller meets: shapes, dims, strides, dtypes, row rules, seeds, autograd's manners, backends, imports."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from helpers import FLOATS, SOFT, assert_one_hot, draw_and_pull, every_estimator, every_soft, make
from torch.utils.checkpoint import checkpoint

import discrete_ops as do
from discrete_ops.estimators import ESTIMATORS

inf, nan = math.inf, math.nan


def randn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


# ---------------------------------------------------------------------------------------------------
# Shapes, dims, strides, dtypes


@every_estimator
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(7,), (1,), (5, 1), (3, 4, 6), (2, 1, 3, 5), (0, 4), (3, 0, 2)])
def test_output_is_like_the_logits(backend, name, dtype, shape):
    logits = randn(*shape, dtype=dtype)
    sample, index, gradient = draw_and_pull(make(name), logits, randn(*shape, dtype=dtype), seed=1, backend=backend)
    for like in (sample, gradient):
        assert like.shape == logits.shape
        assert like.dtype == dtype
        assert like.device == logits.device
    assert index.dtype == torch.int64
    assert index.shape == shape[:-1]
    assert_one_hot(sample, index)
    assert gradient.isfinite().all()


@every_estimator
@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2, -3])
def test_any_dim(backend, name, dim):
    """As the last dimension moved into its place: same sample, same noise, same gradient."""
    logits, v = randn(4, 5, 3), randn(4, 5, 3, seed=1)
    moved = draw_and_pull(make(name), logits.movedim(dim, -1), v.movedim(dim, -1), seed=2, backend=backend)
    sample, index, gradient = draw_and_pull(make(name), logits, v, dim=dim, seed=2, backend=backend)
    assert torch.equal(sample, moved[0].movedim(-1, dim))
    assert torch.equal(index, moved[1])
    assert torch.equal(gradient, moved[2].movedim(-1, dim))
    assert (sample.sum(dim) == 1).all()


STRIDED = {
    "transposed": lambda x: x.t().contiguous().t(),
    "every_second": lambda x: x.repeat_interleave(2, 0).repeat_interleave(2, 1)[::2, ::2],
    "flipped_storage": lambda x: x.flip(1).contiguous().flip(1),
    "offset": lambda x: torch.cat([x.new_zeros(1, x.shape[1]), x])[1:],
    "channels": lambda x: torch.stack([x, x], -1)[..., 0],
}


@every_estimator
@pytest.mark.parametrize("layout", STRIDED)
def test_strides_make_no_difference(backend, name, layout):
    """Of the logits and of the incoming gradient."""
    logits, v = randn(6, 9), randn(6, 9, seed=1)
    plain = draw_and_pull(make(name), logits, v, seed=3, backend=backend)
    strided = draw_and_pull(make(name), STRIDED[layout](logits), STRIDED[layout](v), seed=3, backend=backend)
    for a, b in zip(plain, strided, strict=True):
        assert torch.equal(a, b)


@every_estimator
def test_expanded_logits_and_gradients(backend, name):
    row, v = randn(1, 9), randn(1, 9, seed=1)
    plain = draw_and_pull(make(name), row.repeat(20, 1), v.repeat(20, 1), seed=3, backend=backend)
    leaf = row.clone().requires_grad_()
    sample = make(name)(leaf.expand(20, 9), seed=3, backend=backend)
    assert torch.equal(sample, plain[0])
    assert len(sample.argmax(-1).unique()) > 1, "expanded rows are rows of their own"
    (gradient,) = torch.autograd.grad(sample, leaf, v.expand(20, 9))
    torch.testing.assert_close(gradient[0], plain[2].sum(0))
    summed = torch.autograd.grad(make(name)(leaf.expand(20, 9), seed=3, backend=backend).sum(), leaf)[0]
    torch.testing.assert_close(summed, _pull(name, row.repeat(20, 1), torch.ones(20, 9), backend).sum(0, keepdim=True))


def _pull(name, logits, v, backend):
    return draw_and_pull(make(name), logits, v, seed=3, backend=backend)[2]


@every_estimator
def test_logits_are_left_alone_and_not_aliased(backend, name):
    logits = randn(5, 6)
    before = logits.clone()
    sample, _, gradient = draw_and_pull(make(name), logits, randn(5, 6, seed=1), seed=3, backend=backend)
    sample.fill_(7.0)
    gradient.fill_(7.0)
    assert torch.equal(logits, before)


def test_memory_is_poisoned_in_these_tests():
    """The fixture that makes an unwritten output visible is on."""
    assert torch.empty(100).isnan().all()
    assert (torch.empty(100, dtype=torch.int64) > 2**60).all()


# ---------------------------------------------------------------------------------------------------
# Row rules

BAD_ROWS = {
    "masked": [-inf, -inf, -inf, -inf],
    "nan": [0.0, nan, 1.0, 2.0],
    "all_nan": [nan, nan, nan, nan],
    "plus_inf": [0.0, 1.0, inf, 2.0],
    "both_inf": [-inf, inf, 0.0, 0.0],
    "nan_and_mask": [-inf, nan, -inf, -inf],
    "plus_inf_twice": [inf, inf, 0.0, 0.0],
}


@every_estimator
@pytest.mark.parametrize("dtype", FLOATS)
def test_bad_rows_show_and_leave_the_others_alone(backend, name, dtype):
    good = randn(len(BAD_ROWS) * 2, 4, dtype=dtype)
    good[::4, 1] = -inf  # an ordinary mask here and there
    logits = good.clone()
    logits[1::2] = torch.tensor(list(BAD_ROWS.values()), dtype=dtype)
    v = randn(*good.shape, dtype=dtype, seed=1)
    for options in [{}, {"hard": False}] if name in SOFT else [{}]:
        clean = draw_and_pull(make(name), good, v, seed=4, backend=backend, **options)
        sample, index, gradient = draw_and_pull(make(name), logits, v, seed=4, backend=backend, **options)
        for a, b in zip(clean, (sample, index, gradient), strict=True):
            assert torch.equal(a[::2], b[::2])
        assert (index[1::2] == -1).all()
        assert (sample[1] == 0).all()
        assert (gradient[1] == 0).all()
        assert sample[3::2].isnan().all()
        assert gradient[3::2].isnan().all()


@every_estimator
@pytest.mark.parametrize("poison", [inf, -inf, nan])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_gradient_behind_a_mask_is_zero_whatever_comes_in(backend, name, poison, dtype):
    """The usual ``log(sample)`` or ``0 * inf`` of a loss at a masked place must not reach the others."""
    logits, v = randn(20, 6, dtype=dtype), randn(20, 6, dtype=dtype, seed=1)
    mask = randn(20, 6, seed=2) > 0.5
    mask[3], mask[:, 0] = True, False
    mask[4] = True
    logits[mask] = -inf
    clean = draw_and_pull(make(name), logits, v.masked_fill(mask, 0.0), seed=5, backend=backend)
    sample, _, gradient = draw_and_pull(make(name), logits, v.masked_fill(mask, poison), seed=5, backend=backend)
    assert torch.equal(sample, clean[0])
    assert torch.equal(gradient, clean[2])
    assert (gradient[mask] == 0).all()
    assert (sample[mask] == 0).all()
    assert gradient.abs().sum() > 0


@every_soft
def test_soft_rows_sum_to_one_and_respect_masks(backend, name):
    logits = randn(30, 6) * 3
    logits[:, 2] = -inf
    soft = make(name)(logits, hard=False, seed=1, backend=backend)
    torch.testing.assert_close(soft.sum(-1), torch.ones(30))
    assert (soft[:, 2] == 0).all()
    assert ((soft > 0) & (soft < 1)).any()


@every_estimator
@pytest.mark.parametrize("dim", [-1, 0])
def test_a_mask_is_minus_infinity(backend, name, dim):
    logits, v = randn(6, 9).movedim(-1, dim), randn(6, 9, seed=1).movedim(-1, dim)
    mask = (randn(6, 9, seed=2) > -0.3).movedim(-1, dim)
    ours = draw_and_pull(make(name), logits, v, seed=3, backend=backend, dim=dim, mask=mask)
    theirs = draw_and_pull(make(name), logits.masked_fill(~mask, -inf), v, seed=3, backend=backend, dim=dim)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)
    assert (ours[0][~mask] == 0).all()
    assert (ours[2][~mask] == 0).all()
    behind = torch.where(mask, logits, nan)  # what is masked may be anything
    assert torch.equal(draw_and_pull(make(name), behind, v, seed=3, backend=backend, dim=dim, mask=mask)[2], ours[2])


def test_a_mask_broadcasts_and_says_what_it_must_be():
    logits = randn(5, 4, 6)
    mask = torch.tensor([True, False, True, True, False, True])
    assert (do.gst(logits, mask=mask)[..., ~mask] == 0).all()
    rows = torch.tensor([[True], [False], [True], [True]])
    assert (do.gst(logits, mask=rows)[:, 1] == 0).all()
    for bad, message in [
        (mask.float(), r"mask: got a tensor of torch\.float32, allowed: a bool"),
        ([True] * 6, "mask: got list, allowed: a bool"),
        (mask[:5], r"mask: got shape \(5,\), allowed: one that broadcasts to the logits' \(5, 4, 6\)"),
        (mask.expand(1, 5, 4, 6), "mask: got shape"),
        (mask.to("meta"), "mask: got a tensor on meta"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            do.reinmax(logits, mask=bad)


# ---------------------------------------------------------------------------------------------------
# Seeds and generators


@every_estimator
def test_generator_and_seed_reproduce(backend, name):
    call = lambda **options: make(name)(randn(50, 6), backend=backend, **options)  # noqa: E731
    generator = torch.Generator().manual_seed(3)
    first, second = call(generator=generator), call(generator=generator)
    assert not torch.equal(first, second)
    assert torch.equal(call(generator=generator.manual_seed(3)), first)
    torch.manual_seed(3)
    default, after = call(), torch.rand(1)
    assert not torch.equal(call(), default)
    torch.manual_seed(3)
    assert torch.equal(call(), default)
    assert torch.equal(torch.rand(1), after)
    state = torch.get_rng_state()
    seeded = call(seed=2**63 - 1)
    assert torch.equal(torch.get_rng_state(), state), "a call with a seed draws nothing from torch's generator"
    for same in (2**63 - 1, np.int64(2**63 - 1), torch.tensor(2**63 - 1), torch.tensor([2**63 - 1])):
        assert torch.equal(call(seed=same), seeded)
    assert not torch.equal(call(seed=0), seeded)
    assert not torch.equal(call(seed=2**62), call(seed=0))  # the high word counts


def test_tau_of_any_number_type(backend):
    logits, v = randn(10, 5), randn(10, 5, seed=1)
    taus = [
        2,
        2.0,
        np.float32(2),
        np.int64(2),
        torch.tensor(2),
        torch.tensor(2.0),
        torch.tensor(2.0, dtype=torch.float64),
    ]
    each = [_pull_at(tau, logits, v, backend) for tau in taus]
    for gradient in each[1:]:
        torch.testing.assert_close(gradient, each[0], rtol=1e-6, atol=1e-7)
    assert not torch.allclose(_pull_at(torch.tensor(1.9), logits, v, backend), each[0])


def _pull_at(tau, logits, v, backend):
    return draw_and_pull(do.estimators.GumbelRao(tau, 3), logits, v, seed=1, backend=backend)[2]


# ---------------------------------------------------------------------------------------------------
# Autograd's manners


@every_estimator
def test_no_gradient_where_none_is_wanted(backend, name):
    logits = randn(4, 5)
    assert not make(name)(logits, seed=1, backend=backend).requires_grad
    logits.requires_grad_()
    sample, index = make(name)(logits, seed=1, backend=backend, return_index=True)
    assert sample.requires_grad
    assert not index.requires_grad
    with torch.no_grad():
        assert not make(name)(logits, seed=1, backend=backend).requires_grad
    loss = (index.double() * 0).sum() + logits.sum()  # only the index is used: no gradient through it
    assert torch.equal(torch.autograd.grad(loss, logits)[0], torch.ones(4, 5))


@every_estimator
def test_double_backward_says_no(backend, name):
    for options in [{}, {"hard": False}] if name in SOFT else [{}]:
        logits = randn(4, 5).requires_grad_()
        sample = make(name)(logits, seed=1, backend=backend, **options)
        (gradient,) = torch.autograd.grad((sample * randn(4, 5, seed=1)).sum(), logits, create_graph=True)
        with pytest.raises(RuntimeError, match="double backward"):
            torch.autograd.grad(gradient.square().sum(), logits)


@every_estimator
def test_checkpointing_draws_the_same_sample_again(backend, name):
    def f(x):
        sample = make(name)(x, backend=backend)
        return (sample * x.detach().cos()).sum() ** 2 + sample[:, 0].sum()

    results = []
    for run in (f, lambda x: checkpoint(f, x, use_reentrant=False)):
        torch.manual_seed(5)
        x = randn(40, 5).requires_grad_()
        loss = run(x)
        results.append((loss.detach(), torch.autograd.grad(loss, x)[0]))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert results[0][1].abs().max() > 0


@every_estimator
def test_saved_memory_does_not_depend_on_the_number_of_draws(backend, name):
    """Logits, index, seed and no noise (the NZ ablation is plain autograd and saves more)."""
    saved = {}
    for draws in (1, 50):
        count = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, c=count: c.append(x.numel()) or x, lambda x: x):
            make(name, 1.0, draws)(randn(30, 20).requires_grad_(), seed=1, backend=backend)
        saved[draws] = sum(count)
    assert saved[1] == saved[50]
    if not name.startswith("nz_"):
        assert 0 < saved[1] <= 30 * 20 + 30 + 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("dim", [0, -1])
def test_the_sample_may_be_changed_in_place(dim, dtype, backend):
    """As torch's own ``gumbel_softmax`` allows."""
    logits = randn(6, 5, dtype=dtype)
    plain = logits.clone().requires_grad_()
    do.gumbel_rao(plain, seed=1, dim=dim, backend=backend)[:3].mul(3.0).square().sum().backward()
    changed = logits.clone().requires_grad_()
    sample = do.gumbel_rao(changed, seed=1, dim=dim, backend=backend)
    sample[:3] *= 3.0
    sample[:3].square().sum().backward()
    assert torch.equal(plain.grad, changed.grad)


# ---------------------------------------------------------------------------------------------------
# Estimators and backends as objects


@every_estimator
def test_an_estimator_is_its_function_with_parameters(backend, name):
    estimator = make(name, 0.5)
    function = getattr(do, type(estimator).function.__name__)
    options = {"hard": True} if name == "gumbel_softmax" else {}
    want = function(randn(9, 4), **dataclasses.asdict(estimator), **options, seed=1, backend=backend)
    assert torch.equal(estimator(randn(9, 4), seed=1, backend=backend), want)
    assert estimator == make(name, 0.5)
    assert hash(estimator) == hash(make(name, 0.5))
    field = dataclasses.fields(estimator)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(estimator, field, 2.0)
    assert getattr(dataclasses.replace(estimator, **{field: 2.5}), field) == 2.5


def test_table_of_estimators_is_complete():
    assert set(ESTIMATORS) <= set(do.__all__)
    for name, cls in ESTIMATORS.items():
        assert cls.function is getattr(do, name)
