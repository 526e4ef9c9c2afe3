"""Unbiased score-function estimators: the baselines that straight-through gradients are compared with.

With ``l`` the logits, ``pi = softmax(l)``, ``D`` one-hot samples and ``grad log p(D) = D - pi``:

    reinforce     mean_k (f(D_k) - baseline) (D_k - pi)                                     GST Eq. 3
    rloo          mean_k (f(D_k) - mean_{j != k} f(D_j)) (D_k - pi)                         GST Table 4
    disarm_tree   mean over antithetic pairs of (f(z) - f(z~)) / 2 * S(z, z~)               GST Table 4
    rebar         (f(D) - eta f(s~)) (D - pi) + eta d/dl f(s) - eta d/dl f(s~)              BR Eq. 15

Sources: GST is Fan et al., ICML 2022; BR is Wang and Bui, arXiv 2603.08257, 2026. RLOO: Kool, van Hoof, Welling,
"Buy 4 REINFORCE Samples, Get a Baseline for Free!", 2019. DisARM-Tree: Dong, Mnih, Tucker, "Coupled Gradient
Estimators for Discrete Latent Variables", NeurIPS 2021. REBAR: Tucker et al., NeurIPS 2017.

Shared by all of them:

Args:
    f: maps one-hot samples like ``logits``, ``(*batch, *event, N)``, to losses ``(*batch,)``, each of its own batch
        element only; called once a sample. The shape of its loss says which leading dims of ``logits`` are batch
        dims, possibly none; over the event dims (say L latents) ``log p(D)`` is summed.
    logits: ``(*batch, *event, N)``, float64, float32, float16 or bfloat16. ``-inf`` masks a category: never sampled,
        zero gradient. A row masked whole is a zero row in the sample and gets no gradient. NaN or +inf in a row gives
        a NaN row, and so a NaN loss where f reads it.
    num_samples: samples the loss and its gradient are averaged over.
    generator, seed: as in :func:`discrete_ops.straight_through`: equal seed, equal loss and gradient.

Returns:
    Loss ``(*batch,)``, the mean of f over the samples. Its backward pass gives the estimator's gradient to ``logits``
    and the ordinary one to whatever else f depends on (a decoder's parameters), so
    ``reinforce(f, logits).mean().backward()`` trains both. The samples are constants to f.

Raises:
    TypeError, ValueError: naming the argument, what came and what is allowed.
    RuntimeError: when the gradient at the logits is itself differentiated.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function
from torch.nn.functional import pad

from . import checks, functional, philox, reference
from .call import Generator, Seed
from .register import apply, below_autograd, fold, is_plain, operator, refuses

Loss = Callable[[Tensor], Tensor]


# ---------------------------------------------------------------------------------------------------
# The estimators


def reinforce(
    f: Loss,
    logits: Tensor,
    num_samples: int = 1,
    *,
    baseline: float | Tensor = 0.0,
    generator: Generator = None,
    seed: Seed = None,
) -> Tensor:
    """REINFORCE: ``(f(D) - baseline) grad log p(D)``. GST Eq. 3.

    Args:
        baseline: a number, or a tensor that broadcasts to the loss, ``(*batch,)``; a constant, so a learned baseline
            needs a loss of its own. Unbiased if it does not depend on the samples.

    Other arguments, result and errors: see :mod:`discrete_ops.score_function`.
    """
    num_samples, seed = _check(f, logits, num_samples, 1, generator, seed)
    samples = _draw(logits, num_samples, seed)
    losses = _losses(f, samples)
    weights = losses.detach().double() - _baseline(baseline, losses[0])
    return _with_gradient(losses.mean(0), logits, (_per_row(weights, samples) * _score(logits, samples)).mean(0))


def rloo(
    f: Loss,
    logits: Tensor,
    num_samples: int = 2,
    *,
    generator: Generator = None,
    seed: Seed = None,
) -> Tensor:
    """REINFORCE with leave-one-out baselines: each of ``num_samples >= 2`` samples is held against the others' mean.

    Arguments, result and errors: see :mod:`discrete_ops.score_function`.
    """
    num_samples, seed = _check(f, logits, num_samples, 2, generator, seed)
    samples = _draw(logits, num_samples, seed)
    losses = _losses(f, samples)
    f_k = losses.detach().double()
    weights = (f_k - f_k.mean(0)) * num_samples / (num_samples - 1)  # = f_k - mean_{j != k} f_j
    return _with_gradient(losses.mean(0), logits, (_per_row(weights, samples) * _score(logits, samples)).mean(0))


def disarm_tree(
    f: Loss,
    logits: Tensor,
    num_samples: int = 2,
    *,
    generator: Generator = None,
    seed: Seed = None,
) -> Tensor:
    """DisARM on a binary tree of decisions: ``num_samples / 2`` antithetic pairs ``(z, z~)``. Dong et al., 2021.

    D falls through a balanced tree over the categories. With ``alpha_c = logsumexp(right subtree) - logsumexp(left
    subtree)`` at node c, and ``p_c = sigmoid(alpha_c)``, z goes right if ``b_c = [u_c < p_c]`` is 1, and z~ if
    ``b~_c = [1 - u_c < p_c]`` is. The gradient at alpha_c is ARM's, averaged over what the decisions leave open in u:

        (f(z) - f(z~)) / 2 * S_c,   S_c = (b_c - b~_c) sigmoid(|alpha_c|)   c on both paths
                                          b_c - p_c                         c on the path of z only
                                          -(b~_c - p_c)                     c on the path of z~ only
                                          0                                 c on neither

    With several latents each has a tree of its own, and they share f's difference.

    Arguments, result and errors: see :mod:`discrete_ops.score_function`; ``num_samples`` is even.
    """
    num_samples, seed = _check(f, logits, num_samples, 2, generator, seed)
    if num_samples % 2:
        raise ValueError(f"num_samples: got {num_samples}, allowed: an even int, for the samples come in pairs")
    pairs = num_samples // 2
    z, z_tilde, score = _antithetic_pairs(_repeat(logits, pairs), seed)
    losses = _losses(f, torch.cat([z, z_tilde]))
    f_z, f_z_tilde = losses.detach().double().split(pairs)
    weights = (f_z - f_z_tilde) / 2
    return _with_gradient(losses.mean(0), logits, (_per_row(weights, score) * score).mean(0))


def rebar(
    f: Loss,
    logits: Tensor,
    tau: float | Tensor = 0.5,
    eta: float = 1.0,
    *,
    generator: Generator = None,
    seed: Seed = None,
) -> Tensor:
    """REBAR: REINFORCE with the relaxed loss as its control variate. BR Eq. 15; Tucker et al., 2017.

        (f(D) - eta f(s~)) grad log p(D) + eta d/dl f(s) - eta d/dl f(s~)

    ``s = softmax((l + G) / tau)`` is the soft sample that chose D, differentiated with G held fixed. ``s~`` is another
    draw of it given D, differentiated through the conditional reparameterisation of ``l + G | D``.

    Args:
        f: takes soft samples too, and is differentiable there; called three times, on D, s and s~ (once where no
            gradient at the logits is asked for). Only f(D) sends a gradient to what else f depends on.
        tau: temperature of s and s~: a positive number, or a tensor that broadcasts against the logits, 1 in the last
            dim; no gradient is defined for it.
        eta: weight of the control variate, any finite number; 0 is REINFORCE.

    Other arguments, result and errors: see :mod:`discrete_ops.score_function`.
    """
    _, seed = _check(f, logits, 1, 1, generator, seed)
    temperature, eta = checks.temperature("tau", tau), checks.number("eta", eta)
    parameters = checks.parameters(logits, logits.ndim - 1, "reinmax", temperature, 0.0, 1.0)
    if torch.compiler.is_exporting() or torch._C._get_tracing_state() is not None:
        allowed = "allowed: torch.compile, make_fx, torch.func (it differentiates f, which these do not capture)"
        raise RuntimeError(f"rebar: got a call under torch.export or torch.jit.trace, {allowed}")
    # The seed's sample and soft sample are one draw: s is the softmax whose argmax is D
    D, index = functional.straight_through(logits.detach(), seed=seed, return_index=True)
    loss = _losses(f, D[None])[0]
    if is_plain(logits) and not (torch.is_grad_enabled() and logits.requires_grad):
        return loss

    def control(l: Tensor) -> tuple[Tensor, Tensor]:  # noqa: E741  (the papers' name)
        s = functional.gumbel_softmax(l, tau, hard=False, seed=seed)
        s_tilde = _conditional_soft_sample(l, index, seed, parameters)
        f_s, f_s_tilde = _losses(f, torch.stack([s, s_tilde]))
        if not f_s.requires_grad:
            raise ValueError("f: got a loss with no gradient at its input, allowed for rebar: a differentiable f")
        return (f_s - f_s_tilde).sum(), f_s_tilde

    pathwise, f_s_tilde = _gradient(control, logits.detach())
    weight = loss.detach().double() - eta * f_s_tilde.detach().double()
    return _with_gradient(loss, logits, _per_row(weight, D) * _score(logits, D) + eta * pathwise.double())


# ---------------------------------------------------------------------------------------------------
# What they share


def _gradient(f: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor) -> tuple[Tensor, Tensor]:
    """Of f's first result at x; and its second one."""
    if not is_plain(x):  # no other gradient goes into a graph or a transform; this one asks more of f
        return torch.func.grad(f, has_aux=True)(x)
    with torch.enable_grad():
        x.requires_grad_()
        y, other = f(x)
        return torch.autograd.grad(y, x, materialize_grads=True)[0], other


