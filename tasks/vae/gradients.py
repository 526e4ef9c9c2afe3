"""Bias and spread of the estimators on a VAE, against the exact gradient over all its codes.

BR Figure 1 and Table 1. The gradient is that of the reconstruction's cross-entropy at the logits of the latents, as in
the authors' code; the KL is computed in closed form and has no part in it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot, softplus

from discrete_ops import diagnostics

from .model import VAE

CHUNK = 4096  #: codes that are decoded at once


class Spread(NamedTuple):
    """An estimator's gradient over a batch of images."""

    cosine: float  #: of the mean gradient to the exact one, over the batch as one vector
    std: float  #: ``sqrt(E ||g - E g||^2)``, g the gradient of one image's loss; the mean over images
    relative_std: float  #: std over the norm of the mean gradient, image by image; the mean over images that have one
    batch_std: float  #: the same of the gradient of the batch's mean loss, at the logits of all its images
    batch_relative_std: float  #: batch_std over the norm of the mean of that gradient


NO_SPREAD = Spread(*(math.nan,) * len(Spread._fields))


class Decoded:
    """What a model decodes each of its codes to, once for all images.

    Args:
        model: with one member; 2**16 codes at most, for as many pictures are held.
    """

    def __init__(self, model: VAE) -> None:
        self.model = model
        categories, latents = model.categories, model.latents
        device = next(model.parameters()).device
        places = torch.arange(categories**latents, device=device)
        self.weights = categories ** torch.arange(latents - 1, -1, -1, device=device)
        self.codes = one_hot(places[:, None] // self.weights % categories, categories).float()
        with torch.no_grad():
            self.output = torch.cat([model.decode(codes[None])[0] for codes in self.codes.split(CHUNK)]).double()
        self.constant = softplus(self.output).sum(-1)

    def place(self, codes: Tensor) -> Tensor:
        """Where in ``codes`` each of some one-hot codes is."""
        return (codes.argmax(-1) * self.weights).sum(-1)

    def losses(self, image: Tensor) -> Tensor:
        """Of every code, float64: its cross-entropy to an image."""
        return self.constant - self.output @ image.double()

    def gradient(self, image: Tensor, places: Tensor) -> Tensor:
        """Of the loss at some codes."""
        codes = self.codes[places].requires_grad_()
        output = self.model.decode(codes[None])[0]
        loss = binary_cross_entropy_with_logits(output, image.expand_as(output), reduction="sum")
        return torch.autograd.grad(loss, codes)[0]


def measure(
    model: VAE,
    images: Tensor,
    estimators: Mapping[str, Any],
    draws: int,
    seed: int,
    on_image: Callable[[], None] = lambda: None,
) -> dict[str, Spread]:
    """The spread of each estimator.

    Args:
        model: with one member; 2**16 codes at most, for they are enumerated.
        images: ``(B, P)``.
        estimators: by name.
        draws: of each estimator for each image.
        seed: of the noise, the same for each estimator.
        on_image: called after each image.

    Returns:
        By name; NaN if a weight of the model is not finite.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        logits = model.encode(images[None])[0]
    if not logits.isfinite().all():  # a run that failed
        return dict.fromkeys(estimators, NO_SPREAD)
    decoded = Decoded(model)
    found: dict[str, list[diagnostics.Measurement]] = {name: [] for name in estimators}
    for place, image in enumerate(images):
        linear, values = _Linear(decoded, image), decoded.losses(image)

        def loss(codes: Tensor, values: Tensor = values) -> Tensor:
            return values[decoded.place(codes)]

        exact = diagnostics.exact_gradient(loss, logits[place])
        for name, estimator in estimators.items():
            found[name].append(
                diagnostics.measure(
                    estimator, linear, logits[place], draws, exact=exact, seed=seed + place, batch_size=draws
                )
            )
        on_image()
    return {name: _spread(measurements) for name, measurements in found.items()}


class _Linear:
    """A function of codes with the gradient of an image's loss at each of them, which is all that is measured.

    A trained model draws few different codes for an image, and estimators draw the same ones: the decoder need not see
    each of them again.
    """

    def __init__(self, decoded: Decoded, image: Tensor) -> None:
        self.decoded, self.image = decoded, image
        self.gradients = torch.zeros_like(decoded.codes)
        self.is_known = torch.zeros(len(decoded.codes), dtype=torch.bool, device=image.device)

    def __call__(self, codes: Tensor) -> Tensor:
        places = self.decoded.place(codes)
        new = places.unique()
        new = new[~self.is_known[new]]
        if len(new):
            self.gradients[new] = self.decoded.gradient(self.image, new)
            self.is_known[new] = True
        return (self.gradients[places] * codes).sum((-2, -1))


def _spread(measurements: list[diagnostics.Measurement]) -> Spread:
    mean = torch.stack([m.mean for m in measurements])
    exact = torch.stack([m.exact for m in measurements])
    std = torch.tensor([m.std for m in measurements], dtype=torch.float64, device=mean.device)
    norm = mean.flatten(1).norm(dim=1)
    drawn = norm > 0  # every draw of an image whose logits are saturated may be the same code, and its gradient 0
    return Spread(
        cosine=float((mean * exact).sum() / (mean.norm() * exact.norm())),
        std=float(std.mean()),
        relative_std=float((std[drawn] / norm[drawn]).mean()),
        batch_std=float(std.norm() / len(std)),  # images are drawn for independently: their variances add
        batch_relative_std=float(std.norm() / mean.norm()),
    )
