"""How the kernels are launched: the written heuristic of block sizes, and tensors as rows.

Nothing here depends on the parameters, K, the seed or the first row's number, nor, inside a bucket of columns, on the
number of rows or columns: none of them compiles anything new.
"""

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor, is_legacy_batchedtensor
from torch.nn import Parameter

#: ``launch(kernel, grid, *arguments, **options)``.
Launcher = Callable[..., Any]

MOST_COLUMNS = 16384  #: Longest row that one program keeps in registers.
LEAST_COLUMNS = 4  #: One block of noise.
PER_THREAD = 4  #: Elements of a strip in a thread: one block of noise, one 16-byte load of float32.
STRIPS = 4  #: Strips of a row, as many as fit: a thread has four columns of each, which share what a row costs.
STRIPS_WITH_DRAWS = 2  #: More leave no registers.
ONE_STRIP_COLUMNS = 128  #: From which on a derivative in tau with draws takes one strip.
LEAST_THREADS = 8  #: Of a row with draws, where it has as many quads: few rows with many draws are to fill the machine.
LEAST_WARPS = 2  #: Of a program with short rows: a multiprocessor holds 32 programs and 64 warps.
MOST_WARPS = 32

TILE = 4096  #: Columns of a long row that a program takes at once.
TILE_WARPS = 16
PARTS = 64  #: Most parts of a long row.
PROGRAMS = 512  #: Programs that fill a large GPU: some four on each of its multiprocessors.


class Block(NamedTuple):
    """The tile of one program."""

    rows: int
    columns: int
    strips: int
    warps: int


def block(columns: int, has_draws: bool, is_tau: bool = False) -> Block:
    """The tile for rows of so many columns, at most ``MOST_COLUMNS``: whole rows, several of them where they are
    short. ``has_draws``: of an estimator that takes draws; ``is_tau``: its derivative in tau, whose logarithms
    take registers that only one strip leaves where rows are long."""
    padded = LEAST_COLUMNS
    while padded < columns:
        padded *= 2
    quads = padded // PER_THREAD
    strips = min(STRIPS_WITH_DRAWS, max(1, quads // LEAST_THREADS)) if has_draws else min(STRIPS, quads)
    if has_draws and is_tau and padded >= ONE_STRIP_COLUMNS:
        strips = 1
    of_warp = 32 * PER_THREAD * strips
    rows = max(1, LEAST_WARPS * of_warp // padded)
    return Block(rows, padded, strips, min(MOST_WARPS, rows * padded // of_warp))


class Split(NamedTuple):
    """How one long row is split over programs."""

    parts: int
    length: int  # columns a part


def split(rows: int, columns: int) -> Split:
    """Enough programs to fill a large GPU where that takes parts of rows: whole tiles, at most ``PARTS`` a row."""
    tiles = -(-columns // TILE)
    parts = min(tiles, PARTS, max(1, -(-PROGRAMS // rows)))
    length = -(-tiles // parts) * TILE
    return Split(-(-columns // length), length)


class Strided(NamedTuple):
    """A tensor whose leading dimensions are one: rows at one stride."""

    tensor: Tensor
    row: int
    column: int


def strided(x: Tensor) -> Strided:
    """``x`` with its leading dimensions merged to one.

    Any stride of columns and any one stride of rows costs nothing. Leading dimensions that do not merge are copied:
    addressing them would take a 64-bit division a dimension for every row, and few callers have them.
    """
    x = x.resolve_neg()  # kernels read the memory, where a lazy minus is not done yet
    column, row, size = x.stride(-1), 0, 1
    for length, stride in zip(reversed(x.shape[:-1]), reversed(x.stride()[:-1]), strict=True):
        if length == 1:
            continue
        if size == 1:
            row = stride
        elif stride != row * size:
            return strided(x.contiguous())
        size *= length
    return Strided(x, row, column)


def is_vector(*tensors: Strided) -> bool:
    """Whether the rows can be read, and rows like them written, 16 bytes at a time."""
    return all(_is_vector(*x) for x in tensors)


def _is_vector(x: Tensor, row: int, column: int) -> bool:
    size = x.element_size()
    # Of float64 a load of 16 bytes holds two columns, half a block of noise.
    return column == 1 and size <= 4 and not (row * size | x.shape[-1] * size | _address(x)) % 16


def _address(x: Tensor) -> int:
    """Where the data begins; of a tracer's stand-in, where in its storage, which every allocator aligns."""
    return x.data_ptr() if has_data(x) else x.storage_offset() * x.element_size()


def has_data(x: Tensor) -> bool:
    """Whether the tensor is no stand-in of a tracer or of torch.func."""
    is_batch = is_functorch_wrapped_tensor(x) or is_legacy_batchedtensor(x)
    return type(x) in (Tensor, Parameter) and x.device.type != "meta" and not is_batch


def bits(x: float) -> int:
    """The bits of a double but the last: Triton would pass the number as float32, and torch.compile a negative integer
    in 32 bits."""
    return struct.unpack("Q", struct.pack("d", x))[0] >> 1


class Parameters(NamedTuple):
    """tau, coefficient and sample_tau as kernels take them: numbers by their bits, or a tensor by its."""

    groups: Tensor  # (T, 3) int64, or any int64 tensor where the numbers count
    rows_per_group: int  # 0 where the numbers count
    tau: int
    coefficient: int
    sample_tau: int


def parameters_of(tensor: Tensor | None, numbers: tuple[float, float, float], rows: int, unused: Tensor) -> Parameters:
    """The numbers count where there is no tensor; then ``unused`` is passed in its place."""
    if tensor is None:
        return Parameters(unused, 0, *map(bits, numbers))
    return Parameters(tensor.contiguous().view(torch.int64), rows // tensor.shape[0], 0, 0, 0)
