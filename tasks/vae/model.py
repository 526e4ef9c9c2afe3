"""The auto-encoder of both papers, as an ensemble: every weight has a leading member axis.

Shapes: M members, B images of P pixels, L latents of C categories.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from discrete_ops.estimators import Estimator


class Linear(nn.Module):
    """M linear layers side by side: ``(M, B, in) -> (M, B, out)``, each initialised as ``torch.nn.Linear`` is."""

    def __init__(self, members: int, inputs: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        # kaiming_uniform(a=sqrt(5)) of torch.nn.Linear comes to this bound, the same as its bias has.
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound, generator=generator))
        self.bias = nn.Parameter(torch.empty(members, 1, outputs).uniform_(-bound, bound, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class VAE(nn.Module):
    """P-512-256-L*C encoder and L*C-256-512-P decoder with ReLU between the layers.

    Args:
        members: M, the independent models held.
        pixels: P.
        latents: L.
        categories: C.
        relu_logits: put a ReLU on the encoder's output.
        generator: on the CPU; draws the initial weights, the same on every device.
    """

    def __init__(
        self, members: int, pixels: int, latents: int, categories: int, relu_logits: bool, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.members, self.latents, self.categories, self.relu_logits = members, latents, categories, relu_logits
        widths = (pixels, 512, 256, latents * categories)
        self.encoder = _mlp(members, widths, generator)
        self.decoder = _mlp(members, widths[::-1], generator)

    def encode(self, images: Tensor) -> Tensor:
        """``(M, B, P)`` images in [0, 1] -> ``(M, B, L, C)`` logits of the latents."""
        logits = self.encoder(images)
        if self.relu_logits:
            logits = logits.relu()
        return logits.unflatten(-1, (self.latents, self.categories))

    def decode(self, codes: Tensor) -> Tensor:
        """``(M, B, L, C)`` one-hot codes -> ``(M, B, P)`` logits of the pixels."""
        return self.decoder(codes.flatten(-2))

    def forward(self, images: Tensor, estimator: Estimator, seed: Tensor, backend: str) -> tuple[Tensor, Tensor]:
        """The two halves of -ELBO, in nats, with one hard sample an image.

        Args:
            images: ``(B, P)`` in [0, 1], the same for every member.
            estimator: draws the codes.
            seed: ``(M,)`` int64: each member has its own noise.
            backend: of discrete_ops.

        Returns:
            Cross-entropy summed over pixels and KL to the uniform prior, ``(M,)`` each, means over images.
        """
        x = images.expand(self.members, *images.shape)
        logits = self.encode(x)
        codes = estimator(logits, seed=seed, backend=backend)
        assert isinstance(codes, Tensor)
        bce = binary_cross_entropy_with_logits(self.decode(codes), x, reduction="none").sum(-1).mean(-1)
        log_pi = logits.log_softmax(-1)
        kl = (log_pi.exp() * (log_pi + math.log(self.categories))).sum((-2, -1)).mean(-1)
        return bce, kl

    @torch.no_grad()
    def reconstruct(self, images: Tensor, estimator: Estimator, seed: Tensor, backend: str) -> Tensor:
        """``(B, P)`` images -> ``(M, B, P)`` pixels in [0, 1], through one hard sample each."""
        codes = estimator(self.encode(images.expand(self.members, *images.shape)), seed=seed, backend=backend)
        assert isinstance(codes, Tensor)
        return self.decode(codes).sigmoid()

    @torch.no_grad()
    def sample_prior(self, count: int, generator: torch.Generator) -> Tensor:
        """``(M, count, P)`` pixels in [0, 1], decoded from uniform codes; ``generator`` is on the CPU."""
        index = torch.randint(self.categories, (self.members, count, self.latents), generator=generator)
        codes = nn.functional.one_hot(index, self.categories).to(next(self.parameters()))
        return self.decode(codes).sigmoid()


def _mlp(members: int, widths: tuple[int, ...], generator: torch.Generator) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [Linear(members, inputs, outputs, generator), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
