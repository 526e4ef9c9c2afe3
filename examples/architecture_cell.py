"""Architecture search: each edge of a cell chooses its operation, as in SNAS (Xie et al., 2019) and GDAS.

    python examples/architecture_cell.py

The data come from a cell that is known. Each example runs through a cell of its own, a sampled operation on each edge,
so the search sees what the final network sees. The temperature is a tensor that falls; at the end the likeliest
operations are the cell.
"""

from collections.abc import Callable
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import discrete_ops as do

OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "zero": torch.zeros_like,
    "identity": lambda x: x,
    "relu": torch.relu,
    "sin": lambda x: torch.sin(3 * x),
    "square": lambda x: x.square() - 1,
    "tanh": torch.tanh,
}
NAMES = tuple(OPERATIONS)
EDGES = ((0, 1), (0, 2), (1, 2))  # from node to node
TRUE_CELL = ("tanh", "relu", "sin")
WIDTH, BATCH = 4, 256


class Learned(NamedTuple):
    first_loss: float
    last_loss: float
    chosen_loss: float  # of the likeliest cell
    chosen: tuple[str, ...]  # of each edge


class Cell(nn.Module):
    def __init__(self, estimator: str) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(len(EDGES), len(NAMES)))
        self.sample = do.nn.StraightThroughCategorical(estimator)

    def forward(self, x: Tensor) -> Tensor:
        # was: F.gumbel_softmax(self.logits, self.tau, hard=True), and one_hot(argmax) for the final network
        choices = self.sample(self.logits.expand(len(x), -1, -1))
        return run_cell(choices, x)

    def chosen(self) -> tuple[str, ...]:
        return tuple(NAMES[index] for index in self.logits.argmax(-1).tolist())


def run_cell(choices: Tensor, x: Tensor) -> Tensor:
    """The last node: each is the sum of its edges, an edge the operation that its row of choices picks."""
    nodes = [x]
    for node in range(1, 1 + max(end for _, end in EDGES)):
        edges = [(begin, choice) for (begin, end), choice in zip(EDGES, choices.unbind(-2), strict=True) if end == node]
        outputs = [
            torch.einsum("obw,bo->bw", torch.stack([f(nodes[begin]) for f in OPERATIONS.values()]), choice)
            for begin, choice in edges
        ]
        nodes.append(torch.stack(outputs).sum(0))
    return nodes[-1]


def main(steps: int = 800, seed: int = 0, estimator: str = "gumbel_softmax(tau=2.0)") -> Learned:
    torch.manual_seed(seed)
    true_choices = F.one_hot(torch.tensor([NAMES.index(name) for name in TRUE_CELL]), len(NAMES)).float()
    model = Cell(estimator)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    losses: list[float] = []
    tau = model.sample.tau.clone()
    for step in range(steps):
        model.sample.tau = tau * 0.1 ** (step / steps)
        x = torch.randn(BATCH, WIDTH)
        loss = F.mse_loss(model(x), run_cell(true_choices.expand(BATCH, -1, -1), x))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    model.eval()
    x = torch.randn(BATCH, WIDTH)
    with torch.no_grad():
        chosen_loss = float(F.mse_loss(model(x), run_cell(true_choices.expand(BATCH, -1, -1), x)))
    learned = Learned(fmean(losses[:10]), fmean(losses[-10:]), chosen_loss, model.chosen())
    print(f"loss: {learned.first_loss:.3f} at first, {learned.last_loss:.3f} at last")
    print(f"loss of the likeliest cell: {learned.chosen_loss:.3f}")
    print(f"the cell: {', '.join(learned.chosen)}; the one behind the data: {', '.join(TRUE_CELL)}")
    return learned


if __name__ == "__main__":
    main()
