"""The examples run and learn; with few steps, which is what a test has time for."""

import importlib.util
import re
import types
from pathlib import Path

import pytest
import torch

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


def example(name: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES[0].parent / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_quantizer_uses_many_codes_and_brings_frames_back() -> None:
    learned = example("speech_quantizer").main(steps=120)
    assert learned.last_loss < 0.5 * learned.first_loss
    assert learned.perplexity > 12
    assert learned.tau == pytest.approx(0.5)  # a quarter of where it began


def test_a_world_model_learns_to_see() -> None:
    learned = example("world_model").main(steps=25)
    assert learned.last_error < 0.97 * learned.first_error
    assert 0 < learned.imagined_error < 2
    assert learned.information > 0


def test_a_table_generator_comes_nearer_to_the_table() -> None:
    module = example("table_generator")
    learned = module.main(steps=150)
    assert learned.distance_after < 0.8 * learned.distance_before
    for column in learned.rows.split(module.SIZES, -1):
        assert torch.equal(column.sort(-1).values[:, -1], torch.ones(len(column)))
        assert torch.equal(column.sum(-1), torch.ones(len(column)))


def test_a_masked_policy_arrives_and_never_tries_a_wall() -> None:
    learned = example("masked_policy").main(steps=40)
    assert learned.arrived_after > learned.arrived_before + 0.2
    assert learned.invalid_actions == 0


def test_an_architecture_cell_lowers_its_loss() -> None:
    module = example("architecture_cell")
    learned = module.main(steps=150)
    assert learned.last_loss < 0.7 * learned.first_loss
    assert len(learned.chosen) == len(module.EDGES)
    assert set(learned.chosen) <= set(module.NAMES)


def test_a_router_uses_all_experts() -> None:
    learned = example("expert_router").main(steps=150)
    assert learned.last_loss < 0.2 * learned.first_loss
    assert learned.test_loss < 0.4 * learned.one_expert_loss
    assert learned.least_share > 0.02
    assert learned.most_share < 0.3


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_sampling_is_three_lines_at_most(path: Path) -> None:
    """And one comment says what it was with stock PyTorch."""
    lines = path.read_text().splitlines()
    sampling = [
        line
        for line in lines
        if re.search(r"\bdo\.|= OneHotCategoricalStraightThrough\(|self\.sample\(|\.rsample\(", line)
    ]
    assert 0 < len(sampling) <= 3, sampling
    assert sum("# was:" in line for line in lines) == 1
