"""The ``cpp`` backend: the compiled operators on a CPU."""

import ctypes

from .compiled import (
    CPU_LIBRARY,
    sample,
    sample_many,
    sample_ragged,
    surrogate,
    surrogate_ragged,
    surrogate_vjp,
    surrogate_vjp_many,
    surrogate_vjp_ragged,
    tau_derivative,
    tau_derivative_ragged,
)

__all__ = [
    "instruction_set",
    "sample",
    "sample_many",
    "sample_ragged",
    "surrogate",
    "surrogate_ragged",
    "surrogate_vjp",
    "surrogate_vjp_many",
    "surrogate_vjp_ragged",
    "tau_derivative",
    "tau_derivative_ragged",
]


def instruction_set() -> str:
    """The kernels this processor runs: avx512, avx2, baseline (SSE2) or neon; DISCRETE_OPS_CPU names a lesser one."""
    query = ctypes.CDLL(str(CPU_LIBRARY)).discrete_ops_instruction_set
    query.restype = ctypes.c_char_p
    return query().decode()
