"""The estimators as functions: one call draws a hard one-hot sample and carries its surrogate gradient.

Arguments, result and errors are the same everywhere; ``help`` of any of them explains them all. Each is a short list
of softmax Jacobian products, ``J(p, q; v) = p * (v - <q, v>)``: see :mod:`discrete_ops.reference`.

Sources: GST is Fan et al., ICML 2022; BR is Wang and Bui, arXiv 2603.08257, 2026.
"""

import warnings
from typing import Literal

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from . import checks, perturbation, reference
from .call import Options, Pair, Real, RowOptions, Unpack, draw
from .documented import documented


@documented
def straight_through(
    logits: Tensor, tau: Real = 1.0, *, return_index: bool = False, **options: Unpack[Options]
) -> Tensor | Pair:
    """Straight-through: pulls back ``J(softmax(l/tau)) / tau``. GST Eq. 7, BR Eq. 3."""
    return draw("straight_through", logits, tau, options, return_index)


@documented
def gumbel_softmax(
    logits: Tensor,
    tau: Real = 1,
    hard: bool = False,
    eps: float = 1e-10,
    dim: int = -1,
    *,
    return_index: bool = False,
    **options: Unpack[RowOptions],
) -> Tensor | Pair:
    """Straight-through Gumbel-softmax, drop-in for ``torch.nn.functional.gumbel_softmax``. GST Eq. 10, BR Eq. 5.

    Draws D first and ``Y = l + G | D`` after it (GST sec. 2.4), which has the law of drawing G first. Pulls
    back ``J(softmax(Y/tau)) / tau``.

    Args:
        eps: has no effect, as in torch.
    """
    if eps != 1e-10:
        warnings.warn("`eps` parameter is deprecated and has no effect.", stacklevel=2)
    hard = checks.flag("hard", hard)
    checks.without_limit(tau)
    return draw("gumbel_rao", logits, tau, {"dim": dim, **options}, return_index, hard=hard)


@documented
def gumbel_rao(
    logits: Tensor,
    tau: Real = 1.0,
    num_samples: int = 100,
    *,
    draws: Literal["independent", "stratified"] = "independent",
    hard: bool = True,
    return_index: bool = False,
    **options: Unpack[Options],
) -> Tensor | Pair:
    """Gumbel-Rao: the mean of K = ``num_samples`` STGS pull-backs that share one D. GST Eq. 11, BR Eq. 6-7.

    Memory does not depend on K. ``K = 1`` is :func:`gumbel_softmax` on the same seed.

    Args:
        tau: temperature of the gradient: a positive number, or a tensor that broadcasts against the logits, 1 in
            ``dim``, whose gradient is that of the soft sample. The number 0 is the limit of tau -> 0 after K -> inf,
            which is :func:`reinmax` at tau = 1 (Shekhovtsov, ICML 2023): no draws are taken, and the soft sample is
            the one-hot.
        hard: True: the one-hot sample. False: the mean of the K soft samples behind it; draw, noise and gradient are
            the same, with the noise given D held fixed.
    """
    num_samples, hard = checks.count("num_samples", num_samples), checks.flag("hard", hard)
    estimator = checks.draws(draws) + "gumbel_rao"
    if checks.is_zero(tau):
        return draw("reinmax", logits, 1.0, options, return_index)
    return draw(estimator, logits, tau, options, return_index, 0.0, num_samples, hard)


