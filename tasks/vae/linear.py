"""``M`` linear layers side by side: ``y[m] = x[m] @ weight[m] + bias[m]``.

That is ``torch.baddbmm``, but for float32 on a CPU: there the members go one by one through oneDNN, because torch's own
matrix product takes the slow code path of its BLAS on some processors (half the speed, measured).
"""

from typing import Any

import torch
from torch import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``(M, B, in) -> (M, B, out)`` with ``weight`` ``(M, in, out)`` and ``bias`` ``(M, 1, out)``, differentiable."""
    if by_member(x.device, x.dtype):
        return _OneDNN.apply(x, weight, bias)
    return torch.baddbmm(bias, x, weight)


def by_member(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether members are computed one by one there."""
    return (
        device.type == "cpu"
        and dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


class _OneDNN(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _stack([_product(*member) for member in zip(x, weight, bias.squeeze(1), strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        grad_x = None
        if ctx.needs_input_grad[0]:  # the images need none, and it would be a third of the first layer's work
            grad_x = _stack([_product(g, w.t()) for g, w in zip(grad, weight, strict=True)])
        grad_weight = _stack([_product(a.t(), g) for a, g in zip(x, grad, strict=True)])
        return grad_x, grad_weight, grad.sum(1, keepdim=True)


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """``(n, k) @ (k, m) + bias``; any strides."""
    return torch.ops.mkldnn._linear_pointwise(a, b.t(), bias, "none", [], "")


def _stack(members: list[Tensor]) -> Tensor:
    """``torch.stack`` that does not copy a lone member: the copy of a weight's gradient costs half its product."""
    return members[0].unsqueeze(0) if len(members) == 1 else torch.stack(members)
