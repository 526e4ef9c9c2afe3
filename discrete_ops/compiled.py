"""The functions of ``reference.py`` on the compiled operators, which ``cpp.py`` and ``cuda.py`` load.

The operators' schemas are in the CPU library; torch sends a call to the library of the tensors' device.
"""

import json
import platform
from pathlib import Path

import torch
from torch import Tensor

from . import reference

_HERE = Path(__file__).parent
_NUMBER = {name: number for number, name in enumerate(reference.TERMS)}


def load(name: str) -> Path:
    """Load one of the package's libraries.

    Raises:
        ImportError: saying what the library was built for, what was found, and what the loader said.
    """
    path = _HERE / name
    if not path.exists():
        raise ImportError(f"{path.name} is not part of this installation (built without the compiler for it)")
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        try:
            built = json.loads((path.parent / "build.json").read_text())
            built_for = f"torch {built['torch']} on {built['system']} {built['machine']}"
        except (OSError, ValueError, KeyError):
            built_for = "an unknown target (build.json is missing)"
        found = f"torch {torch.__version__} on {platform.system()} {platform.machine()}"
        words = error.__cause__ or error  # torch names the file alone; the loader, the missing symbol
        raise ImportError(f"{path.name} was built for {built_for}, found {found}: {words}") from error
    return path


CPU_LIBRARY = load("libdiscrete_ops_cpu.so")
_sample = torch.ops.discrete_ops.sample.default
_surrogate = torch.ops.discrete_ops.surrogate.default
_surrogate_vjp = torch.ops.discrete_ops.surrogate_vjp.default


def sample(logits: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`discrete_ops.reference.sample`."""
    return _sample(logits, seed)


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
    return _surrogate(logits, index, seed, *_tau(tau), _NUMBER[estimator], coefficient, num_samples)


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
    return _surrogate_vjp(grad, logits, index, seed, *_tau(tau), _NUMBER[estimator], coefficient, num_samples)


def _tau(tau: float | Tensor) -> tuple[Tensor | None, float]:
    """The operators take a tensor, or a float where there is none."""
    return (tau.double(), 0.0) if isinstance(tau, Tensor) else (None, tau)


def _check_devices(*tensors: object) -> None:
    devices = {x.device for x in tensors if isinstance(x, Tensor)}
    if len(devices) > 1:
        raise RuntimeError(f"discrete_ops: got tensors on {devices}, allowed: one device")


@torch.library.register_fake("discrete_ops::sample")
def _(logits: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
    _check_devices(logits, seed)
    return logits.new_empty(logits.shape), logits.new_empty(logits.shape[:-1], dtype=torch.int64)


@torch.library.register_fake("discrete_ops::surrogate")
def _(logits: Tensor, *rest: object) -> Tensor:
    _check_devices(logits, *rest)
    return logits.new_empty(logits.shape)


@torch.library.register_fake("discrete_ops::surrogate_vjp")
def _(grad: Tensor, logits: Tensor, *rest: object) -> Tensor:
    _check_devices(grad, logits, *rest)
    return logits.new_empty(logits.shape)
