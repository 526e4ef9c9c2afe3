"""``M`` perceptrons side by side; each layer is ``y[m] = x[m] @ weight[m] + bias[m]``.

That is ``torch.baddbmm``, but for float32 on a CPU: there the members go one by one through oneDNN, because torch's own
matrix product takes the slow code path of its BLAS on some processors (half the speed, measured). There all layers are
one node of the graph, too: node by node, a third of a small model's step were Python's.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu_


def perceptron(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], leak: float = 0.0) -> Tensor:
    """``(M, B, in) -> (M, B, out)``: layers with leaky ReLUs between them, differentiable.

    Args:
        x: ``(M, B, in)``.
        weights, biases: ``(M, in, out)`` and ``(M, 1, out)`` of each layer.
        leak: slope of the ReLUs below 0.
    """
    if by_member(x.device, x.dtype):
        return _OneDNN.apply(x, leak, *weights, *biases)
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        x = _activate(torch.baddbmm(bias, x, weight), leak)
    return torch.baddbmm(biases[-1], x, weights[-1])


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
    def forward(ctx: Any, x: Tensor, leak: float, *parameters: Tensor) -> Tensor:
        count = len(parameters) // 2
        weights, biases = parameters[:count], parameters[count:]
        inputs = [x]
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            inputs.append(_activate(_products(inputs[-1], weight, bias), leak))
        ctx.save_for_backward(*inputs, *weights)
        ctx.leak = leak
        return _products(inputs[-1], weights[-1], biases[-1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.saved_tensors) // 2
        inputs, weights = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        of_weights, of_biases = [], []
        for place in reversed(range(count)):
            of_weights.append(_products(inputs[place].mT, grad))
            of_biases.append(grad.sum(1, keepdim=True))
            if place:
                grad = _products(grad, weights[place].mT)
                grad = torch.ops.aten.leaky_relu_backward(grad, inputs[place], ctx.leak, True)
        # The images need no gradient, and it would be a third of the first layer's work.
        of_x = _products(grad, weights[0].mT) if ctx.needs_input_grad[0] else None
        return of_x, None, *reversed(of_weights), *reversed(of_biases)


def _activate(x: Tensor, leak: float) -> Tensor:
    """In place. oneDNN could do it with the product, but its ReLU turns NaN into 0, and a failed run would go on."""
    return leaky_relu_(x, leak) if leak else x.relu_()


def _products(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """``(M, n, k) @ (M, k, m) + (M, 1, m)``; any strides."""
    if len(a) == 1:  # without copying the result: that of a weight's gradient costs half its product
        return _product(a, b[0], None if bias is None else bias[0, 0])
    biases = [None] * len(a) if bias is None else bias.squeeze(1)
    return torch.stack([_product(*member) for member in zip(a, b, biases, strict=True)])


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """``(..., n, k) @ (k, m) + (m,)``; any strides."""
    return torch.ops.mkldnn._linear_pointwise(a, b.t(), bias, "none", [], "")
