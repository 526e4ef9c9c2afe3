"""The ``cuda`` backend: the compiled operators on an NVIDIA GPU. Loaded only where torch has CUDA."""

import torch

from .compiled import load, sample, surrogate, surrogate_vjp

__all__ = ["sample", "surrogate", "surrogate_vjp"]

if torch.version.cuda is None:
    raise ImportError("torch here is built without CUDA")
load("libdiscrete_ops_cuda.so")
