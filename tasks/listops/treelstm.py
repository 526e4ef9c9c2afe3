"""The binary Tree-LSTM that chooses its own tree: each level merges one pair of neighbours of every line.

Choi, Yoo, Lee, "Learning to Compose Task-Specific Tree Structures", AAAI 2018. With ``s = [h; c]`` the states of a
level's nodes, ``P_k`` the parent of nodes k and k + 1 and ``D`` the one-hot choice of a pair, the next level is

    s'_j = D_j P_j + (1 - sum_{i<=j} D_i) s_j + (sum_{i<j} D_i) s_{j+1},      D ~ estimator(<q, h of P_k> / sqrt(H)).

Computed as printed, n tokens take n^2/2 parents, forward and backward. Two facts bring that down to 3n:

- A parent depends on its children alone, so a merge makes two new candidates, and all others stay what they are.
- A candidate that is not chosen gets a gradient through its score alone: a number, times a vector that it keeps for
  as long as it stands (``PULL_LEFT`` and ``PULL_RIGHT`` below). So the cell is pulled back once a candidate.

Result and gradient are those of the printed form, the gradient through the cumulative sums included.

Shapes: B lines, longest first; L tokens in the longest; H the hidden size. A line has 2L - 1 nodes (the tokens, then
one a level) and 3(L - 1) candidates (the neighbours among the tokens, then two a level), all kept by number.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Chooses one candidate a row: ``(scores (b, n), level) -> (one-hot sample (b, n), index (b,))``; -inf is no candidate.
Choice = Callable[[Tensor, int], tuple[Tensor, Tensor]]

#: What a candidate P of nodes (l, r) does to the gradient at its place, as blocks of 2H: P - s_l and s_l - s_r, and
#: the score's gradient at s_l and at s_r.
GAIN, SHIFT, PULL_LEFT, PULL_RIGHT = range(4)


def greedy(scores: Tensor, level: int) -> tuple[Tensor, Tensor]:
    """The candidate of the best score, for evaluation."""
    index = scores.argmax(-1)
    return torch.nn.functional.one_hot(index, scores.shape[-1]).to(scores.dtype), index


def merge(
    leaves: Tensor, lengths: Tensor, weight: Tensor, bias: Tensor, query: Tensor, choose: Choice
) -> tuple[Tensor, Tensor]:
    """Merge each line down to one node.

    Args:
        leaves: ``(B, L, 2H)``, the tokens' ``[h; c]``; what lies behind a line's end is of no effect.
        lengths: ``(B,)`` int64 on the CPU, from 1 to L, longest first.
        weight, bias: ``(5H, 2H)`` and ``(5H,)``: the gates' inputs (input, left forget, right forget, output,
            update) from the children's ``[h_l; h_r]``.
        query: ``(H,)``.
        choose: one candidate a row and level; its sample carries the estimator's gradient.

    Returns:
        The roots' h, ``(B, H)``, and the merges ``(B, L - 1)`` int64: the place of the left node merged at each level,
        -1 where a line has none.
    """
    roots, merges = _Merge.apply(leaves, weight, bias, query, lengths.tolist(), choose)
    return roots, merges


def compose(leaves: Tensor, lengths: Tensor, weight: Tensor, bias: Tensor, merges: Tensor) -> Tensor:
    """The roots' h, ``(B, H)``, of given trees: what :func:`merge` computes where it chooses these.

    Args:
        leaves, lengths, weight, bias: as there; no query, since nothing is chosen.
        merges: ``(B, L - 1)`` int64, the place of the left node merged at each level; of no effect behind a line's end.
    """
    lines, tokens, width = leaves.shape
    states = torch.cat((leaves, leaves.new_zeros(lines, tokens - 1, width)), 1)
    nodes = torch.arange(tokens, device=leaves.device).expand(lines, tokens)
    for level in range(tokens - 1):
        rows = int((lengths >= level + 2).sum())
        nodes, k = nodes[:rows], merges[:rows, level : level + 1]
        left, right = (_take(states, nodes.gather(1, k + side))[:, 0] for side in (0, 1))
        (h_left, c_left), (h_right, c_right) = left.chunk(2, -1), right.chunk(2, -1)
        states[:rows, tokens + level], _ = _cell(torch.cat((h_left, h_right), -1) @ weight.T + bias, c_left, c_right)
        nodes = _without(nodes, k).scatter(1, k, tokens + level)
    return _take(states, _last_node(lengths, tokens, leaves.device))[:, 0, : width // 2]


def _last_node(lengths: Tensor, tokens: int, device: torch.device) -> Tensor:
    """``(B, 1)`` number of each line's root among its nodes."""
    size = lengths.to(device)[:, None]
    return torch.where(size > 1, tokens + size - 2, 0)


