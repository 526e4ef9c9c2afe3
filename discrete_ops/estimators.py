"""One frozen dataclass an estimator: its hyper-parameters, checked when it is made, callable on logits.

``GST(tau=0.5, gap=1.0)(logits)`` is ``gst(logits, tau=0.5, gap=1.0)``; options of a single call (``dim``, ``seed``,
``hard``, ...) go to the call.
"""

import numbers
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from . import checks, functional


@dataclass(frozen=True, eq=False)
class Estimator:
    """Base of the estimators; ``function`` is the one of :mod:`discrete_ops.functional` it calls."""

    function: ClassVar[Callable[..., functional.Sample]]
    sample_tau: float | Tensor = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            if hasattr(self, name):
                value = getattr(self, name)
                if hasattr(value, "__array__") and not isinstance(value, (Tensor, numbers.Real)):
                    object.__setattr__(self, name, torch.as_tensor(value))  # comparable as one
                check(value)

    def __call__(self, logits: Tensor, **options: Any) -> functional.Sample:
        return type(self).function(logits, **{**self._parameters(), **options})

    def _parameters(self) -> dict[str, Any]:
        return {parameter.name: getattr(self, parameter.name) for parameter in fields(self)}

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        mine, others = self._parameters(), cast(Estimator, other)._parameters()
        return all(_equal(value, others[name]) for name, value in mine.items())

    def __hash__(self) -> int:
        """Of everything but the tensors' values, which may change."""
        values = self._parameters().items()
        return hash((type(self), *((name, value) for name, value in values if not isinstance(value, Tensor))))


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a is b or (a.device == b.device and torch.equal(a, b))
    return not isinstance(a, Tensor) and not isinstance(b, Tensor) and bool(a == b)


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "tau": lambda value: checks.temperature("tau", value),
    "sample_tau": lambda value: checks.temperature("sample_tau", value),
    "gap": checks.gap,
    "eta": lambda value: checks.weight("eta", value),
    "beta": lambda value: checks.weight("beta", value),
    "num_samples": lambda value: checks.count("num_samples", value),
    "detach_perturbation": lambda value: checks.flag("detach_perturbation", value),
    "centred": lambda value: checks.flag("centred", value),
    "control": lambda value: checks.choice("control", value, ("soft", "gumbel")),
}


@dataclass(frozen=True, eq=False)
class StraightThrough(Estimator):
    """:func:`discrete_ops.straight_through`."""

    function = functional.straight_through
    tau: float | Tensor = 1.0


@dataclass(frozen=True, eq=False)
class GumbelSoftmax(Estimator):
    """:func:`discrete_ops.gumbel_softmax`; hard here, as every estimator."""

    function = functional.gumbel_softmax
    tau: float | Tensor = 1.0

    def __call__(self, logits: Tensor, **options: Any) -> functional.Sample:
        return super().__call__(logits, **{"hard": True, **options})


@dataclass(frozen=True, eq=False)
class GumbelRao(Estimator):
    """:func:`discrete_ops.gumbel_rao`."""

    function = functional.gumbel_rao
    tau: float | Tensor = 1.0
    num_samples: int = 100


@dataclass(frozen=True, eq=False)
class GST(Estimator):
    """:func:`discrete_ops.gst`."""

    function = functional.gst
    tau: float | Tensor = 1.0
    gap: float | Tensor | str = 1.0
    detach_perturbation: bool = True


@dataclass(frozen=True, eq=False)
class ReinMax(Estimator):
    """:func:`discrete_ops.reinmax`."""

    function = functional.reinmax
    tau: float | Tensor = 1.0


@dataclass(frozen=True, eq=False)
class ReinMaxArgmax(Estimator):
    """:func:`discrete_ops.reinmax_argmax`."""

    function = functional.reinmax_argmax
    tau: float | Tensor = 1.0


@dataclass(frozen=True, eq=False)
class ReinMaxRao(Estimator):
    """:func:`discrete_ops.reinmax_rao`."""

    function = functional.reinmax_rao
    tau: float | Tensor = 1.0
    num_samples: int = 100


@dataclass(frozen=True, eq=False)
class ReinMaxCV(Estimator):
    """:func:`discrete_ops.reinmax_cv`."""

    function = functional.reinmax_cv
    tau: float | Tensor = 1.0
    eta: float | Tensor = 1.5
    num_samples: int = 100
    control: str = "soft"


@dataclass(frozen=True, eq=False)
class ReinMaxRK2(Estimator):
    """:func:`discrete_ops.reinmax_rk2`."""

    function = functional.reinmax_rk2
    beta: float | Tensor = 0.5
    centred: bool = False


#: Every estimator by the name of its function.
ESTIMATORS: dict[str, type[Estimator]] = {
    cls.function.__name__: cls
    for cls in (
        StraightThrough,
        GumbelSoftmax,
        GumbelRao,
        GST,
        ReinMax,
        ReinMaxArgmax,
        ReinMaxRao,
        ReinMaxCV,
        ReinMaxRK2,
    )
}
