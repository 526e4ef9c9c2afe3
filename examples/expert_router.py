"""A top-2 router: each token goes to two of eight experts, weighed as in Mixtral, balanced as in the Switch Transformer.

    python examples/expert_router.py

The tokens are made up: each is of two of eight kinds, every kind with a linear map of its own, and what is wanted is the
mean of its two maps; so an expert for each kind is what there is to find. The two are drawn without replacement, as
noisy top-k gating does (Shazeer et al., 2017), and the gate learns from what every expert would have put out: they are
small, so all of them compute all tokens.
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
    test_loss: float  # with the two likeliest experts
    least_share: float  # of the places, of the expert that has the fewest
    most_share: float
    one_expert_loss: float  # of the best linear map for all tokens


class Experts(nn.Module):
    def __init__(self, estimator: str) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, EXPERTS)
        self.estimator = estimator
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(EXPERTS))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs, and the share of the places that each expert has."""
        logits = self.gate(tokens)
        # was: index = (logits + noise).topk(2).indices, which gives the gate no gradient but by the weights of the two
        if self.training:
            route = do.top_k(logits, CHOSEN, self.estimator)
        else:
            route = F.one_hot(logits.topk(CHOSEN).indices, EXPERTS).sum(-2)
        weights = route * logits.softmax(-1)  # over the two it is their softmax
        weights = weights / weights.sum(-1, keepdim=True)
        output = torch.stack([expert(tokens) for expert in self.experts], -1) @ weights.unsqueeze(-1)
        share = route.detach().float().mean(0) / CHOSEN
        self.load = EXPERTS * (share * logits.softmax(-1).mean(0)).sum()  # 1 where all is even
        return output.squeeze(-1), share
