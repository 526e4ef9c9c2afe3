"""The reference with the magnitudes of what it adds up in the place of sums: what an error of rounding is a share of.

A gradient is a sum of ``weight * p * (v - <q, v>)``, of which little may be left where terms cancel. Each is rounded as
what it is, so an error counts as a share of the sum of ``|weight| * p * (|v| + <|q|, |v|>)``. Registered as a backend,
it follows a call through whatever adds gradients up: groups of rows, draws, a table.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from discrete_ops import backends, reference
from discrete_ops.reference import Term

from .calls import Outcome, outcome
from .cases import Case, Contents, Factors

NAME = "magnitudes"
#: Quadrature, of the mean over all draws, is right to 1e-12 of the largest that its gradient can be, 1e-7 in float32
#: (``discrete_ops.quadrature``): to this share of what is allowed elsewhere, whatever is left of the gradient.
OF_QUADRATURE = 0.01


class Magnitudes:
    """The functions of a backend, of logits in float64 with the noise of the dtype that they came in."""

    sample, surrogate = staticmethod(reference.sample), staticmethod(reference.surrogate)

    def __init__(self, dtype: torch.dtype) -> None:
        self.noise = torch.float64 if dtype == torch.float64 else torch.float32

    def surrogate_vjp(self, grad: Tensor, logits: Tensor, *call: Any) -> Tensor:
        rows, invalid, empty = reference._rows(logits, *call)
        v, scale = reference._scaled(grad, rows.l)

        def of_term(term: Term) -> Tensor:
            return _size(_term(term, call[4]), (term.of(v) if term.of else v).abs())

        magnitudes = reference._sum_over_terms(rows._replace(noise=self.noise), call[3], of_term)
        return reference._as_output(magnitudes / scale, invalid, empty, logits)

    def tau_derivative(self, logits: Tensor, *call: Any) -> Tensor:
        rows, invalid, empty = reference._rows(logits, *call)

        def of_term(term: Term) -> Tensor:
            minus_log = -term.p.clamp_min(torch.finfo(term.p.dtype).tiny).log()
            return _size(
                _term(term, call[4]), minus_log.clamp_min(1.0) if call[4] == reference.ALL_DRAWS else minus_log
            )

        magnitudes = reference._sum_over_terms(rows._replace(noise=self.noise), call[3], of_term)
        return reference._as_output(magnitudes, invalid, empty, logits)


def _term(term: Term, num_samples: int) -> Term:
    """That whose size counts."""
    return term._replace(p=term.p.clamp_min(OF_QUADRATURE)) if num_samples == reference.ALL_DRAWS else term


def _size(term: Term, v: Tensor) -> Tensor:
    weight = term.weight.abs() if isinstance(term.weight, Tensor) else abs(term.weight)
    return weight * term.p * (v + (term.q.abs() * v).sum(-1, keepdim=True))


def magnitudes(case: Case, made: Contents) -> Outcome:
    """Of a case's gradients: the largest of each row at the logits, every one at tau and at the table. Logits that are
    a product are as those that are given."""
    dtype = made.logits.dtype
    if case.call == "linear_embedding":
        case = replace(case, call="embedding")
    backends._BACKENDS[NAME] = Magnitudes(dtype)  # type: ignore[assignment]
    weight = None if made.weight is None else made.weight.double()
    wide = Contents(
        made.logits.double(), made.grad.double(), made.mask, weight, made.offsets, made.seed, made.arguments
    )
    found = outcome(case, wide, NAME)
    if found.at_tau is not None or weight is not None:
        wide.grad, wide.weight = wide.grad.abs(), None if weight is None else weight.abs()
        found = replace(outcome(case, wide, NAME), at_rows=found.at_rows)
    return found


def of_factors(at_logits: Tensor, factors: Factors) -> dict[str, Tensor]:
    """What becomes of magnitudes ``(rows, N)`` at logits that are a product."""
    hidden, proj = (x.double().abs() for x in (factors.hidden, factors.proj))
    found = {"at_rows": at_logits @ proj, "at_proj": at_logits.T @ hidden.reshape(len(at_logits), hidden.shape[-1])}
    return found if factors.bias is None else found | {"at_bias": at_logits.sum(0)}
