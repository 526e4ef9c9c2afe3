"""The estimators as functions: one call draws a hard one-hot sample and carries its surrogate gradient.

Shared by all of them:

Args:
    logits: unnormalised log-probabilities, ``(..., N)`` with the N categories along ``dim``; float64, float32,
        float16 or bfloat16, any strides, empty batches too. ``-inf`` masks a category: it is never sampled and gets no
        gradient. A row masked whole gives a zero row and zero gradient. NaN or +inf in a row gives a NaN row.
    tau: temperature of the gradient: a positive number, or a tensor that broadcasts against the logits, 1 in ``dim``.
        Its own gradient, that of the soft sample, is given where there is one: straight_through, gumbel_softmax,
        gumbel_rao and gst. Under ``torch.compile`` annealing a tensor recompiles nothing, a float once, at its first
        change. On a GPU a tensor is not checked, for that would wait for the device: tau <= 0 there gives NaN.
    sample_tau: temperature of the sample, as tau but without a gradient: ``D ~ softmax(logits / sample_tau)``. Apart
        from tau it decouples the two (Shah et al., arXiv 2410.13331); what is pulled back is the same function of D.
    dim: the dimension of the categories.
    generator: where the seed is drawn from; torch's default generator of the device if None. ``torch.compile``
        takes no generators, and checkpointing restores none but the default ones, so that it would draw another
        sample when it recomputes: give a ``seed`` there, drawn outside.
    seed: int in ``[0, 2**63)``, or an int64 tensor on the logits' device with one element (or S: then each of
        S equal consecutive groups of rows has its own). Equal seed, equal sample, and equal gradient
        up to rounding, in every backend (two may differ where a draw falls within rounding of a category's edge).
    return_index: also return the sampled index, int64, ``logits.shape`` without ``dim``; -1 for a row that
        has no sample (NaN, or masked whole).
    backend: one of ``available_backends()``; the device's default if None.

Returns:
    Sample like ``logits`` (shape, dtype, device): rows exactly one-hot. Where there is a ``hard=False``, it
    returns the soft sample behind the hard one instead; draw, noise and gradient are the same. The soft sample is no
    differentiable function of the logits for a fixed seed, which first draws D: its gradient is that of
    ``softmax((l + G) / tau)`` with the noise ``G | D`` held fixed, so that for one seed finite differences differ from
    it where D jumps. Both have its law, and over seeds the mean gradient is the one of F.gumbel_softmax.

Raises:
    TypeError, ValueError: naming the argument, what came and what is allowed.
    RuntimeError: when the gradient itself is differentiated in the logits or in tau; in ``v`` it may be.

Sources: GST is Fan et al., ICML 2022; BR is Wang and Bui, arXiv 2603.08257, 2026.
"""

import warnings
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from . import backends, checks, ops, reference, sharded

Sample: TypeAlias = Any  # a Tensor, or (Tensor, Tensor) with return_index: type checkers cannot tell which
Seed: TypeAlias = int | Tensor | None
Generator: TypeAlias = torch.Generator | None


def draw(
    estimator: str,
    logits: Tensor,
    tau: float | Tensor,
    sample_tau: float | Tensor,
    dim: int,
    generator: Generator,
    seed: Seed,
    return_index: bool,
    backend: str | None,
    coefficient: float | Tensor = 0.0,
    num_samples: int = 1,
    hard: bool = True,
) -> Sample:
    """One call of any estimator. What is no tensor but has a ``__torch_function__``, torch.fx's proxies, takes it."""
    if not isinstance(logits, Tensor) and has_torch_function_unary(logits):
        call = (estimator, logits, tau, sample_tau, dim, generator, seed, return_index, backend)
        return handle_torch_function(draw, (logits,), *call, coefficient, num_samples, hard)
    dim = checks.logits(logits, dim)
    tau, sample_tau = checks.temperature("tau", tau), checks.temperature("sample_tau", sample_tau)
    parameters = checks.parameters(logits, dim, estimator, tau, coefficient, sample_tau)
    last = dim == logits.ndim - 1
    rows = logits if last else logits.movedim(dim, -1)
    rows_of_seeds = logits.numel() // logits.shape[dim] if isinstance(seed, Tensor) else 1
    seed = checks.draw_seed(generator, seed, rows_of_seeds, logits.device)
    backend = backends.chosen(backend, logits)
    on_devices = sharded.draw if sharded.is_sharded(logits) else ops.draw
    sample, index = on_devices(rows, seed, parameters, hard, estimator, num_samples, 0, backend)
    sample = sample if last else sample.movedim(-1, dim)
    return sample if return_index is False or not checks.flag("return_index", return_index) else (sample, index)


