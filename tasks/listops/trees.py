"""Binary trees over a line's tokens, as merges and as spans, and how they compare with the gold tree.

A list of merges has, a level each, the place of the left one of the two nodes merged, among the nodes then left.
"""

from collections.abc import Sequence

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


def depth(tree: Sequence[Span]) -> float:
    """Mean over the tokens of how many constituents they are in."""
    return sum(end - start for start, end in tree) / (len(tree) + 1)
