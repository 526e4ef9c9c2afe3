"""Laws to draw from, every way that draws, and how likely what came is under them."""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats
import torch
from torch import Tensor

import discrete_ops as do

from .cases import FLOATS

RARE = 1e-7  #: The least probability of the tails.
PIECE = 2**20  #: Elements drawn at once.


@dataclass(frozen=True)
class Draws:
    """So many draws of a law.

    Args:
        law: ``uniform``; ``skewed``, over six nats; ``tails``, one category beside rare ones.
        columns: how many categories.
        count: how many draws.
        path: ``rows``, ``num_draws``, ``ragged`` or ``binary``, of two categories.
        dtype: of the logits.
    """

    law: str
    columns: int
    count: int
    path: str = "rows"
    dtype: str = "float32"

    def logits(self) -> Tensor:
        if self.law == "uniform":
            row = torch.zeros(self.columns)
        elif self.law == "skewed":
            row = torch.linspace(3, -3, self.columns)
        else:  # from the rarest up to a hundred times it, where all of them together are rare
            most = min(100.0, 0.5 / (RARE * self.columns))
            rare = RARE * torch.logspace(0, math.log10(most), self.columns - 1, dtype=torch.float64)
            row = torch.cat([rare.log(), (1 - rare.sum()).log()[None]])
        return row.to(FLOATS[self.dtype])

    def probabilities(self) -> np.ndarray:
        return self.logits().double().softmax(-1).numpy()


def indices(draws: Draws, backend: str) -> Iterator[Tensor]:
    """The categories that are drawn, in pieces of neighbouring seeds, which no other draws have."""
    rows, row = max(1, PIECE // draws.columns), draws.logits()
    first = zlib.crc32(repr(draws).encode()) << 20
    for seed, start in enumerate(range(0, draws.count, rows), first):
        yield _drawn(draws.path, row, min(rows, draws.count - start), seed, backend)


def _drawn(path: str, row: Tensor, count: int, seed: int, backend: str) -> Tensor:
    given: dict[str, Any] = {"seed": seed, "backend": backend}
    if path == "binary":
        return 1 - do.bernoulli((row[0] - row[1]).expand(count), "straight_through", **given).long()
    if path == "num_draws":
        return do.straight_through(row, num_draws=count, return_index=True, **given)[1]
    if path == "ragged":
        offsets = torch.arange(count + 1) * len(row)
        return do.straight_through(row.repeat(count), offsets=offsets, return_index=True, **given)[1]
    return do.straight_through(row.expand(count, -1), return_index=True, **given)[1]


def counts(draws: Draws, backend: str) -> np.ndarray:
    """How often each category is drawn."""
    total = torch.zeros(draws.columns, dtype=torch.int64)
    for index in indices(draws, backend):
        total += torch.bincount(index, minlength=draws.columns)
    return total.numpy()


def winners(draws: Draws, backend: str) -> Tensor:
    return torch.cat(list(indices(draws, backend)))


def p_values(draws: Draws, observed: np.ndarray) -> list[float]:
    """Two-sided: of all categories, by chi-squared; and of the rare ones alone, exactly."""
    p = draws.probabilities()
    found = [_two_sided(_chi_squared(observed, p * draws.count))]
    if draws.law == "tails":
        rare = p < 2 * RARE
        found.append(float(scipy.stats.binomtest(int(observed[rare].sum()), draws.count, p[rare].sum()).pvalue))
    return found


def _two_sided(p: float) -> float:
    """A fit may be too good."""
    return 2 * min(p, 1 - p)


def _chi_squared(observed: np.ndarray, expected: np.ndarray, least: float = 10.0) -> float:
    """Of neighbouring categories, pooled until that many are expected; one half where all are in one pool."""
    bins, mass, number = np.zeros(len(expected), dtype=np.int64), 0.0, 0
    for category, each in enumerate(expected):
        if mass >= least and expected[category:].sum() >= least:
            number, mass = number + 1, 0.0
        bins[category] = number
        mass += each
    if number == 0:
        return 0.5
    return float(scipy.stats.chisquare(np.bincount(bins, observed), np.bincount(bins, expected)).pvalue)
