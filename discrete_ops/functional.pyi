# The types of functional.py: what return_index gives cannot be told in one signature.
from typing import Literal, overload

from torch import Tensor

from .call import Options, Pair, Real, RowOptions, Unpack
from .call import draw as draw

@overload
def straight_through(
    logits: Tensor, tau: Real = 1.0, *, return_index: Literal[False] = False, **options: Unpack[Options]
) -> Tensor: ...
@overload
def straight_through(
    logits: Tensor, tau: Real = 1.0, *, return_index: Literal[True], **options: Unpack[Options]
) -> Pair: ...
@overload
def straight_through(
    logits: Tensor, tau: Real = 1.0, *, return_index: bool, **options: Unpack[Options]
) -> Tensor | Pair: ...
@overload
def gumbel_softmax(
    logits: Tensor,
    tau: Real = 1,
    hard: bool = False,
    eps: float = 1e-10,
    dim: int = -1,
    *,
    return_index: Literal[False] = False,
    **options: Unpack[RowOptions],
) -> Tensor: ...
@overload
def gumbel_softmax(
    logits: Tensor,
    tau: Real = 1,
    hard: bool = False,
    eps: float = 1e-10,
    dim: int = -1,
    *,
    return_index: Literal[True],
    **options: Unpack[RowOptions],
) -> Pair: ...
@overload
def gumbel_softmax(
    logits: Tensor,
    tau: Real = 1,
    hard: bool = False,
    eps: float = 1e-10,
    dim: int = -1,
    *,
    return_index: bool,
    **options: Unpack[RowOptions],
) -> Tensor | Pair: ...
@overload
def gumbel_rao(
    logits: Tensor,
    tau: Real = 1.0,
    num_samples: int = 100,
    *,
    draws: Literal["independent", "stratified"] = "independent",
    hard: bool = True,
    return_index: Literal[False] = False,
    **options: Unpack[Options],
) -> Tensor: ...
@overload
def gumbel_rao(
    logits: Tensor,
    tau: Real = 1.0,
    num_samples: int = 100,
    *,
    draws: Literal["independent", "stratified"] = "independent",
    hard: bool = True,
    return_index: Literal[True],
    **options: Unpack[Options],
) -> Pair: ...
@overload
def gumbel_rao(
    logits: Tensor,
    tau: Real = 1.0,
    num_samples: int = 100,
    *,
    draws: Literal["independent", "stratified"] = "independent",
    hard: bool = True,
    return_index: bool,
    **options: Unpack[Options],
) -> Tensor | Pair: ...
@overload
def gst(
    logits: Tensor,
    tau: Real = 1.0,
    gap: Real | Literal["pi"] = 1.0,
    *,
    hard: bool = True,
    detach_perturbation: bool = True,
    return_index: Literal[False] = False,
    **options: Unpack[Options],
) -> Tensor: ...
@overload
def gst(
    logits: Tensor,
    tau: Real = 1.0,
    gap: Real | Literal["pi"] = 1.0,
    *,
    hard: bool = True,
    detach_perturbation: bool = True,
    return_index: Literal[True],
    **options: Unpack[Options],
) -> Pair: ...
@overload
def gst(
    logits: Tensor,
    tau: Real = 1.0,
    gap: Real | Literal["pi"] = 1.0,
    *,
    hard: bool = True,
    detach_perturbation: bool = True,
    return_index: bool,
    **options: Unpack[Options],
) -> Tensor | Pair: ...
@overload
def reinmax(
    logits: Tensor, tau: Real = 1.0, *, return_index: Literal[False] = False, **options: Unpack[Options]
) -> Tensor: ...
@overload
def reinmax(logits: Tensor, tau: Real = 1.0, *, return_index: Literal[True], **options: Unpack[Options]) -> Pair: ...
@overload
def reinmax(logits: Tensor, tau: Real = 1.0, *, return_index: bool, **options: Unpack[Options]) -> Tensor | Pair: ...
@overload
def reinmax_argmax(
    logits: Tensor, tau: Real = 1.0, *, return_index: Literal[False] = False, **options: Unpack[Options]
) -> Tensor: ...
@overload
def reinmax_argmax(
    logits: Tensor, tau: Real = 1.0, *, return_index: Literal[True], **options: Unpack[Options]
) -> Pair: ...
@overload
def reinmax_argmax(
    logits: Tensor, tau: Real = 1.0, *, return_index: bool, **options: Unpack[Options]
) -> Tensor | Pair: ...
@overload
def reinmax_rao(
    logits: Tensor,
    tau: Real = 1.0,
    num_samples: int = 100,
    *,
    draws: Literal["independent", "stratified"] = "independent",
    return_index: Literal[False] = False,
    **options: Unpack[Options],
) -> Tensor: ...
@overload
def reinmax_rao(
    logits: Tensor,
    tau: Real = 1.0,
    num_samples: int = 100,
    *,
    draws: Literal["independent", "stratified"] = "independent",
    return_index: Literal[True],
    **options: Unpack[Options],
) -> Pair: ...
@overload
def reinmax_rao(
    logits: Tensor,
    tau: Real = 1.0,
    num_samples: int = 100,
    *,
    draws: Literal["independent", "stratified"] = "independent",
    return_index: bool,
    **options: Unpack[Options],
) -> Tensor | Pair: ...
@overload
def reinmax_cv(
    logits: Tensor,
    tau: Real = 1.0,
    eta: Real = 1.5,
    num_samples: int = 100,
    *,
    control: Literal["soft", "gumbel"] = "soft",
    draws: Literal["independent", "stratified"] = "independent",
    return_index: Literal[False] = False,
    **options: Unpack[Options],
) -> Tensor: ...
@overload
def reinmax_cv(
    logits: Tensor,
    tau: Real = 1.0,
    eta: Real = 1.5,
    num_samples: int = 100,
    *,
    control: Literal["soft", "gumbel"] = "soft",
    draws: Literal["independent", "stratified"] = "independent",
    return_index: Literal[True],
    **options: Unpack[Options],
) -> Pair: ...
@overload
def reinmax_cv(
    logits: Tensor,
    tau: Real = 1.0,
    eta: Real = 1.5,
    num_samples: int = 100,
    *,
    control: Literal["soft", "gumbel"] = "soft",
    draws: Literal["independent", "stratified"] = "independent",
    return_index: bool,
    **options: Unpack[Options],
) -> Tensor | Pair: ...
@overload
def reinmax_rk2(
    logits: Tensor,
    beta: Real = 0.5,
    *,
    centred: bool = False,
    return_index: Literal[False] = False,
    **options: Unpack[Options],
) -> Tensor: ...
@overload
def reinmax_rk2(
    logits: Tensor, beta: Real = 0.5, *, centred: bool = False, return_index: Literal[True], **options: Unpack[Options]
) -> Pair: ...
@overload
def reinmax_rk2(
    logits: Tensor, beta: Real = 0.5, *, centred: bool = False, return_index: bool, **options: Unpack[Options]
) -> Tensor | Pair: ...
@overload
def mix(
    logits: Tensor, a: Real = 0.5, *, return_index: Literal[False] = False, **options: Unpack[Options]
) -> Tensor: ...
@overload
def mix(logits: Tensor, a: Real = 0.5, *, return_index: Literal[True], **options: Unpack[Options]) -> Pair: ...
@overload
def mix(logits: Tensor, a: Real = 0.5, *, return_index: bool, **options: Unpack[Options]) -> Tensor | Pair: ...
@overload
def mve(
    logits: Tensor, tau: Real = 4.0, *, return_index: Literal[False] = False, **options: Unpack[Options]
) -> Tensor: ...
@overload
def mve(logits: Tensor, tau: Real = 4.0, *, return_index: Literal[True], **options: Unpack[Options]) -> Pair: ...
@overload
def mve(logits: Tensor, tau: Real = 4.0, *, return_index: bool, **options: Unpack[Options]) -> Tensor | Pair: ...
def expected_gap(logits: Tensor, index: Tensor) -> Tensor: ...
