"""A sample's product with a table, row kernels: what the operators of :mod:`.embedding_ops` do below autograd.

Rows go in parts: of each there is one tile ``(rows, N)`` at a time, which stays in the cache. Arguments as there.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from . import ops, table
from .parts import Part, parts, rows_of
from .reference import Parameters
from .register import in_shape

_Place = tuple[int, int, int]  # groups, tables of each, rows of each group


def embedding(
    logits: Tensor,
    weight: Tensor,
    seed: Tensor,
    parameters: Parameters,
    soft: bool,
    estimator: str,
    num_samples: int,
    first_row: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    kernels = ops.kernels_of(backend, logits)
    place, (columns, width) = _placed(logits, weight.shape[:-1]), weight.shape[-2:]
    lines = weight.flatten(0, -2)

    def of(part: Part, x: Tensor) -> tuple[Tensor, Tensor]:
        sample, index = kernels.sample(x, part.seed, part.parameters, part.first_row)
        return table.gather(lines, index, sample[:, 0], _begins(index, part.begin, place, columns)), index

    result, index = _by_parts(of, logits, place, seed, parameters, first_row)
    return in_shape(result, (*logits.shape[:-1], width)), in_shape(index, logits.shape[:-1])


def pull_back(
    grad: Tensor,
    weight: Tensor,
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Parameters,
    estimator: str,
    num_samples: int,
    first_row: int,
    backend: str,
) -> Tensor:
    kernels = ops.kernels_of(backend, logits)
    place, index = _placed(logits, weight.shape[:-1]), index.reshape(-1)
    product = _products(grad, weight, logits, place)

    def of(part: Part, x: Tensor) -> tuple[Tensor]:
        own = index[part.begin : part.end]
        call = (x, own, part.seed, part.parameters, estimator, num_samples, part.first_row)
        return (kernels.surrogate_vjp(product(part), *call),)

    return in_shape(_by_parts(of, logits, place, seed, parameters, first_row)[0], logits.shape)


def scatter(
    grad: Tensor,
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Parameters,
    tables: tuple[int, ...],
    soft: bool,
    estimator: str,
    num_samples: int,
    first_row: int,
    backend: str,
) -> Tensor:
    """A sum in float32 at least, in the order of the rows. A row without a sample adds nothing."""
    place, columns, width = _placed(logits, tables), tables[-1], grad.shape[-1]
    index = index.reshape(-1)
    flat = grad.reshape(len(index), width)
    if not soft:
        total = table.scatter(flat, index, math.prod(tables), _begins(index, 0, place, columns))
        return in_shape(total, (*tables, width))
    wide = ops.widened(flat)
    kernels = ops.kernels_of(backend, logits)
    groups, cycle, per_group = place
    total = wide.new_zeros((groups, cycle, columns, width))
    without = (index < 0).unsqueeze(-1)
    wide = wide.masked_fill(without, 0.0)

    def of(part: Part, x: Tensor) -> tuple[()]:
        own = slice(part.begin, part.end)
        call = (x, index[own], part.seed, part.parameters, estimator, num_samples, part.first_row)
        sample = ops.widened(kernels.surrogate(*call)).masked_fill_(without[own], 0.0)
        for number in range(cycle):
            every = slice((number - part.begin) % cycle, None, cycle)
            total[part.begin // max(1, per_group), number].addmm_(sample[every].t(), wide[own][every])
        return ()

    _by_parts(of, logits, place, seed, parameters, first_row)
    return in_shape(total.to(grad.dtype), (*tables, width))


def pull_back_to_parameters(
    grad: Tensor,
    weight: Tensor,
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Tensor,
    estimator: str,
    num_samples: int,
    first_row: int,
    backend: str,
) -> Tensor:
    kernels = ops.kernels_of(backend, logits)
    index, flat = index.reshape(-1), parameters.reshape(-1, 3)
    place = _placed(logits, weight.shape[:-1])
    product = _products(grad, weight, logits, place)

    def of(part: Part, x: Tensor) -> tuple[Tensor]:
        own = index[part.begin : part.end]
        call = (x, own, part.seed, part.parameters, estimator, num_samples, part.first_row)
        return (ops.along(product(part), kernels.tau_derivative(*call)).sum(-1),)

    (of_rows,) = _by_parts(of, logits, place, seed, flat, first_row)
    return ops.at_parameters(of_rows, flat).view(parameters.shape)


# --- parts ---------------------------------------------------------------------------------------------------------


def _by_parts(
    of: Callable[[Part, Tensor], tuple[Tensor, ...]],
    logits: Tensor,
    place: _Place,
    seed: Tensor,
    parameters: Parameters,
    first_row: int,
) -> tuple[Tensor, ...]:
    """What a function makes of each part and its rows of the logits, one below the other. A part has whole turns
    through the tables, but where seeds cut it."""
    groups, tables, per_group = place
    columns, most, rows = logits.shape[-1], _most(logits, tables), groups * per_group
    if (rows <= most and groups == 1) or rows == 0:  # at once, for small calls
        return of(Part(0, rows, seed, parameters, first_row), logits.reshape(-1, columns))
    blocks = _blocks(logits)
    length = blocks.shape[1]
    if len(blocks) > 1 and length >= most:  # no part has rows of two
        groups = math.lcm(groups, len(blocks))
    joined: tuple[Tensor, ...] = ()
    for part in parts(rows, most, seed, parameters, first_row, groups):
        first, last = part.begin // length, -(-part.end // length)
        own = blocks[first:last].reshape(-1, columns)[part.begin - first * length : part.end - first * length]
        piece = of(part, own)
        joined = joined or tuple(x.new_empty((rows, *x.shape[1:])) for x in piece)
        for whole, x in zip(joined, piece, strict=True):
            whole[part.begin : part.end] = x
            del x
        del piece  # the next one comes where this one was, in the cache
    return joined


def _most(logits: Tensor, tables: int) -> int:
    """Rows of a part: what :mod:`.parts` allows, or one of each table where that is more."""
    most = rows_of(logits.shape[-1], logits.element_size(), logits.device)
    return max(tables, most - most % tables)


def _blocks(logits: Tensor) -> Tensor:
    """``(blocks, rows, N)``, a view of logits whose categories stood before other dimensions, as an image's."""
    for blocks in (1, logits.shape[0]):
        try:
            return logits.view(blocks, -1, logits.shape[-1])
        except RuntimeError:  # not with these strides
            continue
    return logits.reshape(1, -1, logits.shape[-1])