class _Gates(NamedTuple):
    """What the cell's pull-back needs of its forward pass: ``(..., 4H)``, ``(..., H)``, ``(..., H)``."""

    sigmoids: Tensor  # input, left forget, right forget and output gate
    update: Tensor
    tanh_c: Tensor


def _cell(inputs: Tensor, c_left: Tensor, c_right: Tensor) -> tuple[Tensor, _Gates]:
    """The parent's ``[h; c]`` from the gates' inputs ``(..., 5H)``."""
    hidden = c_left.shape[-1]
    sigmoids, update = inputs[..., : 4 * hidden].sigmoid(), inputs[..., 4 * hidden :].tanh()
    i, f_left, f_right, o = sigmoids.chunk(4, -1)
    c = torch.addcmul(torch.addcmul(i * update, f_left, c_left), f_right, c_right)
    tanh_c = c.tanh()
    return torch.cat((o * tanh_c, c), -1), _Gates(sigmoids, update, tanh_c)


def _cell_vjp(
    dh: Tensor, dc: Tensor | None, gates: _Gates, c_left: Tensor, c_right: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Pulls ``dh`` and ``dc`` of the parent back to the gates' inputs, ``c_left`` and ``c_right``."""
    i, f_left, f_right, o = gates.sigmoids.chunk(4, -1)
    through = (1 - gates.tanh_c.square()).mul_(o).mul_(dh)
    dc = through if dc is None else through.add_(dc)
    inputs = torch.empty(*dc.shape[:-1], 5 * dc.shape[-1], dtype=dc.dtype, device=dc.device)
    di, df_left, df_right, do, du = inputs.chunk(5, -1)
    torch.mul(dc, gates.update, out=di)
    torch.mul(dc, c_left, out=df_left)
    torch.mul(dc, c_right, out=df_right)
    torch.mul(dh, gates.tanh_c, out=do)
    torch.mul(dc, i, out=du)
    inputs[..., : -dc.shape[-1]].mul_(gates.sigmoids).mul_(1 - gates.sigmoids)
    du.mul_(1 - gates.update.square())
    return inputs, dc * f_left, dc * f_right


class _Level(NamedTuple):
    """One level of the first b lines, those with two nodes or more."""

    nodes: Tensor  # (b, n) numbers of the nodes, left to right
    candidates: Tensor  # (b, n - 1) numbers of the candidates between them
    scores: Tensor  # (b, n - 1), where the sample's gradient goes
    sample: Tensor  # (b, n - 1) one-hot
    place: Tensor  # (b, 1) of the chosen candidate


@dataclass
class _Tape:
    """All nodes, candidates and levels of a batch."""

    states: Tensor  # (B, 2L - 1, 2H)
    as_left: Tensor  # (B, 2L - 1, 5H): a node's share of the gates' inputs as a left child
    as_right: Tensor
    children: Tensor  # (2, B, 3(L - 1)) numbers of the nodes
    parents: Tensor  # (B, 3(L - 1), 2H)
    gates: _Gates
    levels: list[_Level] = field(default_factory=list)

    @classmethod
    def empty(cls, leaves: Tensor) -> "_Tape":
        lines, tokens, width = leaves.shape
        nodes, candidates, hidden = 2 * tokens - 1, 3 * (tokens - 1), width // 2
        # Zeros: candidates beside a line's end are computed too, from whatever stands there, and weighed by 0.
        return cls(
            leaves.new_zeros(lines, nodes, width),
            leaves.new_zeros(lines, nodes, 5 * hidden),
            leaves.new_zeros(lines, nodes, 5 * hidden),
            torch.zeros(2, lines, candidates, dtype=torch.int64, device=leaves.device),
            leaves.new_zeros(lines, candidates, width),
            _Gates(*(leaves.new_zeros(lines, candidates, n * hidden) for n in (4, 1, 1))),
        )

    def add_nodes(self, place: slice, states: Tensor, weight: Tensor) -> None:
        """``(b, n, 2H)`` states under the numbers ``place``."""
        rows, hidden = len(states), weight.shape[1] // 2
        self.states[:rows, place] = states
        self.as_left[:rows, place] = states[..., :hidden] @ weight[:, :hidden].T
        self.as_right[:rows, place] = states[..., :hidden] @ weight[:, hidden:].T

    def add_candidates(self, place: slice, left: Tensor, right: Tensor, bias: Tensor, query: Tensor) -> Tensor:
        """The parents of nodes ``left`` and ``right``, ``(b, n)`` numbers; returns their scores."""
        rows, hidden = len(left), len(query)
        self.children[0, :rows, place], self.children[1, :rows, place] = left, right
        inputs = _take(self.as_left, left).add_(_take(self.as_right, right)).add_(bias)
        c_left, c_right = (_take(self.states, side)[..., hidden:] for side in (left, right))
        parents, gates = _cell(inputs, c_left, c_right)
        self.parents[:rows, place] = parents
        for store, new in zip(self.gates, gates, strict=True):
            store[:rows, place] = new
        return (parents[..., :hidden] @ query) / math.sqrt(hidden)


class _Merge(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, leaves: Tensor, weight: Tensor, bias: Tensor, query: Tensor, lengths: list[int], choose: Choice
    ) -> tuple[Tensor, Tensor]:
        lines, tokens, width = leaves.shape
        numbers = torch.arange(tokens, device=leaves.device)
        size = torch.tensor(lengths, device=leaves.device)[:, None]
        tape = _Tape.empty(leaves)
        tape.add_nodes(slice(0, tokens), leaves, weight)
        nodes = numbers.expand(lines, tokens)
        candidates = nodes[:, :-1]
        scores = tape.add_candidates(slice(0, tokens - 1), nodes[:, :-1], nodes[:, 1:], bias, query)
        merges = torch.full((lines, tokens - 1), -1, device=leaves.device)
        for level in range(tokens - 1):
            rows = sum(length >= level + 2 for length in lengths)
            nodes, candidates, scores = nodes[:rows], candidates[:rows], scores[:rows]
            masked = scores.masked_fill(numbers[: scores.shape[1]] >= size[:rows] - level - 1, -math.inf)
            with torch.enable_grad():
                sample, index = choose(masked.requires_grad_(), level)
            k = index[:, None].clamp(min=0)  # -1 where scores are NaN, as the roots are then
            tape.levels.append(_Level(nodes, candidates, masked, sample, k))
            merges[:rows, level] = index

            tape.add_nodes(
                slice(tokens + level, tokens + level + 1), _take(tape.parents, candidates.gather(1, k)), weight
            )
            nodes = _without(nodes, k).scatter(1, k, tokens + level)
            # The two new candidates; beside the first or last node one of them is made up, and put nowhere.
            last = nodes.shape[1] - 1
            left = torch.cat((nodes.gather(1, (k - 1).clamp(min=0)), nodes.gather(1, k)), 1)
            right = torch.cat((nodes.gather(1, k), nodes.gather(1, (k + 1).clamp(max=last))), 1)
            new = tokens - 1 + 2 * level
            new_scores = tape.add_candidates(slice(new, new + 2), left, right, bias, query)
            before, after = numbers[:last] == k - 1, numbers[:last] == k
            candidates = torch.where(before, new, torch.where(after, new + 1, _without(candidates, k)))
            scores = torch.where(before, new_scores[:, :1], torch.where(after, new_scores[:, 1:], _without(scores, k)))

        roots = _take(tape.states, _last_node(size[:, 0], tokens, leaves.device))[:, 0, : width // 2]
        if any(ctx.needs_input_grad):
            ctx.tape = tape
            ctx.save_for_backward(weight, query)
        ctx.mark_non_differentiable(merges)
        return roots, merges

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, droots: Tensor, _: None) -> tuple[Tensor | None, ...]:
        tape: _Tape = ctx.tape
        weight, query = ctx.saved_tensors
        hidden = len(query)
        left, right = (_take(tape.states, side) for side in tape.children)
        c_left, c_right = left[..., hidden:].contiguous(), right[..., hidden:].contiguous()
        score_inputs, moves = _moves(tape, left, right, weight, query)
        dscores = tape.parents.new_zeros(tape.parents.shape[:2])  # of each candidate, summed over its levels
        dinputs = torch.zeros_like(score_inputs)  # at the gates of the candidates that were chosen

        lines, tokens = len(droots), tape.states.shape[1] // 2 + 1
        droots = torch.cat((droots, torch.zeros_like(droots)), -1)
        done = 0  # lines that the levels above have
        g = droots.new_zeros(0, 1, 2 * hidden)  # gradient at the nodes of the level above
        for level in reversed(tape.levels):
            rows = len(level.nodes)
            g = _with_roots(g, droots[done:rows])
            done = rows
            blocks = _take(moves, level.candidates).unflatten(-1, (4, 2 * hidden))
            gain, shift = (blocks[:, :, :PULL_LEFT] * g[:, :, None]).sum(-1).unbind(-1)
            # dL/dD up to a constant, which no Jacobian of a softmax lets through.
            ds = _pull_back(level, gain + shift.cumsum(-1))
            dscores[:rows].scatter_add_(1, level.candidates, ds)

            chosen = level.candidates.gather(1, level.place)
            dparent = _take(g, level.place)
            gates = _Gates(*(_take(gate, chosen) for gate in tape.gates))
            inputs, dc_left, dc_right = _cell_vjp(
                dparent[..., :hidden], dparent[..., hidden:], gates, _take(c_left, chosen), _take(c_right, chosen)
            )
            dinputs[:rows].scatter_(1, chosen[..., None].expand_as(inputs), inputs)
            dh_left, dh_right = (inputs @ weight).chunk(2, -1)
            # Back to this level's places: what stood right of the merge was one place further on.
            place = torch.arange(level.nodes.shape[1], device=g.device)
            g = _take(g, torch.where(place <= level.place, place, place - 1))
            spread = level.place[..., None].expand_as(dparent)
            g.scatter_(1, spread, torch.cat((dh_left, dc_left), -1))
            g.scatter_(1, spread + 1, torch.cat((dh_right, dc_right), -1))
            g[:, :-1].addcmul_(ds[..., None], blocks[:, :, PULL_LEFT])
            g[:, 1:].addcmul_(ds[..., None], blocks[:, :, PULL_RIGHT])
        dleaves = g.new_zeros(lines, tokens, 2 * hidden)
        dleaves[:done] = g
        dleaves[done:, 0] = droots[done:]

        dinputs.addcmul_(dscores[..., None], score_inputs)
        flat = dinputs.flatten(0, 1)
        dweight = torch.cat([flat.T @ child[..., :hidden].flatten(0, 1) for child in (left, right)], -1)
        dquery = (tape.parents[..., :hidden] * dscores[..., None]).sum((0, 1)) / math.sqrt(hidden)
        return dleaves, dweight, flat.sum(0), dquery, None, None


def _moves(tape: _Tape, left: Tensor, right: Tensor, weight: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """The score's gradient at the gates' inputs ``(B, 3(L - 1), 5H)``, and the four blocks of each candidate."""
    hidden = len(query)
    inputs, *dc = _cell_vjp(query / math.sqrt(hidden), None, tape.gates, left[..., hidden:], right[..., hidden:])
    dh_left, dh_right = (inputs @ weight).chunk(2, -1)
    return inputs, torch.cat((tape.parents - left, left - right, dh_left, dc[0], dh_right, dc[1]), -1)


def _pull_back(level: _Level, v: Tensor) -> Tensor:
    """The estimator's gradient at the scores; a choice that has none, such as the greedy one, gives zeros."""
    if not level.sample.requires_grad:
        return torch.zeros_like(v)
    return torch.autograd.grad(level.sample, level.scores, v)[0]


def _with_roots(g: Tensor, droots: Tensor) -> Tensor:
    """``(b, n, 2H)`` with the lines added that have shrunk to their root at this level."""
    if not len(droots):
        return g
    roots = g.new_zeros(len(droots), *g.shape[1:])
    roots[:, 0] = droots
    return torch.cat((g, roots))


def _without(row: Tensor, k: Tensor) -> Tensor:
    """``(b, n) -> (b, n - 1)``: without the entry at ``k`` ``(b, 1)``; what stood right of it moves one place up."""
    return torch.where(torch.arange(row.shape[1] - 1, device=row.device) < k, row[:, :-1], row[:, 1:])


def _take(table: Tensor, numbers: Tensor) -> Tensor:
    """``(B, S, C)`` and ``(b, n)`` -> ``(b, n, C)``: entries of each of the first b rows."""
    first = torch.arange(0, len(numbers) * table.shape[1], table.shape[1], device=numbers.device)[:, None]
    return table.flatten(0, 1).index_select(0, (numbers + first).flatten()).view(*numbers.shape, table.shape[2])
