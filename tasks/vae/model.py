"""The auto-encoder of both papers, as an ensemble: every weight has a leading member axis.

Shapes: M members, B images of P pixels, L latents of C categories.
"""

import copy
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from .linear import perceptron
from .losses import kl_to_uniform

#: ``(M, B, L, C)`` one-hot codes -> ``(M, B)`` losses of them.
Losses = Callable[[Tensor], Tensor]
#: ``draw(logits, seed=..., backend=...)`` gives one-hot codes: an estimator, or what holds one a member.
Draw = Callable[..., Any]


class Linear(nn.Module):
    """Weights of M linear layers side by side, ``(M, in, out)``, each initialised as ``torch.nn.Linear`` is."""

    def __init__(self, inputs: int, outputs: int, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        # kaiming_uniform(a=sqrt(5)) of torch.nn.Linear comes to this bound, the same as its bias has.
        bound = 1 / math.sqrt(inputs)

        def uniform(*shape: int) -> nn.Parameter:
            members = [torch.empty(shape).uniform_(-bound, bound, generator=generator) for generator in generators]
            return nn.Parameter(torch.stack(members))

        self.weight = uniform(inputs, outputs)
        self.bias = uniform(1, outputs)


class VAE(nn.Module):
    """P-512-256-L*C encoder and L*C-256-512-P decoder with ReLU between the layers.

    Args:
        pixels: P.
        latents: L.
        categories: C.
        generators: M of them, on the CPU: each draws one member's initial weights, the same in any company and on
            every device.
        relu_logits: put a ReLU on the encoder's output.
        leak: slope of the ReLUs between the layers below 0.
    """

    def __init__(
        self,
        pixels: int,
        latents: int,
        categories: int,
        generators: Sequence[torch.Generator],
        *,
        relu_logits: bool = False,
        leak: float = 0.0,
    ) -> None:
        super().__init__()
        self.members, self.latents, self.categories = len(generators), latents, categories
        self.relu_logits, self.leak = relu_logits, leak
        widths = (pixels, 512, 256, latents * categories)
        self.encoder = _layers(widths, leak, generators)
        self.decoder = _layers(widths[::-1], leak, generators)

    def encode(self, images: Tensor) -> Tensor:
        """``(M, B, P)`` images in [0, 1] -> ``(M, B, L, C)`` logits of the latents."""
        logits = self._through(self.encoder, images)
        if self.relu_logits:
            logits = logits.relu()
        return logits.unflatten(-1, (self.latents, self.categories))

    def decode(self, codes: Tensor) -> Tensor:
        """``(M, B, L, C)`` one-hot codes -> ``(M, B, P)`` logits of the pixels."""
        return self._through(self.decoder, codes.flatten(-2))

    def _through(self, layers: nn.Sequential, x: Tensor) -> Tensor:
        parameters = list(layers.parameters())  # of each layer the weight, then the bias
        return perceptron(x, parameters[::2], parameters[1::2], self.leak)

    def forward(self, images: Tensor, expected: Callable[[Losses, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """The two halves of -ELBO, in nats.

        Args:
            images: ``(B, P)`` in [0, 1], the same for every member, or ``(M, B, P)``.
            expected: ``expected(f, logits)`` estimates ``E[f(D)]``, ``(M, B)``, and carries its gradient: f of an
                estimator's codes, or a score function.

        Returns:
            Cross-entropy summed over pixels and KL to the uniform prior, ``(M,)`` each, means over images.
        """
        x = images.expand(self.members, *images.shape[-2:])
        logits = self.encode(x)

        def cross_entropy(codes: Tensor) -> Tensor:
            return binary_cross_entropy_with_logits(self.decode(codes), x, reduction="none").sum(-1)

        return expected(cross_entropy, logits).mean(-1), kl_to_uniform(logits).sum(-1).mean(-1)

    def alone(self, member: int) -> "VAE":
        """A copy of one member, as a model with one."""
        model = copy.deepcopy(self)
        model.members = 1
        for parameter in model.parameters():
            parameter.data = parameter.data[member : member + 1].clone()
        return model

    @torch.no_grad()
    def reconstruct(self, images: Tensor, draw: Draw, seed: Tensor, backend: str) -> Tensor:
        """``(B, P)`` images -> ``(M, B, P)`` pixels in [0, 1], through one hard sample each."""
        codes = draw(self.encode(images.expand(self.members, *images.shape)), seed=seed, backend=backend)
        return self.decode(codes).sigmoid()

    @torch.no_grad()
    def sample_prior(self, count: int, generator: torch.Generator) -> Tensor:
        """``(M, count, P)`` pixels in [0, 1], decoded from uniform codes; ``generator`` is on the CPU."""
        index = torch.randint(self.categories, (self.members, count, self.latents), generator=generator)
        codes = nn.functional.one_hot(index, self.categories).to(next(self.parameters()))
        return self.decode(codes).sigmoid()


def _layers(widths: tuple[int, ...], leak: float, generators: Sequence[torch.Generator]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [Linear(inputs, outputs, generators), nn.LeakyReLU(leak) if leak else nn.ReLU()]
    return nn.Sequential(*layers[:-1])
