"""A sampler as a layer of a network."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from . import checks, estimators, ragged
from .call import Generator, Real, Seed

__all__ = ["StraightThroughCategorical"]


class StraightThroughCategorical(torch.nn.Module):
    """Draws a one-hot sample of its input's categories while it trains; the likeliest category in ``eval()``.

    Args:
        estimator: an estimator, or its description: ``"gst(tau=0.5, gap=1.0)"``, see :func:`discrete_ops.estimator`.
        dim: the dimension of the categories.

    Shape:
        logits ``(..., N)`` to ``(..., N)``, any float dtype.

    ``tau`` may be read and set at any time: ``module.tau = 0.5``, ``module.tau *= 0.99``. It is kept as a float64
    buffer, so it is in the ``state_dict``, follows the module to its device (``half()`` leaves its precision) and
    recompiles nothing under ``torch.compile``; it may be a tensor, as of the estimators. An ``nn.Parameter`` is
    trained, with the estimators that define its gradient. An estimator without a temperature (``reinmax_rk2``) has no
    ``tau``. The other hyper-parameters belong to the model's code, not to its state.

    Raises:
        TypeError, ValueError: naming the argument, what came and what is allowed.
        AttributeError: where ``tau`` is set and the estimator has none.
    """

    if TYPE_CHECKING:

        @property
        def tau(self) -> Tensor: ...
        @tau.setter
        def tau(self, value: Real) -> None: ...

    def __init__(self, estimator: str | estimators.Estimator = "straight_through", *, dim: int = -1) -> None:
        super().__init__()
        self._estimator = estimators.estimator(estimator)
        self.dim = checks.dimension(dim)
        tau = getattr(self._estimator, "tau", None)
        if isinstance(tau, torch.nn.Parameter):
            self.register_parameter("tau", tau)
            self._first = tau.detach().clone()
        elif tau is not None:
            self._first = self._kept(tau)
            self.register_buffer("tau", self._first.clone().to(torch.get_default_device()))

    @property
    def estimator(self) -> estimators.Estimator:
        """The estimator as it is now, with today's ``tau``."""
        return replace(self._estimator, **self._now())

    def forward(
        self,
        logits: Tensor,
        mask: Tensor | None = None,
        *,
        generator: Generator = None,
        seed: Seed = None,
        backend: str | None = None,
        offsets: Tensor | None = None,
    ) -> Tensor:
        """The sample; ``mask``, ``generator``, ``seed``, ``backend`` and ``offsets`` as of the estimators.

        In ``eval()`` the one-hot of the largest logit that is not masked, without a gradient; nothing is drawn.
        """
        if not self.training:
            return mode(logits, self.dim, mask, offsets)
        options: Any = {"mask": mask, "generator": generator, "seed": seed, "backend": backend, **self._now()}
        return self._estimator(logits, dim=self.dim, offsets=offsets, **options)

    def reset_parameters(self) -> None:
        """Set ``tau`` to what the module was made with."""
        if self._now():
            with torch.no_grad():
                self.tau.copy_(self._first)

    def extra_repr(self) -> str:
        return self._estimator.described(**self._now()) + (f", dim={self.dim}" if self.dim != -1 else "")

    def _now(self) -> dict[str, Any]:
        return {"tau": self.tau} if hasattr(self._estimator, "tau") else {}

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "tau":
            return super().__setattr__(name, value)
        if not hasattr(self._estimator, "tau"):
            allowed = ", ".join(vars(self._estimator))
            raise AttributeError(f"tau: {type(self._estimator).function.__name__} has none, it has {allowed}")
        checked = self._estimator.checked("tau", value)
        if isinstance(value, torch.nn.Parameter):
            return super().__setattr__(name, value)
        now, kept = self.tau, self._kept(checked)
        # Written into, so that nothing recompiles and a CUDA graph sees it; but torch.compile loses what is written
        # into a float64 number of the module, and a meta tensor keeps nothing.
        replaced = torch.compiler.is_compiling() or now.is_meta or not isinstance(checked, float) or now.numel() != 1
        if "tau" in self._buffers and replaced:
            return super().__setattr__(name, kept if now.is_meta else kept.to(now.device))
        with torch.no_grad():
            now.copy_(kept)

    def _kept(self, tau: Real) -> Tensor:
        if isinstance(tau, Tensor) and tau.requires_grad and not isinstance(tau, torch.nn.Parameter):
            allowed = "allowed: a number, a tensor without grad, or an nn.Parameter, which is trained"
            raise ValueError(f"tau: got a tensor that requires grad, {allowed}")
        if isinstance(self._estimator, estimators.GumbelRao) and checks.is_zero(tau):  # no tensor stands for that limit
            raise ValueError("tau: got 0, allowed in a layer: what is positive (the limit at 0 is 'reinmax')")
        device = tau.device if isinstance(tau, Tensor) else "cpu"
        return torch.as_tensor(tau, dtype=torch.float64, device=device).detach().clone()

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Move, but do not round: ``half()`` is meant for what is computed."""
        tau = self._buffers.pop("tau", None)
        super()._apply(fn, recurse)
        if tau is not None:
            self._buffers["tau"] = (self._first.clone() if tau.is_meta else tau).to(fn(tau).device)
        return self

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        """Of any shape: a tensor may have been set."""
        given, now = state_dict.get(prefix + "tau"), self._buffers.get("tau")
        if isinstance(given, Tensor) and now is not None and given.shape != now.shape:
            self._buffers["tau"] = now.new_ones(given.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def mode(logits: Tensor, dim: int = -1, mask: Tensor | None = None, offsets: Tensor | None = None) -> Tensor:
    """One-hot of the largest logit, the first of equal ones, without a gradient; rows that cannot be sampled as when
    they are sampled: zero if masked whole, NaN where NaN or +inf is."""
    if not isinstance(logits, Tensor) and has_torch_function_unary(logits):
        return handle_torch_function(mode, (logits,), logits, dim, mask, offsets)
    if isinstance(logits, Tensor) and logits.layout is torch.jagged:
        logits, mask, offsets = checks.elements_of_nested(logits, mask, offsets)
        return torch.nested.nested_tensor_from_jagged(mode(logits, dim, mask, offsets), offsets)
    dim = checks.logits(logits, dim) if offsets is None else checks.offsets(offsets, logits, dim)
    logits = logits.detach() if mask is None else checks.masked(logits.detach(), mask)
    if offsets is not None:
        return ragged.mode(logits, offsets)
    top, index = logits.max(dim, keepdim=True)
    shape = [1] * logits.ndim
    shape[dim] = -1
    chosen = torch.arange(logits.shape[dim], device=logits.device).view(shape) == index
    one_hot = (chosen & (top > -torch.inf)).to(logits.dtype)
    return torch.where(top < torch.inf, one_hot, torch.nan)
