"""The ``triton`` backend: the functions of ``discrete_ops/reference.py``, same names, same arguments, in Triton.

Runs on NVIDIA GPUs, and on a CPU in Triton's interpreter where ``TRITON_INTERPRET=1`` is set before Python starts.
"""

from torch import Tensor

from ..reference import AT_ONE, Parameters
from . import operators
from .operators import device_of, is_eager, launch_now

__all__ = ["sample", "surrogate", "surrogate_vjp", "tau_derivative"]


def sample(
    logits: Tensor, seed: Tensor, parameters: Parameters = AT_ONE, first_row: int = 0, binary: bool = False
) -> tuple[Tensor, Tensor]:
    """As :func:`discrete_ops.reference.sample`."""
    call = (logits, seed, *_parameters(parameters), first_row, binary)
    if not is_eager(logits):
        return operators.sample_op(*call)
    with device_of(logits):
        return operators.sample(launch_now, *call)


def surrogate(
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Parameters,
    estimator: str,
    num_samples: int,
    first_row: int = 0,
) -> Tensor:
    """As :func:`discrete_ops.reference.surrogate`."""
    call = (logits, index, seed, *_parameters(parameters), first_row, estimator, num_samples)
    if not is_eager(logits):
        return operators.surrogate_op(*call)
    with device_of(logits):
        return operators.surrogate(launch_now, "soft", None, *call)


def surrogate_vjp(
    grad: Tensor,
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Parameters,
    estimator: str,
    num_samples: int,
    first_row: int = 0,
) -> Tensor:
    """As :func:`discrete_ops.reference.surrogate_vjp`."""
    call = (grad, logits, index, seed, *_parameters(parameters), first_row, estimator, num_samples)
    if not is_eager(grad, logits):
        return operators.surrogate_vjp_op(*call)
    with device_of(logits):
        return operators.surrogate(launch_now, "pull_back", *call)


def tau_derivative(
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Parameters,
    estimator: str,
    num_samples: int,
    first_row: int = 0,
) -> Tensor:
    """As :func:`discrete_ops.reference.tau_derivative`."""
    call = (logits, index, seed, *_parameters(parameters), first_row, estimator, num_samples)
    if not is_eager(logits):
        return operators.tau_derivative_op(*call)
    with device_of(logits):
        return operators.surrogate(launch_now, "tau", None, *call)


def _parameters(parameters: Parameters) -> tuple[Tensor | None, float, float, float]:
    """The operators take a tensor, or numbers where there is none."""
    return (parameters, 0.0, 0.0, 0.0) if isinstance(parameters, Tensor) else (None, *parameters)