def straight_through(
    logits: Tensor,
    tau: float | Tensor = 1.0,
    *,
    dim: int = -1,
    sample_tau: float | Tensor = 1.0,
    generator: Generator = None,
    seed: Seed = None,
    return_index: bool = False,
    backend: str | None = None,
) -> Sample:
    """Straight-through: pulls back ``J(softmax(l/tau)) / tau``. GST Eq. 7, BR Eq. 3.

    Arguments, result and errors: see :mod:`discrete_ops.functional`.
    """
    return draw("straight_through", logits, tau, sample_tau, dim, generator, seed, return_index, backend)


def gumbel_softmax(
    logits: Tensor,
    tau: float | Tensor = 1,
    hard: bool = False,
    eps: float = 1e-10,
    dim: int = -1,
    *,
    sample_tau: float | Tensor = 1.0,
    generator: Generator = None,
    seed: Seed = None,
    return_index: bool = False,
    backend: str | None = None,
) -> Sample:
    """Straight-through Gumbel-softmax, drop-in for ``torch.nn.functional.gumbel_softmax``. GST Eq. 10, BR Eq. 5.

    Draws D first and ``Y = l + G | D`` after it (GST sec. 2.4), which has the law of drawing G first. Pulls
    back ``J(softmax(Y/tau)) / tau``. ``eps`` has no effect, as in torch.

    Arguments, result and errors: see :mod:`discrete_ops.functional`.
    """
    if eps != 1e-10:
        warnings.warn("`eps` parameter is deprecated and has no effect.", stacklevel=2)
    return draw(
        "gumbel_rao",
        logits,
        tau,
        sample_tau,
        dim,
        generator,
        seed,
        return_index,
        backend,
        hard=checks.flag("hard", hard),
    )


def gumbel_rao(
    logits: Tensor,
    tau: float | Tensor = 1.0,
    num_samples: int = 100,
    *,
    hard: bool = True,
    dim: int = -1,
    sample_tau: float | Tensor = 1.0,
    generator: Generator = None,
    seed: Seed = None,
    return_index: bool = False,
    backend: str | None = None,
) -> Sample:
    """Gumbel-Rao: the mean of K = ``num_samples`` STGS pull-backs that share one D. GST Eq. 11, BR Eq. 6-7.

    Memory does not depend on K. ``K = 1`` is :func:`gumbel_softmax` on the same seed.

    Arguments, result and errors: see :mod:`discrete_ops.functional`.
    """
    num_samples = checks.count("num_samples", num_samples)
    return draw(
        "gumbel_rao",
        logits,
        tau,
        sample_tau,
        dim,
        generator,
        seed,
        return_index,
        backend,
        num_samples=num_samples,
        hard=checks.flag("hard", hard),
    )


def gst(
    logits: Tensor,
    tau: float | Tensor = 1.0,
    gap: float | Tensor | str = 1.0,
    *,
    hard: bool = True,
    detach_perturbation: bool = True,
    dim: int = -1,
    sample_tau: float | Tensor = 1.0,
    generator: Generator = None,
    seed: Seed = None,
    return_index: bool = False,
    backend: str | None = None,
) -> Sample:
    """Gapped straight-through: ``J(softmax(h/tau)) / tau``, ``h = l + m1 - m2``. GST Eq. 17-19, Algorithm 1.

    Args:
        gap: lead of the sampled logit in h, a number >= 0 or a tensor as tau (without a gradient), or ``"pi"`` for the
            expected one of Lemma 1 (:func:`expected_gap`).
        detach_perturbation: False lets the gradient flow through m1 and m2 (the ablation NZ-GST of GST Tables 1
            and 2; the gap stays a constant). Runs in the reference backend only.

    Other arguments, result and errors: see :mod:`discrete_ops.functional`.
    """
    estimator, coefficient = checks.gap(gap)
    if not checks.flag("detach_perturbation", detach_perturbation):
        if backend not in (None, "reference"):
            raise ValueError(f"backend: got {backend!r}, allowed with detach_perturbation=False: 'reference' or None")
        estimator, backend = reference.NONZERO + estimator, "reference"
    return draw(
        estimator,
        logits,
        tau,
        sample_tau,
        dim,
        generator,
        seed,
        return_index,
        backend,
        coefficient,
        hard=checks.flag("hard", hard),
    )


def reinmax(
    logits: Tensor,
    tau: float | Tensor = 1.0,
    *,
    dim: int = -1,
    sample_tau: float | Tensor = 1.0,
    generator: Generator = None,
    seed: Seed = None,
    return_index: bool = False,
    backend: str | None = None,
) -> Sample:
    """ReinMax: ``2 J(p_D) - J(pi)/2``, ``p_D = (softmax(l/tau) + D)/2``. BR Eq. 12, 16; Liu et al., NeurIPS 2023.

    Arguments, result and errors: see :mod:`discrete_ops.functional`.
    """
    return draw("reinmax", logits, tau, sample_tau, dim, generator, seed, return_index, backend)


