"""Fused, differentiable sampling of categorical variables for PyTorch.

One call draws a hard one-hot sample; its backward pass is a straight-through gradient estimator. Start at
:mod:`discrete_ops.functional`; the maths is in :mod:`discrete_ops.reference`.
"""

from . import compat, diagnostics, distributions, estimators, nn, score_function
from .backends import available_backends, build_info, set_backend, use_backend
from .binary import bernoulli
from .compat import patch_torch
from .embeddings import embedding
from .estimators import estimator
from .functional import (
    expected_gap,
    gst,
    gumbel_rao,
    gumbel_softmax,
    mix,
    mve,
    reinmax,
    reinmax_argmax,
    reinmax_cv,
    reinmax_rao,
    reinmax_rk2,
    straight_through,
)
from .linear_embedding import linear_embedding
from .top_k import top_k

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "available_backends",
    "bernoulli",
    "build_info",
    "compat",
    "diagnostics",
    "distributions",
    "embedding",
    "estimator",
    "estimators",
    "expected_gap",
    "gst",
    "gumbel_rao",
    "gumbel_softmax",
    "linear_embedding",
    "mix",
    "mve",
    "nn",
    "patch_torch",
    "reinmax",
    "reinmax_argmax",
    "reinmax_cv",
    "reinmax_rao",
    "reinmax_rk2",
    "score_function",
    "set_backend",
    "straight_through",
    "top_k",
    "use_backend",
]
