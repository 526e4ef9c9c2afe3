"""Binary trees over a line's tokens, as merges and as spans, and how they compare with the gold tree.

A list of merges has, a level each, the place of the left one of the two nodes merged, among the nodes then left.
"""

from collections.abc import Sequence
from typing import NamedTuple

Span = tuple[int, int]  #: first token and one past the last, of two tokens or more


def spans(merges: Sequence[int]) -> list[Span]:
    """The constituents of the tree of n - 1 merges, in the order of merging; the last is the whole line."""
    nodes = [(i, i + 1) for i in range(len(merges) + 1)]
    found = []
    for k in merges:
        nodes[k : k + 2] = [(nodes[k][0], nodes[k + 1][1])]
        found.append(nodes[k])
    return found


def gold_spans(text: str) -> list[Span]:
    """The constituents of a bracketed expression."""
    starts: list[int] = []
    found, tokens = [], 0
    for word in text.split():
        if word == "(":
            starts.append(tokens)
        elif word == ")":
            found.append((starts.pop(), tokens))
        else:
            tokens += 1
    return found


def gold_merges(text: str) -> list[int]:
    """The merges that make the tree of a bracketed expression; what stands left of a pair is merged before it."""
    merges, nodes = [], 0
    for word in text.split():
        if word == ")":
            nodes -= 1
            merges.append(nodes - 1)
        elif word != "(":
            nodes += 1
    return merges


def bracketed(words: Sequence[str], merges: Sequence[int]) -> str:
    """The tree as text, in the published form."""
    nodes = list(words)
    for k in merges:
        nodes[k : k + 2] = [f"( {nodes[k]} {nodes[k + 1]} )"]
    return nodes[0]


def f1(tree: Sequence[Span], gold: Sequence[Span]) -> float:
    """Unlabelled F1 of two binary trees of one line: the share of constituents they have in common, the whole included.

    Both have the same number, so precision and recall are one (as in Nangia and Bowman 2018). A line of one token has
    none; its F1 is 1.
    """
    return len(set(tree) & set(gold)) / len(gold) if gold else 1.0


class Baselines(NamedTuple):
    """What trees that know nothing of a line come to, against its gold tree."""

    random: float  #: expected
    left: float  #: ((a b) c) d
    right: float  #: a (b (c d))


def baselines(gold: Sequence[Span]) -> Baselines:
    """:func:`f1` of trees that do not look at the line, from the gold tree's spans.

    The random tree merges any two neighbours with the same probability at each level, as a parser does whose scores
    are equal. So the order in which its inner boundaries fall is a uniform permutation, and m of n tokens are a
    constituent if the m - 1 boundaries between them fall before those at either end: with probability 2 / (m (m + 1)),
    or 1 / m if the line begins or ends there. The expectation is exact.
    """
    if not gold:
        return Baselines(1.0, 1.0, 1.0)
    tokens = len(gold) + 1
    expected, left, right = 0.0, 0, 0
    for start, end in gold:
        size, is_first, is_last = end - start, start == 0, end == tokens
        left, right = left + is_first, right + is_last
        if is_first or is_last:
            expected += 1.0 if is_first and is_last else 1 / size
        else:
            expected += 2 / (size * (size + 1))
    return Baselines(expected / len(gold), left / len(gold), right / len(gold))


def depth(tree: Sequence[Span]) -> float:
    """Mean over the tokens of how many constituents they are in."""
    return sum(end - start for start, end in tree) / (len(tree) + 1)
