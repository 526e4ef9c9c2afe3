"""Members of an ensemble that one optimiser updates.

Shapes: M members, B images of P pixels, L latents of C categories.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from discrete_ops import philox

from . import optimizers
from .baselines import ScoreFunction
from .model import VAE, Losses
from .recipes import Config
from .streams import Streams

PIXEL_DRAW = 2**32 - 2  #: draw index of the noise that binarises images; the estimators' draws are other ones


class Draws:
    """One estimator a member, as one call for each distinct one: ``(M, ...)`` logits, ``(M,)`` seeds -> codes."""

    def __init__(self, configs: Sequence[Config]) -> None:
        groups: dict[Any, list[int]] = {}
        for member, config in enumerate(configs):
            groups.setdefault((config.build_estimator(), config.mid_tau is not None), []).append(member)
        device = configs[0].device
        self.groups = [(*key, torch.tensor(m, device=device)) for key, m in groups.items()]
        # Where in the concatenated groups each member is.
        self.places = torch.cat([members for _, _, members in self.groups]).argsort()

    def __call__(self, logits: Tensor, *, seed: Tensor, backend: str, tau: Tensor | None = None) -> Tensor:
        """``tau``: ``(M,)``, of which those with mixed temperatures take theirs; None leaves all as configured."""
        codes = []
        for estimator, mixed, members in self.groups:
            if mixed and tau is not None:
                estimator = replace(estimator, tau=tau[members].view(-1, 1, 1, 1))
            # The ablation of GST that differentiates its perturbation is in the reference alone.
            ablation = not getattr(estimator, "detach_perturbation", True)
            whole = len(self.groups) == 1
            codes.append(
                estimator(
                    logits if whole else logits[members],
                    seed=seed if whole else seed[members],
                    backend="reference" if ablation else backend,
                )
            )
        return codes[0] if len(codes) == 1 else torch.cat(codes)[self.places]


class Block:
    """A model whose every weight has a leading member axis, its optimiser and what its members train with.

    Args:
        members: positions in the ensemble.
        configs: of those members; equal in ``key``.
        pixels, dtype: of the images.
        streams: of each seed.
        wrap: what the model is called through; several processes synchronise its gradients there.
    """

    def __init__(
        self,
        members: Sequence[int],
        configs: Sequence[Config],
        pixels: int,
        dtype: torch.dtype,
        streams: dict[int, Streams],
        wrap: Callable[[VAE], torch.nn.Module] = lambda model: model,
    ) -> None:
        first = self.config = configs[0]
        self.members = list(members)
        self.places = _places(members, first.device)
        weights = [torch.Generator().manual_seed(streams[config.seed].weights) for config in configs]
        self.model = VAE(
            pixels, first.latents, first.categories, weights, relu_logits=first.relu_logits, leak=first.leak
        )
        self.model.to(first.device, dtype)
        self.weights = list(self.model.parameters())
        self.wrapped = wrap(self.model)
        self.draw = Draws(configs)
        estimator = first.build_estimator()
        self.score = estimator if isinstance(estimator, ScoreFunction) else None
        self.optimizer = _optimizer(first, self.model)

    @staticmethod
    def key(config: Config) -> Any:
        """Members of one block are equal in this."""
        score = (config.estimator, config.num_samples) if config.is_score_function else None
        return config.optimizer, config.lr, score

    def terms(self, images: Tensor, seed: Tensor, tau: Tensor | None = None, score: bool = False) -> Tensor:
        """The two halves of -ELBO, ``(2, M)``, of ``(B, P)`` or ``(M, B, P)`` images with ``(M,)`` noise seeds.

        Args:
            tau: ``(M,)``, of the members with mixed temperatures.
            score: let a score function estimate the gradient, from as many codes as it takes; without it, the figure
                is that of one hard code an image.
        """
        images = self.seen(images, seed)
        if score and self.score is not None:
            method = self.score

            def losses(f: Losses, logits: Tensor) -> Tensor:
                return type(method).function(f, logits, method.num_samples, seed=seed)
        else:

            def losses(f: Losses, logits: Tensor) -> Tensor:
                return f(self.draw(logits, seed=seed, backend=self.config.backend, tau=tau))

        return torch.stack(self.wrapped(images, losses))

    def seen(self, images: Tensor, seed: Tensor) -> Tensor:
        """The images as the model sees them: grey ones, or ``(M, B, P)`` black or white; those stay so."""
        if not self.config.binarize:
            return images
        return binarize(images.expand(len(self.members), *images.shape[-2:]), seed)

    def step(self, images: Tensor, seed: Tensor, tau: Tensor | None = None) -> Tensor:
        """One update. Arguments and result as of :meth:`terms`."""
        terms = self.terms(images, seed, tau, score=True)
        terms.sum().backward()
        self.optimizer.step()
        for weight in self.weights:  # as zero_grad() does, which takes longer than a small layer
            weight.grad = None
        return terms.detach()

    def gradient_variance(self, images: Tensor, seeds: Tensor) -> Tensor:
        """Variance of the gradient at the encoder's weights, the mean over weights, ``(M,)`` float64.

        Args:
            images: ``(B, P)``, the same for each draw; the gradient is that of the mean over them.
            seeds: ``(K, M)``: K draws.
        """
        images = self.seen(images, seeds[0])  # once: the variance is the estimator's, not that of binarisation
        parameters = list(self.model.encoder.parameters())
        mean = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
        square = [torch.zeros_like(m) for m in mean]
        for k, seed in enumerate(seeds, 1):
            gradient = torch.autograd.grad(self.terms(images, seed, score=True).sum(), parameters)
            for g, m, s in zip(gradient, mean, square, strict=True):
                delta = g - m  # Welford: no difference of large sums
                m += delta / k
                s += delta * (g - m)
        count = sum(p[0].numel() for p in parameters)
        return torch.stack([s.flatten(1).sum(1) for s in square]).sum(0) / (len(seeds) - 1) / count

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


def _places(members: Sequence[int], device: str) -> slice | Tensor:
    """The index of members in the ensemble's tensors: a slice, which copies nothing, where they are in a row."""
    start, stop = members[0], members[-1] + 1
    return slice(start, stop) if list(members) == list(range(start, stop)) else torch.tensor(members, device=device)


def binarize(images: Tensor, seed: Tensor) -> Tensor:
    """Black or white pixels, white with the probability of their grey: ``(M, B, P)`` images, ``(M,)`` seeds."""
    members, batch, pixels = images.shape
    draw = torch.full((1,), PIXEL_DRAW, device=seed.device)
    words = philox.words(seed, draw, members * batch, pixels).view(members, batch, pixels)
    # In float64: a float32 cannot hold 32 bits and a half, and a draw of 1 would make a white pixel black.
    return ((words.double() + 0.5) * 2.0**-32 < images).to(images.dtype)


def _optimizer(config: Config, model: VAE) -> torch.optim.Optimizer:
    if torch.device(config.device).type == "cpu":
        return {"adam": optimizers.Adam, "radam": optimizers.RAdam}[config.optimizer](model.parameters(), lr=config.lr)
    # Capturable: the step count then lives on the GPU, as a CUDA graph needs. RAdam has no fused form.
    if config.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=config.lr, fused=True, capturable=True)
    return torch.optim.RAdam(model.parameters(), lr=config.lr, foreach=True, capturable=True)
