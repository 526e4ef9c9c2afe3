"""Draws and pull-backs of logits that are a product and in no memory, by the kernels of :mod:`.product_tiles`.

The draw goes over the columns once, in parts, and again over the part that a row's target falls in. The pull-back of
an estimator whose gradient at a logit is a function of the logit, v and a few numbers of the row goes over them twice
for those numbers, and once more for each gradient: at hidden with the rows in its programs, at proj and bias with the
columns, so that nothing is added in an order of chance.

A backward pass is nine products of the size of the logits, where the parts of :mod:`discrete_ops.linear_operators` take
four and memory of their own. No GPU has measured which is faster: these run where ``backend="triton"`` is asked for.
"""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from .. import philox, reference
from .launch import Launcher
from .operators import device_of, launch_now
from .product_tiles import (
    AT_ONE,
    AT_TAU,
    COEFFICIENT,
    KNOWN,
    RATE,
    SUMS,
    TOP,
    V_WINNER,
    hidden_kernel,
    sums_kernel,
    tables_kernel,
    totals_kernel,
    winner_kernel,
)

ESTIMATORS = ("straight_through", "gst", "reinmax", "mix")
DTYPES = (torch.float16, torch.bfloat16)  #: That tensor cores multiply without a loss; others have no registers for it.
MOST_FEATURES = 256  #: Of H and D: a program holds whole rows of the tables.
LEAST_FEATURES = 16  #: Of a tile's product.
WIDE = 512  #: Bytes of a table's row beyond which tiles are smaller: four of them fit into shared memory.
PARTS, PROGRAMS = 64, 512  #: Of a row; that fill a large GPU.


def serves(estimator: str, hidden: Tensor, weight: Tensor) -> bool:
    """Whether these kernels do: tables of so many features, in the dtypes that tensor cores were made for."""
    features = max(hidden.shape[-1], weight.shape[-1])
    return (
        estimator in ESTIMATORS and features <= MOST_FEATURES and hidden.dtype != torch.float64 and hidden.numel() > 0
    )


