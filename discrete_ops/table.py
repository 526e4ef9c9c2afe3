"""Rows of a table for sampled categories: the product of a one-hot sample and the table, and its pull-back."""

import torch
from torch import Tensor


def gather(weight: Tensor, index: Tensor, first_column: Tensor) -> Tensor:
    """``one_hot(index) @ weight``, ``(rows, D)``; a row that has no sample, index -1, is what its one-hot is: NaN, or 0
    where it is masked whole, as in the one-hot's first column."""
    chosen = weight.index_select(0, index.clamp(min=0))
    return torch.where(index.unsqueeze(-1) < 0, first_column.unsqueeze(-1), chosen)


def scatter(grad: Tensor, index: Tensor, categories: int, groups: int = 1) -> Tensor:
    """The gradient at the weight, ``(groups, categories, D)`` of as many equal groups of rows. A row that has no sample
    adds nothing. Half types are summed in float32 and rounded once."""
    rows = len(index)
    if groups > 1:
        first = torch.arange(groups, device=index.device).repeat_interleave(rows // groups) * categories
        index = torch.where(index < 0, index, index + first)
    wide = grad.float() if grad.dtype.itemsize < 4 else grad
    summed = torch.ops.aten.embedding_dense_backward(wide, index, groups * categories, -1, False)
    return summed.to(grad.dtype).view(groups, categories, grad.shape[-1])
