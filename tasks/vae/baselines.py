"""The score-function baselines of GST Table 4, in the form of an estimator's dataclass.

They need the loss of whole codes and not its gradient at one, so a model asks :func:`loss` for it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from discrete_ops import functional, score_function
from discrete_ops.estimators import ESTIMATORS, Estimator


@dataclass(frozen=True)
class ScoreFunction:
    """Base of the baselines; ``function`` is the one of :mod:`discrete_ops.score_function` it calls."""

    function: ClassVar[Callable[..., Tensor]]
    num_samples: int = 2

    def __call__(self, logits: Tensor, **options: Any) -> Tensor:
        """A hard code; it carries no gradient to the logits."""
        return functional.straight_through(logits.detach(), **options)


@dataclass(frozen=True)
class RLOO(ScoreFunction):
    """:func:`discrete_ops.score_function.rloo`."""

    function = score_function.rloo


@dataclass(frozen=True)
class DisARMTree(ScoreFunction):
    """:func:`discrete_ops.score_function.disarm_tree`."""

    function = score_function.disarm_tree


BASELINES: dict[str, type[ScoreFunction]] = {cls.function.__name__: cls for cls in (RLOO, DisARMTree)}

#: Everything that a VAE can be trained with, by name.
METHODS: dict[str, type[Estimator] | type[ScoreFunction]] = {**ESTIMATORS, **BASELINES}
