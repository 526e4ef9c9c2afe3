"""The ListOps task's model: the Tree-LSTM against the printed formulas, and what it draws."""

import itertools
import math
from typing import Any

import pytest
import scipy.stats
import torch
from torch import Tensor

from discrete_ops.estimators import ESTIMATORS, GST
from tasks.listops import treelstm, trees
from tasks.listops.data import Batch
from tasks.listops.model import Parser

pytestmark = pytest.mark.usefixtures("one_thread")

every_estimator = pytest.mark.parametrize("name", list(ESTIMATORS))


class StraightThroughArgmax(torch.autograd.Function):
    """A choice without noise, so that a line's is the same in every batch."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        ctx.save_for_backward(scores.softmax(-1))
        return torch.nn.functional.one_hot(scores.argmax(-1), scores.shape[-1]).to(scores.dtype)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Tensor:
        (p,) = ctx.saved_tensors
        return p * (v - (p * v).sum(-1, keepdim=True))


def noiseless(scores: Tensor, level: int) -> tuple[Tensor, Tensor]:
    return StraightThroughArgmax.apply(scores), scores.argmax(-1)


def drawn_by(estimator: Any) -> treelstm.Choice:
    return lambda scores, level: estimator(scores, seed=level, return_index=True)


def naive(
    leaves: Tensor, lengths: Tensor, weight: Tensor, bias: Tensor, query: Tensor, choose: treelstm.Choice
) -> Tensor:
    """Line by line, all parents of every level, masks from cumulative sums of the choice: as the paper prints it."""
    hidden, roots = len(query), []
    for line, length in zip(leaves, lengths.tolist(), strict=True):
        states = list(line[:length])
        for level in range(length - 1):
            parents = []
            for left, right in itertools.pairwise(states):
                inputs = weight @ torch.cat((left[:hidden], right[:hidden])) + bias
                i, f_left, f_right, o, u = inputs.chunk(5)
                c = f_left.sigmoid() * left[hidden:] + f_right.sigmoid() * right[hidden:] + i.sigmoid() * u.tanh()
                parents.append(torch.cat((o.sigmoid() * c.tanh(), c)))
            scores = torch.stack([query @ parent[:hidden] for parent in parents]) / math.sqrt(hidden)
            D = choose(scores[None], level)[0][0]
            left_mask, right_mask = 1 - D.cumsum(0), D.cumsum(0) - D
            states = [
                D[j] * parents[j] + left_mask[j] * states[j] + right_mask[j] * states[j + 1]
                for j in range(len(parents))
            ]
        roots.append(states[0][:hidden])
    return torch.stack(roots)


def setting(lines: int, tokens: int, hidden: int = 5, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Leaves, weight, bias and query, large enough for choices of every probability."""
    generator = torch.Generator().manual_seed(3)
    shapes = (lines, tokens, 2 * hidden), (5 * hidden, 2 * hidden), (5 * hidden,), (hidden,)
    return [torch.randn(shape, dtype=dtype, generator=generator).requires_grad_() for shape in shapes]


