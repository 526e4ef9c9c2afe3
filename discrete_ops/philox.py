"""Philox4x32-10 in plain PyTorch, and the one noise layout every backend shares.

Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.

The layout (``csrc/philox.h`` and ``triton_kernels/philox.py`` mirror it):

    key     = the 64 bits of the seed
    counter = (column // 4, draw k, row low 32 bits, row high 32 bits)
    lane    = column % 4

so the 32-bit word of every (row, column, draw) is the same on every device and in every backend. The
forward pass takes its one uniform a row from a draw index of its own, ``FORWARD_DRAW``. Stratified draws take two more
words a column, ``STRATA_DRAW`` and ``SHUFFLE_DRAW``, which say in what order the draws take the strata there.

A ``seed`` is an int64 tensor of shape ``(S,)``: the rows fall into S equal consecutive groups, and
each group counts its rows under its own seed, from ``first_row``: 0 but where the rows are a part of more.
S is 1 but for ``vmap`` and ensembles.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.compiler import is_exporting

from .register import below_autograd, fold, is_plain, operator

FORWARD_DRAW = 2**32 - 1  #: draw index of the forward pass's uniform
STRATA_DRAW, SHUFFLE_DRAW = 2**32 - 2, 2**32 - 3  #: draw indices of a column's order of strata
_MASK = 0xFFFFFFFF
_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85


def _high_low(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """High and low word of the 64-bit product, by way of ``a - 2**32``, with which an int64 holds it. Beyond its range
    PyTorch's operators wrap, but the C++ that a compiler makes of these formulas may do anything."""
    product = (a - 2**32) * b
    return (product >> 32) + b, product & _MASK


