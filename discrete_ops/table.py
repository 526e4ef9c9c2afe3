"""Rows of a table for sampled categories: the product of a one-hot sample and the table, and its pull-back.

``begin`` is where each row's own table begins in what holds several, one under the other; 0 where there is one.
"""

import torch
from torch import Tensor

from . import ops


def gather(table: Tensor, index: Tensor, first_column: Tensor, begin: Tensor | int = 0) -> Tensor:
    """``one_hot(index) @ table``, ``(rows, D)``; a row that has no sample, index -1, is what its one-hot is: NaN, or 0
    where it is masked whole, as in the one-hot's first column."""
    if index.is_cpu and index.numel() and index.min() >= 0:  # nearly always
        return torch.embedding(table, index + begin)
    chosen = torch.embedding(table, index.clamp_min(0) + begin)
    return torch.where(index.unsqueeze(-1) < 0, first_column.unsqueeze(-1), chosen)


def scatter(grad: Tensor, index: Tensor, rows: int, begin: Tensor | int = 0) -> Tensor:
    """The gradient at the table, ``(rows, D)``. A row that has no sample adds nothing. The sum is in the order of the
    rows, so the same at every call; of half types in float32, and rounded once."""
    wide = ops.widened(grad)
    if grad.is_cpu:  # a row more, for those without a sample
        total = wide.new_zeros((rows + 1, grad.shape[-1]))
        return total.index_add_(0, torch.where(index < 0, rows, index + begin), wide)[:rows].to(grad.dtype)
    lines = torch.where(index < 0, -1, index + begin)
    return torch.ops.aten.embedding_dense_backward(wide, lines, rows, -1, False).to(grad.dtype)
