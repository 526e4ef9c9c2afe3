"""One call of any estimator, and the options that all calls share."""

import inspect
import sys
from functools import partial
from types import FrameType
from typing import Any, TypeAlias, TypedDict

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from . import backends, checks, many, ops, ragged, reference, sharded

if sys.version_info >= (3, 11):
    from typing import Unpack as Unpack
else:
    from typing_extensions import Unpack as Unpack  # torch brings it

Real: TypeAlias = float | Tensor
Seed: TypeAlias = int | Tensor | None
Generator: TypeAlias = torch.Generator | None
Pair: TypeAlias = tuple[Tensor, Tensor]  # (sample, index)


class DrawOptions(TypedDict, total=False):
    """What every call that draws takes by keyword."""

    sample_tau: Real
    mask: Tensor | None
    generator: Generator
    seed: Seed
    backend: str | None


class RowOptions(DrawOptions, total=False):
    """What every estimator takes by keyword, of logits whose categories are along a dimension that is known."""

    num_draws: int | None
    offsets: Tensor | None


class Options(RowOptions, total=False):
    """What every call takes by keyword."""

    dim: int


class EstimatorOptions(Options, total=False):
    """What every call of an estimator's object takes by keyword."""

    hard: bool


DEFAULTS = {
    "dim": -1,
    "sample_tau": 1.0,
    "mask": None,
    "generator": None,
    "seed": None,
    "backend": None,
    "num_draws": None,
    "offsets": None,
}
_JAGGED = torch.jagged
#: An option of the package's own: what is done with the draw, a function of the arguments of :func:`ops.draw` that
#: returns (result, index), for ``ops.draw``. The result has something in the place of the categories.
OPERATOR = "_operator"


def draw(
    estimator: str,
    logits: Tensor,
    tau: Real,
    options: Options,
    return_index: bool = False,
    coefficient: Real = 0.0,
    num_samples: int | None = None,
    hard: bool = True,
    coefficient_name: str = "gap",
) -> Any:
    """One call of any estimator; K of those that take it. Of binary variables where the options' dim is NO_DIM: the
    sample alone. What is no tensor but has a ``__torch_function__``, torch.fx's proxies, takes it."""
    if not isinstance(logits, Tensor) and has_torch_function_unary(logits):
        call = (estimator, logits, tau, options, return_index, coefficient, num_samples, hard, coefficient_name)
        return handle_torch_function(draw, (logits,), *call)
    given: Any = {**DEFAULTS, **options}
    operator = given.pop(OPERATOR, None)
    if len(given) > len(DEFAULTS):
        raise _unknown(min(given.keys() - DEFAULTS.keys()), sys._getframe(1))
    dim, sample_tau, mask, generator, seed, backend, num_draws, offsets = given.values()
    nested = operator is None and isinstance(logits, Tensor) and logits.layout is _JAGGED
    if nested:
        logits, mask, offsets = checks.elements_of_nested(logits, mask, offsets)
    if offsets is None:
        dim = checks.logits(logits, dim)
    else:
        if operator is not None:
            raise ValueError("offsets: got some, allowed here: None")
        dim, operator = checks.offsets(offsets, logits, dim), partial(ragged.draw, offsets)
    if mask is not None:
        logits = checks.masked(logits, mask)
    tau, sample_tau = checks.temperature("tau", tau), checks.temperature("sample_tau", sample_tau)
    parameters = checks.parameters(logits, dim, estimator, tau, coefficient, sample_tau, coefficient_name, offsets)
    binary = dim == checks.NO_DIM
    if binary:
        dim, logits = logits.ndim, logits.unsqueeze(-1)
        if reference.row_of(estimator) == "gumbel_rao" and num_samples is not None:
            estimator, num_samples = "gumbel_rao", reference.ALL_DRAWS
        estimator = reference.BINARY + estimator
    last = dim == logits.ndim - 1
    rows = logits if last else logits.movedim(dim, -1)
    rows_of_seeds = 1
    if isinstance(seed, Tensor) or num_draws is not None:
        rows_of_seeds = logits.numel() // logits.shape[dim] if offsets is None else offsets.shape[0] - 1
    seed = checks.draw_seed(generator, seed, rows_of_seeds, logits.device)
    backend = backends.chosen(backend, logits)
    is_sharded = sharded.is_sharded(logits)
    on_devices = operator
    if operator is None:
        on_devices = sharded.draw if is_sharded else ops.draw
    if num_draws is not None:
        num_draws, dim = checks.count("num_draws", num_draws), dim + 1
        if nested:
            raise ValueError(f"num_draws: got {num_draws}, allowed with a nested tensor: None (its values and offsets)")
        if operator is not None:
            on_devices = partial(many.one_by_one, operator, num_draws, rows_of_seeds)
            if offsets is not None:  # what autograd adds up over the draws
                rows = ops.widened(rows)
        else:
            on_devices = partial(sharded.draw_many if is_sharded else many.draw, num_draws=num_draws)
    draws = 1 if num_samples is None else num_samples
    sample, index = on_devices(rows, seed, parameters, hard, estimator, draws, 0, backend)
    if binary:
        return sample.squeeze(-1)
    if offsets is not None and num_draws is not None:
        sample = sample.to(logits.dtype)
    if nested:
        sample = torch.nested.nested_tensor_from_jagged(sample, offsets)
    sample = sample if last else sample.movedim(-1, dim)
    return sample if return_index is False or not checks.flag("return_index", return_index) else (sample, index)


def _unknown(keyword: str, caller: FrameType) -> TypeError:
    name = caller.f_code.co_name
    allowed = ", ".join(inspect.signature(caller.f_globals[name]).parameters)
    return TypeError(f"{name}: got an unexpected keyword argument {keyword!r}, allowed: {allowed}")
