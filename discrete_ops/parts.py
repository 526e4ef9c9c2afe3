"""Rows in parts, for what must never hold ``(rows, N)`` as a whole: a product with a table, logits that are a product.

A part is a range of rows that draws and pulls back as the whole does: it has its rows' numbers, seeds and parameters.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .reference import Parameters

#: Bytes of one ``(rows, N)`` array of a part, at most, unless a single row has more. On a CPU it stays in the cache; a
#: GPU is busy with it.
BYTES = {"cpu": 2**22, "cuda": 2**28}
#: The same where the array is a matrix product, which with few rows would wait for its other factor. On a CPU, 16 MiB
#: took the least time of 1 to 64 MiB, forward and backward, at N = 32768 and 131072.
PRODUCT_BYTES = {"cpu": 2**24, "cuda": 2**28}


class Part(NamedTuple):
    """Of the rows ``begin .. end - 1``, what the kernels take for them."""

    begin: int
    end: int
    seed: Tensor
    parameters: Parameters
    first_row: int


def rows_of(columns: int, element_size: int, device: torch.device, sizes: dict[str, int] = BYTES) -> int:
    """How many rows a part has, at most."""
    return max(1, sizes.get(device.type, sizes["cuda"]) // max(1, columns * element_size))


def parts(
    rows: int, most: int | Callable[[int], int], seed: Tensor, parameters: Parameters, first_row: int, groups: int = 1
) -> Iterator[Part]:
    """Parts of at most so many rows, or so many from a row on, each in one of ``groups`` equal groups of rows."""
    per_seed = max(1, rows // max(1, seed.numel()))
    each = parameters
    if isinstance(parameters, Tensor) and len(parameters) > 1:
        each = parameters.repeat_interleave(rows // len(parameters), 0)
    begin = 0
    while begin < rows:
        length = most if isinstance(most, int) else most(begin)
        stop = min(begin + length, (begin // (rows // groups) + 1) * (rows // groups))
        first, inside = divmod(begin, per_seed)
        seeds = (stop - begin) // per_seed if inside == 0 else 0
        if seeds:  # as many as have all their rows in it
            end, inside = begin + seeds * per_seed, 0
        else:
            end, seeds = min(stop, (first + 1) * per_seed), 1
        own = each[begin:end] if isinstance(each, Tensor) and each is not parameters else each
        yield Part(begin, end, seed[first : first + seeds], own, first_row + inside)
        begin = end
