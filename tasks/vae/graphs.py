"""A training step as a CUDA graph: at these sizes launching the kernels one by one takes longer than running them."""

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 3  #: eager steps before the capture, on a side stream, where lazy initialisation may still happen


class CapturedStep:
    """Calls ``step`` like itself, from a CUDA graph after the first few calls.

    Args:
        step: tensors on one GPU -> a tensor; a pure function of them and of what it updates in place, the same work
            each time, and without a wait for the device.
    """

    def __init__(self, step: Callable[..., Tensor]) -> None:
        self.step = step
        self.stream: torch.cuda.Stream | None = None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.eager_steps = 0
        self.inputs: tuple[Tensor, ...] = ()
        self.shapes: list[torch.Size] = []

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The result is overwritten by the next call."""
        with torch.cuda.device(inputs[0].device):  # streams and graphs are the current device's
            return self._call(*inputs)

    def _call(self, *inputs: Tensor) -> Tensor:
        self.shapes = self.shapes or [x.shape for x in inputs]
        if [x.shape for x in inputs] != self.shapes:
            return self.step(*inputs)  # the last, short batch of an epoch
        if self.graph is None:
            if self.eager_steps < WARM_UP:
                self.eager_steps += 1
                return self._on_side_stream(inputs)
            self._capture(inputs)
        assert self.graph is not None
        for buffer, x in zip(self.inputs, inputs, strict=True):
            buffer.copy_(x)
        self.graph.replay()
        return self.output

    def forget(self) -> None:
        """Capture anew: the tensors that the step updates are other ones."""
        self.graph, self.eager_steps = None, 0

    def _on_side_stream(self, inputs: tuple[Tensor, ...]) -> Tensor:
        if self.stream is None:
            self.stream = torch.cuda.Stream()
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            output = self.step(*inputs)
        torch.cuda.current_stream().wait_stream(self.stream)
        return output

    def _capture(self, inputs: tuple[Tensor, ...]) -> None:
        self.inputs = tuple(x.clone() for x in inputs)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):  # records the step without doing it
            self.output = self.step(*self.inputs)
