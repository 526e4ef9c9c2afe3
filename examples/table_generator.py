"""A generator of tables with columns of categories, as CTGAN (Xu et al., 2019): groups of logits of different sizes.

    python examples/table_generator.py

The table is made up: a person's region decides on their transport, region and transport on what they pay with. A
generator and a critic play (Wasserstein, with a gradient penalty); what is told at the end is how far the generated
tables are from the true one, over all pairs of columns.
"""

from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import discrete_ops as do

COLUMNS = {"region": 5, "transport": 3, "payment": 8, "member": 2}
SIZES = list(COLUMNS.values())
NOISE, BATCH, CRITIC_STEPS = 16, 256, 3


class Learned(NamedTuple):
    distance_before: float  # total variation over pairs of columns, a mean
    distance_after: float
    rows: Tensor  # generated ones, one-hot in each column


class Generator(nn.Module):
    def __init__(self, estimator: str) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(NOISE, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, sum(SIZES))
        )
        self.sample = do.nn.StraightThroughCategorical(estimator)

    def forward(self, noise: Tensor) -> Tensor:
        logits: Tensor = self.net(noise)
        # was: a loop over columns of F.gumbel_softmax(part, tau=0.2), ten tries each, for it could come out as NaN
        return torch.cat([self.sample(column) for column in torch.split(logits, SIZES, -1)], -1)


class Truth:
    """The table that rows are drawn of."""

    def __init__(self) -> None:
        self.region = torch.randn(5).softmax(-1)
        self.transport = (2 * torch.randn(5, 3)).softmax(-1)
        self.payment = (2 * torch.randn(5, 3, 8)).softmax(-1)
        self.member = (2 * torch.randn(8, 2)).softmax(-1)

    def rows(self, count: int) -> Tensor:
        region = torch.multinomial(self.region, count, replacement=True)
        transport = torch.multinomial(self.transport[region], 1).squeeze(-1)
        payment = torch.multinomial(self.payment[region, transport], 1).squeeze(-1)
        member = torch.multinomial(self.member[payment], 1).squeeze(-1)
        drawn = zip((region, transport, payment, member), SIZES, strict=True)
        return torch.cat([F.one_hot(index, size).float() for index, size in drawn], -1)


def distance(a: Tensor, b: Tensor) -> float:
    """Total variation between the joint tables of two columns, a mean over the pairs."""
    pairs = list(combinations(zip(torch.split(a, SIZES, -1), torch.split(b, SIZES, -1), strict=True), 2))
    apart = [(x.T @ y / len(a) - u.T @ v / len(b)).abs().sum() / 2 for (x, u), (y, v) in pairs]
    return float(torch.stack(apart).mean())


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    share = torch.rand(len(real), 1)
    between = (share * real + (1 - share) * fake).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty: Tensor = (gradient.norm(dim=-1) - 1).square().mean()
    return penalty


def main(steps: int = 1200, seed: int = 0, estimator: str = "gumbel_softmax(tau=0.2)") -> Learned:
    torch.manual_seed(seed)
    truth, generator = Truth(), Generator(estimator)
    critic = nn.Sequential(nn.Linear(sum(SIZES), 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    of_generator = torch.optim.Adam(generator.parameters(), lr=5e-4, betas=(0.5, 0.9))
    of_critic = torch.optim.Adam(critic.parameters(), lr=5e-4, betas=(0.5, 0.9))

    @torch.no_grad()
    def generated(count: int = 5000) -> Tensor:
        rows: Tensor = generator(torch.randn(count, NOISE))
        return rows

    before = distance(generated(), truth.rows(5000))
    for _ in range(steps):
        for _ in range(CRITIC_STEPS):
            real, fake = truth.rows(BATCH), generated(BATCH)
            loss = critic(fake).mean() - critic(real).mean() + 10 * gradient_penalty(critic, real, fake)
            of_critic.zero_grad()
            torch.autograd.backward(loss)
            of_critic.step()
        of_generator.zero_grad()
        torch.autograd.backward(-critic(generator(torch.randn(BATCH, NOISE))).mean())
        of_generator.step()
    rows = generated()
    learned = Learned(before, distance(rows, truth.rows(5000)), rows)
    floor = distance(truth.rows(5000), truth.rows(5000))
    print(f"distance to the true table: {learned.distance_before:.3f} before, {learned.distance_after:.3f} after")
    print(f"two samples of the true table are {floor:.3f} apart")
    return learned


if __name__ == "__main__":
    main()
