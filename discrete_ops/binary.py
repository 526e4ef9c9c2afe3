"""Binary variables: every estimator on logits of which each is a variable of its own.

The law and the gradient are those of two categories with the logits ``[l, 0]``, of which the second is in no memory.
"""

import inspect
from typing import Any

from torch import Tensor

from . import checks
from .call import Generator, Real, Seed
from .estimators import ESTIMATORS, Estimator
from .estimators import estimator as estimator_of

_WITH_HARD = tuple(name for name, kind in ESTIMATORS.items() if "hard" in inspect.signature(kind.function).parameters)


def bernoulli(
    logits: Tensor,
    estimator: str | Estimator,
    *,
    hard: bool = True,
    sample_tau: Real | None = None,
    generator: Generator = None,
    seed: Seed = None,
    backend: str | None = None,
    num_draws: int | None = None,
) -> Tensor:
    """Straight-through sampling of binary variables, ``x ~ Bernoulli(sigmoid(logits))``, with any estimator.

    ``bernoulli(l, e, seed=s)`` is ``e(torch.stack([l, 0 * l], -1), seed=s)[..., 0]``, value and gradient at l, but for
    Gumbel-Rao: its gradient is the exact mean over all draws of the noise given x, by quadrature, and ``num_samples``
    has no effect.

    Args:
        logits: ``(...)``, of any shape: a logit a variable, its log-odds; float64, float32, float16 or bfloat16, any
            strides, empty too. ``-inf`` gives 0 and ``+inf`` gives 1, with no gradient. NaN gives NaN.
        estimator: an estimator (:mod:`discrete_ops.estimators`), or what describes one to
            :func:`discrete_ops.estimator`: ``"reinmax"``, ``"gst(tau=0.5, gap=1.0)"``. Tensors that are its parameters
            broadcast against the logits.
        hard: True: x in {0, 1}. False: the soft sample behind it, of the estimators whose function takes ``hard``; draw
            and gradient are the same. Gumbel-Rao's is the mean over all draws given x.
        sample_tau: in place of the estimator's: ``x ~ Bernoulli(sigmoid(logits / sample_tau))``.
        generator: where the seed is drawn from; torch's default generator of the device if None. As every estimator's.
        seed: int in ``[0, 2**63)``, or an int64 tensor on the logits' device with one element (or S: then each of S
            equal consecutive groups of variables has its own). Equal seed, equal sample, and equal gradient up to
            rounding, in every backend.
        backend: one of ``available_backends()``; the device's default if None.
        num_draws: R, independent samples of each variable in a dimension in front. As every estimator's.

    Returns:
        x, like ``logits`` in shape, dtype and device; ``(R, ...)`` with ``num_draws``.

    Raises:
        TypeError, ValueError: naming the argument, what came and what is allowed.
        RuntimeError: when the gradient itself is differentiated in the logits or in tau; in the incoming gradient it
            may be.
    """
    chosen = estimator_of(estimator)
    options: dict[str, Any] = {"dim": checks.NO_DIM, "generator": generator, "seed": seed, "backend": backend}
    options["num_draws"] = num_draws
    if sample_tau is not None:
        options["sample_tau"] = sample_tau
    if not checks.flag("hard", hard):
        name = chosen.function.__name__
        if name not in _WITH_HARD:
            raise ValueError(f"hard: got False with {name}, allowed: with one of {', '.join(_WITH_HARD)}")
        options["hard"] = False
    return chosen(logits, **options)