def result(function: Any, inputs: list[Tensor], lengths: Tensor, choose: treelstm.Choice) -> list[Tensor]:
    """Roots, and the gradients of a weighted sum of them."""
    roots = function(inputs[0], lengths, *inputs[1:], choose)
    roots = roots[0] if isinstance(roots, tuple) else roots
    v = torch.randn(roots.shape, dtype=roots.dtype, generator=torch.Generator().manual_seed(4))
    return [roots.detach(), *torch.autograd.grad(roots, inputs, v)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_batch_is_the_naive_formula_line_by_line(dtype: torch.dtype, tolerance: float) -> None:
    """Lengths from 1 to 9 in one batch: padding changes neither the roots nor a gradient."""
    lengths = torch.tensor([9, 9, 8, 5, 4, 3, 2, 2, 1])
    inputs = setting(9, 9, dtype=dtype)
    for got, want in zip(
        result(treelstm.merge, inputs, lengths, noiseless), result(naive, inputs, lengths, noiseless), strict=True
    ):
        assert want.abs().max() > 0.1
        torch.testing.assert_close(got, want, rtol=0, atol=tolerance * max(1, want.abs().max().item()))


@every_estimator
def test_every_estimator_gives_the_naive_gradient(name: str) -> None:
    """One line, so that both draw from the same row of noise."""
    inputs, lengths = setting(1, 8), torch.tensor([8])
    choose = drawn_by(ESTIMATORS[name]())
    for got, want in zip(
        result(treelstm.merge, inputs, lengths, choose), result(naive, inputs, lengths, choose), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-9 * max(1, want.abs().max().item()))


def test_what_lies_behind_a_line_is_of_no_effect() -> None:
    lengths = torch.tensor([7, 4, 1])
    inputs = setting(3, 7)
    clean = result(treelstm.merge, inputs, lengths, noiseless)
    with torch.no_grad():
        inputs[0][1, 4:] = 50
        inputs[0][2, 1:] = -50
    for before, after in zip(clean, result(treelstm.merge, inputs, lengths, noiseless), strict=True):
        torch.testing.assert_close(before, after, rtol=0, atol=0)
    assert (clean[1][1, 4:] == 0).all()
    assert (clean[1][2, 1:] == 0).all()
    assert (clean[1][:, 0, :5] != 0).all()


@every_estimator
def test_masked_choice_is_uniform_over_the_valid(name: str) -> None:
    """10 valid of 20 slots, equal scores, tau = 0.01: each valid one is drawn with probability 0.1."""
    estimator = ESTIMATORS[name](**({"tau": 0.01} if hasattr(ESTIMATORS[name], "tau") else {}))
    lines = 5000
    leaves = torch.randn(lines + 1, 21, 4, generator=torch.Generator().manual_seed(5)).requires_grad_()
    lengths = torch.tensor([21] + lines * [11])  # the one long line makes 20 slots
    weight, bias, query = (
        torch.randn(10, 4, generator=torch.Generator().manual_seed(6)),
        torch.zeros(10),
        torch.zeros(2),
    )
    roots, merges = treelstm.merge(leaves, lengths, weight, bias, query, drawn_by(estimator))
    counts = torch.bincount(merges[1:, 0], minlength=20)
    assert scipy.stats.chisquare(counts[:10]).pvalue > 0.001
    assert (counts[10:] == 0).all()
    for level in range(10):  # one slot less a level
        assert (merges[1:, level] < 10 - level).all()
        assert (merges[1:, level] >= 0).all()
    assert (merges[1:, 10:] == -1).all()
    roots.sum().backward()
    assert leaves.grad is not None
    assert (leaves.grad[1:, 11:] == 0).all()
    assert leaves.grad.isfinite().all()

    scores = torch.zeros(500, 20).index_fill(1, torch.arange(10, 20), -math.inf).requires_grad_()
    v = torch.randn(500, 20, generator=torch.Generator().manual_seed(7))
    (gradient,) = torch.autograd.grad(estimator(scores, seed=1), scores, v)
    assert (gradient[:, 10:] == 0).all()
    assert gradient.isfinite().all()


def test_choice_follows_the_scores() -> None:
    """The first merge of many equal lines is drawn from the softmax of their scores; greedy takes the best."""
    leaves, weight, bias, query = (tensor.detach() for tensor in setting(1, 5))
    left, right = leaves[0, :-1], leaves[0, 1:]
    i, f_left, f_right, o, u = (torch.cat((left[:, :5], right[:, :5]), -1) @ weight.T + bias).chunk(5, -1)
    c = f_left.sigmoid() * left[:, 5:] + f_right.sigmoid() * right[:, 5:] + i.sigmoid() * u.tanh()
    scores = (o.sigmoid() * c.tanh()) @ query / math.sqrt(5)
    many = leaves.expand(20_000, -1, -1)
    _, merges = treelstm.merge(many, torch.full((20_000,), 5), weight, bias, query, drawn_by(GST()))
    observed = torch.bincount(merges[:, 0], minlength=4).numpy()
    assert scipy.stats.chisquare(observed, (20_000 * scores.softmax(-1)).numpy()).pvalue > 0.001
    _, merges = treelstm.merge(leaves, torch.tensor([5]), weight, bias, query, treelstm.greedy)
    assert merges[0, 0] == scores.argmax()


def test_line_of_one_token_is_its_leaf() -> None:
    leaves, weight, bias, query = setting(2, 1)
    roots, merges = treelstm.merge(leaves, torch.tensor([1, 1]), weight, bias, query, noiseless)
    assert torch.equal(roots, leaves[:, 0, :5])
    assert merges.shape == (2, 0)
    (gradient,) = torch.autograd.grad(roots.sum(), leaves)
    assert gradient.tolist() == 2 * [[5 * [1.0] + 5 * [0.0]]]


# ---------------------------------------------------------------------------------------------------
# The classifier


def batch_of(*lines: list[int]) -> Batch:
    lengths = torch.tensor([len(line) for line in lines])
    tokens = torch.zeros(len(lines), int(lengths.max()), dtype=torch.int64)
    for row, line in zip(tokens, lines, strict=True):
        row[: len(line)] = torch.tensor(line)
    return Batch(tokens, lengths, torch.zeros(len(lines), dtype=torch.int64), torch.arange(len(lines)))


def test_padded_batch_gives_what_each_line_alone_gives() -> None:
    lines = [10, 3, 11, 4, 5, 14, 14], [12, 1, 2, 14], [13, 9, 14], [7]
    model = Parser(8, 0.5, torch.Generator().manual_seed(0))
    logits, merges = model(batch_of(*lines), noiseless)
    logits.square().sum().backward()
    together = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    assert len(together) == len(list(model.parameters()))
    model.zero_grad()
    for row, line in enumerate(lines):
        alone, its_merges = model(batch_of(line), noiseless)
        torch.testing.assert_close(alone[0], logits[row], rtol=0, atol=1e-5)
        assert its_merges[0].tolist() == merges[row, : len(line) - 1].tolist()
        alone.square().sum().backward()
    for got, parameter in zip(together, model.parameters(), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(got, parameter.grad, rtol=0, atol=1e-5 * max(1, got.abs().max().item()))


def test_leaves_are_an_lstm() -> None:
    model = Parser(6, 0.0, torch.Generator().manual_seed(1))
    x = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(2))
    lstm = torch.nn.LSTM(6, 6, batch_first=True)
    # torch's gates stand in the order input, forget, update, output.
    order = torch.cat([torch.arange(6 * gate, 6 * gate + 6) for gate in (0, 1, 3, 2)])
    with torch.no_grad():
        lstm.weight_ih_l0.copy_(model.leaf_input[order])
        lstm.weight_hh_l0.copy_(model.leaf_hidden[order])
        lstm.bias_ih_l0.copy_(model.leaf_bias[order])
        lstm.bias_hh_l0.zero_()
    outputs, (_, c) = lstm(x)
    torch.testing.assert_close(model._leaves(x)[..., :6], outputs, rtol=0, atol=1e-6)
    torch.testing.assert_close(model._leaves(x)[:, -1, 6:], c[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("leaf", ["lstm", "affine"])
def test_initial_weights(leaf: str) -> None:
    """The law of the GST paper's public code; equal logits to start with, and forget gates that start open."""
    model = Parser(64, 0.0, torch.Generator().manual_seed(0), leaf)
    for name, std in (("embedding", 0.01), ("query", 0.01), ("leaf_input", (2 / 64) ** 0.5)):
        weight = getattr(model, name)
        assert weight.std().item() == pytest.approx(std, rel=4 / (2 * weight.numel()) ** 0.5)
    torch.testing.assert_close(model.tree_weight.T @ model.tree_weight, torch.eye(128), rtol=0, atol=1e-5)
    assert model.tree_bias.tolist() == 64 * [0.0] + 128 * [1.0] + 128 * [0.0]
    assert model.leaf_bias.tolist() == (64 * [0.0] + 64 * [1.0] + 128 * [0.0] if leaf == "lstm" else 128 * [0.0])
    assert model.mlp[1].abs().max() <= 0.002


def test_dropout_is_drawn_from_its_generator() -> None:
    model = Parser(8, 0.5, torch.Generator().manual_seed(0))
    batch = batch_of([10, 3, 4, 14])
    plain = model(batch, noiseless)[0]
    assert torch.equal(plain, model(batch, noiseless)[0])
    first, second = (model(batch, noiseless, torch.Generator().manual_seed(seed))[0] for seed in (1, 2))
    assert not torch.equal(first, plain)
    assert not torch.equal(first, second)
    assert torch.equal(first, model(batch, noiseless, torch.Generator().manual_seed(1))[0])
    ones = torch.ones(20_000)
    dropped = model._dropped(ones, torch.Generator().manual_seed(3))
    assert set(dropped.tolist()) == {0.0, 2.0}
    assert dropped.mean().item() == pytest.approx(1, abs=0.03)


def test_learns_from_labels() -> None:
    """The label is the second of four tokens, which no greedy tree may lose on the way to the root."""
    generator = torch.Generator().manual_seed(0)
    model, estimator = Parser(16, 0.0, generator), GST()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    seeds = itertools.count()
    for _ in range(100):
        tokens = torch.randint(4, (64, 4), generator=generator)
        batch = Batch(tokens, torch.full((64,), 4), tokens[:, 1], torch.arange(64))
        logits, _ = model(batch, lambda scores, level: estimator(scores, seed=next(seeds), return_index=True))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, batch.labels).backward()
        optimizer.step()
    logits, merges = model(batch, treelstm.greedy)
    assert (logits.argmax(-1) == batch.labels).float().mean() > 0.95
    assert all(trees.spans(row)[-1] == (0, 4) for row in merges.tolist())


def test_greedy_choice_trains_the_cell_alone() -> None:
    leaves, weight, bias, query = setting(1, 5)
    roots, _ = treelstm.merge(leaves, torch.tensor([5]), weight, bias, query, treelstm.greedy)
    roots.sum().backward()
    assert weight.grad is not None
    assert weight.grad.abs().max() > 0.1
    assert query.grad is not None
    assert (query.grad == 0).all()
