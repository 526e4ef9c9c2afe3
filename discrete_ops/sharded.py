"""Logits that torch.distributed shards over a mesh: DTensors, with rows on different devices.

A call samples as on one device for one seed, so rows keep their numbers: a device whose shard begins at row r counts
its noise from r. Without a seed the devices must draw the same one: their default generators must agree, as for torch's
own random operators on DTensors.
"""

import sys
from typing import Any

from torch import Tensor

from . import ops
from .reference import Parameters


def is_sharded(logits: Tensor) -> bool:
    distributed = sys.modules.get("torch.distributed.tensor")  # where it is not imported there is no DTensor
    return distributed is not None and isinstance(logits, distributed.DTensor)


def draw(
    logits: Any,
    seed: Tensor,
    parameters: Parameters,
    hard: bool,
    estimator: str,
    num_samples: int,
    first_row: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """:func:`discrete_ops.ops.draw` on the shards of a DTensor. Sharding over the first dimension stays; over another
    one, or by partial sums, it is gathered first."""
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    mesh, shape = logits.device_mesh, logits.shape
    by_rows = len(shape) > 1 and seed.numel() == 1  # seeds of their own have groups of rows
    # Of this very kind: those that inherit from it have rows that are no neighbours.
    stays = [by_rows and type(placement) is Shard and placement.dim == 0 for placement in logits.placements]
    placements = [p if stay else Replicate() for p, stay in zip(logits.placements, stays, strict=True)]
    local = logits.redistribute(mesh, placements).to_local()
    _, offset = compute_local_shape_and_global_offset(shape, mesh, placements)
    inner = shape[1:-1].numel()
    begin, rows = offset[0] * inner if any(stays) else 0, local.shape[:-1].numel()
    if isinstance(parameters, Tensor):
        same = [Replicate()] * mesh.ndim  # so that a gradient at tau is the sum over all shards, on every device
        spread = DTensor.from_local(parameters, mesh, same, run_check=False)
        parameters = spread.to_local(grad_placements=[Partial() if stay else Replicate() for stay in stays])
        if len(parameters) > 1:
            parameters = parameters[begin : begin + rows] if rows else parameters[:1]
    sample, index = ops.draw(local, seed, parameters, hard, estimator, num_samples, first_row + begin, backend)
    return (
        _spread(DTensor, sample, mesh, placements, shape),
        _spread(DTensor, index, mesh, placements, shape[:-1]),
    )


def draw_many(logits: Any, seed: Tensor, parameters: Parameters, *call: Any, num_draws: int) -> tuple[Tensor, Tensor]:
    """:func:`discrete_ops.many.draw` of a DTensor, on copies: each device draws all rows, for a row's later draws are
    numbered behind every row's first."""
    from torch.distributed.tensor import Replicate

    if seed.numel() > 1:
        raise ValueError(f"seed: got {seed.numel()} seeds with num_draws for a DTensor, allowed: one")
    if isinstance(parameters, Tensor) and len(parameters) > 1:
        parameters = parameters.repeat(num_draws, 1)
    whole = logits.redistribute(logits.device_mesh, [Replicate()] * logits.device_mesh.ndim)
    return draw(whole.expand(num_draws, *logits.shape), seed, parameters, *call)


def _spread(kind: Any, local: Tensor, mesh: Any, placements: Any, shape: Any) -> Any:
    stride, strides = 1, []
    for length in reversed(shape):
        strides.append(stride)
        stride *= length
    return kind.from_local(local, mesh, placements, run_check=False, shape=shape, stride=tuple(reversed(strides)))
