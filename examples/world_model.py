"""A world model whose latent is 32 categoricals of 32 classes, as in DreamerV3 (Hafner et al., 2023).

    python examples/world_model.py

The world is made up: a ball that bounces between two walls, seen as a noisy picture of one line. A recurrent state is
updated with a latent sample at each step; the prior learns to foretell the latent without looking. At the end the model
closes its eyes and imagines.
"""

from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence
from torch.nn import functional as F

import discrete_ops as do
from discrete_ops.distributions import OneHotCategoricalStraightThrough

CELLS, LATENTS, CLASSES, HIDDEN = 16, 32, 32, 128
BATCH, STEPS_SEEN, STEPS_IMAGINED = 16, 10, 5


class Learned(NamedTuple):
    first_error: float  # of the pictures that are seen, squared
    last_error: float
    information: float  # KL of posterior and prior, in nats a step: what a look tells
    imagined_error: float  # of the pictures foretold with closed eyes
    blind_error: float  # of always foretelling that any cell is as likely


class WorldModel(nn.Module):
    def __init__(self, estimator: str) -> None:
        super().__init__()
        self.estimator = estimator
        self.tables = nn.Parameter(torch.randn(LATENTS, CLASSES, HIDDEN) / LATENTS**0.5)
        self.cell = nn.GRUCell(HIDDEN, HIDDEN)
        self.prior = nn.Sequential(nn.Linear(HIDDEN, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, LATENTS * CLASSES))
        self.posterior = nn.Sequential(
            nn.Linear(HIDDEN + CELLS, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, LATENTS * CLASSES)
        )
        self.decoder = nn.Sequential(nn.Linear(2 * HIDDEN, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, CELLS))

    def prior_logits(self, state: Tensor) -> Tensor:
        return torch.unflatten(self.prior(state), -1, (LATENTS, CLASSES))

    def posterior_logits(self, state: Tensor, seen: Tensor) -> Tensor:
        return torch.unflatten(self.posterior(torch.cat([state, seen], -1)), -1, (LATENTS, CLASSES))

    def latent(self, logits: Tensor) -> OneHotCategoricalStraightThrough:
        return do.distributions.OneHotCategoricalStraightThrough(logits=logits, unimix=0.01)

    def sample(self, logits: Tensor) -> Tensor:
        """Of the latent, as the layers above take it: one row of each table, added up, ``(..., hidden)``."""
        # was: nn.Linear(LATENTS * CLASSES, HIDDEN) of the one-hot sample, 1024 numbers of which 32 are 1, drawn by
        # torch's own distribution of the probs 0.99 * logits.softmax(-1) + 0.01 / CLASSES
        return do.embedding(self.latent(logits).logits, self.tables, self.estimator).sum(-2)

    def picture(self, state: Tensor, z: Tensor) -> Tensor:
        picture: Tensor = self.decoder(torch.cat([state, z], -1))
        return picture

    def next(self, state: Tensor, z: Tensor) -> Tensor:
        state = self.cell(z, state)
        return state


def bouncing_ball(length: int) -> Tensor:
    """``(length, batch, cells)``."""
    time = torch.arange(length)[:, None] + torch.randint(2 * CELLS - 2, (BATCH,))
    phase = time % (2 * CELLS - 2)
    return F.one_hot(torch.where(phase < CELLS, phase, 2 * CELLS - 2 - phase), CELLS).float()


def losses_of(model: WorldModel, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Means over the steps of the error, of the KL that the prior learns by, and of the one that the posterior does."""
    state = torch.zeros(BATCH, HIDDEN)
    lived: list[tuple[Tensor, Tensor, Tensor]] = []
    for seen in pictures + 0.1 * torch.randn_like(pictures):
        posterior = model.posterior_logits(state, seen)
        z = model.sample(posterior)
        lived.append((state, z, posterior))
        state = model.next(state, z)
    states, latents, posteriors = (torch.stack(parts) for parts in zip(*lived, strict=True))
    priors = model.prior_logits(states)
    error = (model.picture(states, latents) - pictures).square().sum(-1)
    dynamics = kl_divergence(model.latent(posteriors.detach()), model.latent(priors)).sum(-1).clamp_min(1)
    representation = kl_divergence(model.latent(posteriors), model.latent(priors.detach())).sum(-1).clamp_min(1)
    return error.mean(), dynamics.mean(), representation.mean()


@torch.no_grad()
def imagined_error(model: WorldModel) -> float:
    """Squared error of pictures that the model foretells after it has looked for a while."""
    pictures = bouncing_ball(STEPS_SEEN + STEPS_IMAGINED)
    state, error = torch.zeros(BATCH, HIDDEN), 0.0
    for step, picture in enumerate(pictures):
        looking = step < STEPS_SEEN
        z = model.sample(model.posterior_logits(state, picture) if looking else model.prior_logits(state))
        if not looking:
            error += float((model.picture(state, z) - picture).square().sum(-1).mean()) / STEPS_IMAGINED
        state = model.next(state, z)
    return error


def main(steps: int = 600, seed: int = 0, estimator: str = "straight_through") -> Learned:
    torch.manual_seed(seed)
    model = WorldModel(estimator)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    errors: list[float] = []
    dynamics = torch.zeros(())
    for _ in range(steps):
        error, dynamics, representation = losses_of(model, bouncing_ball(STEPS_SEEN))
        loss = error + 0.5 * dynamics + 0.1 * representation  # DreamerV3's weights
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 100.0)
        optimizer.step()
        errors.append(float(error.detach()))
    learned = Learned(
        fmean(errors[:5]), fmean(errors[-5:]), float(dynamics.detach()), imagined_error(model), 1 - 1 / CELLS
    )
    print(f"error of what is seen: {learned.first_error:.2f} at first, {learned.last_error:.2f} at last")
    print(f"a look tells {learned.information:.1f} nats")
    print(
        f"{STEPS_IMAGINED} steps imagined with closed eyes: error {learned.imagined_error:.2f}, "
        f"of a picture with all cells alike {learned.blind_error:.2f}"
    )
    return learned


if __name__ == "__main__":
    main()