def philox4x32(seed: Tensor, c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor) -> tuple[Tensor, ...]:
    """Ten rounds of Philox on broadcastable int64 tensors.

    Args:
        seed: 64-bit keys.
        c0, c1, c2, c3: the counter's words, each in ``[0, 2**32)``.

    Returns:
        Four int64 tensors of words in ``[0, 2**32)``.
    """
    k0, k1 = seed & _MASK, (seed >> 32) & _MASK
    for _ in range(10):
        high0, low0 = _high_low(_M0, c0)
        high1, low1 = _high_low(_M1, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


def words(seed: Tensor, draw: Tensor, rows: int, columns: int, first_row: int = 0) -> Tensor:
    """The uint32 noise of some draws.

    An operator wherever somebody captures or transforms the call: its seed is not redrawn
    (:func:`discrete_ops.register.never_redrawn`), and torch.compile does not take the rounds into one expression, which
    grows threefold with each.

    Args:
        seed: ``(S,)`` int64, S divides ``rows``.
        draw: ``(K,)`` int64 draw indices in ``[0, 2**32)``.
        rows, columns: size of the noise.
        first_row: number of the first row.

    Returns:
        ``(K, rows, columns)`` int64 with values in ``[0, 2**32)``.
    """
    if is_plain(seed, draw) or (is_exporting() and torch.onnx.is_in_onnx_export()):  # which takes formulas alone
        return _words(seed, draw, rows, columns, first_row)
    return _words_op(seed, draw, rows, columns, first_row)


def _words(seed: Tensor, draw: Tensor, rows: int, columns: int, first_row: int) -> Tensor:
    """Of ``(B, S)`` seeds and ``(B, K)`` draws too, as vmap brings them: ``(B, K, rows, columns)``."""
    groups = seed.shape[-1]
    row = torch.arange(rows, device=seed.device) % max(rows // groups, 1) + first_row
    key = seed.repeat_interleave(rows // groups, -1) if groups > 1 else seed
    block = torch.arange((columns + 3) // 4, device=seed.device)
    row, key = row[:, None], key[..., None, :, None]
    lanes = philox4x32(key, block, draw[..., None, None], row & _MASK, row >> 32)
    shape = (*seed.shape[:-1], draw.shape[-1], rows, block.numel())
    return torch.stack([lane.expand(shape) for lane in lanes], -1).flatten(-2)[..., :columns]


_words_op: OpOverload = operator(
    "words(Tensor seed, Tensor draw, SymInt rows, SymInt columns, SymInt first_row) -> Tensor",
    lambda *call: _words(*call).contiguous(),
    lambda keyset, *call: below_autograd(_words_op, keyset, *call),
    lambda seed, draw, rows, columns, _: seed.new_empty((*seed.shape[:-1], draw.shape[-1], rows, columns)),
    lambda size, dims, seed, draw, *rest: (fold(size, seed, dims[0]), fold(size, draw, dims[1]), *rest),
    whole=True,
)


def uniform(seed: Tensor, rows: int, first_row: int = 0) -> Tensor:
    """The forward pass's uniform: ``(rows, 1)`` float64 in (0, 1), on the grid ``(n + 1/2) 2**-52``.

    52 bits (all of lane 0 and the top 20 of lane 1), so that the inverse CDF resolves every category.
    """
    draw = torch.full((1,), FORWARD_DRAW, device=seed.device)
    high, low = words(seed, draw, rows, 2, first_row)[0].unbind(-1)
    return (((high << 20) + (low >> 12)).double() + 0.5)[:, None] * 2.0**-52


class Strata(NamedTuple):
    """The draws ``first .. first + K - 1`` are a Latin hypercube: in every column each takes another stratum."""

    first: int
    K: int


def stratum(seed: Tensor, draw: Tensor, rows: int, columns: int, strata: Strata, first_row: int = 0) -> Tensor:
    """Which of the K strata a draw has in each column: a permutation of the draws for every row and column.

    A rotation from words of its own makes the stratum of any one draw uniform, independently in every column and
    whatever the shuffle does: up to 2**-32, as the integers that a word makes are. The shuffle is for what two draws
    have to do with each other. It is "swap or not" (Hoang, Morris, Rogaway, CRYPTO 2012): a round pairs x with key - x,
    and a bit that the two share says whether they change places. A round leaves about half of the distances between
    two draws as they were, so that 4**-rounds of them stay in both of two columns; the rounds grow with K, so that of
    all that a draw has to others less than a tenth of one does.

    Args:
        draw: ``(D,)`` int64, draws of the strata's.
        seed, rows, columns, first_row: as :func:`words`.

    Returns:
        ``(D, rows, columns)`` int64 in ``[0, K)``.
    """
    own = torch.tensor([STRATA_DRAW, SHUFFLE_DRAW], device=seed.device)
    rotation, shuffle = words(seed, own, rows, columns, first_row)
    count, bits = strata.K, 1
    while 2**bits < count:
        bits += 1
    x = (draw[:, None, None] - strata.first + (rotation * count >> 32)) % count
    random = shuffle
    for _ in range((bits + 1) // 2 + 2):
        random = (random * 747796405 + 2891336453) & _MASK
        partner = ((random >> (32 - bits)) - x) % count
        swap = (torch.maximum(x, partner) * random + shuffle) & 2**31 > 0
        x = torch.where(swap, partner, x)
    return x


def exponential(
    seed: Tensor,
    draw: Tensor,
    rows: int,
    columns: int,
    dtype: torch.dtype,
    first_row: int = 0,
    strata: Strata | None = None,
) -> Tensor:
    """Standard exponential noise ``E = -log1p(-u)``, ``u = (word + 1/2) 2**-32``; of stratified draws that u is the
    place in the stratum, ``(stratum + u) (1 / K)``.

    In float32 the sum rounds, so u is clipped to the largest value below 1: E is never 0 and never
    inf, and its small end, which decides who wins, is resolved to 2**-32. The logarithm is taken in float64
    and rounded once, so that E is the same on every machine.

    Returns:
        ``(K, rows, columns)`` of ``dtype`` (float32 or float64).
    """
    u = (words(seed, draw, rows, columns, first_row).to(dtype) + 0.5) * 2.0**-32
    if strata is not None:
        u = (stratum(seed, draw, rows, columns, strata, first_row).to(dtype) + u) * (1 / strata.K)
    u = u.clamp(max=1 - torch.finfo(dtype).eps / 2)
    return -torch.log1p(-u.double()).to(dtype)
