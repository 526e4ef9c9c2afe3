"""Whether any two rows, draws, blocks of columns or seeds share noise: the noise that kernels have used, told from what
they return.

With equal logits in float64 a soft sample of Gumbel-softmax is a function of the ratios of the exponentials in a row,
``p_winner / p_j = 1 + N E_j / E_winner``. A block is four columns from one counter; ratios within it tell its noise
apart to some 64 bits, whatever else is in the row.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from discrete_ops import backends, philox

COLUMNS = 12  #: The winner's block, and two that are compared.
BLOCKS = 2


@dataclass(frozen=True)
class Rows:
    """Rows whose noise is wanted: of a draw, by seeds, each of which has as many of them."""

    rows: int
    seeds: tuple[int, ...]
    first_row: int = 0
    draw: int = 0


def soft(rows: Rows, backend: str) -> Tensor:
    """The soft sample of the draw, ``(rows, COLUMNS)``, if category 0 had won."""
    logits = torch.zeros(1, COLUMNS, dtype=torch.float64).expand(rows.rows, COLUMNS)
    index = torch.zeros(rows.rows, dtype=torch.int64)
    kernels = backends.get(backend)

    def mean(draws: int) -> Tensor:
        call = (torch.tensor(rows.seeds), (1.0, 0.0, 1.0), "gumbel_rao", draws, rows.first_row)
        return kernels.surrogate(logits, index, *call) * draws

    return mean(rows.draw + 1) - mean(rows.draw) if rows.draw else mean(1)


def keys(rows: Rows, backend: str) -> np.ndarray:
    """A number of 64 bits for each block."""
    p = soft(rows, backend)
    log_ratio = (p[:, :1] / p[:, 4:] - 1).log().view(rows.rows, BLOCKS, 4)
    steps = ((log_ratio[..., 1:] - log_ratio[..., :1]) * 2.0**20).round().to(torch.int64).numpy().view(np.uint64)
    mixed = np.zeros(steps.shape[:2], dtype=np.uint64)
    for column in range(3):
        mixed = (mixed ^ steps[..., column]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed.reshape(-1)


def plan(counters: int) -> list[Rows]:
    """So many blocks: of rows, of neighbouring seeds, of draws, of rows beyond 2**32."""
    rows = counters // (4 * BLOCKS)
    return [
        Rows(rows, (7,)),
        Rows(rows // 64 * 64, tuple(range(8, 72))),
        *(Rows(rows // 8, (7,), draw=draw) for draw in range(1, 9)),
        Rows(rows, (7,), first_row=2**32 - rows // 2),
    ]


def words(counters: int) -> np.ndarray:
    """The layout's own words, two to a number: of the draws that have a meaning of their own too."""
    own = (philox.FORWARD_DRAW, philox.STRATA_DRAW, philox.SHUFFLE_DRAW)
    draws = torch.tensor([0, 1, 2, *own])
    rows = counters // (2 * 2 * len(draws))
    found = [philox.words(torch.tensor([seed]), draws, rows, 4).numpy().astype(np.uint64) for seed in (7, 8)]
    pairs = np.stack(found).reshape(-1, 2)
    return pairs[:, 0] << np.uint64(32) | pairs[:, 1]


def duplicates(numbers: np.ndarray) -> int:
    return len(numbers) - len(np.unique(numbers))


def parts_differ(rows: int, backend: str) -> int:
    """Elements of three parts of the rows that are not, to the bit, those of the whole."""
    whole = soft(Rows(rows, (7,)), backend)
    bounds = [0, rows // 3, rows // 2, rows]
    parts = [soft(Rows(end - begin, (7,), first_row=begin), backend) for begin, end in pairwise(bounds)]
    return int((torch.cat(parts) != whole).sum())
