"""A case, called by a backend through the public functions: what comes out, and its gradients."""

from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import discrete_ops as do
from discrete_ops import backends, call, estimators, ops, parts

from .cases import FLOATS, WITH_SOFT_SAMPLE, Case, Contents, contents


@dataclass(frozen=True)
class Outcome:
    """The categories are in the last dimension."""

    sample: Tensor
    index: Tensor | None  #: bernoulli returns none
    at_rows: Tensor  #: gradient at the logits; of linear_embedding at hidden
    at_tau: Tensor | None = None
    at_weight: Tensor | None = None
    at_proj: Tensor | None = None
    at_bias: Tensor | None = None


def outcome(case: Case, made: Contents, backend: str) -> Outcome:
    """Draw, and pull the incoming gradient back to all that takes one."""
    arguments = dict(made.arguments)
    of = made.factors
    given = {"rows": made.logits if of is None else of.hidden, "tau": arguments.get("tau"), "weight": made.weight}
    if of is not None:
        given |= {"proj": of.proj, "bias": of.bias}
    if case.estimator not in WITH_SOFT_SAMPLE:
        del given["tau"]
    leaves = {name: x.detach().requires_grad_() for name, x in given.items() if isinstance(x, Tensor)}
    if "tau" in leaves:
        arguments["tau"] = leaves["tau"]
    drawn = _called(case, made, estimators.ESTIMATORS[case.estimator](**arguments), leaves, backend)
    sample, index = drawn if isinstance(drawn, tuple) else (drawn, None)
    gradients = torch.autograd.grad(sample, list(leaves.values()), made.grad)
    found = {f"at_{name}": gradient for name, gradient in zip(leaves, gradients, strict=True)}
    if case.call not in ("ragged", "bernoulli"):
        found["at_rows"] = found["at_rows"].movedim(case.dim, -1)
        sample = sample.movedim(case.dim if case.num_draws is None else case.dim + 1, -1)
    if index is not None and case.call == "top_k":
        index = index.movedim(case.dim, -1)
    return Outcome(sample.detach(), index, **found)


def outcome_of(case: Case, backend: str) -> Outcome:
    """Of a process that has but the numbers. An emulated machine is another for each case, and its threads' order; so
    is how much memory a part of the rows may take, where a call is cut into parts."""
    emulator = backends.get(backend)
    if hasattr(emulator, "machine"):
        emulator.machine(multiprocessors=1 + case.contents % 8, order=case.contents % 5)
    part = {"cpu": case.columns * FLOATS[case.dtype].itemsize * (1 + case.contents % 7)}
    with patch.dict(parts.BYTES, part), patch.dict(parts.PRODUCT_BYTES, part):
        return outcome(case, contents(case), backend)


def _called(
    case: Case, made: Contents, estimator: Any, leaves: dict[str, Tensor], backend: str
) -> Tensor | tuple[Tensor, Tensor]:
    logits = leaves["rows"]
    given: dict[str, Any] = {"seed": made.seed, "backend": backend}
    if case.call != "top_k":
        given["num_draws"] = case.num_draws
    if case.call == "bernoulli":
        return do.bernoulli(logits, estimator, hard=case.hard, **given)
    given["return_index"] = True
    if case.call == "linear_embedding":
        return do.linear_embedding(
            logits, leaves["proj"], leaves["weight"], estimator, bias=leaves.get("bias"), **given
        )
    given |= {"mask": made.mask, "dim": -1 if case.call == "ragged" else case.dim}
    if case.call == "top_k":
        return do.top_k(logits, case.k, estimator, **given)
    if case.call == "embedding":
        return do.embedding(logits, leaves["weight"], estimator, soft=not case.hard, **given)
    given["offsets"] = made.offsets
    if not case.hard:
        given["hard"] = False
    if case.call == "part":

        def of_part(*drawn: Any) -> tuple[Tensor, Tensor]:
            *before, _, name = drawn
            return ops.draw(*before, case.first_row, name)  # type: ignore[call-arg]

        given[call.OPERATOR] = of_part
    return estimator(logits, **given)
