"""Tensors of more than 2**31 elements: right at both ends, and where 32 bits end.

In memory there are as many elements as that where a case is whole. The others are views whose rows, columns or
beginning lie that far apart in memory which nobody touches.
"""

import mmap
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import torch
from torch import Tensor

import discrete_ops as do
from discrete_ops import backends, ops, philox, ragged, reference

from .children import outcomes
from .record import Line

SHORT = {"whole": False}
LONG = {"whole": True}

PAGE = """\
Samples and indices have to be the reference's, gradients within one rounding of bfloat16 (2**-8 of the largest, or of
1), in the rows compared: the first and the last ones, and those where 2**30 and 2**31 elements end. The reference takes
a part of the rows with the number of its first one. Every sample is counted to be one-hot. A row of 2**26 + 1
categories is too long for float32 and float64 to agree on the category: the sample's distribution function has to be
within 1e-6 of the uniform number. Whole tensors run in a process of their own, one after the other, where there is
memory for them."""

BORDER = 2**31
TOLERANCE = 2.0**-8
SEED = 11
PARAMETERS = (0.7, 1.0, 1.0)
#: Estimators, and their number of draws.
ESTIMATORS = (("straight_through", 1), ("gst", 1), ("gumbel_rao", 3), ("reinmax", 1), ("mve", 1))
#: Which rows are compared, on each side of a border.
ROWS = 300


def seed() -> Tensor:
    return torch.tensor([SEED])


# --- far apart -------------------------------------------------------------------------------------------------------


def far_apart(shape: tuple[int, ...], strides: tuple[int, ...], offset: int, values: Tensor) -> Tensor:
    """A view with values, of bfloat16, in memory of which its own pages alone are there."""
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    assert last > BORDER
    memory = torch.frombuffer(mmap.mmap(-1, 2 * (last + 1)), dtype=torch.bfloat16)
    return memory.as_strided(shape, strides, offset).copy_(values.view(shape))


FAR = {
    "rows far apart": ((9, 10), (2**28 + 3, 1), 0),
    "rows of several dimensions far apart": ((2, 3, 10), (2**31 + 1, 2**20, 1), 0),
    "columns far apart": ((9, 10), (1, 2**28 + 3), 0),
    "columns of long rows far apart": ((3, 80), (1, 2**25 + 1), 0),
    "a beginning far away": ((9, 10), (10, 1), 2**31 + 10),
}


def compared(name: str, draws: int, logits: Tensor, grad: Tensor, first_row: int = 0) -> str:
    """What differs from the reference on contiguous tensors, of a call and its gradient."""
    spec = (name, draws, first_row)
    drawn, gradient = [], []
    for backend, x, v in (("cpp", logits, grad), ("reference", logits.contiguous(), grad.contiguous())):
        leaf = x.detach().requires_grad_()
        assert leaf.stride() == x.stride()
        sample, index = ops.draw(leaf, seed(), PARAMETERS, True, *spec, backend)
        drawn.append((sample, index))
        gradient.append(torch.autograd.grad(sample, leaf, v)[0].float())
    if not all(torch.equal(a, b) for a, b in zip(*drawn, strict=True)):
        return "other samples"
    return "" if close(*gradient) else "other gradients"


def close(found: Tensor, wanted: Tensor) -> bool:
    error = (found.float() - wanted.float()).abs().max()
    return bool(error <= TOLERANCE * wanted.float().abs().max().clamp_min(1.0))


def views() -> Iterator[tuple[str, str]]:
    """What was tried, and what did not hold."""
    generator = torch.Generator().manual_seed(0)
    for what, (shape, strides, offset) in FAR.items():
        size = torch.Size(shape).numel()
        logits, grad = (far_apart(shape, strides, offset, torch.randn(size, generator=generator)) for _ in range(2))
        for name, draws in ESTIMATORS:
            yield f"{what}, {name}", compared(name, draws, logits, grad)
    logits, grad = torch.randn(2, 9, 10, generator=generator).bfloat16()
    for number in (2**31 - 4, 2**32 - 4, 2**62):
        for name, draws in ESTIMATORS:
            yield f"rows from number {number} on, {name}", compared(name, draws, logits, grad, number)


def table() -> Iterator[tuple[str, str]]:
    """A table whose last row begins behind the border: the categories that are drawn there."""
    columns, features = 2**11 + 1, 2**20 + 1
    memory = torch.frombuffer(mmap.mmap(-1, 2 * columns * features), dtype=torch.bfloat16).view(columns, features)
    memory[-1, -5:] = torch.arange(5.0)
    logits = torch.zeros(2, columns, dtype=torch.bfloat16)
    logits[0, -1] = logits[1, 0] = 200.0
    product = do.embedding(logits, memory, "straight_through", seed=SEED)
    right = product[0, -5:].tolist() == [0, 1, 2, 3, 4] and product.count_nonzero() == 4
    yield "a table", "" if right else "other rows of the table"


