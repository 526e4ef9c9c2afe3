"""A sampler as a layer of a network."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import checks, estimators
from .call import Real, RowOptions, Unpack


class StraightThroughCategorical(torch.nn.Module):
    """Draws a one-hot sample of its input's categories while it trains; the likeliest category in ``eval()``.

    Args:
        estimator: an estimator, or its description: ``"gst(tau=0.5, gap=1.0)"``, see :func:`discrete_ops.estimator`.
        dim: the dimension of the categories.

    Shape:
        logits ``(..., N)`` to ``(..., N)``, any float dtype.

    ``tau`` may be read and set at any time: ``module.tau = 0.5``, ``module.tau *= 0.99``. A number is kept as a float64
    buffer, so it is in the ``state_dict``, follows the module to its device (``half()`` leaves its precision) and
    recompiles nothing under ``torch.compile``; an ``nn.Parameter`` is trained, with the estimators that define its
    gradient. An estimator without a temperature (``reinmax_rk2``) has no ``tau``. The other hyper-parameters belong to
    the model's code, not to its state.

    Raises:
        TypeError, ValueError: naming the argument, what came and what is allowed.
    """

    if TYPE_CHECKING:

        @property
        def tau(self) -> Tensor: ...
        @tau.setter
        def tau(self, value: Real) -> None: ...

    def __init__(self, estimator: str | estimators.Estimator = "straight_through", *, dim: int = -1) -> None:
        super().__init__()
        self._estimator = estimators.estimator(estimator)
        self.dim = dim
        tau = getattr(self._estimator, "tau", None)
        if isinstance(tau, torch.nn.Parameter):
            self.tau = tau
        elif tau is not None:
            self.register_buffer("tau", _kept(tau))

    @property
    def estimator(self) -> estimators.Estimator:
        """The estimator as it is now, with today's ``tau``."""
        tau = getattr(self, "tau", None)
        return self._estimator if tau is None else replace(self._estimator, tau=tau)  # type: ignore[call-arg]

    def forward(self, logits: Tensor, **options: Unpack[RowOptions]) -> Tensor:
        """The sample; ``mask``, ``seed`` and ``generator`` as of the estimators. In ``eval()`` the one-hot of the
        largest logit, without a gradient, and of the options ``mask`` alone has an effect."""
        if not self.training:
            return mode(logits, self.dim, options.get("mask"))
        if "tau" in self._buffers or "tau" in self._parameters:
            return self._estimator(logits, dim=self.dim, tau=self.tau, **options)
        return self._estimator(logits, dim=self.dim, **options)

    def reset_parameters(self) -> None:
        """Set ``tau`` to what the module was made with; for a module that was made on the meta device."""
        if "tau" in self._buffers or "tau" in self._parameters:
            with torch.no_grad():
                self.tau.copy_(_kept(self._estimator.tau))  # type: ignore[attr-defined]

    def extra_repr(self) -> str:
        return str(self.estimator) + (f", dim={self.dim}" if self.dim != -1 else "")

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "tau" or isinstance(value, torch.nn.Parameter):
            super().__setattr__(name, value)
        elif not hasattr(self, "tau"):
            allowed = ", ".join(vars(self._estimator))
            raise AttributeError(f"tau: {type(self._estimator).function.__name__} has none, it has {allowed}")
        elif isinstance(self.tau, torch.nn.Parameter):
            with torch.no_grad():
                self.tau.copy_(_kept(checks.temperature("tau", value)))
        else:
            value = checks.temperature("tau", value)
            if isinstance(value, float) and self.tau.numel() == 1:
                self.tau.fill_(value)  # the same tensor: nothing recompiles, a CUDA graph sees it
            else:
                super().__setattr__(name, _kept(value).to(self.tau.device))

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Move, but do not round: ``half()`` is meant for what is computed."""
        tau = self._buffers.pop("tau", None)
        super()._apply(fn, recurse)
        if tau is not None:
            self._buffers["tau"] = tau.to(fn(tau).device) if not tau.is_meta else fn(tau).to(tau.dtype)
        return self


def _kept(tau: float | Tensor) -> Tensor:
    return torch.as_tensor(tau, dtype=torch.float64).detach().clone()


def mode(logits: Tensor, dim: int = -1, mask: Tensor | None = None) -> Tensor:
    """One-hot of the largest logit, the first of equal ones, without a gradient; rows that cannot be sampled as when
    they are sampled: zero if masked whole, NaN where NaN or +inf is."""
    dim = checks.logits(logits, dim)
    logits = logits.detach() if mask is None else checks.masked(logits.detach(), mask)
    top, index = logits.max(dim, keepdim=True)
    value = torch.where(top == -torch.inf, 0.0, torch.where(top < torch.inf, 1.0, torch.nan)).to(logits.dtype)
    one_hot = torch.zeros_like(logits).scatter_(dim, index, value)
    return torch.where(value.isnan(), value, one_hot)
