"""The ``cuda`` backend: the compiled operators on an NVIDIA GPU. Loaded only where torch has CUDA."""

import ctypes

import torch

from .compiled import foreign, load, sample, surrogate, surrogate_vjp, tau_derivative
from .namespace import NAMESPACE

__all__ = ["obstacle", "sample", "surrogate", "surrogate_vjp", "tau_derivative"]

if torch.version.cuda is None:
    raise ImportError("torch here is built without CUDA")
_LIBRARY = load("libdiscrete_ops_cuda.so")
for _name in ("sample", "sample.of_rows", "surrogate", "surrogate_vjp", "tau_derivative"):
    if not torch._C._dispatch_has_kernel_for_dispatch_key(f"{NAMESPACE}_kernels::{_name}", "CUDA"):
        raise foreign(_LIBRARY, _name)


def obstacle(device: int) -> str | None:
    """Why the library cannot run on this GPU: it has no code for it, or its driver is too old. None: it can."""
    query = ctypes.CDLL(str(_LIBRARY)).discrete_ops_cuda_obstacle
    query.argtypes, query.restype = (ctypes.c_int,), ctypes.c_char_p
    said = query(device)
    return said.decode() if said else None