class Product(NamedTuple):
    """Rows, tables, and how they are cut into tiles."""

    hidden: Tensor  # (rows, H)
    proj: Tensor
    bias: Tensor | None
    block: int
    parts: int
    length: int  # columns a part

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.hidden, self.proj, self.proj if self.bias is None else self.bias

    @property
    def grid(self) -> tuple[int, int]:
        return -(-len(self.hidden) // self.block), self.parts

    @property
    def sizes(self) -> tuple[int, int, int]:
        return len(self.hidden), len(self.proj), self.length

    def layout(self, **others: Any) -> dict[str, Any]:
        wide = {"HAS_BIAS": self.bias is not None, "H": _padded(self.hidden.shape[1]), "BLOCK": self.block}
        return {**others, **wide, "num_warps": 4, "num_stages": 1}


def product_of(hidden: Tensor, proj: Tensor, bias: Tensor | None, outputs: int) -> Product:
    hidden, proj = _by_rows(hidden), _by_rows(proj)
    block = 64 if _padded(max(hidden.shape[1], outputs)) * hidden.element_size() <= WIDE else 32
    tiles = -(-len(proj) // block)
    parts = min(tiles, PARTS, max(1, PROGRAMS // -(-len(hidden) // block)))
    length = -(-tiles // parts) * block
    bias = None if bias is None else bias.contiguous()
    return Product(hidden, proj, bias, block, -(-len(proj) // length), length)


def _by_rows(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _padded(features: int) -> int:
    return max(LEAST_FEATURES, triton.next_power_of_2(features))


def known_of(parameters: Tensor, rows: int, which: int) -> Tensor:
    """``(rows, KNOWN)`` float32 with the inverse of one of the temperatures, NaN where it is out of range, and the
    coefficient."""
    each = parameters.repeat_interleave(rows // len(parameters), 0)
    tau, known = each[:, which], each.new_zeros((rows, KNOWN.value), dtype=torch.float32)
    known[:, RATE.value] = (1 / tau).where((tau >= reference.LEAST_TAU) & (tau <= reference.MOST_TAU), torch.nan)
    known[:, COEFFICIENT.value] = each[:, 1]
    return known


def tops_and_totals(launch: Launcher, x: Product, known: Tensor) -> tuple[Tensor, Tensor]:
    """Of each part; tops are +inf in rows that are invalid, by their logits or their temperature."""
    tops = known.new_empty((len(known), x.parts))
    totals = torch.empty_like(tops, dtype=torch.float64)
    strides = (x.hidden.stride(0), x.proj.stride(0), x.hidden.shape[1])
    launch(totals_kernel, x.grid, tops, totals, known, *x.tensors, *x.sizes, *strides, **x.layout())
    return tops.masked_fill_(known[:, RATE.value, None].isnan(), torch.inf), totals


def sample(
    hidden: Tensor,
    proj: Tensor,
    bias: Tensor | None,
    outputs: int,
    seed: Tensor,
    parameters: Tensor,
    first_row: int,
    launch: Launcher = launch_now,
) -> tuple[Tensor, Tensor]:
    """The index of each row; and what the one-hot of it has in its first column if it has no sample, NaN or 0."""
    with device_of(hidden):
        x = product_of(hidden, proj, bias, outputs)
        known = known_of(parameters, len(hidden), 2)
        tops, totals = tops_and_totals(launch, x, known)
        top = tops.amax(1, keepdim=True)
        lacks = top.isinf()
        scale = ((tops - top) * known[:, RATE.value, None]).double().exp().masked_fill(lacks, 0.0)
        shares = totals * scale
        sums = shares.cumsum(1)
        target = philox.uniform(seed, len(hidden), first_row) * sums[:, -1:]
        last = (shares > 0).long().mul(torch.arange(x.parts, device=shares.device)).amax(1, keepdim=True)
        part = (sums <= target).sum(1, keepdim=True).minimum(last)
        inside = (target - (sums - shares).gather(1, part)) / scale.gather(1, part)
        index = torch.empty(len(hidden), dtype=torch.int64, device=hidden.device)
        strides = (x.hidden.stride(0), x.proj.stride(0), x.hidden.shape[1])
        chosen = (part, inside, tops.gather(1, part), known)
        launch(winner_kernel, (len(hidden),), index, *chosen, *x.tensors, *x.sizes, *strides, **x.layout())
        return index.masked_fill_(lacks[:, 0], -1), torch.where(top[:, 0] == torch.inf, torch.nan, 0.0).to(hidden.dtype)


def pull_back(
    grad: Tensor,
    hidden: Tensor,
    proj: Tensor,
    bias: Tensor | None,
    weight: Tensor,
    index: Tensor,
    parameters: Tensor,
    estimator: str,
    groups: int,
    at_hidden: bool,
    at_tables: bool,
    launch: Launcher = launch_now,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients at hidden, and at proj ``(groups, N, H)`` and bias ``(groups, N)``: None where not wanted."""
    with device_of(hidden):
        x, grad, weight = product_of(hidden, proj, bias, weight.shape[1]), _by_rows(grad), _by_rows(weight)
        rows, columns, _ = x.sizes
        known = known_of(parameters, rows, 0)
        tops, _ = tops_and_totals(launch, x, known)
        known[:, TOP.value] = tops.amax(1)
        sums = known.new_empty((rows, x.parts, SUMS.value), dtype=torch.float64)
        strides = (
            grad.stride(0),
            x.hidden.stride(0),
            x.proj.stride(0),
            weight.stride(0),
            x.hidden.shape[1],
            grad.shape[1],
        )
        call = (index.contiguous(), known, grad, *x.tensors, weight)
        layout = x.layout(ESTIMATOR=estimator, D=_padded(grad.shape[1]))
        launch(sums_kernel, x.grid, sums, *call, *x.sizes, *strides, **layout)
        total, dot, total_at_one, dot_at_one, known[:, V_WINNER.value] = sums.sum(1).unbind(1)
        for place, of_w, of_wv in ((AT_TAU.value, total, dot), (AT_ONE.value, total_at_one, dot_at_one)):
            mean = of_wv / of_w
            known[:, place], known[:, place + 1] = 1 / of_w, mean
            known[:, place + 2] = mean - known[:, place + 1].double()
        gradients: list[Tensor | None] = [None, None, None]
        if at_hidden:
            added = known.new_empty((x.parts, *hidden.shape))
            launch(hidden_kernel, x.grid, added, *call, *x.sizes, *strides, **layout)
            gradients[0] = added.sum(0).to(hidden.dtype)
        if at_tables:
            gradients[1:] = hidden.new_empty((groups, *proj.shape)), hidden.new_empty((groups, columns))
            grid, sizes = (-(-columns // x.block), groups), (rows, columns, rows // groups)
            launch(tables_kernel, grid, *gradients[1:], *call, *sizes, *strides, **layout)
        return gradients[0], gradients[1], gradients[2]
