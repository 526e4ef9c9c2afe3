"""What is measured: our calls, and what people use in their place, each as its documentation says.

Each formulation takes logits that require grad and returns a sample to pull a gradient back through. Who is who:

    ours      the call of this package
    torch     ``F.gumbel_softmax(hard=True)``
    reinmax   the PyPI package of that name
    plain     the estimator as one writes it in PyTorch: softmax, multinomial, scatter, the detach trick (plain.py)
    tuned     the fastest way that was found to write it in PyTorch (tuned.py)

and ``, compiled`` behind a name is that through ``torch.compile``.
"""

from collections.abc import Callable

import torch
from reinmax import reinmax
from torch import Tensor
from torch.nn.functional import gumbel_softmax

import discrete_ops as do

from . import plain, tuned

Formulation = Callable[[Tensor], Tensor]

#: Estimators that take a number of draws.
OF_DRAWS = ("gumbel_rao", "reinmax_rao", "reinmax_cv")
#: Estimator, who: the formulation with so many draws.
PEERS: dict[str, dict[str, Callable[[int], Formulation]]] = {
    "straight_through": {
        "plain": lambda draws: plain.straight_through,
        "tuned": lambda draws: tuned.straight_through,
    },
    "gumbel_softmax": {"torch": lambda draws: lambda logits: gumbel_softmax(logits, hard=True)},
    "gst": {"plain": lambda draws: plain.gst, "tuned": lambda draws: tuned.gst},
    "reinmax": {"reinmax": lambda draws: lambda logits: reinmax(logits, 1.0)[0]},
    "gumbel_rao": {
        "plain": lambda draws: lambda logits: plain.gumbel_rao(logits, draws),
        "tuned": lambda draws: lambda logits: tuned.gumbel_rao(logits, draws),
    },
}


def ours(estimator: str, draws: int) -> Formulation:
    call = getattr(do, estimator)
    if estimator == "gumbel_softmax":
        return lambda logits: call(logits, hard=True)
    return (lambda logits: call(logits, num_samples=draws)) if estimator in OF_DRAWS else call


def of(estimator: str, who: str, draws: int = 100) -> Formulation:
    """A formulation by its names. A compiled one is for one shape: a general one may be slower."""
    name, compiled = who.removesuffix(", compiled"), who.endswith(", compiled")
    formulation = ours(estimator, draws) if name == "ours" else PEERS[estimator][name](draws)
    return torch.compile(formulation, dynamic=False) if compiled else formulation
