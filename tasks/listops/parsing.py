"""The trees of a trained model for one line: greedy and sampled, as bracketed text and as a picture."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from discrete_ops import backends
from tasks.common import checkpoint
from tasks.common.errors import RunError

from . import expressions, given, treelstm, trees
from .data import Batch, Lines
from .model import Parser
from .recipes import Config
from .train import estimator_choice, parser

PICTURED = 16  #: tokens of a run's example line, or the nearest length below


@dataclass(frozen=True)
class Parse:
    """What a model makes of a line."""

    title: str
    merges: list[int]
    label: int


def load(directory: Path) -> tuple[Parser, Config]:
    """The best model of the run in ``directory``.

    Raises:
        RunError: there is none, or its checkpoint is damaged.
    """
    path = directory / "checkpoint.pt"
    if not path.is_file():
        raise RunError(f"run: {path} does not exist, allowed: the directory of a run of `train`")
    (saved, *_), state = checkpoint.read(path)
    try:
        # Here on a CPU, whatever it was trained on.
        config = replace(Config(**saved), device="cpu", backend=backends.resolve(None, "cpu"))
        model = parser(config, torch.Generator())
        model.load_state_dict(state["best"])
    except (TypeError, KeyError, RuntimeError) as error:
        raise RunError(f"{path}: not a checkpoint of this version ({error})") from error
    return model, config


def read_expression(text: str) -> list[int]:
    """Tokens of an expression with or without the gold tree's brackets.

    Raises:
        RunError: it is none; says why.
    """
    try:
        tokens = expressions.parse(text) if "(" in text else [expressions.token(word) for word in text.split()]
        expressions.evaluate(tokens)
    except ValueError as error:
        raise RunError(f"expression: got {text!r}: {error}") from error
    return tokens


@torch.no_grad()
def parses(model: Parser, config: Config, tokens: list[int], samples: int, seed: int) -> list[Parse]:
    """The greedy tree and ``samples`` sampled ones of a line, on the model's device; the given one where they are."""
    device = model.query.device
    row = torch.tensor([tokens], device=device)
    batch = Batch(row, torch.tensor([len(tokens)]), row.new_zeros(1), torch.zeros(1, dtype=torch.int64))
    choices: dict[str, treelstm.Choice | torch.Tensor] = {}
    if config.trees == "learned":
        choices["greedy"] = treelstm.greedy
        noise = torch.Generator(device).manual_seed(seed)
        for number in range(1, samples + 1):
            choices[f"sample {number}"] = estimator_choice(config, len(tokens), noise)
    else:
        line = Lines.of([expressions.write(tokens)], [tokens], [0])
        choices[config.trees] = given.merges(config.trees, batch, line, torch.Generator().manual_seed(seed))
    found = []
    for title, choose in choices.items():
        logits, merges = model(batch, choose)
        found.append(Parse(title, merges[0].tolist(), int(logits.argmax())))
    return found


def baselines(gold: list[trees.Span]) -> str:
    """The F1 of trees that know nothing, in words."""
    return ", ".join(f"{name} {value:.2f}" for name, value in trees.baselines(gold)._asdict().items())


def draw(tokens: list[int], found: list[Parse], path: Path) -> None:
    """A picture of the gold tree and those found."""
    from . import plots  # matplotlib is slow to import

    gold = trees.gold_spans(expressions.write(tokens))
    value = expressions.evaluate(tokens)[0]
    shapes = {f"gold: {value}; parse F1 of trees that know nothing: {baselines(gold)}": gold}
    for parse in found:
        spans = trees.spans(parse.merges)
        shapes[f"{parse.title}: {parse.label}, parse F1 {trees.f1(spans, gold):.2f}"] = spans
    plots.trees([expressions.TOKENS[token] for token in tokens], shapes, path)


def draw_example(model: Parser, config: Config, lines: Lines, path: Path) -> None:
    """The gold tree, the greedy one and a sample for one line of ``lines`` of a length that a picture can hold."""
    fitting = lines.shorter(PICTURED) if int(lines.lengths.min()) <= PICTURED else lines
    tokens = expressions.parse(fitting.texts[int(fitting.lengths.argmax())])
    draw(tokens, parses(model, config, tokens, 1, 0), path)