@documented
def gst(
    logits: Tensor,
    tau: Real = 1.0,
    gap: Real | Literal["pi"] = 1.0,
    *,
    hard: bool = True,
    detach_perturbation: bool = True,
    return_index: bool = False,
    **options: Unpack[Options],
) -> Tensor | Pair:
    """Gapped straight-through: ``J(softmax(h/tau)) / tau``, ``h = l + m1 - m2``. GST Eq. 17-19, Algorithm 1.

    Args:
        hard: True: the one-hot sample. False: ``softmax(h/tau)``, the soft sample behind it; draw and gradient are the
            same, with D held fixed.
        gap: lead of the sampled logit in h, a number >= 0 or a tensor as tau (without a gradient), or ``"pi"`` for the
            expected one of Lemma 1 (:func:`expected_gap`).
        detach_perturbation: False lets the gradient flow through m1 and m2 (the ablation NZ-GST of GST Tables 1
            and 2; the gap stays a constant). Runs in the reference backend only.
    """
    estimator, coefficient = checks.gap(gap)
    if not checks.flag("detach_perturbation", detach_perturbation):
        if options.get("backend") not in (None, "reference"):
            allowed = "allowed with detach_perturbation=False: 'reference' or None"
            raise ValueError(f"backend: got {options['backend']!r}, {allowed}")
        estimator, options["backend"] = reference.NONZERO + estimator, "reference"
    hard = checks.flag("hard", hard)
    return draw(estimator, logits, tau, options, return_index, coefficient, hard=hard)


@documented
def reinmax(
    logits: Tensor, tau: Real = 1.0, *, return_index: bool = False, **options: Unpack[Options]
) -> Tensor | Pair:
    """ReinMax: ``2 J(p_D) - J(pi)/2``, ``p_D = (softmax(l/tau) + D)/2``. BR Eq. 12, 16; Liu et al., NeurIPS 2023."""
    return draw("reinmax", logits, tau, options, return_index)


@documented
def reinmax_argmax(
    logits: Tensor, tau: Real = 1.0, *, return_index: bool = False, **options: Unpack[Options]
) -> Tensor | Pair:
    """ReinMax with ``one_hot(argmax l)`` for D in its pull-back: the diagnostic of BR Table 1."""
    return draw("reinmax_argmax", logits, tau, options, return_index)


@documented
def reinmax_rao(
    logits: Tensor,
    tau: Real = 1.0,
    num_samples: int = 100,
    *,
    draws: Literal["independent", "stratified"] = "independent",
    return_index: bool = False,
    **options: Unpack[Options],
) -> Tensor | Pair:
    """ReinMax-Rao: the first term of ReinMax Rao-Blackwellised over K = ``num_samples`` draws. BR Eq. 17."""
    num_samples = checks.count("num_samples", num_samples)
    return draw(checks.draws(draws) + "reinmax_rao", logits, tau, options, return_index, 0.0, num_samples)


@documented
def reinmax_cv(
    logits: Tensor,
    tau: Real = 1.0,
    eta: Real = 1.5,
    num_samples: int = 100,
    *,
    control: Literal["soft", "gumbel"] = "soft",
    draws: Literal["independent", "stratified"] = "independent",
    return_index: bool = False,
    **options: Unpack[Options],
) -> Tensor | Pair:
    """ReinMax-CV: ReinMax with a control variate of weight ``eta``. BR Eq. 18, with the factor 2 of Eq. 16.

    Args:
        eta: weight of the control and of its mean over K = ``num_samples`` draws, a number or a tensor as tau (without
            a gradient); 0 is ReinMax at tau = 1.
        control: ``"soft"``: ``J(softmax(log p_D + s)) / tau``, s the soft sample that chose D; ``"gumbel"``: one more
            draw of the Rao term, which leaves ReinMax's mean exactly and adds variance. The soft control's own softmax
            has no temperature, so that below a tau of about 1/2 its weight eta / tau is too much: on a VAE at tau =
            0.1 the mean gradient pointed backwards (``figure br-1`` of the VAE study). BR's settings are 0.7 to 1.3.
    """
    num_samples, eta = checks.count("num_samples", num_samples), checks.weight("eta", eta)
    soft = checks.choice("control", control, ("soft", "gumbel")) == "soft"
    estimator = checks.draws(draws) + ("reinmax_cv" if soft else "reinmax_cv_gumbel")
    return draw(estimator, logits, tau, options, return_index, eta, num_samples, coefficient_name="eta")


