"""The ListOps task's trees that are not learned, and what they tell of those that are."""

import itertools
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from discrete_ops.estimators import GST
from tasks.common.errors import RunError
from tasks.listops import cli, data, expressions, given, parsing, train, treelstm, trees
from tasks.listops.model import Parser
from tasks.listops.recipes import TREES, configure

pytestmark = pytest.mark.usefixtures("one_thread")

EXCERPT = Path(__file__).parent / "listops" / "published_excerpt.tsv"
TINY: dict[str, Any] = {"hidden": 8, "max_tokens": 12, "batch_size": 16, "epochs": 1}
GIVEN = [kind for kind in TREES if kind != "learned"]


@pytest.fixture(scope="module")
def lines() -> data.Lines:
    return data.read(EXCERPT)


@pytest.fixture(scope="module")
def splits(lines: data.Lines) -> data.Splits:
    third = torch.arange(len(lines)).chunk(3)
    return data.Splits(*(lines.select(part) for part in third))


def test_baselines_against_every_tree(lines: data.Lines) -> None:
    """Short lines: the mean over all ways of merging, each level's merges being equally likely, is the expectation."""
    texts = [text for text in lines.texts if len(expressions.parse(text)) <= 7]
    texts += ["( ( ( [MAX 2 ) ( ( ( [MIN 4 ) 7 ) ] ) ) ] )", "( 1 ( ( 2 3 ) ( 4 5 ) ) )"]
    assert max(text.count("(") for text in texts) >= 5
    for text in texts:
        gold = trees.gold_spans(text)
        levels = [range(pairs) for pairs in range(len(gold), 0, -1)]  # as many pairs to choose from
        every = [trees.f1(trees.spans(merges), gold) for merges in itertools.product(*levels)]
        found = trees.baselines(gold)
        assert found.random == pytest.approx(statistics.fmean(every), abs=1e-12)
        assert found.left == trees.f1(trees.spans([0] * len(gold)), gold)
        assert found.right == trees.f1(trees.spans([len(gold) - 1 - level for level in range(len(gold))]), gold)
    assert trees.baselines([]) == (1, 1, 1)


def test_gold_merges_are_the_expression(lines: data.Lines) -> None:
    for text in lines.texts:
        words = [word for word in text.split() if word not in "()"]
        assert trees.bracketed(words, trees.gold_merges(text)) == text


@pytest.mark.parametrize("kind", GIVEN)
def test_given_trees(kind: str, lines: data.Lines) -> None:
    """Those of each line of a batch, whatever its length, and -1 behind its end."""
    for batch in lines.shuffled(40, torch.Generator().manual_seed(0)):
        merges = given.merges(kind, batch, lines, torch.Generator().manual_seed(1))
        assert merges.shape == (len(batch.lengths), batch.lengths[0] - 1)
        for number, length, row in zip(batch.numbers.tolist(), batch.lengths.tolist(), merges.tolist(), strict=True):
            assert row[length - 1 :] == [-1] * (int(batch.lengths[0]) - length)
            spans = trees.spans(row[: length - 1])
            assert len(set(spans)) == length - 1
            wanted = {
                "gold": sorted(trees.gold_spans(lines.texts[number])),
                "left": [(0, end) for end in range(2, length + 1)],
                "right": [(start, length) for start in range(length - 1)],
                "random": sorted(spans),
            }
            assert sorted(spans) == wanted[kind]


def test_random_trees_have_the_law_of_the_baseline(lines: data.Lines) -> None:
    short = lines.shorter(30)
    batch = short.batch(short.lengths.argsort(descending=True))
    noise = torch.Generator().manual_seed(0)
    golds = [trees.gold_spans(short.texts[number]) for number in batch.numbers.tolist()]
    means = []
    for _ in range(20):
        merges = given.merges("random", batch, short, noise).tolist()
        found = [trees.spans(row[: len(gold)]) for row, gold in zip(merges, golds, strict=True)]
        means.append(statistics.fmean(map(trees.f1, found, golds)))
    expected = statistics.fmean(trees.baselines(gold).random for gold in golds)
    assert statistics.fmean(means) == pytest.approx(expected, abs=4 * statistics.stdev(means) / len(means) ** 0.5)


