"""ListOps expressions: their tokens, value, gold tree and a random generator.

Nangia and Bowman, "ListOps: A Diagnostic Dataset for Latent Tree Learning", NAACL SRW 2018. ``[MAX 2 9 [MIN 4 7 ] ]``
is 9. Its gold tree is binary, each operator taking its arguments one by one: ``( ( ( ( [MAX 2 ) 9 ) ( ... ) ) ] )``.
"""

import random
from collections.abc import Callable, Sequence

#: A number's place is its token, then the operators and the end of an operator's arguments.
TOKENS = (*"0123456789", "[MIN", "[MAX", "[MED", "[SM", "]")
TOKEN_OF = {text: token for token, text in enumerate(TOKENS)}
LABELS = 10
END = TOKEN_OF["]"]


def _median(values: Sequence[int]) -> int:
    """Of an even count: the mean of the two in the middle, rounded down."""
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) // 2


OPERATORS: dict[int, Callable[[Sequence[int]], int]] = {
    TOKEN_OF["[MIN"]: min,
    TOKEN_OF["[MAX"]: max,
    TOKEN_OF["[MED"]: _median,
    TOKEN_OF["[SM"]: lambda values: sum(values) % 10,
}


def evaluate(tokens: Sequence[int]) -> tuple[int, int]:
    """Value of an expression, 0 to 9, and its depth: how many operators its innermost one is nested in, itself too.

    Raises:
        ValueError: the tokens are no expression; says what is wrong at which of them.
    """
    open_operators: list[list[int]] = []
    depth = 0
    for place, token in enumerate(tokens):
        if token in OPERATORS:
            open_operators.append([token])
            depth = max(depth, len(open_operators))
            continue
        value = token
        if token == END:
            if not open_operators:
                raise ValueError(f"token {place + 1}: ']' closes no operator")
            operator, *arguments = open_operators.pop()
            if not arguments:
                raise ValueError(f"token {place + 1}: {TOKENS[operator]!r} has no arguments")
            value = OPERATORS[operator](arguments)
        if open_operators:
            open_operators[-1].append(value)
        elif place == len(tokens) - 1:
            return value, depth
        else:
            raise ValueError(f"token {place + 2}: {TOKENS[tokens[place + 1]]!r} follows a whole expression")
    raise ValueError(f"{TOKENS[open_operators[-1][0]]!r} is not closed by ']'" if open_operators else "no tokens")


def token(word: str) -> int:
    """Raises ValueError for a word that is none."""
    if word not in TOKEN_OF:
        raise ValueError(f"unknown token {word!r}, allowed: {' '.join(TOKENS)}")
    return TOKEN_OF[word]


def parse(text: str) -> list[int]:
    """Tokens of an expression in the published form, ``( ( ( [MAX 2 ) 9 ) ] )``.

    Raises:
        ValueError: a token is unknown, or the brackets do not group all tokens in pairs; says which.
    """
    tokens: list[int] = []
    children = [0]
    for word in text.split():
        if word == "(":
            children.append(0)
            continue
        if word == ")":
            pair = children.pop()
            if not children:
                raise ValueError(f"unbalanced brackets: ')' without '(' after {len(tokens)} tokens")
            if pair != 2:
                raise ValueError(f"a bracket that ends after {len(tokens)} tokens holds {pair} things instead of 2")
        else:
            tokens.append(token(word))
        children[-1] += 1
    if len(children) > 1:
        raise ValueError(f"unbalanced brackets: {len(children) - 1} '(' without ')'")
    if children != [1]:
        raise ValueError(f"{children[0]} expressions instead of one" if tokens else "no expression")
    return tokens


def write(tokens: Sequence[int]) -> str:
    """An expression in the published form: the gold tree's brackets around its tokens."""
    groups: list[list[str]] = [[]]  # what stands at each depth of nesting, each operator one growing group
    for token in tokens:
        if token in OPERATORS:
            groups.append([TOKENS[token]])
            continue
        item = TOKENS[token]
        if token == END:
            item = f"( {groups.pop()[0]} {item} )"
        groups[-1] = [f"( {groups[-1][0]} {item} )"] if groups[-1] else [item]
    return groups[0][0]


def generate(
    random_number: random.Random, max_depth: int = 20, max_arguments: int = 5, nesting: float = 0.25
) -> list[int]:
    """Tokens of a random expression, by the published generator's law.

    With probability ``nesting`` (and never ``max_depth`` deep) an operator with 2 to ``max_arguments`` arguments, each
    drawn likewise, one deeper; else a digit. All choices are uniform.
    """

    def below(n: int) -> int:
        return int(n * random_number.random())  # random() alone is the same in every Python version

    def draw(depth: int) -> None:
        if depth == max_depth or random_number.random() >= nesting:
            tokens.append(below(10))
            return
        tokens.append(operators[below(len(operators))])
        for _ in range(2 + below(max_arguments - 1)):
            draw(depth + 1)
        tokens.append(END)

    operators = list(OPERATORS)
    tokens: list[int] = []
    draw(1)
    return tokens
