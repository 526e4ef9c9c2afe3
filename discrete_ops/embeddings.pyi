# The types of embeddings.py: what return_index gives cannot be told in one signature.
from typing import Any, Literal, overload

from torch import Tensor

from .call import Options, Pair, Unpack
from .estimators import Estimator

@overload
def embedding(
    logits: Tensor,
    weight: Tensor,
    estimator: str | Estimator = "straight_through",
    *,
    soft: bool = False,
    return_index: Literal[False] = False,
    **options: Unpack[Options],
) -> Tensor: ...
@overload
def embedding(
    logits: Tensor,
    weight: Tensor,
    estimator: str | Estimator = "straight_through",
    *,
    soft: bool = False,
    return_index: Literal[True],
    **options: Unpack[Options],
) -> Pair: ...
@overload
def embedding(
    logits: Tensor,
    weight: Tensor,
    estimator: str | Estimator = "straight_through",
    *,
    soft: bool = False,
    return_index: bool,
    **options: Unpack[Options],
) -> Tensor | Pair: ...
def look_up(estimator: Estimator, logits: Tensor, weight: Tensor, soft: bool, options: dict[str, Any]) -> Any: ...
def checked(weight: Any, logits: Tensor) -> Tensor: ...
def checked_soft(soft: Any, estimator: Estimator) -> bool: ...
