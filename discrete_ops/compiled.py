"""The functions of ``reference.py`` on the kernels' operators, which ``cpp.py`` and ``cuda.py`` load.

The operators' schemas are in the CPU library; torch sends a call to the library of the tensors' device.
"""

import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import elf, reference
from .namespace import NAMESPACE, built
from .reference import AT_ONE, Parameters

_HERE = Path(__file__).parent
_NUMBER = reference.NUMBERS


def load(name: str) -> Path:
    """Load one of the package's libraries.

    Raises:
        ImportError: saying what the library was built for, what was found, and what the loader said.
    """
    path = _HERE / name
    if not path.exists():
        raise ImportError(f"{path.name} is not part of this installation (built without the compiler for it)")
    try:
        words = elf.obstacle(path)
        if words:
            raise OSError(words)
        torch.ops.load_library(str(path))
    except OSError as error:
        try:
            built_for = "torch {torch} on {system} {machine}".format_map(built(path.parent))
        except KeyError:
            built_for = "an unknown target (build.json is missing or not whole)"
        found = f"torch {torch.__version__} on {platform.system()} {platform.machine()}"
        said = error.__cause__ or error  # torch names the file alone; the loader, the missing symbol
        raise ImportError(f"{path.name} was built for {built_for}, found {found}: {said}") from error
    return path


def foreign(library: Path, operator: str) -> ImportError:
    """Of a library that loads and has not what this package calls."""
    rebuild = "rebuild both (pip install, or python setup.py build_ext --inplace)"
    what = f"it was built from other sources than this package, or build.json is another's; {rebuild}"
    return ImportError(f"{library.name} has no operator {NAMESPACE}_kernels::{operator}: {what}")


CPU_LIBRARY = load("libdiscrete_ops_cpu.so")
_kernels = getattr(torch.ops, f"{NAMESPACE}_kernels")


def _operator(name: str, overload: str = "default") -> Any:
    try:
        return getattr(getattr(_kernels, name), overload)
    except AttributeError:
        raise foreign(CPU_LIBRARY, name) from None


_sample, _sample_of_rows, _surrogate = _operator("sample"), _operator("sample", "of_rows"), _operator("surrogate")
_surrogate_vjp, _tau_derivative = _operator("surrogate_vjp"), _operator("tau_derivative")
_sample_many, _surrogate_vjp_many = _operator("sample_many"), _operator("surrogate_vjp_many")
_sample_ragged, _surrogate_ragged = _operator("sample_ragged"), _operator("surrogate_ragged")
_surrogate_vjp_ragged, _tau_derivative_ragged = _operator("surrogate_vjp_ragged"), _operator("tau_derivative_ragged")


def sample(
    logits: Tensor, seed: Tensor, parameters: Parameters = AT_ONE, first_row: int = 0, binary: bool = False
) -> tuple[Tensor, Tensor]:
    """As :func:`discrete_ops.reference.sample`."""
    if type(parameters) is tuple and parameters[2] == 1.0 and first_row == 0 and not binary:
        return _sample(logits, seed)
    given = (parameters, 1.0) if isinstance(parameters, Tensor) else (None, parameters[2])
    return _sample_of_rows(logits, seed, *given, first_row, reference.BINARY_NUMBER if binary else 0)


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
    return _surrogate(logits, index, seed, *_split(parameters), _NUMBER[estimator], num_samples, first_row)


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
    return _surrogate_vjp(grad, logits, index, seed, *_split(parameters), _NUMBER[estimator], num_samples, first_row)


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
    return _tau_derivative(logits, index, seed, *_split(parameters), _NUMBER[estimator], num_samples, first_row)


def sample_many(
    logits: Tensor,
    seed: Tensor,
    parameters: Parameters,
    num_draws: int,
    first_row: int = 0,
    binary: bool = False,
) -> tuple[Tensor, Tensor]:
    """As :func:`discrete_ops.many.sample_many`, in one pass over the rows. On a CPU."""
    given = (parameters, 1.0) if isinstance(parameters, Tensor) else (None, parameters[2])
    return _sample_many(logits, seed, *given, num_draws, first_row, reference.BINARY_NUMBER if binary else 0)


