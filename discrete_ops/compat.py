"""The signatures of public packages and repositories, on top of this one."""

import contextlib
import math
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import Function

from . import checks, estimators, functional, ops

__all__ = ["categorical_repara", "gumbel_rao", "patch_torch", "reinmax"]


def reinmax(logits: Tensor, tau: float | Tensor, hard: bool = True) -> tuple[Tensor, Tensor]:
    """The signature of the PyPI package ``reinmax`` (Liu et al., NeurIPS 2023).

    Args:
        logits: ``(..., N)``.
        tau: temperature.
        hard: has no effect, as in the package.

    Returns:
        ``(sample, probs)``: the one-hot sample and ``softmax(logits)``, with the gradient through both.

    Raises:
        TypeError, ValueError: naming the argument, what came and what is allowed.
    """
    return functional.reinmax(logits, tau), logits.softmax(-1)


def gumbel_rao(logits: Tensor, k: int, temp: float | Tensor = 1.0, I: Tensor | None = None) -> Tensor:  # noqa: E741
    """The signature of the repository ``gumbel-rao-pytorch`` of nshepperd (Paulus et al., ICLR 2021).

    Args:
        logits: ``(..., N)``.
        k: Monte-Carlo draws of the gradient.
        temp: temperature of the gradient.
        I: the category of each row, ``(...)`` int64, where it was drawn before, of a category that is not masked; drawn
            here if None. With it the call is an ``autograd.Function``, which ``torch.func`` does not take.

    Returns:
        One-hot sample with the Gumbel-Rao gradient, of the logits' dtype.

    Raises:
        TypeError, ValueError: naming the argument, what came and what is allowed.
    """
    k, temp = checks.count("k", k), checks.temperature("temp", temp)
    if I is None:
        return functional.gumbel_rao(logits, temp, k)
    checks.logits(logits, -1)
    checks.index(I, logits.shape[:-1], logits.shape[-1], "I")
    seed = checks.draw_seed(None, None, 1, logits.device)
    parameters = checks.parameters(logits, logits.ndim - 1, "gumbel_rao", temp, 0.0, 1.0)
    return _Drawn.apply(logits, I, seed, parameters, ("gumbel_rao", k, 0, ""))


class _Drawn(Function):
    """One-hot of an index that was drawn elsewhere, with the pull-back of an estimator."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, index: Tensor, seed: Tensor, parameters: Any, spec: ops.Spec) -> Tensor:
        ctx.spec = spec
        ops.save(ctx, False, logits, index, seed, parameters)
        return torch.zeros_like(logits).scatter_(-1, index.unsqueeze(-1), 1.0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        saved = ops.restored(ctx)
        at_logits = ops.pull_back(grad, *saved, False, ctx.spec) if ctx.needs_input_grad[0] else None
        at_parameters = ops.pull_back_to_parameters(grad, *saved, ctx.spec) if ctx.needs_input_grad[3] else None
        return at_logits, None, None, at_parameters, None


#: Methods whose strings have no number.
_METHODS: dict[str, Callable[[Any], estimators.Estimator]] = {
    "gumbel": estimators.GumbelSoftmax,
    "st": estimators.StraightThrough,
    "reinmax": estimators.ReinMax,
}


def categorical_repara(logits: Tensor, temp: float | Tensor, method: str = "gumbel") -> tuple[Tensor, Tensor]:
    """The signature that the repositories of GST (Fan et al., 2022) and ReinMax (Liu et al., 2023) share.

    Args:
        logits: ``(..., N)``.
        temp: temperature of the gradient.
        method: ``"gumbel"``, ``"st"``, ``"reinmax"``, ``"rao_gumbel"`` (100 draws) or ``"rao_gumbel-<draws>"``,
            ``"gst-<gap>"`` or ``"gst-p"`` (Lemma 1's gap), and ``"nd_gst-..."`` likewise, the ablation whose
            perturbation is not detached. Theirs that need the loss itself (``"exact"``,
            ``"reinmax_mean_baseline"``) are refused: see :mod:`discrete_ops.diagnostics`.

    Returns:
        ``(sample, probs)``: the one-hot sample and ``softmax(logits)``, with the gradient through both.

    Raises:
        TypeError, ValueError: naming the argument, what came and what is allowed.
    """
    return _of_method(method, checks.temperature("temp", temp))(logits), logits.softmax(-1)


def _of_method(method: str, temp: float | Tensor) -> estimators.Estimator:
    if method in _METHODS:
        return _METHODS[method](temp)
    kind, _, number = str(method).partition("-")
    with contextlib.suppress(ValueError):
        if kind == "rao_gumbel":
            return estimators.GumbelRao(temp, int(number or 100))
        if kind in ("gst", "nd_gst"):
            gap = -1.0 if number == "p" else float(number)
            if not math.isnan(gap):  # theirs reads a negative one as "p", too
                return estimators.GST(temp, "pi" if gap < 0 else gap, detach_perturbation=kind == "gst")
    allowed = ", ".join(map(repr, (*_METHODS, "rao_gumbel", "rao_gumbel-<draws>", "gst-<gap>", "gst-p", "nd_gst-...")))
    raise ValueError(f"method: got {method!r}, allowed: {allowed}")


class _Patch:
    """What is patched now, and how many blocks are open."""

    lock = threading.Lock()
    blocks = 0
    original: Any = None
    names: ClassVar[list[tuple[Any, str]]] = []


@contextlib.contextmanager
def patch_torch() -> Iterator[None]:
    """Inside, ``torch.nn.functional.gumbel_softmax`` is :func:`discrete_ops.gumbel_softmax`: process-wide, until the
    last open block, of any thread, is left.

    So is every global name of a module that is torch's function when the first block is entered, such as that of an
    earlier ``from torch.nn.functional import gumbel_softmax``. What holds the function in another place (an attribute
    of an object, a default argument, a closure, a compiled graph, a module that allows no change) keeps it; a module
    that is imported inside a block and takes the name keeps ours.
    """
    with _Patch.lock:
        _Patch.blocks += 1
        if _Patch.blocks == 1:
            _Patch.original = torch.nn.functional.gumbel_softmax
            for module, name in _global_names(_Patch.original):
                with contextlib.suppress(Exception):
                    setattr(module, name, functional.gumbel_softmax)
                    _Patch.names.append((module, name))
    try:
        yield
    finally:
        with _Patch.lock:
            _Patch.blocks -= 1
            while not _Patch.blocks and _Patch.names:
                module, name = _Patch.names.pop()
                if getattr(module, name, None) is functional.gumbel_softmax:  # nobody has given it another value
                    setattr(module, name, _Patch.original)


def _global_names(function: Any) -> list[tuple[Any, str]]:
    """``(module, name)`` of every global name that is this function."""
    found = []
    for module in list(sys.modules.values()):
        with contextlib.suppress(Exception):  # there may be anything
            found += [(module, name) for name, value in list(vars(module).items()) if value is function]
    return found
