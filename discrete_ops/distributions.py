"""One-hot categorical distributions whose ``rsample`` carries the gradient of any estimator."""

from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import OneHotCategorical, constraints, kl_divergence, register_kl
from torch.distributions import OneHotCategoricalStraightThrough as _Stock
from torch.distributions.utils import lazy_property
from torch.nn.functional import pad

from . import checks, estimators
from .nn import mode


class OneHotCategoricalStraightThrough(_Stock):
    """``torch.distributions.OneHotCategoricalStraightThrough``, with an estimator of one's choice and masks.

    Args:
        probs, logits: one of the two, ``(*batch, N)``: probabilities (normalised here) or unnormalised
            log-probabilities. A category of probability 0, or of logit ``-inf``, is masked: never sampled, no
            gradient, never NaN in ``entropy`` and KL. A row masked whole has zero rows for samples, and 0 for
            ``log_prob``, ``entropy`` and its KL from any other.
        estimator: pulls the gradient of ``rsample`` back to the logits: an estimator or its description, see
            :func:`discrete_ops.estimator`. ``"straight_through"`` is torch's own gradient.
        unimix: share of a uniform distribution over the categories that are not masked, in ``[0, 1)``: DreamerV3's
            1 % is 0.01.
        mask: bool, broadcasts to the parameters: True where a category may be sampled.
        validate_args: as of torch's distributions. The values of logits and probabilities are not read inside
            ``torch.vmap`` and ``torch.compile``, which turns torch's default for all distributions off.

    Raises:
        TypeError, ValueError: naming the argument, what came and what is allowed.
    """

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}  # noqa: RUF012 (torch's own)

    def __init__(
        self,
        probs: Tensor | None = None,
        logits: Tensor | None = None,
        *,
        estimator: str | estimators.Estimator = "straight_through",
        unimix: float = 0.0,
        mask: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if (probs is None) == (logits is None):
            raise ValueError(f"probs, logits: got {'neither' if probs is None else 'both'}, allowed: one of the two")
        self.estimator = estimators.estimator(estimator)
        if not 0.0 <= (unimix := checks.number("unimix", unimix, "allowed: a number in [0, 1)")) < 1.0:
            raise ValueError(f"unimix: got {unimix}, allowed: a number in [0, 1)")
        name, given = ("probs", probs) if logits is None else ("logits", logits)
        checks.logits(given, -1, name)
        assert given is not None
        #: What is sampled: unnormalised, -inf where masked.
        self._unnormalised = given if probs is None else _log(given)
        if mask is not None:
            self._unnormalised = checks.masked(self._unnormalised, mask)
        if validate_args or (validate_args is None and self._validate_args):
            _check(name, self._unnormalised)
        if unimix:
            log_probs = _normalised(self._unnormalised)
            categories = (log_probs != -torch.inf).sum(-1, keepdim=True)
            mixed = torch.log((1.0 - unimix) * log_probs.exp() + unimix / categories)
            self._unnormalised = mixed.masked_fill(log_probs == -torch.inf, -torch.inf)
        shape = self._unnormalised.shape
        torch.distributions.Distribution.__init__(self, shape[:-1], shape[-1:], validate_args=False)
        self._validate_args = type(self)._validate_args if validate_args is None else validate_args

    def __repr__(self) -> str:
        return f"{type(self).__name__}(logits: {self.param_shape}, estimator: {self.estimator})"

    @lazy_property
    def logits(self) -> Tensor:
        """Normalised log-probabilities."""
        return _normalised(self._unnormalised)

    @lazy_property
    def probs(self) -> Tensor:
        return self.logits.exp()

    @property
    def _param(self) -> Tensor:
        return self._unnormalised

    @property
    def param_shape(self) -> Size:
        return self._unnormalised.shape

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def mode(self) -> Tensor:
        """One-hot of the likeliest category, without a gradient."""
        return mode(self._unnormalised)

    @property
    def variance(self) -> Tensor:
        return self.probs * (1.0 - self.probs)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """One-hot samples, ``(*sample_shape, *batch, N)``."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """One-hot samples with the estimator's gradient, ``(*sample_shape, *batch, N)``."""
        shape = torch.Size(sample_shape)
        if not shape.numel() or not shape:  # no draws, or one without a dimension
            return self.estimator(self._unnormalised.expand(self._extended_shape(shape)))
        sample = self.estimator(self._unnormalised, num_draws=shape.numel())
        return sample.view(self._extended_shape(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Of one-hot samples; 0 for a row masked whole, whose sample is a zero row."""
        masked_whole = (self._unnormalised == -torch.inf).all(-1)
        if self._validate_args:
            if isinstance(value, Tensor) and value.shape[-1:] == self.event_shape:
                zero_row = masked_whole.unsqueeze(-1).to(value.dtype)
                self._validate_sample(value + pad(zero_row, (0, self.event_shape[0] - 1)))  # as one-hot as the others
            else:
                self._validate_sample(value)  # refuses it
        value, logits = torch.broadcast_tensors(value, self.logits)
        log_prob = logits.gather(-1, value.max(-1, keepdim=True)[1]).squeeze(-1)
        return log_prob.masked_fill(masked_whole, 0.0)

    def entropy(self) -> Tensor:
        return -(self.probs * _finite(self.logits)).sum(-1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "OneHotCategoricalStraightThrough":
        new = self._get_checked_instance(OneHotCategoricalStraightThrough, _instance)
        new.estimator = self.estimator
        new._unnormalised = self._unnormalised.expand(*batch_shape, *self.event_shape)
        torch.distributions.Distribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new


def _check(name: str, logits: Tensor) -> None:
    """What torch's distributions refuse, too: values are read, so a GPU is waited for."""
    if torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(logits):
        return
    if not bool((logits < torch.inf).all()):
        allowed = {
            "logits": "NaN or +inf, allowed: finite ones, and -inf as a mask",
            "probs": "negative, infinite or NaN, allowed: probabilities, normalised or not",
        }
        raise ValueError(f"{name}: got values that are {allowed[name]}")


def _log(probs: Tensor) -> Tensor:
    """The logarithm, with no gradient where it is -inf."""
    none = probs == 0
    return probs.masked_fill(none, 1.0).log().masked_fill(none, -torch.inf)


def _normalised(logits: Tensor) -> Tensor:
    """log_softmax that keeps masks, whole rows of them too, without a NaN in its gradient."""
    masked = logits == -torch.inf
    return logits.masked_fill(masked.all(-1, keepdim=True), 0.0).log_softmax(-1).masked_fill(masked, -torch.inf)


def _finite(logits: Tensor) -> Tensor:
    """0 for -inf: what a masked category weighs in a sum over probabilities."""
    return logits.masked_fill(logits == -torch.inf, 0.0)


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """Of normalised logits. Masked in p: nothing; in q alone: +inf."""
    beyond = ((q == -torch.inf) & (p != -torch.inf)).any(-1)
    return (p.exp() * (_finite(p) - _finite(q))).sum(-1).masked_fill(beyond, torch.inf)


@register_kl(OneHotCategoricalStraightThrough, OneHotCategoricalStraightThrough)
@register_kl(OneHotCategoricalStraightThrough, OneHotCategorical)
@register_kl(OneHotCategorical, OneHotCategoricalStraightThrough)
def _kl_one_hot(p: OneHotCategorical, q: OneHotCategorical) -> Tensor:
    return _kl(_log_probs(p), _log_probs(q))


def _log_probs(distribution: OneHotCategorical) -> Tensor:
    """With -inf at a probability of zero, which torch's own clamp."""
    logits, probs = distribution.logits, distribution.probs
    is_stock = not isinstance(distribution, OneHotCategoricalStraightThrough)
    if is_stock and distribution._categorical._param is probs:
        return logits.masked_fill(probs == 0, -torch.inf)
    return logits


# torch.compile cannot trace torch's search for this pair, but reads what it remembers of an earlier one.
kl_divergence(*(OneHotCategoricalStraightThrough(logits=torch.zeros(1)) for _ in range(2)))

__all__ = ["OneHotCategoricalStraightThrough"]
