"""One frozen dataclass an estimator: its hyper-parameters, checked when it is made, callable on logits.

``GST(tau=0.5, gap=1.0)(logits)`` is ``gst(logits, tau=0.5, gap=1.0)``; options of a single call (``dim``, ``seed``,
``hard``, ...) go to the call. ``str`` of one is the call without its logits, which :func:`estimator` reads: for
configurations and command lines.
"""

import inspect
import numbers
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, cast, overload

import torch
from torch import Tensor

from . import checks, functional
from .call import EstimatorOptions, Pair, Unpack


@dataclass(frozen=True, eq=False)
class Estimator:
    """Base of the estimators; ``function`` is the one of :mod:`discrete_ops.functional` it calls."""

    function: ClassVar[Callable[..., Any]]
    #: Arguments whose default here is not the function's.
    usual: ClassVar[dict[str, Any]] = {}
    #: Checks of parameters that mean another thing here than elsewhere.
    own_checks: ClassVar[dict[str, Callable[[Any], Any]]] = {}
    sample_tau: float | Tensor = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        for name in _CHECKS:
            if hasattr(self, name):
                value = getattr(self, name)
                if (
                    hasattr(value, "__array__")
                    and not isinstance(value, (Tensor, numbers.Real))
                    and not checks.is_bool(value)
                ):
                    object.__setattr__(self, name, torch.as_tensor(value))  # comparable as one
                self.checked(name, value)

    @classmethod
    def checked(cls, name: str, value: Any) -> Any:
        """A parameter as kernels take it. Raises TypeError or ValueError naming what came and what is allowed."""
        return (cls.own_checks.get(name) or _CHECKS[name])(value)

    @overload
    def __call__(
        self, logits: Tensor, *, return_index: Literal[False] = False, **options: Unpack[EstimatorOptions]
    ) -> Tensor: ...
    @overload
    def __call__(self, logits: Tensor, *, return_index: Literal[True], **options: Unpack[EstimatorOptions]) -> Pair: ...
    @overload
    def __call__(self, logits: Tensor, *, return_index: bool, **options: Unpack[EstimatorOptions]) -> Tensor | Pair: ...
    def __call__(self, logits: Tensor, **options: Any) -> Tensor | Pair:
        return cast("Tensor | Pair", type(self).function(logits, **{**self.usual, **self._parameters(), **options}))

    def described(self, **changes: Any) -> str:
        """``str`` of it, with other parameters: ``gst(tau=0.5, gap=1.0)``. What is given by keyword alone shows where
        it is not as by default."""
        values, shown = {**self._parameters(), **changes}, []
        for name, parameter in inspect.signature(type(self).function).parameters.items():
            left_out = parameter.kind is parameter.KEYWORD_ONLY and _equal(values.get(name), parameter.default)
            if name in values and not left_out:
                shown.append(f"{name}={_written(values[name])}")
        return f"{type(self).function.__name__}({', '.join(shown)})"

    def __str__(self) -> str:
        return self.described()

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


def _written(value: Any) -> str:
    if isinstance(value, Tensor):
        if value.numel() != 1 or value.is_meta:
            return f"<tensor of {tuple(value.shape)}>"
        texts = (f"{value.item():.{digits}g}" for digits in range(1, 18))  # the shortest that is the same in its dtype
        same = (text for text in texts if torch.tensor(float(text)).to(value.dtype) == value.cpu())
        return next(same, repr(value.item()))
    if isinstance(value, str):
        return repr(value)
    if checks.is_bool(value):
        return repr(bool(value))
    return repr(int(value) if isinstance(value, numbers.Integral) else float(value))


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a is b or (a.device == b.device and torch.equal(a, b))
    return not isinstance(a, Tensor) and not isinstance(b, Tensor) and bool(a == b)


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "tau": lambda value: checks.temperature("tau", value),
    "sample_tau": lambda value: checks.temperature("sample_tau", value),
    "gap": checks.gap,
    "a": lambda value: checks.share("a", value),
    "eta": lambda value: checks.weight("eta", value),
    "beta": lambda value: checks.weight("beta", value),
    "num_samples": lambda value: checks.count("num_samples", value),
    "detach_perturbation": lambda value: checks.flag("detach_perturbation", value),
    "centred": lambda value: checks.flag("centred", value),
    "draws": checks.draws,
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
    usual: ClassVar[dict[str, Any]] = {"hard": True}
    tau: float | Tensor = 1.0

    def __post_init__(self) -> None:
        checks.without_limit(self.tau)
        super().__post_init__()


