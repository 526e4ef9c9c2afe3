"""Bias and spread of the estimators on a trained VAE, against the exact gradient over all its codes.

BR Figure 1 and Table 1. The gradient is that of the reconstruction's cross-entropy at the logits of the latents, as in
the authors' code; the KL is computed in closed form and has no part in it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from discrete_ops import diagnostics

from .model import VAE


class Spread(NamedTuple):
    """An estimator's gradient over a batch of images."""

    cosine: float  #: of the mean gradient to the exact one, over the batch as one vector
    std: float  #: ``sqrt(E ||g - E g||^2)``, g the gradient of one image's loss; the mean over images
    relative_std: float  #: std over the norm of the mean gradient, image by image; the mean over images that have one


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
        model: with one member; 2**26 codes at most, for they are enumerated.
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
        return dict.fromkeys(estimators, Spread(math.nan, math.nan, math.nan))
    found: dict[str, list[diagnostics.Measurement]] = {name: [] for name in estimators}
    for place, image in enumerate(images):

        def loss(codes: Tensor, image: Tensor = image) -> Tensor:
            output = model.decode(codes[None])[0]
            return binary_cross_entropy_with_logits(output, image.expand_as(output), reduction="none").sum(-1)

        exact = diagnostics.exact_gradient(loss, logits[place])
        for name, estimator in estimators.items():
            found[name].append(
                diagnostics.measure(
                    estimator, loss, logits[place], draws, exact=exact, seed=seed + place, batch_size=draws
                )
            )
        on_image()
    return {name: _spread(measurements) for name, measurements in found.items()}


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
    )