def reinmax_argmax(
    logits: Tensor,
    tau: float | Tensor = 1.0,
    *,
    dim: int = -1,
    sample_tau: float | Tensor = 1.0,
    generator: Generator = None,
    seed: Seed = None,
    return_index: bool = False,
    backend: str | None = None,
) -> Sample:
    """ReinMax with ``one_hot(argmax l)`` for D in its pull-back: the diagnostic of BR Table 1.

    Arguments, result and errors: see :mod:`discrete_ops.functional`.
    """
    return draw("reinmax_argmax", logits, tau, sample_tau, dim, generator, seed, return_index, backend)


def reinmax_rao(
    logits: Tensor,
    tau: float | Tensor = 1.0,
    num_samples: int = 100,
    *,
    dim: int = -1,
    sample_tau: float | Tensor = 1.0,
    generator: Generator = None,
    seed: Seed = None,
    return_index: bool = False,
    backend: str | None = None,
) -> Sample:
    """ReinMax-Rao: the first term of ReinMax Rao-Blackwellised over K = ``num_samples`` draws. BR Eq. 17.

    Arguments, result and errors: see :mod:`discrete_ops.functional`.
    """
    num_samples = checks.count("num_samples", num_samples)
    return draw(
        "reinmax_rao", logits, tau, sample_tau, dim, generator, seed, return_index, backend, num_samples=num_samples
    )


def reinmax_cv(
    logits: Tensor,
    tau: float | Tensor = 1.0,
    eta: float | Tensor = 1.5,
    num_samples: int = 100,
    *,
    control: str = "soft",
    dim: int = -1,
    sample_tau: float | Tensor = 1.0,
    generator: Generator = None,
    seed: Seed = None,
    return_index: bool = False,
    backend: str | None = None,
) -> Sample:
    """ReinMax-CV: ReinMax with a control variate of weight ``eta``. BR Eq. 18, with the factor 2 of Eq. 16.

    Args:
        eta: weight of the control and of its mean over K = ``num_samples`` draws, a number or a tensor as tau (without
            a gradient); 0 is ReinMax at tau = 1.
        control: ``"soft"``: ``J(softmax(log p_D + s)) / tau``, s the soft sample that chose D; ``"gumbel"``: one more
            draw of the Rao term, which leaves ReinMax's mean exactly and adds variance.

    Other arguments, result and errors: see :mod:`discrete_ops.functional`.
    """
    num_samples = checks.count("num_samples", num_samples)
    eta = checks.weight("eta", eta)
    soft = checks.choice("control", control, ("soft", "gumbel")) == "soft"
    estimator = "reinmax_cv" if soft else "reinmax_cv_gumbel"
    return draw(estimator, logits, tau, sample_tau, dim, generator, seed, return_index, backend, eta, num_samples)


def reinmax_rk2(
    logits: Tensor,
    beta: float | Tensor = 0.5,
    *,
    centred: bool = False,
    dim: int = -1,
    sample_tau: float | Tensor = 1.0,
    generator: Generator = None,
    seed: Seed = None,
    return_index: bool = False,
    backend: str | None = None,
) -> Sample:
    """The second-order Runge-Kutta family, ``2 J(p_D, beta pi + (1 - beta) D) - beta J(pi)``. BR Eq. 27.

    Args:
        beta: any number up to 1e30 in size, or a tensor as tau (without a gradient); 0.5 is :func:`reinmax` at
            tau = 1.
        centred: False: BR Eq. 27, whose mean is BR Eq. 35 (:func:`discrete_ops.diagnostics.rk2_uncentred`). True:
            ``(1 - beta) J(pi; v) + beta <v, D - pi> (D - pi)``, whose mean is BR Eq. 26
            (:func:`discrete_ops.diagnostics.rk2`); 0 is :func:`straight_through` at tau = 1. BR's Theorem 1 takes the
            two means for one, which they are at beta = 1/2 alone. True is also
            ``4 beta J(p_D) + (1 - 3 beta) J(pi)``: the mix of straight-through and ZGR, ``2 a J(p_D) +
            (1 - 3 a / 2) J(pi)`` at ``a = 2 beta``, of Hooper and Shekhovtsov, 2026.

    Other arguments, result and errors: see :mod:`discrete_ops.functional`.
    """
    beta = checks.weight("beta", beta)
    estimator = "reinmax_rk2_centred" if checks.flag("centred", centred) else "reinmax_rk2"
    return draw(estimator, logits, 1.0, sample_tau, dim, generator, seed, return_index, backend, beta)


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
    return reference.pi_gap(logits.double(), D).squeeze(-1).to(logits.dtype)
