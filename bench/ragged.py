"""Ragged rows beside the same rows padded to the longest: forward and backward pass, float32, on one core.

python -m bench.ragged [--steps N] [--out bench/results/ragged.md]

The padded logits are there already: what padding and taking out cost is not counted. The two take turns, and each
figure is a median of the thread's CPU time.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

import discrete_ops as do
from tasks.common import jsonl, sheets
from tasks.common.sheets import Sheet

from .study_step import milliseconds

ESTIMATORS = ("straight_through()", "gumbel_softmax()", "reinmax()", "gst()", "gumbel_rao(num_samples=10)")


def lengths(kind: str, generator: torch.Generator) -> Tensor:
    """Of the rows: 3000 of any length to 64; 1000 of a law as words have, as likely as their inverse."""
    if kind == "3000 rows, uniform 1 to 64":
        return torch.randint(1, 65, (3000,), generator=generator)
    return 1 + torch.multinomial(1 / torch.arange(1.0, 2049), 1000, True, generator=generator)


KINDS = ("3000 rows, uniform 1 to 64", "1000 rows, 1 to 2048, as likely as 1 / length")


def passes(logits: Tensor, description: str, **options: Tensor) -> Callable[[], None]:
    estimator, logits, v = do.estimator(description), logits.requires_grad_(), torch.randn_like(logits)

    def run() -> None:
        logits.grad = None
        estimator(logits, **options).backward(v)  # type: ignore[typeddict-item]

    return run


def sheet(kind: str, steps: int) -> Sheet:
    generator = torch.Generator().manual_seed(0)
    columns = lengths(kind, generator)
    rows = [torch.randn(length, generator=generator) for length in columns.tolist()]
    offsets = torch.nn.functional.pad(columns.cumsum(0), (1, 0))
    padded = pad_sequence(rows, batch_first=True, padding_value=-torch.inf)
    found = []
    for description in ESTIMATORS:
        calls = [passes(torch.cat(rows), description, offsets=offsets), passes(padded.clone(), description)]
        ragged, dense = milliseconds(calls, steps)
        found.append((f"`{description}`", f"{ragged:.3f}", f"{dense:.3f}", f"{dense / ragged:.1f}"))
    share = padded.numel() / len(torch.cat(rows))
    return Sheet(
        f"{kind}: {share:.1f} times the elements when padded", ("", "ragged (ms)", "padded (ms)", "ratio"), found
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--out", type=Path, help="Markdown file of what is printed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    note = (
        f"CPU, one thread; commit {jsonl.commit()}. Forward and backward pass, float32; medians of {arguments.steps}, "
        "in turns, in CPU time. Padded logits are given: padding them is not counted."
    )
    found = [sheet(kind, arguments.steps) for kind in KINDS]
    sheets.write(arguments.out, "Ragged rows", [note], found, Console())


if __name__ == "__main__":
    main()