@documented
def reinmax_rk2(
    logits: Tensor, beta: Real = 0.5, *, centred: bool = False, return_index: bool = False, **options: Unpack[Options]
) -> Tensor | Pair:
    """The second-order Runge-Kutta family, ``2 J(p_D, beta pi + (1 - beta) D) - beta J(pi)``. BR Eq. 27.

    Args:
        beta: any number up to 1e30 in size, or a tensor as tau (without a gradient); 0.5 is :func:`reinmax` at
            tau = 1.
        centred: False: BR Eq. 27, whose mean is BR Eq. 35 (:func:`discrete_ops.diagnostics.rk2_uncentred`). True:
            ``(1 - beta) J(pi; v) + beta <v, D - pi> (D - pi)``, whose mean is BR Eq. 26
            (:func:`discrete_ops.diagnostics.rk2`), and which is :func:`mix` with ``a = 2 beta``. BR's Theorem 1 takes
            the two means for one, which they are at beta = 1/2 alone.
    """
    beta = checks.weight("beta", beta)
    estimator, coefficient = ("mix", 2 * beta) if checks.flag("centred", centred) else ("reinmax_rk2", beta)
    return draw(estimator, logits, 1.0, options, return_index, coefficient, coefficient_name="beta")


@documented
def mix(logits: Tensor, a: Real = 0.5, *, return_index: bool = False, **options: Unpack[Options]) -> Tensor | Pair:
    """Straight-through mixed with ReinMax, ``2 a J(p_D) + (1 - 3 a / 2) J(pi)``, ``p_D = (pi + D) / 2``.

    ``a`` is a dial between little spread and little bias, without draws. Hooper and Shekhovtsov, AISTATS 2026, call
    it ST-ZGR: ReinMax is the ZGR of Shekhovtsov, ICML 2023, which is Gumbel-Rao in the limit of temperature 0.

    Args:
        a: from 0, :func:`straight_through`, to 1, :func:`reinmax`, both at tau = 1; a number or a tensor as tau
            (without a gradient).
    """
    return draw("mix", logits, 1.0, options, return_index, checks.share("a", a), coefficient_name="a")


@documented
def mve(logits: Tensor, tau: Real = 4.0, *, return_index: bool = False, **options: Unpack[Options]) -> Tensor | Pair:
    """The minimum-variance estimator of Hooper and Shekhovtsov, AISTATS 2026: pulls back ``J(pi; y)``, y solves a
    linear system of each row, in O(N) memory.

    Of all estimators that are linear in the incoming gradient and exact in the mean for losses linear in the sample,
    none has less variance under a white gradient and less squared bias on random quadratic losses, weighed by tau:
    :mod:`discrete_ops.minimum_variance` derives it.

    Args:
        tau: what a squared bias on quadratic losses costs against variance: 0 is :func:`straight_through` at tau = 1,
            ``math.inf`` has no such bias, as :func:`reinmax`, with less variance. A number or a tensor as of the
            others, without a gradient; from 2**30 on it is infinity. Above 16 rows are computed in float64, in
            several times the time.
    """
    return draw("mve", logits, 1.0, options, return_index, checks.trade("tau", tau), coefficient_name="tau")


def expected_gap(logits: Tensor, index: Tensor) -> Tensor:
    """Lemma 1 of GST: mean lead of ``l_i + G_i`` over the runner-up given that i wins, ``-log(1 - pi_i)/pi_i``.

    Args:
        logits: ``(..., N)``, float dtypes.
        index: ``(...)`` int64, the winning category of each row, in ``[0, N)``.

    Returns:
        ``(...)`` like ``logits`` in dtype, >= 1, exact for ``pi_i`` near 0 and near 1 (inf where i is alone).

    Raises:
        TypeError, ValueError: naming the argument, what came and what is allowed.
    """
    if not isinstance(logits, Tensor) and has_torch_function_unary(logits):
        return handle_torch_function(expected_gap, (logits,), logits, index)
    checks.logits(logits, -1)
    checks.index(index, logits.shape[:-1], logits.shape[-1])
    D = index.unsqueeze(-1) == torch.arange(logits.shape[-1], device=index.device)
    return perturbation.pi_gap(logits.double(), D).squeeze(-1).to(logits.dtype)