def _placed(logits: Tensor, tables: tuple[int, ...]) -> _Place:
    groups = max(1, math.prod(tables[:-2]))  # where there is none, there is no row
    return groups, max(1, tables[-2]), logits.numel() // logits.shape[-1] // groups


def _begins(index: Tensor, first: int, place: _Place, columns: int) -> Tensor | int:
    """Where the tables of the rows from the first on begin, in all tables one under the other."""
    groups, tables, per_group = place
    if groups == tables == 1:
        return 0
    row = torch.arange(first, first + len(index), device=index.device)
    return (row // per_group * tables + row % tables) * columns


def _products(grad: Tensor, weight: Tensor, logits: Tensor, place: _Place) -> Callable[[Part], Tensor]:
    """The gradient at a part's sample, ``grad W^T``, which that of the next part writes over."""
    groups, tables, per_group = place
    columns, width = weight.shape[-2:]
    if logits.numel() == 0:  # nor are there tables, perhaps
        return lambda part: grad.new_empty((0, columns))
    grad, weight = grad.reshape(groups * per_group, width), weight.reshape(groups, tables, columns, width)
    buffer = grad.new_empty((min(per_group, _most(logits, tables) + 2 * tables), columns))

    def of(part: Part) -> Tensor:
        first, last = part.begin - part.begin % tables, part.end + -part.end % tables
        tile, own, of_group = buffer[: last - first], grad[first:last], weight[part.begin // max(1, per_group)]
        if tables == 1:
            return torch.mm(own, of_group[0].t(), out=tile)
        by_table = tile.view(-1, tables, columns).transpose(0, 1)
        torch.bmm(own.view(len(own) // tables, tables, width).transpose(0, 1), of_group.transpose(1, 2), out=by_table)
        return tile[part.begin - first : part.end - first]

    return of