def surrogate_vjp_many(
    grad: Tensor,
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Parameters,
    estimator: str,
    num_samples: int,
    first_row: int = 0,
) -> Tensor:
    """As :func:`discrete_ops.many.surrogate_vjp_many`, in one pass over the rows. On a CPU."""
    call = (grad, logits, index, seed, *_split(parameters), _NUMBER[estimator], num_samples, first_row)
    return _surrogate_vjp_many(*call)


# The same of ragged rows, as discrete_ops.ragged calls them: logits (total,), offsets (rows + 1,), index (rows,).


def sample_ragged(
    logits: Tensor, offsets: Tensor, seed: Tensor, parameters: Parameters, first_row: int
) -> tuple[Tensor, Tensor]:
    given = (parameters, 1.0) if isinstance(parameters, Tensor) else (None, parameters[2])
    return _sample_ragged(logits, offsets, seed, *given, first_row)


def surrogate_ragged(
    logits: Tensor,
    offsets: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Parameters,
    estimator: str,
    num_samples: int,
    first_row: int,
) -> Tensor:
    spec = (_NUMBER[estimator], num_samples, first_row)
    return _surrogate_ragged(logits, offsets, index, seed, *_split(parameters), *spec)


def surrogate_vjp_ragged(
    grad: Tensor,
    logits: Tensor,
    offsets: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Parameters,
    estimator: str,
    num_samples: int,
    first_row: int,
) -> Tensor:
    spec = (_NUMBER[estimator], num_samples, first_row)
    return _surrogate_vjp_ragged(grad, logits, offsets, index, seed, *_split(parameters), *spec)


def tau_derivative_ragged(
    logits: Tensor,
    offsets: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Parameters,
    estimator: str,
    num_samples: int,
    first_row: int,
) -> Tensor:
    spec = (_NUMBER[estimator], num_samples, first_row)
    return _tau_derivative_ragged(logits, offsets, index, seed, *_split(parameters), *spec)


def _split(parameters: Parameters) -> tuple[Tensor | None, float, float]:
    """The operators take a tensor, or tau and the coefficient where there is none."""
    return (parameters, 1.0, 0.0) if isinstance(parameters, Tensor) else (None, parameters[0], parameters[1])


def _check_devices(*tensors: object) -> None:
    devices = {x.device for x in tensors if isinstance(x, Tensor)}
    if len(devices) > 1:
        raise RuntimeError(f"discrete_ops: got tensors on {devices}, allowed: one device")


def _fake_sample(logits: Tensor, *rest: object) -> tuple[Tensor, Tensor]:
    _check_devices(logits, *rest)
    return logits.new_empty(logits.shape), logits.new_empty(logits.shape[:-1], dtype=torch.int64)


def _fake_sample_many(
    logits: Tensor, seed: Tensor, parameters: Tensor | None, sample_tau: float, num_draws: int, *rest: object
) -> tuple[Tensor, Tensor]:
    _check_devices(logits, seed, parameters)
    index = logits.new_empty((num_draws, *logits.shape[:-1]), dtype=torch.int64)
    return logits.new_empty((num_draws, *logits.shape)), index


def _fake_like_logits(logits: Tensor, *rest: object) -> Tensor:
    _check_devices(logits, *rest)
    return logits.new_empty(logits.shape)


def _fake_like_grad(grad: Tensor, logits: Tensor, *rest: object) -> Tensor:
    return _fake_like_logits(logits, grad, *rest)


torch.library.register_fake(f"{NAMESPACE}_kernels::sample", _fake_sample)
torch.library.register_fake(f"{NAMESPACE}_kernels::sample.of_rows", _fake_sample)
torch.library.register_fake(f"{NAMESPACE}_kernels::surrogate", _fake_like_logits)
torch.library.register_fake(f"{NAMESPACE}_kernels::tau_derivative", _fake_like_logits)
torch.library.register_fake(f"{NAMESPACE}_kernels::surrogate_vjp", _fake_like_grad)
torch.library.register_fake(f"{NAMESPACE}_kernels::sample_many", _fake_sample_many)
torch.library.register_fake(f"{NAMESPACE}_kernels::surrogate_vjp_many", _fake_like_grad)