@dataclass(frozen=True, eq=False)
class GumbelRao(Estimator):
    """:func:`discrete_ops.gumbel_rao`."""

    function = functional.gumbel_rao
    own_checks: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "tau": lambda value: 0.0 if checks.is_zero(value) else checks.temperature("tau", value)
    }
    tau: float | Tensor = 1.0
    num_samples: int = 100
    draws: Literal["independent", "stratified"] = field(default="independent", kw_only=True)


@dataclass(frozen=True, eq=False)
class GST(Estimator):
    """:func:`discrete_ops.gst`."""

    function = functional.gst
    tau: float | Tensor = 1.0
    gap: float | Tensor | Literal["pi"] = 1.0
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
    draws: Literal["independent", "stratified"] = field(default="independent", kw_only=True)


@dataclass(frozen=True, eq=False)
class ReinMaxCV(Estimator):
    """:func:`discrete_ops.reinmax_cv`."""

    function = functional.reinmax_cv
    tau: float | Tensor = 1.0
    eta: float | Tensor = 1.5
    num_samples: int = 100
    control: Literal["soft", "gumbel"] = "soft"
    draws: Literal["independent", "stratified"] = field(default="independent", kw_only=True)


@dataclass(frozen=True, eq=False)
class ReinMaxRK2(Estimator):
    """:func:`discrete_ops.reinmax_rk2`."""

    function = functional.reinmax_rk2
    beta: float | Tensor = 0.5
    centred: bool = False


@dataclass(frozen=True, eq=False)
class Mix(Estimator):
    """:func:`discrete_ops.mix`."""

    function = functional.mix
    a: float | Tensor = 0.5


@dataclass(frozen=True, eq=False)
class MVE(Estimator):
    """:func:`discrete_ops.mve`."""

    function = functional.mve
    own_checks: ClassVar[dict[str, Callable[[Any], Any]]] = {"tau": lambda value: checks.trade("tau", value)}
    tau: float | Tensor = 4.0


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
        Mix,
        MVE,
    )
}

torch.serialization.add_safe_globals([*ESTIMATORS.values()])  # torch.load(weights_only=True) makes them


def estimator(description: str | Estimator) -> Estimator:
    """The estimator that a string describes, a call without its logits: ``"gst(tau=0.5, gap=1.0)"``, ``"reinmax"``.

    ``str`` of an estimator is such a string: ``estimator(str(e)) == e`` where all parameters are numbers. An
    estimator is returned as it is. Nothing in the string is evaluated, and torch.compile traces it.

    Raises:
        TypeError, ValueError: naming what came and what is allowed.
    """
    if isinstance(description, Estimator):
        return description
    allowed = "allowed: an estimator, or a call such as 'gst(tau=0.5, gap=1.0)' of one of " + ", ".join(ESTIMATORS)
    if not isinstance(description, str):
        raise TypeError(f"estimator: got {type(description).__name__}, {allowed}")
    name, bracket, inside = description.strip().partition("(")
    name, inside = name.strip(), inside.strip()
    if name not in ESTIMATORS or (bracket != "") != inside.endswith(")"):
        raise ValueError(f"estimator: got {description!r}, {allowed}")
    parameters: dict[str, Any] = {}
    for part in inside[:-1].split(",") if inside[:-1].strip() else []:
        key, equals, value = part.partition("=")
        if not equals or key.strip() not in _TAKES[name] or key.strip() in parameters:
            takes = ", ".join(f"{parameter}=" for parameter in _TAKES[name])
            raise ValueError(f"estimator: got {part.strip()!r} in {description!r}, allowed: each once of {takes}")
        parameters[key.strip()] = _read(value.strip(), description)
    return ESTIMATORS[name](**parameters)


#: The parameters of each, for torch.compile, which takes no dataclasses.fields of a class.
_TAKES = {
    name: [parameter.name for parameter in sorted(fields(cls), key=lambda parameter: bool(parameter.kw_only))]
    for name, cls in ESTIMATORS.items()
}


def _read(value: str, description: str) -> Any:
    """A number, True, False or a quoted word."""
    if value in ("True", "False"):
        return value == "True"
    if len(value) > 1 and value[0] in "'\"" and value[0] == value[-1]:
        return value[1:-1]
    try:
        return int(value) if value.lstrip("+-").isdigit() else float(value)
    except ValueError:
        allowed = "allowed: a number, True, False or a quoted word"
        raise ValueError(f"estimator: got {value!r} in {description!r}, {allowed}") from None
