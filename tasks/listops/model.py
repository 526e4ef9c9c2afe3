"""The classifier: token embeddings, their leaf states, the Tree-LSTM that chooses its tree, and an MLP on the root.

Choi, Yoo, Lee, AAAI 2018; B lines of up to L tokens, H the hidden size.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from . import treelstm
from .data import Batch
from .expressions import LABELS, TOKENS


class Parser(nn.Module):
    """Reads a line, merges it into a tree and classifies its root.

    Args:
        hidden: H, of the embeddings, both LSTMs and the MLP.
        dropout: of the embeddings, the root and the MLP's hidden layer, while training.
        generator: on the CPU; draws the initial weights, the same on every device.
        leaf: "lstm" runs over the line, so that a leaf knows all that stands left of it; "affine" sees its token alone.
    """

    def __init__(self, hidden: int, dropout: float, generator: torch.Generator, leaf: str = "lstm") -> None:
        super().__init__()
        self.hidden, self.dropout, self.leaf = hidden, dropout, leaf

        def weight(*shape: int) -> nn.Parameter:
            return nn.Parameter(nn.init.kaiming_normal_(torch.empty(shape), generator=generator))

        def orthogonal(*shape: int) -> nn.Parameter:
            return nn.Parameter(nn.init.orthogonal_(torch.empty(shape), generator=generator))

        def normal(*shape: int) -> nn.Parameter:
            return nn.Parameter(0.01 * torch.empty(shape).normal_(generator=generator))

        # All as in the GST paper's public code, forget gates that start open included. That loads GloVe's vectors too,
        # but drops what it has loaded: the embeddings start from this normal law there as well.
        self.embedding = normal(len(TOKENS), hidden)
        self.leaf_input = weight((4 if leaf == "lstm" else 2) * hidden, hidden)
        self.leaf_bias = nn.Parameter(torch.zeros(len(self.leaf_input)))
        if leaf == "lstm":
            self.leaf_hidden = orthogonal(4 * hidden, hidden)
        self.tree_weight = orthogonal(5 * hidden, 2 * hidden)
        self.tree_bias = nn.Parameter(torch.zeros(5 * hidden))
        with torch.no_grad():
            self.tree_bias[hidden : 3 * hidden] = 1
            if leaf == "lstm":
                self.leaf_bias[hidden : 2 * hidden] = 1
        self.query = normal(hidden)
        last = nn.Parameter(torch.empty(LABELS, hidden).uniform_(-0.002, 0.002, generator=generator))
        self.mlp = nn.ParameterList([weight(hidden, hidden), last])
        self.mlp_bias = nn.ParameterList([nn.Parameter(torch.zeros(outputs)) for outputs in (hidden, LABELS)])

    def forward(
        self, batch: Batch, choose: treelstm.Choice | Tensor, noise: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits of the labels ``(B, 10)`` and the merges ``(B, L - 1)`` of :func:`treelstm.merge`.

        Args:
            batch: on the model's device, but for its lengths.
            choose: which pair to merge, an estimator's draw while training, :func:`treelstm.greedy` else; or the
                merges themselves, of trees that are given.
            noise: of the dropout, on the model's device; None for none.
        """
        leaves = self._leaves(self._dropped(self.embedding[batch.tokens], noise))
        cell = leaves, batch.lengths, self.tree_weight, self.tree_bias
        if isinstance(choose, Tensor):
            root, merges = treelstm.compose(*cell, choose), choose
        else:
            root, merges = treelstm.merge(*cell, self.query, choose)
        first, last = zip(self.mlp, self.mlp_bias, strict=True)
        x = linear(self._dropped(root, noise), *first).relu()
        return linear(self._dropped(x, noise), *last), merges

    def _leaves(self, x: Tensor) -> Tensor:
        """Each token's ``[h; c]``, ``(B, L, H) -> (B, L, 2H)``; the LSTM's are those after it."""
        inputs = linear(x, self.leaf_input, self.leaf_bias)
        if self.leaf == "affine":
            return inputs
        h = c = x.new_zeros(len(x), self.hidden)
        states = []
        for step in inputs.unbind(1):
            gates = torch.addmm(step, h, self.leaf_hidden.T)
            i, f, o = gates[:, : 3 * self.hidden].sigmoid().chunk(3, -1)
            c = torch.addcmul(f * c, i, gates[:, 3 * self.hidden :].tanh())
            h = o * c.tanh()
            states.append(torch.cat((h, c), -1))
        return torch.stack(states, 1)

    def _dropped(self, x: Tensor, noise: torch.Generator | None) -> Tensor:
        if noise is None or self.dropout == 0:
            return x
        # Not torch's dropout: that draws from the global generator, which no checkpoint of ours holds.
        keep = torch.empty_like(x).bernoulli_(1 - self.dropout, generator=noise)
        return x * keep / (1 - self.dropout)
