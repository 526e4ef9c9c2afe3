"""A call for the fuzzer: a few numbers, from which any process makes the same tensors."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

FLOATS = {"float64": torch.float64, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
LAYOUTS = ("contiguous", "transposed", "stepped", "offset", "expanded", "overlapping")
#: Whose tau has a gradient.
WITH_SOFT_SAMPLE = ("straight_through", "gumbel_softmax", "gumbel_rao", "gst")
#: What is special about some of the rows.
SPECIAL = ("masked", "empty", "alone", "nan", "inf", "equal")
SPECIAL_HIDDEN = ("nan", "inf", "equal")  #: of rows whose product the logits are


@dataclass(frozen=True)
class Case:
    """One call, of any estimator, in any of its forms.

    Args:
        call: ``rows``; ``part``: rows of a larger whole, from ``first_row`` on; ``ragged``, of rows of up to
            ``columns`` categories; ``bernoulli``; ``embedding``; ``top_k``; ``linear_embedding``.
        estimator: the name of its function.
        arguments: of the estimator and ``sample_tau``; numbers and words.
        of_rows: which of them are tensors, with one value a row about that number.
        shape: of the rows, without the categories.
        columns: how many categories.
        dim: where the categories are.
        layout, grad_layout: how logits, or their factors, and incoming gradient lie in memory.
        scale, grad_scale: their size.
        hard: whether the sample is; of an embedding, whether its gradient at the table is that of the hard one.
        special: what is special about some rows.
        mask: whether a mask is given; of a linear_embedding, a bias that masks.
        seeds: how many groups of rows have a seed of their own.
        contents: the seed of all that is drawn above.
        k: of top_k.
        features: of a linear_embedding's hidden rows.
    """

    call: str
    estimator: str
    arguments: dict[str, Any]
    of_rows: tuple[str, ...]
    shape: tuple[int, ...]
    columns: int
    dim: int
    dtype: str
    layout: str
    grad_layout: str
    scale: float
    grad_scale: float
    special: tuple[str, ...]
    mask: bool
    hard: bool
    seed: int
    seeds: int
    num_draws: int | None
    first_row: int
    contents: int
    k: int = 1
    features: int = 1

    @property
    def rows(self) -> int:
        return math.prod(self.shape)

    def written(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def read(cls, text: str) -> "Case":
        given: dict[str, Any] = json.loads(text)
        lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
        return cls(**{**given, **lists})


@dataclass(frozen=True)
class Factors:
    """Whose product the logits are."""

    hidden: Tensor  # (*shape, features)
    proj: Tensor  # (columns, features)
    bias: Tensor | None  # (columns,)

    def logits(self) -> Tensor:
        bias = None if self.bias is None else self.bias.double()
        return linear(self.hidden.double(), self.proj.double(), bias).to(self.hidden.dtype)


@dataclass
class Contents:
    """The tensors of a case; the categories of logits and gradient are in the last dimension."""

    logits: Tensor
    grad: Tensor
    mask: Tensor | None
    weight: Tensor | None
    offsets: Tensor | None
    seed: int | Tensor
    arguments: dict[str, Any]
    factors: Factors | None = None


def contents(case: Case) -> Contents:
    """Make them; the dimension of the categories is where the call has it."""
    generator = torch.Generator().manual_seed(case.contents)
    if case.call == "linear_embedding":
        return _of_product(case, generator)
    ragged, binary = case.call == "ragged", case.call == "bernoulli"
    offsets = weight = mask = None
    if ragged:
        lengths = torch.randint(0, case.columns + 1, (case.rows,), generator=generator)
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        shape: tuple[int, ...] = (int(offsets[-1]),)
    else:
        shape = case.shape if binary else (*case.shape, case.columns)
    dtype = FLOATS[case.dtype]
    logits = _numbers(shape, case.scale, dtype, generator)
    rows = [logits[a:b] for a, b in _pairs(offsets)] if offsets is not None else logits.view(case.rows, case.columns)
    for kind in case.special:
        _make_special(kind, rows, generator)
    if case.mask:
        mask = torch.rand(shape, generator=generator) < 0.7
    result = (case.rows, 3) if case.call == "embedding" else shape
    if case.call == "embedding":
        weight = _numbers((case.columns, 3), 1.0, dtype, generator)
        result = (*case.shape, 3)
    grad = _numbers(
        (*(() if case.num_draws is None else (case.num_draws,)), *result), case.grad_scale, dtype, generator
    )
    if not ragged and not binary:
        logits = _laid_out(logits.movedim(-1, case.dim), case.layout, generator)
        mask = None if mask is None else mask.movedim(-1, case.dim)
        place = case.dim if case.num_draws is None else case.dim + 1
        grad = _laid_out(grad.movedim(-1, place), case.grad_layout, generator)
    else:
        logits, grad = _laid_out(logits, case.layout, generator), _laid_out(grad, case.grad_layout, generator)
    return Contents(logits, grad, mask, weight, offsets, _seed(case), _arguments(case, generator))


def _of_product(case: Case, generator: torch.Generator) -> Contents:
    """Small integers times a power of 2: the products are the same in any order of adding up, and need no rounding in
    any dtype. Sums of up to 8 features stay below 2^8."""
    dtype, rank = FLOATS[case.dtype], () if case.num_draws is None else (case.num_draws,)
    hidden = _integers((*case.shape, case.features), 4, case.scale / 8, dtype, generator)
    for kind in case.special:
        _make_special(kind, hidden.view(case.rows, case.features), generator)
    proj = _integers((case.columns, case.features), 4, 1.0, dtype, generator)
    bias = None
    if case.mask:
        bias = _integers((case.columns,), 64, case.scale / 8, dtype, generator)
        bias.masked_fill_(torch.rand(case.columns, generator=generator) > 0.7, -torch.inf)
    weight = _integers((case.columns, 3), 4, 1.0, dtype, generator)
    grad = _integers((*rank, *case.shape, 3), 4, case.grad_scale, dtype, generator)
    factors = Factors(_laid_out(hidden, case.layout, generator), _laid_out(proj, case.layout, generator), bias)
    grad = _laid_out(grad, case.grad_layout, generator)
    arguments = _arguments(case, generator)
    return Contents(factors.logits(), grad, None, weight, None, _seed(case), arguments, factors)


def _seed(case: Case) -> int | Tensor:
    if case.seeds == 1:
        return case.seed
    return torch.arange(case.seeds) + min(case.seed, 2**63 - 1 - case.seeds)  # neighbours


def _pairs(offsets: Tensor) -> Iterator[tuple[int, int]]:
    return pairwise(offsets.tolist())


def _numbers(shape: tuple[int, ...], scale: float, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    finite = torch.finfo(dtype).max
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).clamp(-finite, finite).to(dtype)


def _integers(
    shape: tuple[int, ...], most: int, scale: float, dtype: torch.dtype, generator: torch.Generator
) -> Tensor:
    """From -most to most, times a power of 2 near the scale, of which the type has 2^8 times as much."""
    of_type = torch.finfo(dtype)
    power = round(math.log2(min(max(scale, of_type.smallest_normal), of_type.max / 2**8)))
    return (torch.randint(-most, most + 1, shape, generator=generator).double() * 2.0**power).to(dtype)


def _make_special(kind: str, rows: Any, generator: torch.Generator) -> None:
    """In place, of about a third of the rows."""
    for row in rows:
        if len(row) == 0 or torch.rand((), generator=generator) < 0.6:
            continue
        chosen = int(torch.randint(len(row), (), generator=generator))
        if kind == "masked":
            row[torch.rand(len(row), generator=generator) < 0.5] = -torch.inf
        elif kind == "empty":
            row.fill_(-torch.inf)
        elif kind == "alone":
            kept = row[chosen].clone()
            row.fill_(-torch.inf)[chosen] = kept
        elif kind == "equal":
            row.fill_(row[chosen].item())
        else:
            row[chosen] = torch.nan if kind == "nan" else torch.inf


def _laid_out(x: Tensor, layout: str, generator: torch.Generator) -> Tensor:
    """The values of x, NaN between them; expanded and overlapping ones repeat some of them."""
    shape = x.shape
    if x.ndim == 0:
        return x
    if layout == "transposed":
        return x.permute(*reversed(range(x.ndim))).contiguous().permute(*reversed(range(x.ndim)))
    if layout == "stepped":
        wide = x.new_full((*shape[:-1], 3 * shape[-1]), torch.nan)[..., 1::3]
        return wide.copy_(x)
    if layout == "offset":
        return x.new_full((x.numel() + 5,), torch.nan)[3 : 3 + x.numel()].view(shape).copy_(x)
    if layout == "expanded" and x.ndim > 1 and 0 not in shape:
        dim = int(torch.randint(x.ndim - 1, (), generator=generator))
        return x.narrow(dim, 0, 1).contiguous().expand(shape)
    if layout == "overlapping" and 0 not in shape:
        strides = [int(torch.randint(4, (), generator=generator)) for _ in shape]
        needed = 1 + sum(stride * (size - 1) for stride, size in zip(strides, shape, strict=True))
        flat = x.reshape(-1)
        return flat.as_strided(shape, strides) if needed <= flat.numel() else x.contiguous()
    return x.contiguous()


def _arguments(case: Case, generator: torch.Generator) -> dict[str, Any]:
    """With tensors in the place of those that are ``of_rows``: of one row each where each row has its own."""
    given = dict(case.arguments)
    for name in case.of_rows:
        if case.call in ("ragged", "bernoulli"):
            shape = case.shape if case.call == "bernoulli" else (case.rows,)
        else:
            shape = (*case.shape[: case.dim], 1, *case.shape[case.dim :])
        factor = torch.rand(shape, generator=generator, dtype=torch.float64) * 0.3 + 0.7
        given[name] = given[name] * factor
    return given
