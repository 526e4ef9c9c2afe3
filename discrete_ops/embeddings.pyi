# The types of embeddings.py: what return_index gives cannot be told in one signature.
from typing import Any, Literal, overload

from torch import Tensor

from . import estimators
from .call import Options, Pair, Unpack

@overload
def embedding(
    logits: Tensor,
    weight: Tensor,
    estimator: str | estimators.Estimator = "straight_through",
    *,
    soft: bool = False,
    return_index: Literal[False] = False,
    **options: Unpack[Options],
) -> Tensor: ...
@overload
def embedding(
    logits: Tensor,
    weight: Tensor,
    estimator: str | estimators.Estimator = "straight_through",
    *,
    soft: bool = False,
    return_index: Literal[True],
    **options: Unpack[Options],
) -> Pair: ...
@overload
def embedding(
    logits: Tensor,
    weight: Tensor,
    estimator: str | estimators.Estimator = "straight_through",
    *,
    soft: bool = False,
    return_index: bool,
    **options: Unpack[Options],
) -> Tensor | Pair: ...
def look_up(
    estimator: estimators.Estimator, logits: Tensor, weight: Tensor, soft: bool, options: dict[str, Any]
) -> Any: ...
def checked(weight: Any, logits: Tensor) -> Tensor: ...
def checked_soft(soft: Any, estimator: estimators.Estimator) -> bool: ...