class _Score(Function):
    """A zero like ``loss`` that brings ``gradient`` to the logits."""

    @staticmethod
    def forward(ctx: Any, keyset: Any, logits: Tensor, gradient: Tensor, loss: Tensor) -> Tensor:
        ctx.save_for_backward(logits, gradient)
        ctx.save_for_forward(logits, gradient)
        ctx.batch_dims, ctx.dtype = loss.ndim, loss.dtype
        return below_autograd(_score_op, keyset, logits, gradient, loss)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        logits, gradient = ctx.saved_tensors
        return None, _score_vjp_op(grad, gradient, logits), None, None

    @staticmethod
    def jvp(ctx: Any, _: Any, tangent: Tensor, *others: Any) -> Tensor:
        _, gradient = ctx.saved_tensors
        along = torch.where(gradient == 0, 0.0, gradient * tangent)  # whatever comes in behind a mask
        return along.flatten(ctx.batch_dims).sum(-1).to(ctx.dtype)


class _ScoreVjp(Function):
    """``grad * gradient`` like the logits; says no to a double backward."""

    @staticmethod
    def forward(ctx: Any, keyset: Any, grad: Tensor, gradient: Tensor, logits: Tensor) -> Tensor:
        return below_autograd(_score_vjp_op, keyset, grad, gradient, logits)

    backward = jvp = refuses(
        "discrete_ops: double backward is not defined: a score function's gradient is a sample, not a function "
        "of the logits. Detach the first gradient, or leave create_graph=False."
    )


