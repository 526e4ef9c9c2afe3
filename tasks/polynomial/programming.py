"""The problem of Liu et al., "Bridging Discrete and Backpropagation", NeurIPS 2023, section 5: binary latents x and

    min over theta of  E[ mean_i |x_i - c|^p ],    x_i = 1 with probability softmax(theta_i)_0,

with 128 latents, c = .45 and p = 1.5, 2 and 3. All latents should end at 0, where the loss is c^p; at 1 it is
(1 - c)^p, hardly more, so that an estimator's bias shows. The authors' code has Adam at 1e-3, 64 samples a step, 40
times 200 steps, and starts with theta within .01 of 0.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from discrete_ops import bernoulli
from discrete_ops.estimators import Estimator
from tasks.common import interrupts

POINTS = 40  #: of a curve, after the start


@dataclass(frozen=True)
class Setting:
    """What decides a curve but its power, estimator and seed."""

    latents: int = 128
    c: float = 0.45
    batch: int = 64
    lr: float = 1e-3
    steps: int = 8000

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def losses(x: Tensor, power: float, c: float) -> Tensor:
    """``|x - c|^p`` of latents in {0, 1}."""
    return (x - c).abs() ** power


def draw(estimator: Estimator, theta: Tensor, seed: Tensor) -> Tensor:
    """Latents in {0, 1} of two-category logits ``(..., 2)``, with the estimator's gradient."""
    return bernoulli(theta[..., 0] - theta[..., 1], estimator, seed=seed)


def expected(theta: Tensor, power: float, c: float) -> Tensor:
    """``E[mean_i |x_i - c|^p]``, ``(..., L, 2) -> (...)``."""
    ends = losses(torch.tensor([1.0, 0.0], dtype=theta.dtype), power, c)
    return (theta.softmax(-1) @ ends).mean(-1)


def train(estimator: Estimator, power: float, seeds: Sequence[int], setting: Setting) -> list[list[float]]:
    """The expected loss of each seed at the start and after each ``1 / POINTS`` of the steps.

    Seeds train side by side; each ends with the figures that it has alone.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    shape = (setting.latents, 2)
    start = [torch.empty(shape).uniform_(-0.01, 0.01, generator=generator) for generator in generators]
    theta = torch.stack(start).requires_grad_()
    optimizer = torch.optim.Adam([theta], lr=setting.lr, fused=True)
    points = {round(point * setting.steps / POINTS) for point in range(POINTS + 1)}
    curve = []
    for step in range(setting.steps + 1):
        interrupts.raise_lost()
        if step in points:
            curve.append(expected(theta.detach().double(), power, setting.c))
        noise = torch.cat([torch.randint(2**63 - 1, (1,), generator=generator) for generator in generators])
        x = draw(estimator, theta[:, None].expand(-1, setting.batch, -1, -1), noise)
        optimizer.zero_grad()
        losses(x, power, setting.c).mean((-2, -1)).sum().backward()
        optimizer.step()
    return torch.stack(curve, -1).tolist()
