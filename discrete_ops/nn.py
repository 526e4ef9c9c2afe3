"""Samplers as layers of a network."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function, has_torch_function_unary

from . import checks, embeddings, estimators, ragged
from .call import Generator, Pair, Real, Seed

__all__ = ["StraightThroughCategorical", "StraightThroughEmbedding"]


class _Sampler(torch.nn.Module):
    """What layers have that draw while they train: an estimator, its ``tau``, the dimension of the categories."""

    if TYPE_CHECKING:

        @property
        def tau(self) -> Tensor: ...
        @tau.setter
        def tau(self, value: Real) -> None: ...

    def __init__(self, estimator: str | estimators.Estimator, dim: int) -> None:
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

    def reset_parameters(self) -> None:
        """Set ``tau`` to what the module was made with."""
        if self._now():
            with torch.no_grad():
                self.tau.copy_(self._first)

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


class StraightThroughCategorical(_Sampler):
    """Draws a one-hot sample of its input's categories while it trains; the likeliest category in ``eval()``.

    Args:
        estimator: an estimator, or its description: ``"gst(tau=0.5, gap=1.0)"``, see :func:`discrete_ops.estimator`.
        dim: the dimension of the categories.

    Shape:
        logits ``(..., N)`` to ``(..., N)``, or to ``(R, ..., N)`` with ``num_draws=R``; with ``offsets``
        ``(total,)`` to ``(total,)``. Any float dtype.

    ``tau`` may be read and set at any time: ``module.tau = 0.5``, ``module.tau *= 0.99``. It is kept as a float64
    buffer, so it is in the ``state_dict``, follows the module to its device (``half()`` leaves its precision) and
    recompiles nothing under ``torch.compile``; it may be a tensor, as of the estimators. An ``nn.Parameter`` is
    trained, with the estimators that define its gradient. An estimator without a temperature (``reinmax_rk2``) has no
    ``tau``. The other hyper-parameters belong to the model's code, not to its state.

    Raises:
        TypeError, ValueError: naming the argument, what came and what is allowed.
        AttributeError: where ``tau`` is set and the estimator has none.
    """

    def __init__(self, estimator: str | estimators.Estimator = "straight_through", *, dim: int = -1) -> None:
        super().__init__(estimator, dim)

    def forward(
        self,
        logits: Tensor,
        mask: Tensor | None = None,
        *,
        generator: Generator = None,
        seed: Seed = None,
        backend: str | None = None,
        num_draws: int | None = None,
        offsets: Tensor | None = None,
    ) -> Tensor:
        """The sample; the options are those of the estimators.

        In ``eval()`` the one-hot of the largest logit that is not masked, without a gradient; nothing is drawn.
        """
        if not self.training:
            return mode(logits, self.dim, mask, num_draws, offsets)
        options: Any = {"mask": mask, "generator": generator, "seed": seed, "backend": backend, **self._now()}
        return self._estimator(logits, dim=self.dim, num_draws=num_draws, offsets=offsets, **options)

    def extra_repr(self) -> str:
        return self._estimator.described(**self._now()) + (f", dim={self.dim}" if self.dim != -1 else "")


class StraightThroughEmbedding(_Sampler):
    """A table whose rows a sample chooses: ``StraightThroughCategorical()(logits) @ weight`` without the sample, see
    :func:`discrete_ops.embedding`. In ``eval()`` the row of the likeliest category.

    Args:
        num_embeddings: N, rows of the table.
        embedding_dim: D, their length.
        estimator: as of :class:`StraightThroughCategorical`, and so is ``tau``.
        tables: L, a table for each of L latents; without it there is one for all.
        soft: whether the gradient at the weight is that of the soft sample, see :func:`discrete_ops.embedding`.
        dim: the dimension of the categories.
        device, dtype: of the weight, as of ``torch.nn.Embedding``.

    Shape:
        logits ``(..., N)`` to ``(..., D)``, or with tables ``(..., L, N)`` to ``(..., L, D)``; of the weight's dtype,
        or under ``torch.autocast`` of any float dtype.

    Attributes:
        weight: ``(N, D)`` or ``(L, N, D)``, drawn from the standard normal distribution, as of ``torch.nn.Embedding``.

    Raises:
        TypeError, ValueError: naming the argument, what came and what is allowed.
        AttributeError: where ``tau`` is set and the estimator has none.
    """

    weight: torch.nn.Parameter

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        estimator: str | estimators.Estimator = "straight_through",
        *,
        tables: int | None = None,
        soft: bool = False,
        dim: int = -1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(estimator, dim)
        self.num_embeddings = checks.count("num_embeddings", num_embeddings)
        self.embedding_dim = checks.count("embedding_dim", embedding_dim)
        self.tables = None if tables is None else checks.count("tables", tables)
        self.soft = embeddings.checked_soft(soft, self._estimator)
        shape: tuple[int, ...] = () if self.tables is None else (self.tables,)
        shape = (*shape, self.num_embeddings, self.embedding_dim)
        self.weight = torch.nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        torch.nn.init.normal_(self.weight)

    @overload
    def forward(
        self,
        logits: Tensor,
        mask: Tensor | None = None,
        *,
        return_index: Literal[False] = False,
        generator: Generator = None,
        seed: Seed = None,
        backend: str | None = None,
        num_draws: int | None = None,
    ) -> Tensor: ...
    @overload
    def forward(
        self,
        logits: Tensor,
        mask: Tensor | None = None,
        *,
        return_index: Literal[True],
        generator: Generator = None,
        seed: Seed = None,
        backend: str | None = None,
        num_draws: int | None = None,
    ) -> Pair: ...
    def forward(
        self,
        logits: Tensor,
        mask: Tensor | None = None,
        *,
        return_index: bool = False,
        generator: Generator = None,
        seed: Seed = None,
        backend: str | None = None,
        num_draws: int | None = None,
    ) -> Tensor | Pair:
        """The rows, ``(rows, index)`` with ``return_index``; the options are those of the estimators.

        In ``eval()`` the row of the largest logit that is not masked, the first of equal ones, with a gradient at the
        weight alone; nothing is drawn.
        """
        if not self.training:
            return likeliest(logits, self.weight, self.dim, mask, return_index, num_draws)
        options: Any = {"mask": mask, "generator": generator, "seed": seed, "backend": backend, **self._now()}
        options = {"dim": self.dim, "return_index": return_index, "num_draws": num_draws, **options}
        return embeddings.look_up(self._estimator, logits, self.weight, self.soft, options)

    def reset_parameters(self) -> None:
        """Draw the weight anew, and set ``tau`` to what the module was made with."""
        super().reset_parameters()
        torch.nn.init.normal_(self.weight)

    def extra_repr(self) -> str:
        shown = [str(self.num_embeddings), str(self.embedding_dim), self._estimator.described(**self._now())]
        shown += [f"tables={self.tables}"] if self.tables is not None else []
        shown += ["soft=True"] if self.soft else []
        shown += [f"dim={self.dim}"] if self.dim != -1 else []
        return ", ".join(shown)


def mode(
    logits: Tensor,
    dim: int = -1,
    mask: Tensor | None = None,
    num_draws: int | None = None,
    offsets: Tensor | None = None,
) -> Tensor:
    """One-hot of the largest logit, the first of equal ones, without a gradient; rows that cannot be sampled as when
    they are sampled: zero if masked whole, NaN where NaN or +inf is. As often as they would be drawn."""
    if not isinstance(logits, Tensor) and has_torch_function_unary(logits):
        return handle_torch_function(mode, (logits,), logits, dim, mask, num_draws, offsets)
    if isinstance(logits, Tensor) and logits.layout is torch.jagged:
        logits, mask, offsets = checks.elements_of_nested(logits, mask, offsets)
        return torch.nested.nested_tensor_from_jagged(mode(logits, dim, mask, None, offsets), offsets)
    if offsets is None:
        likeliest = _mode(logits, checks.logits(logits, dim), mask)
    else:
        checks.offsets(offsets, logits, dim)
        likeliest = ragged.mode(logits.detach() if mask is None else checks.masked(logits.detach(), mask), offsets)
    if num_draws is None:
        return likeliest
    return likeliest.expand(checks.count("num_draws", num_draws), *likeliest.shape)


def _mode(logits: Tensor, dim: int, mask: Tensor | None) -> Tensor:
    top, index = _top(logits, dim, mask)
    shape = [1] * logits.ndim
    shape[dim] = -1
    chosen = torch.arange(logits.shape[dim], device=logits.device).view(shape) == index
    one_hot = (chosen & (top > -torch.inf)).to(logits.dtype)
    return torch.where(top < torch.inf, one_hot, torch.nan)


def likeliest(
    logits: Tensor,
    weight: Tensor,
    dim: int = -1,
    mask: Tensor | None = None,
    return_index: bool = False,
    num_draws: int | None = None,
) -> Tensor | Pair:
    """The row of a table that :func:`mode` chooses, with a gradient at the table."""
    if not isinstance(logits, Tensor) and has_torch_function((logits, weight)):
        return handle_torch_function(likeliest, (logits, weight), logits, weight, dim, mask, return_index, num_draws)
    dim = checks.logits(logits, dim)
    tables = embeddings.checked(weight, logits.movedim(dim, -1))
    top, index = (x.squeeze(dim) for x in _top(logits, dim, mask))
    lines = index
    if len(tables) > 1:
        lines = index + torch.arange(len(tables), device=logits.device) * tables.shape[1]
    rows = torch.nn.functional.embedding(lines, tables.flatten(0, 1))
    rows = torch.where(top.unsqueeze(-1) > -torch.inf, rows, 0.0)
    rows = torch.where(top.unsqueeze(-1) < torch.inf, rows, torch.nan).movedim(-1, dim)
    index = torch.where(top.isfinite(), index, -1)
    if num_draws is not None:
        copies = checks.count("num_draws", num_draws)
        rows, index = (x.expand(copies, *x.shape) for x in (rows, index))
    return (rows, index) if checks.flag("return_index", return_index) else rows


def _top(logits: Tensor, dim: int, mask: Tensor | None) -> Pair:
    """The largest logit and its first index."""
    logits = logits.detach() if mask is None else checks.masked(logits.detach(), mask)
    top, index = logits.max(dim, keepdim=True)
    return top, index