def _folded(batch_size: int, in_dims: tuple[Any, ...], *call: Tensor) -> tuple[Tensor, ...]:
    return tuple(fold(batch_size, x, dim) for x, dim in zip(call, in_dims, strict=True))


_score_op = operator(
    "score(Tensor logits, Tensor gradient, Tensor loss) -> Tensor",
    lambda logits, gradient, loss: torch.zeros_like(loss),
    partial(apply, _Score),
    lambda logits, gradient, loss: torch.empty_like(loss),
    _folded,
)
_score_vjp_op = operator(
    "score_vjp(Tensor grad, Tensor gradient, Tensor logits) -> Tensor",
    lambda grad, gradient, logits: (_per_row(grad, gradient) * gradient).to(logits.dtype),
    partial(apply, _ScoreVjp),
    lambda grad, gradient, logits: torch.empty_like(logits),
    _folded,
)


def _with_gradient(loss: Tensor, logits: Tensor, gradient: Tensor) -> Tensor:
    """``loss``, whose gradient at the logits is ``gradient`` beside what f itself gives."""
    # Masked categories have no score, but NaN and inf losses (and rows masked whole) must not bring one in
    gradient = gradient.masked_fill(logits.detach() == -torch.inf, 0.0)
    return loss + _score_op(logits, gradient, loss.detach())


