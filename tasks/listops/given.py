"""Trees that are given and not learned: what a Tree-LSTM reaches with the right ones, and without any that fit.

``gold`` are the expressions' own, ``left`` is ((a b) c) d, ``right`` a (b (c d)); ``random`` merges any two neighbours
with the same probability at each level, anew each time.
"""

import torch
from torch import Tensor

from . import trees
from .data import Batch, Lines


def merges(kind: str, batch: Batch, lines: Lines, noise: torch.Generator) -> Tensor:
    """The merges ``(B, L - 1)`` of a batch of ``lines``, int64 on the batch's device, -1 where a line has none.

    Args:
        kind: "gold", "left", "right" or "random".
        batch: as ``lines`` gave it.
        lines: for the gold trees.
        noise: of the random trees, on the CPU: they are the same on every device.
    """
    level = torch.arange(batch.tokens.shape[1] - 1)
    pairs = batch.lengths[:, None] - 1 - level  # (B, L - 1) to choose from; 0 and less behind a line's end
    if kind == "gold":
        rows = [torch.tensor(trees.gold_merges(lines.texts[n]), dtype=torch.int64) for n in batch.numbers.tolist()]
        found = torch.nn.utils.rnn.pad_sequence([torch.zeros_like(level), *rows], batch_first=True)[1:]
    elif kind == "random":
        found = (torch.rand(pairs.shape, generator=noise, dtype=torch.float64) * pairs).long()
    else:
        found = torch.zeros_like(pairs) if kind == "left" else pairs - 1
    return found.where(pairs > 0, -1).to(batch.tokens.device)