@pytest.mark.parametrize("leaf", ["lstm", "affine"])
def test_given_trees_are_composed_as_chosen_ones(leaf: str, lines: data.Lines) -> None:
    """The same merges, chosen or given: the same logits, and the same gradient but for the choice's own."""
    batch = lines.batch(lines.lengths.argsort(descending=True)[::7])
    model = Parser(6, 0.0, torch.Generator().manual_seed(2), leaf).double()

    def gradients(choose: treelstm.Choice | Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        model.zero_grad()
        logits, merges = model(batch, choose)
        (logits * torch.linspace(-1, 1, 10)).sum().backward()
        return logits.detach(), merges, [p.grad.clone() for p in model.parameters() if p.grad is not None]

    chosen, merges, want = gradients(treelstm.greedy)
    logits, same, got = gradients(merges)
    assert torch.equal(same, merges)
    torch.testing.assert_close(logits, chosen, rtol=0, atol=1e-13)
    assert len(got) == len(want) - 1  # but the query
    names = [name for name, _ in model.named_parameters() if name != "query"]
    want = [g for (name, _), g in zip(model.named_parameters(), want, strict=True) if name != "query"]
    for name, a, b in zip(names, got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12 * max(1, b.abs().max().item()), msg=name)


def test_affine_leaf_sees_its_token_alone() -> None:
    x = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[:, 0] += 1
    for leaf, is_same in (("affine", True), ("lstm", False)):
        model = Parser(6, 0.0, torch.Generator().manual_seed(1), leaf)
        before, after = model._leaves(x), model._leaves(changed)
        assert before.shape == (2, 5, 12)
        assert torch.equal(before[:, 1:], after[:, 1:]) == is_same
        assert not torch.equal(before[:, 0], after[:, 0])


@pytest.mark.parametrize("kind", GIVEN)
def test_runs_with_given_trees(kind: str, splits: data.Splits, tmp_path: Path) -> None:
    """F1 is that of the trees; the baselines stand beside it; nothing but the query keeps its first weights."""
    config = configure(trees=kind, leaf="affine", **TINY)
    trainer = train.fit(config, splits, tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    golds = [trees.gold_spans(text) for text in splits.test.shorter(12).texts]
    expected = trees.Baselines(*map(statistics.fmean, zip(*map(trees.baselines, golds), strict=True)))
    for name, value in expected._asdict().items():
        assert result[f"test_f1_{name}"] == pytest.approx(value)
        assert f"valid_f1_{name}" in trainer.history[0]
    if kind == "random":
        assert result["test_f1"] == pytest.approx(expected.random, abs=0.2)
    else:
        assert result["test_f1"] == pytest.approx({"gold": 1, "left": expected.left, "right": expected.right}[kind])
    start = train.Trainer(config, splits).model.state_dict()
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, start[name]) == (name == "query")
    (parse,) = parsing.parses(trainer.best_model(), config, expressions.parse("( ( ( [SM 1 ) 2 ) ] )"), 2, 0)
    assert parse.title == kind
    again = train.evaluate(trainer.best_model(), config, trainer.valid)
    assert {f"valid_{name}": value for name, value in again.items()}.items() <= trainer.history[-1].items()


def test_parse_shows_the_baselines(splits: data.Splits, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = train.fit(configure(**TINY), splits, tmp_path)
    cli.Train(max_tokens=12).draw(trainer, tmp_path)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main(["parse", str(tmp_path), "[SM 1 2 ]"]) == 0
    # (([SM 1) 2) ]: of its three constituents a left tree has all, a right one the whole. The random tree's expectation
    # is (1 / 2 + 1 / 3 + 1) / 3.
    assert "(random 0.61, left 1.00, right 0.33)" in capsys.readouterr().out


def test_wrong_kinds_are_named() -> None:
    for name in ("leaf", "trees"):
        with pytest.raises(RunError, match=f"{name}: got 'oak', allowed: "):
            configure(**{name: "oak"})


def test_learned_trees_are_drawn_by_the_estimator(splits: data.Splits) -> None:
    """Untrained scores are near each other, so that the sampled trees' F1 is about the random tree's."""
    config = configure(**{**TINY, "max_tokens": 30, "hidden": 16})
    trainer = train.Trainer(config, splits)
    assert config.build_estimator() == GST()
    line = trainer.train
    batch = line.batch(line.lengths.argsort(descending=True))
    found = []
    for seed in range(10):
        choose = train.estimator_choice(config, batch.tokens.shape[1], torch.Generator().manual_seed(seed))
        _, merges = trainer.model(batch, choose)
        golds = [trees.gold_spans(line.texts[number]) for number in batch.numbers.tolist()]
        found += [trees.f1(trees.spans(r[: len(g)]), g) for r, g in zip(merges.tolist(), golds, strict=True)]
    expected = statistics.fmean(trees.baselines(trees.gold_spans(text)).random for text in line.texts)
    assert statistics.fmean(found) == pytest.approx(expected, abs=0.03)