def _check(f: Any, logits: Any, num_samples: Any, least: int, generator: Generator, seed: Seed) -> tuple[int, Tensor]:
    if not callable(f):
        raise TypeError(f"f: got {type(f).__name__}, allowed: a callable from samples to losses")
    checks.logits(logits, -1)
    num_samples = checks.count("num_samples", num_samples, least)
    return num_samples, checks.draw_seed(generator, seed, logits.numel() // logits.shape[-1], logits.device)


def _baseline(baseline: Any, loss: Tensor) -> float | Tensor:
    if not isinstance(baseline, Tensor):
        return checks.number("baseline", baseline, "allowed: a finite number, or a tensor")
    try:
        return baseline.detach().expand(loss.shape)
    except RuntimeError:
        allowed = f"allowed: one that broadcasts to the loss, {tuple(loss.shape)}"
        raise ValueError(f"baseline: got shape {tuple(baseline.shape)}, {allowed}") from None


def _losses(f: Loss, samples: Tensor) -> Tensor:
    """f of each sample: ``(K, *batch, *event, N)`` to ``(K, *batch)``."""
    rows = samples.shape[1:-1]
    losses = []
    for sample in samples:
        loss = f(sample)
        if not isinstance(loss, Tensor) or not loss.is_floating_point():
            raise TypeError(f"f: got {getattr(loss, 'dtype', type(loss).__name__)}, allowed: a floating-point tensor")
        if loss.ndim > len(rows) or loss.shape != rows[: loss.ndim]:
            allowed = ", ".join(str(tuple(rows[:n])) for n in range(len(rows) + 1))
            raise ValueError(f"f: got a loss of shape {tuple(loss.shape)}, allowed (batch dims of logits): {allowed}")
        losses.append(loss)
    return torch.stack(losses)


def _per_row(weights: Tensor, rows: Tensor) -> Tensor:
    """``(*batch,)`` weights, shaped to multiply ``(*batch, *event, N)``."""
    return weights.reshape(weights.shape + (1,) * (rows.ndim - weights.ndim))


def _repeat(logits: Tensor, num_samples: int) -> Tensor:
    """``(*batch, *event, K, N)``: the copies of a row are neighbours, so they stay in its group of a grouped seed."""
    return logits.detach().unsqueeze(-2).expand(*logits.shape[:-1], num_samples, logits.shape[-1])


def _draw(logits: Tensor, num_samples: int, seed: Tensor) -> Tensor:
    """Independent one-hot samples, ``(K, *batch, *event, N)``."""
    return functional.straight_through(_repeat(logits, num_samples), seed=seed).movedim(-2, 0)


def _score(logits: Tensor, D: Tensor) -> Tensor:
    """``grad log p(D) = D - pi`` in float64."""
    l, _, _ = reference._as_rows(logits.detach())  # noqa: E741
    return D.double() - reference.tempered_softmax(l).view(logits.shape)


# ---------------------------------------------------------------------------------------------------
# DisARM-Tree


def _tree_uniforms(seed: Tensor, rows: int, levels: int) -> Tensor:
    """Two uniforms a level: ``(rows, levels, 2)`` float64 in (0, 1), on the grid ``(n + 1/2) 2**-52``.

    A path meets one node a level, so u is needed at two nodes a level at most: column 0 where z is, column 1 where z~
    is, once they have parted. 52 bits, so that no decision is too rare to be drawn.
    """
    high, low = philox.words(seed, torch.arange(2, device=seed.device), rows, 2 * levels)
    return (((high << 20) + (low >> 12)).double() + 0.5).mul(2.0**-52).view(rows, levels, 2)


def _tree(l: Tensor) -> list[Tensor]:  # noqa: E741
    """``alpha`` of the balanced binary tree over the categories, from the root down: ``(rows, 1), (rows, 2), ...``."""
    lse = pad(l, (0, 2 ** (int(l.shape[-1]) - 1).bit_length() - l.shape[-1]), value=-torch.inf)
    alphas: list[Tensor] = []
    while lse.shape[-1] > 1:
        left, right = lse[..., ::2], lse[..., 1::2]
        # Where both are -inf no path leads; any number does
        alphas.insert(0, torch.where(left == right, 0.0, right - left))
        lse = torch.logaddexp(left, right)
    return alphas


def _antithetic_pairs(logits: Tensor, seed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Antithetic samples and their common score at the logits.

    Args:
        logits: ``(..., K, N)``.
        seed: ``(S,)`` int64.

    Returns:
        ``z``, ``z~`` one-hot like ``logits`` and ``S = sum_c S_c d alpha_c / d l`` in float64, each ``(K, ..., N)``.
    """
    l, invalid, empty = reference._as_rows(logits)  # noqa: E741
    alphas = _tree(l)
    uniforms = _tree_uniforms(seed, len(l), len(alphas))
    z = z_tilde = torch.zeros(len(l), 1, dtype=torch.int64, device=l.device)  # the node on this level
    score = torch.zeros_like(l[:, :1])  # the gradient at the logsumexp of every node of this level
    for alpha, u in zip(alphas, uniforms.unbind(1), strict=True):
        p = alpha.sigmoid()
        parted = z != z_tilde
        p_z, p_z_tilde = p.gather(-1, z), p.gather(-1, z_tilde)
        u_z, u_z_tilde = u[:, :1], torch.where(parted, u[:, 1:], u[:, :1])
        b, b_tilde = (u_z < p_z).to(p), (1 - u_z_tilde < p_z_tilde).to(p)

        on_both = (b - b_tilde) * alpha.gather(-1, z).abs().sigmoid()
        S = torch.zeros_like(alpha)
        S.scatter_add_(-1, z, torch.where(parted, b - p_z, on_both))
        S.scatter_add_(-1, z_tilde, torch.where(parted, -(b_tilde - p_z_tilde), 0.0))

        # The chain rule, one level down: d alpha = d right - d left, d logsumexp = p d right + (1 - p) d left
        score = torch.stack([(1 - p) * score - S, p * score + S], -1).flatten(-2)
        z, z_tilde = 2 * z + b.long(), 2 * z_tilde + b_tilde.long()

    def output(rows: Tensor, like: Tensor) -> Tensor:
        return reference._as_output(rows, invalid, empty, like).movedim(-2, 0)

    columns = logits.shape[-1]
    category = torch.arange(columns, device=l.device)
    hard, hard_tilde = (node == category for node in (z, z_tilde))
    return output(hard.to(l), logits), output(hard_tilde.to(l), logits), output(score[:, :columns], logits.double())


# ---------------------------------------------------------------------------------------------------
# REBAR


def _conditional_soft_sample(logits: Tensor, index: Tensor, seed: Tensor, parameters: reference.Parameters) -> Tensor:
    """``s~ = softmax(Y / tau)``, Y a draw of ``l + G | D`` independent of the one behind s (draw 0).

    Differentiable in the logits through ``Y_i = -log E_i + lse``, ``Y_j = -log(E_j exp(-l_j) + E_i exp(-lse))``, which
    :func:`reference.conditional_gumbels` computes without an exponential of a logit.
    """
    rows, invalid, empty = reference._rows(logits, index, seed, parameters, "gumbel_rao", 1, 0)
    (y,) = reference.conditional_gumbels(rows, rows.l.log_softmax(-1), first=1, count=1)
    return reference._as_output(y[0], invalid, empty, logits)
