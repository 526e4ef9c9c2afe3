"""A case, called by a backend through the public functions: what comes out, and its gradients."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import discrete_ops as do
from discrete_ops import backends, call, estimators, ops

from .cases import WITH_SOFT_SAMPLE, Case, Contents, contents


@dataclass(frozen=True)
class Outcome:
    """The categories are in the last dimension."""

    sample: Tensor
    index: Tensor | None  #: bernoulli returns none
    at_logits: Tensor
    at_tau: Tensor | None
    at_weight: Tensor | None


def outcome(case: Case, made: Contents, backend: str) -> Outcome:
    """Draw, and pull the incoming gradient back to all that takes one."""
    arguments = dict(made.arguments)
    logits = made.logits.detach().requires_grad_()
    tau = arguments.get("tau")
    wanted = [logits]
    if isinstance(tau, Tensor) and case.estimator in WITH_SOFT_SAMPLE:
        arguments["tau"] = tau.detach().requires_grad_()
        wanted.append(arguments["tau"])
    weight = None if made.weight is None else made.weight.detach().requires_grad_()
    estimator = estimators.ESTIMATORS[case.estimator](**arguments)
    drawn = _called(case, made, estimator, logits, weight, backend)
    sample, index = drawn if isinstance(drawn, tuple) else (drawn, None)
    if weight is not None:
        wanted.append(weight)
    gradients = list(torch.autograd.grad(sample, wanted, made.grad))
    if case.call not in ("ragged", "bernoulli"):
        gradients[0] = gradients[0].movedim(case.dim, -1)
        sample = sample.movedim(case.dim if case.num_draws is None else case.dim + 1, -1)
    at_weight = gradients.pop() if weight is not None else None
    at_tau = gradients.pop() if len(gradients) > 1 else None
    return Outcome(sample.detach(), index, gradients[0], at_tau, at_weight)


def outcome_of(case: Case, backend: str) -> Outcome:
    """Of a process that has but the numbers; an emulated machine is another for each case, and its threads' order."""
    emulator = backends.get(backend)
    if hasattr(emulator, "machine"):
        emulator.machine(multiprocessors=1 + case.contents % 8, order=case.contents % 5)
    return outcome(case, contents(case), backend)


def _called(
    case: Case, made: Contents, estimator: Any, logits: Tensor, weight: Tensor | None, backend: str
) -> Tensor | tuple[Tensor, Tensor]:
    given: dict[str, Any] = {"seed": made.seed, "num_draws": case.num_draws, "backend": backend}
    if case.call == "bernoulli":
        return do.bernoulli(logits, estimator, hard=case.hard, **given)
    given |= {"mask": made.mask, "dim": -1 if case.call == "ragged" else case.dim, "return_index": True}
    if case.call == "embedding":
        assert weight is not None
        return do.embedding(logits, weight, estimator, soft=not case.hard, **given)
    given["offsets"] = made.offsets
    if not case.hard:
        given["hard"] = False
    if case.call == "part":

        def of_part(*drawn: Any) -> tuple[Tensor, Tensor]:
            *before, _, name = drawn
            return ops.draw(*before, case.first_row, name)  # type: ignore[call-arg]

        given[call.OPERATOR] = of_part
    return estimator(logits, **given)
