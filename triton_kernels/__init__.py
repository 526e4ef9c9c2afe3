"""The ``triton`` backend: the functions of ``discrete_ops/reference.py``, same names, same arguments, in Triton.

Runs on NVIDIA GPUs, and on a CPU in Triton's interpreter where ``TRITON_INTERPRET=1`` is set before Python starts.
"""

from torch import Tensor

from . import operators
from .operators import device_of, is_eager, launch_now

__all__ = ["sample", "surrogate", "surrogate_vjp"]


def sample(logits: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`discrete_ops.reference.sample`."""
    if not is_eager(logits):
        return operators.sample_op(logits, seed)
    with device_of(logits):
        return operators.sample(launch_now, logits, seed)


def surrogate(
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    tau: float | Tensor,
    estimator: str,
    coefficient: float,
    num_samples: int,
) -> Tensor:
    """As :func:`discrete_ops.reference.surrogate`."""
    call = (logits, index, seed, *_tau(tau), estimator, coefficient, num_samples)
    if not is_eager(logits):
        return operators.surrogate_op(*call)
    with device_of(logits):
        return operators.surrogate_vjp(launch_now, None, *call)


def surrogate_vjp(
    grad: Tensor,
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    tau: float | Tensor,
    estimator: str,
    coefficient: float,
    num_samples: int,
) -> Tensor:
    """As :func:`discrete_ops.reference.surrogate_vjp`."""
    call = (grad, logits, index, seed, *_tau(tau), estimator, coefficient, num_samples)
    if not is_eager(grad, logits):
        return operators.surrogate_vjp_op(*call)
    with device_of(logits):
        return operators.surrogate_vjp(launch_now, *call)


def _tau(tau: float | Tensor) -> tuple[Tensor | None, float]:
    """The operators take a tensor, or a float where there is none."""
    return (tau, 0.0) if isinstance(tau, Tensor) else (None, tau)
