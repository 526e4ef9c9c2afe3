"""A policy with actions that are not allowed: a walk through a maze, where walls mask the steps into them.

    python examples/masked_policy.py

The maze is known, so the loss can be differentiated: the next cell is linear in the one-hot cell and the one-hot
action. The policy knows the cell alone. It learns to walk to the goal and never tries a wall.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from discrete_ops.distributions import OneHotCategoricalStraightThrough

MAZE = """
..#....
..#.##.
..#.#G.
....#..
.##.###
.......
"""
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1), (0, 0))  # the last one is to stay
HORIZON, BATCH = 24, 128


class Learned(NamedTuple):
    arrived_before: float  # share of walks that end at the goal
    arrived_after: float
    invalid_actions: int  # of all walks of the training


class Maze:
    def __init__(self, picture: str = MAZE) -> None:
        lines = picture.split()
        cells = [(y, x) for y, line in enumerate(lines) for x, sign in enumerate(line) if sign != "#"]
        number = {cell: index for index, cell in enumerate(cells)}
        self.cells = len(cells)
        self.allowed = torch.tensor([[(y + dy, x + dx) in number for dy, dx in MOVES] for y, x in cells])
        self.step = torch.zeros(self.cells, len(MOVES), self.cells)
        for (y, x), index in number.items():
            for action, (dy, dx) in enumerate(MOVES):
                self.step[index, action, number.get((y + dy, x + dx), index)] = 1
        goal = next(number[y, x] for y, line in enumerate(lines) for x, sign in enumerate(line) if sign == "G")
        self.distance = torch.full((self.cells,), float("inf"))  # in steps, to the goal
        self.distance[goal] = 0
        for _ in cells:
            beside = (self.step @ self.distance.nan_to_num(posinf=1e6)).amin(-1) + 1
            self.distance = torch.minimum(self.distance, beside)

    def starts(self, count: int) -> Tensor:
        return F.one_hot(torch.randint(self.cells, (count,)), self.cells).float()


def walk(policy: nn.Module, maze: Maze, starts: Tensor, estimator: str) -> tuple[Tensor, Tensor, int]:
    """The mean distance to the goal on the way, which walks arrived, and how many invalid actions were taken."""
    cell, cost, invalid = starts, torch.zeros(()), 0
    for _ in range(HORIZON):
        allowed = maze.allowed[cell.argmax(-1)]
        # was: Categorical(logits=logits.masked_fill(~allowed, -1e8)), one_hot, and the straight-through sum by hand
        actions = OneHotCategoricalStraightThrough(logits=policy(cell), mask=allowed, estimator=estimator)
        action = actions.rsample()
        invalid += int((action.detach().bool() & ~allowed).sum())
        cell = torch.einsum("bs,ba,sat->bt", cell, action, maze.step)
        cost = cost + (cell @ maze.distance).mean() / HORIZON - 0.01 * actions.entropy().mean() / HORIZON
    return cost, cell.detach() @ maze.distance == 0, invalid


def main(steps: int = 100, seed: int = 0, estimator: str = "reinmax") -> Learned:
    torch.manual_seed(seed)
    maze = Maze()
    policy = nn.Sequential(nn.Linear(maze.cells, 64), nn.Tanh(), nn.Linear(64, len(MOVES)))
    optimizer = torch.optim.Adam(policy.parameters(), lr=5e-3)
    with torch.no_grad():
        _, before, invalid = walk(policy, maze, maze.starts(1000), estimator)
    for _ in range(steps):
        loss, _, tried = walk(policy, maze, maze.starts(BATCH), estimator)
        invalid += tried
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    with torch.no_grad():
        _, after, tried = walk(policy, maze, maze.starts(1000), estimator)
    learned = Learned(float(before.float().mean()), float(after.float().mean()), invalid + tried)
    print(f"walks that end at the goal: {learned.arrived_before:.0%} before, {learned.arrived_after:.0%} after")
    print(f"steps into a wall: {learned.invalid_actions}")
    return learned


if __name__ == "__main__":
    main()
