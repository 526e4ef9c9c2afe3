"""What is timed: one axis at a time around 3000x10, float32, forward + backward, one thread."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

import discrete_ops as do

from . import formulations

#: Estimators of ours, all of them.
ESTIMATORS = tuple(do.estimators.ESTIMATORS)
WITH_PEERS = tuple(formulations.PEERS)
ONE_DRAW = ("straight_through", "gumbel_softmax", "gst", "reinmax")
SCALED = (*ONE_DRAW, "gumbel_rao", "mve")  #: whose exponents are fitted
SHAPES = ((4, 10), (30_000, 10), (4096, 64), (64, 8192), (32, 128_256))
COMPILED = 8192  #: columns to which torch.compile is tried: what it makes goes through the gate at its own shape
LARGEST = (2**20, 64)
ROWS = tuple(1000 * 4**k for k in range(6))  #: of 10 columns; the last one only in full
COLUMNS = tuple(4**k for k in range(1, 9))  #: of 256 rows; the last one only in full
DRAWS = (1, 3, 10, 30, 100, 300, 1000)
FEW_DRAWS = 10  #: where rows and columns are the axis
QUICK_DRAWS = 100  #: up to which a formulation that holds its draws is timed within five minutes
DTYPES = ("float64", "float16", "bfloat16")


@dataclass(frozen=True)
class Case:
    """Formulations of some estimators that are timed side by side, on the same inputs.

    Attributes:
        section: the axis.
        estimators: ours of each.
        peers: the estimators whose peers take part, too.
        compiled: whether what takes part does so through ``torch.compile``, too.
        draws: of the estimators that take a number.
        passes: "both", "forward" or "backward".
    """

    section: str
    estimators: tuple[str, ...]
    rows: int = 3000
    columns: int = 10
    peers: tuple[str, ...] = ()
    compiled: bool = False
    draws: int = 100
    dtype: str = "float32"
    passes: str = "both"
    threads: int = 1

    def participants(self) -> list[tuple[str, str]]:
        """(estimator, who)."""
        found = [(estimator, "ours") for estimator in self.estimators]
        found += [(estimator, who) for estimator in self.peers for who in formulations.PEERS[estimator]]
        if self.compiled:
            found += [(estimator, f"{who}, compiled") for estimator, who in found if who != "reinmax"]
        return found

    def inputs(self, device: str) -> tuple[Tensor, Tensor]:
        """Logits that require grad, and the gradient that comes in."""
        generator = torch.Generator(device).manual_seed(0)
        dtype = getattr(torch, self.dtype)
        shape = self.rows, self.columns
        logits, v = (torch.randn(shape, generator=generator, device=device).to(dtype) for _ in range(2))
        return logits.requires_grad_(), v

    def size(self) -> int:
        """Bytes of the logits."""
        return self.rows * self.columns * getattr(torch, self.dtype).itemsize

    def moved(self) -> int:
        """Bytes that have to be read or written: logits and sample; v, logits and gradient."""
        return self.size() * {"forward": 2, "backward": 3, "both": 5}[self.passes]


def table(full: bool, threads: int) -> list[Case]:
    """The cases: those of five minutes, or all of them.

    Args:
        full: with the large shapes and torch.compile for every estimator that has a peer, and the axes for every
            estimator of ours.
        threads: how many are compared with one.
    """
    found = [Case("estimators", ESTIMATORS, columns=columns) for columns in (10, 64)]
    found += [Case("peers", (name,), peers=(name,), compiled=full or name in ONE_DRAW) for name in WITH_PEERS]
    for (rows, columns), name in itertools.product(SHAPES, WITH_PEERS):
        is_short = columns <= 64
        if is_short or name in ONE_DRAW:
            draws = 100 if full and (rows, columns) == (4096, 64) else FEW_DRAWS
            compiled = full and name in ONE_DRAW and columns <= COMPILED
            found.append(Case("shapes", (name,), rows, columns, (name,), compiled, draws))
    found += [Case("shapes", (name,), *LARGEST, (name,)) for name in (ONE_DRAW if full else ONE_DRAW[:1])]
    scaled, some = (ESTIMATORS, ONE_DRAW) if full else (SCALED, ONE_DRAW[:2])
    for rows in ROWS if full else ROWS[:-1]:
        found.append(Case("rows", scaled, rows, 10, some[:1], draws=FEW_DRAWS))
    for columns in COLUMNS if full else COLUMNS[:-1]:
        found.append(Case("columns", scaled, 256, columns, some, draws=FEW_DRAWS))
    for draws in DRAWS:
        peers = ("gumbel_rao",) if full or draws <= QUICK_DRAWS else ()
        found.append(Case("draws", formulations.OF_DRAWS if full else ("gumbel_rao",), peers=peers, draws=draws))
    for dtype, name in itertools.product(DTYPES, some):
        found.append(Case("dtypes", (name,), 4096, 64, (name,), dtype=dtype))
    for (rows, columns), passes, name in itertools.product(((3000, 10), (4096, 64)), ("forward", "backward"), some):
        found.append(Case("passes", (name,), rows, columns, (name,), passes=passes))
    if threads > 1:
        for (rows, columns), name in itertools.product(((3000, 10), (30_000, 10), (4096, 64)), some):
            found.append(Case("threads", (name,), rows, columns, (name,), threads=threads))
        found.append(Case("threads", ("gumbel_rao",), peers=("gumbel_rao",), threads=threads))
    return found
