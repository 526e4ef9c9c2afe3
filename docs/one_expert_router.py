"""The router of without_temperature.md: each token goes to one of eight experts, balanced as in the Switch Transformer
(Fedus et al., 2022).

    python docs/one_expert_router.py

The tokens are made up: eight kinds, each with a linear map of its own, so that an expert for each kind is what there is
to find. The experts are small, so all of them compute all tokens. The output is the chosen expert's, unscaled.
"""

from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import discrete_ops as do

EXPERTS, WIDTH, BATCH = 8, 16, 512


class Learned(NamedTuple):
    first_loss: float
    last_loss: float
    least_share: float  # of the tokens, of the expert that has the fewest
    most_share: float
    one_expert_loss: float  # of the best linear map for all tokens


class Experts(nn.Module):
    def __init__(self, estimator: str) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, EXPERTS)
        self.sample = do.nn.StraightThroughCategorical(estimator)
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(EXPERTS))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs, and the loss of an uneven load."""
        logits = self.gate(tokens)
        # was: gates, index = logits.softmax(-1).max(-1), and the output scaled by the gate for the sake of its gradient
        route = self.sample(logits)
        output = torch.stack([expert(tokens) for expert in self.experts], -1) @ route.unsqueeze(-1)
        load = EXPERTS * (route.detach().mean(0) * logits.softmax(-1).mean(0)).sum()
        return output.squeeze(-1), load


def main(steps: int = 1000, seed: int = 0, estimator: str = "gumbel_softmax(tau=1.0)") -> Learned:
    torch.manual_seed(seed)
    centres, maps = 2 * torch.randn(EXPERTS, WIDTH), torch.randn(EXPERTS, WIDTH, WIDTH) / WIDTH**0.5

    def tokens(count: int) -> tuple[Tensor, Tensor]:
        kind = torch.randint(EXPERTS, (count,))
        x = centres[kind] + torch.randn(count, WIDTH)
        return x, torch.einsum("bw,bwv->bv", x, maps[kind])

    model = Experts(estimator)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses: list[float] = []
    for _ in range(steps):
        x, y = tokens(BATCH)
        output, load = model(x)
        loss = F.mse_loss(output, y)
        optimizer.zero_grad()
        torch.autograd.backward(loss + 0.5 * load)
        optimizer.step()
        losses.append(float(loss.detach()))

    model.eval()
    x, y = tokens(4000)
    with torch.no_grad():
        share = model.sample(model.gate(x)).mean(0)
        best_map = torch.linalg.lstsq(x, y).solution
        one_expert = float(F.mse_loss(x @ best_map, y))
    learned = Learned(fmean(losses[:5]), fmean(losses[-5:]), float(share.min()), float(share.max()), one_expert)
    print(f"loss: {learned.first_loss:.2f} at first, {learned.last_loss:.2f} at last")
    print(f"loss of one expert for all: {learned.one_expert_loss:.2f}")
    print(f"shares of the {EXPERTS} experts: {learned.least_share:.0%} to {learned.most_share:.0%}")
    return learned


if __name__ == "__main__":
    main()