# --- whole ------------------------------------------------------------------------------------------------------------


def fill(x: Tensor, number: int) -> Tensor:
    """Normal numbers, of which a million repeat; in the place of what was there."""
    values = torch.randn(999_983, generator=torch.Generator().manual_seed(number)).to(x.dtype)
    flat, period = x.view(-1), len(values)
    times = flat.numel() // period
    flat[: times * period].view(times, period).copy_(values.expand(times, period))
    flat[times * period :].copy_(values[: flat.numel() - times * period])
    return x


def borders(rows: int, columns: int) -> list[slice]:
    """Rows to compare: at both ends, and where 2**30 and 2**31 elements end."""
    most = min(ROWS, rows)
    inner = [border // columns for border in (BORDER // 2, BORDER)]
    begins = [0, *(at - most // 2 for at in inner if 0 < at - most // 2 < rows - most), rows - most]
    return [slice(begin, begin + most) for begin in begins]


def by_reference(
    drawn: tuple[Tensor, Tensor, Tensor], logits: Tensor, grad: Tensor, name: str, first_row: int
) -> Iterator[str]:
    """What differs of a part of the rows: sample, index and gradient."""
    sample, index, gradient = drawn
    want, want_index = reference.sample(logits, seed(), PARAMETERS, first_row)
    if not torch.equal(index, want_index) or not torch.equal(sample, want):
        yield f"rows from {first_row} on: other samples"
    want = reference.surrogate_vjp(grad, logits, index, seed(), PARAMETERS, name, 1, first_row)
    if not close(gradient, want):
        yield f"rows from {first_row} on: other gradients"


def rows_of_six(logits: Tensor) -> tuple[int, list[str]]:
    """2**31 + 10 elements in rows of 6: forward, and backward of a gradient as large."""
    kept = borders(*logits.shape)
    leaf = logits.detach().requires_grad_()
    sample, index = do.gst(leaf, PARAMETERS[0], PARAMETERS[1], seed=SEED, return_index=True)
    faults = [] if sample.count_nonzero() == len(logits) else ["rows that are not one-hot"]
    drawn = [(sample[rows].detach().clone(), index[rows]) for rows in kept]
    grad = fill(sample.detach(), 2)  # in the sample's memory, which the backward pass does not need
    (gradient,) = torch.autograd.grad(sample, leaf, grad)
    for rows, (part, at) in zip(kept, drawn, strict=True):
        faults += by_reference((part, at, gradient[rows]), logits[rows], grad[rows], "gst", rows.start)
    return sum(len(at) for _, at in drawn), faults


def all_written() -> tuple[int, list[str]]:
    return rows_of_six(fill(torch.empty((BORDER + 10) // 6, 6, dtype=torch.bfloat16), 1))


def expanded() -> tuple[int, list[str]]:
    return rows_of_six(fill(torch.empty(1, 6, dtype=torch.bfloat16), 1).expand((BORDER + 10) // 6, 6))


def long_rows() -> tuple[int, list[str]]:
    """33 rows of 2**26 + 1."""
    rows, columns = 33, 2**26 + 1
    logits = fill(torch.empty(rows, columns, dtype=torch.bfloat16), 1).requires_grad_()
    grad = fill(torch.empty(columns, dtype=torch.bfloat16), 2).expand(rows, columns)
    sample, index = do.straight_through(logits, seed=SEED, return_index=True)
    faults = [] if sample.count_nonzero() == rows else ["rows that are not one-hot"]
    faults += [] if bool((sample.detach().argmax(-1) == index).all()) else ["an index that is not the sample's"]
    (gradient,) = torch.autograd.grad(sample, logits, grad)
    del sample
    for row in (0, rows - 1):
        p = logits[row].detach().double().softmax(-1)
        below = p[: index[row]].sum()
        if not below - 1e-6 <= philox.uniform(seed(), 1, row) <= below + p[index[row]] + 1e-6:
            faults.append(f"row {row}: another category")
        want = p * (grad[row] - (p * grad[row]).sum())
        relative = ((gradient[row] - want).abs() / (p * grad[row].abs() + p)).max()
        faults += [] if relative <= TOLERANCE else [f"row {row}: another gradient, by {relative}"]
    return 2, faults


def draws() -> tuple[int, list[str]]:
    """So many draws of 1000 rows of 64 that they have more elements than that."""
    rows, columns = 1000, 64
    number = BORDER // (rows * columns) + 1
    logits = fill(torch.empty(rows, columns, dtype=torch.bfloat16), 1).requires_grad_()
    grad = fill(torch.empty(rows, columns, dtype=torch.bfloat16), 2)
    sample, index = do.straight_through(logits, seed=SEED, num_draws=number, return_index=True)
    faults = [] if sample.count_nonzero() == number * rows else ["rows that are not one-hot"]
    for draw in (0, number // 2, number - 1):
        want, want_index = reference.sample(logits, seed(), PARAMETERS, draw * rows)
        if not torch.equal(index[draw], want_index) or not torch.equal(sample[draw], want):
            faults.append(f"draw {draw}: other samples")
    (gradient,) = torch.autograd.grad(sample, logits, grad.expand_as(sample))
    with torch.no_grad():
        p = logits.double().softmax(-1)
        want = number * p * (grad - (p * grad).sum(-1, keepdim=True))
    return 3 * rows, faults if close(gradient, want) else [*faults, "another sum of gradients"]


def ragged_rows() -> tuple[int, list[str]]:
    """Rows of 57 and 63 categories by turns, in one flat tensor."""
    rows = (BORDER + 10) // 120 * 2 + 2
    offsets = torch.arange(rows + 1).mul_(60)
    offsets[1::2].sub_(3)
    flat = fill(torch.empty(int(offsets[-1]), dtype=torch.bfloat16), 1).requires_grad_()
    sample, index = do.gst(flat, PARAMETERS[0], PARAMETERS[1], seed=SEED, offsets=offsets, return_index=True)
    faults = [] if sample.count_nonzero() == rows else ["rows that are not one-hot"]
    kept = [slice(part.start // 2 * 2, part.start // 2 * 2 + ROWS) for part in borders(rows, 60)]
    places = [slice(int(offsets[part.start]), int(offsets[part.stop])) for part in kept]
    drawn = [sample[place].detach().clone() for place in places]
    grad = fill(sample.detach(), 2)
    (gradient,) = torch.autograd.grad(sample, flat, grad)
    for part, place, got in zip(kept, places, drawn, strict=True):
        own, leaf = offsets[part.start : part.stop + 1] - place.start, flat[place].detach().requires_grad_()
        spec = (seed(), PARAMETERS, True, "gst", 1, part.start, "reference")
        want, want_index = ragged.draw(own, leaf, *spec)
        if not torch.equal(got, want) or not torch.equal(index[part], want_index):
            faults.append(f"rows from {part.start} on: other samples")
        if not close(gradient[place], torch.autograd.grad(want, leaf, grad[place])[0]):
            faults.append(f"rows from {part.start} on: other gradients")
    return ROWS * len(kept), faults


#: Whole cases: the gigabytes that each takes.
WHOLE: dict[str, tuple[Callable[[], tuple[int, list[str]]], int]] = {
    "2**31 + 10 elements in rows of 6": (all_written, 17),
    "as many of one row, expanded": (expanded, 13),
    "33 rows of 2**26 + 1": (long_rows, 16),
    "num_draws: 2**31 elements in the samples": (draws, 6),
    "ragged rows of 57 and 63, 2**31 elements in all": (ragged_rows, 15),
}


def of_whole(what: str) -> Any:
    return WHOLE[what][0]()


def in_memory(what: str) -> Line:
    asked = "the reference's rows at both ends and at the borders, one-hot rows"
    wanted, free = WHOLE[what][1], psutil.virtual_memory().available / 1e9
    if free < wanted:
        return Line.untried(what, "rows", asked, f"{free:.0f} GB of memory free, {wanted} needed")
    (outcome,) = outcomes(of_whole, [what], 3600)
    count, faults = outcome.said if outcome.ended_well else (0, [str(outcome)])
    return Line.of(what, count, "rows compared", asked, faults)


def run(whole: bool) -> list[Line]:
    if "cpp" not in backends.available_backends():
        return [Line.untried("more than 2**31 elements", "calls", "the reference's rows", "no compiled library")]
    lines = []
    for what, check in (("views that reach beyond 2**31 elements", views), ("a table of as many elements", table)):
        faults = {name: words for name, words in check()}
        wrong = [f"{name}: {words}" for name, words in faults.items() if words]
        lines.append(Line.of(what, len(faults), "calls", "the reference's rows", wrong).printed())
    lines += [in_memory(what).printed() for what in WHOLE if whole]
    return lines
