"""A top-2 router: a token goes to two of eight experts, weighed as in Mixtral (Jiang et al., 2024), balanced as in the
Switch Transformer (Fedus et al., 2022).

    python examples/expert_router.py

The tokens are made up: each is of two of eight kinds, every kind has a linear map, and what is wanted is the mean of
the two maps' outputs, so that an expert for each kind is what there is to find. The experts are small, so all of them
compute all tokens, and the gate has a gradient from those that were not chosen, too.
"""

from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import discrete_ops as do

EXPERTS, CHOSEN, WIDTH, BATCH = 8, 2, 16, 512


class Learned(NamedTuple):
    first_loss: float
    last_loss: float
    test_loss: float  # with the two likeliest experts of each token
    least_share: float  # of the places there, of the expert that has the fewest
    most_share: float
    one_expert_loss: float  # of the best linear map for all tokens


class Experts(nn.Module):
    def __init__(self, estimator: str) -> None:
        super().__init__()
        self.estimator = estimator
        self.gate = nn.Linear(WIDTH, EXPERTS)
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(EXPERTS))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs, the loss of an uneven load, and the share of the places that each expert has."""
        logits = self.gate(tokens)
        likeliest = F.one_hot(logits.topk(CHOSEN).indices, EXPERTS).sum(-2)
        # was: route = the likeliest of the logits plus noise, with a gradient through the weights of the chosen alone
        route = do.top_k(logits, CHOSEN, self.estimator) if self.training else likeliest
        weights = route * logits.softmax(-1)
        weights = weights / weights.sum(-1, keepdim=True)  # the softmax over the chosen
        output = torch.stack([expert(tokens) for expert in self.experts], -1) @ weights.unsqueeze(-1)
        share = route.detach().float().mean(0) / CHOSEN
        load = EXPERTS * (share * logits.softmax(-1).mean(0)).sum()
        return output.squeeze(-1), load, share


def main(steps: int = 600, seed: int = 0, estimator: str = "straight_through") -> Learned:
    torch.manual_seed(seed)
    centres, maps = 2 * torch.randn(EXPERTS, WIDTH), torch.randn(EXPERTS, WIDTH, WIDTH) / WIDTH**0.5

    def tokens(count: int) -> tuple[Tensor, Tensor]:
        kinds = torch.rand(count, EXPERTS).topk(CHOSEN).indices
        x = centres[kinds].sum(1) + torch.randn(count, WIDTH)
        return x, torch.einsum("bw,bkwv->bv", x, maps[kinds]) / CHOSEN

    model = Experts(estimator)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses: list[float] = []
    for _ in range(steps):
        x, y = tokens(BATCH)
        output, load, _ = model(x)
        loss = F.mse_loss(output, y)
        optimizer.zero_grad()
        torch.autograd.backward(loss + load)
        optimizer.step()
        losses.append(float(loss.detach()))

    model.eval()
    x, y = tokens(4000)
    with torch.no_grad():
        output, _, share = model(x)
        test_loss = float(F.mse_loss(output, y))
        one_expert = float(F.mse_loss(x @ torch.linalg.lstsq(x, y).solution, y))
    ends = fmean(losses[:5]), fmean(losses[-5:])
    learned = Learned(*ends, test_loss, float(share.min()), float(share.max()), one_expert)
    print(f"loss: {learned.first_loss:.2f} at first, {learned.last_loss:.2f} at last")
    print(f"loss with the likeliest two: {learned.test_loss:.2f}; of one expert for all: {learned.one_expert_loss:.2f}")
    print(f"shares of the {EXPERTS} experts: {learned.least_share:.0%} to {learned.most_share:.0%}")
    return learned


if __name__ == "__main__":
    main()
