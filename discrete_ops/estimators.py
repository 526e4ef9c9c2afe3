"""One frozen dataclass an estimator: its hyper-parameters, checked when it is made, callable on logits.

``GST(tau=0.5, gap=1.0)(logits)`` is ``gst(logits, tau=0.5, gap=1.0)``; options of a single call (``dim``, ``seed``,
``hard``, ...) go to the call.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from torch import Tensor

from . import checks, functional


@dataclass(frozen=True)
class Estimator:
    """Base of the estimators; ``function`` is the one of :mod:`discrete_ops.functional` it calls."""

    function: ClassVar[Callable[..., functional.Sample]]

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            if hasattr(self, name):
                check(getattr(self, name))

    def __call__(self, logits: Tensor, **options: Any) -> functional.Sample:
        parameters = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self).function(logits, **parameters, **options)


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "tau": checks.tau,
    "gap": checks.gap,
    "eta": lambda value: checks.weight("eta", value),
    "beta": lambda value: checks.weight("beta", value),
    "num_samples": lambda value: checks.count("num_samples", value),
    "control": lambda value: checks.choice("control", value, ("soft", "gumbel")),
}


@dataclass(frozen=True)
class StraightThrough(Estimator):
    """:func:`discrete_ops.straight_through`."""

    function = functional.straight_through
    tau: float | Tensor = 1.0


@dataclass(frozen=True)
class GumbelSoftmax(Estimator):
    """:func:`discrete_ops.gumbel_softmax`; hard here, as every estimator."""

    function = functional.gumbel_softmax
    tau: float | Tensor = 1.0

    def __call__(self, logits: Tensor, **options: Any) -> functional.Sample:
        return super().__call__(logits, **{"hard": True, **options})


@dataclass(frozen=True)
class GumbelRao(Estimator):
    """:func:`discrete_ops.gumbel_rao`."""

    function = functional.gumbel_rao
    tau: float | Tensor = 1.0
    num_samples: int = 100


@dataclass(frozen=True)
class GST(Estimator):
    """:func:`discrete_ops.gst`."""

    function = functional.gst
    tau: float | Tensor = 1.0
    gap: float | str = 1.0
    detach_perturbation: bool = True


@dataclass(frozen=True)
class ReinMax(Estimator):
    """:func:`discrete_ops.reinmax`."""

    function = functional.reinmax
    tau: float | Tensor = 1.0


@dataclass(frozen=True)
class ReinMaxArgmax(Estimator):
    """:func:`discrete_ops.reinmax_argmax`."""

    function = functional.reinmax_argmax
    tau: float | Tensor = 1.0


@dataclass(frozen=True)
class ReinMaxRao(Estimator):
    """:func:`discrete_ops.reinmax_rao`."""

    function = functional.reinmax_rao
    tau: float | Tensor = 1.0
    num_samples: int = 100


@dataclass(frozen=True)
class ReinMaxCV(Estimator):
    """:func:`discrete_ops.reinmax_cv`."""

    function = functional.reinmax_cv
    tau: float | Tensor = 1.0
    eta: float = 1.5
    num_samples: int = 100
    control: str = "soft"


@dataclass(frozen=True)
class ReinMaxRK2(Estimator):
    """:func:`discrete_ops.reinmax_rk2`."""

    function = functional.reinmax_rk2
    beta: float = 0.5


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
