"""What the test files share: the estimators under test, the papers' formulas written naively, and statistics.

The formulas here take nothing from the package but its noise. They are the textbook way, with autograd and
full Jacobian matrices, and overflow where the textbook does; the package must agree where they do not.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

import discrete_ops as do
from discrete_ops import estimators, philox

# ---------------------------------------------------------------------------------------------------
# What runs here


def _runs_on_cpu(name: str) -> bool:
    return name != "cuda" and (name != "triton" or os.environ.get("TRITON_INTERPRET") == "1")


CPU_BACKENDS = tuple(name for name in do.available_backends() if _runs_on_cpu(name))

#: What is compared with the reference: (backend, device) of all that runs here.
TARGETS = [(name, "cpu") for name in CPU_BACKENDS if name != "reference"]
if torch.cuda.is_available():
    TARGETS += [(name, "cuda") for name in ("cuda", "triton") if name in do.available_backends()]

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

#: Error allowed in a gradient, as a share of its largest element (at least 1).
TOLERANCE = {
    torch.float64: 1e-10,  # row maths in float64; the naive formulas lose a few digits to exp and log
    torch.float32: 2e-5,  # a row sum and a handful of exp, log and divisions in float32
    torch.float16: 1e-3,  # one rounding of a float32 result: 2**-11
    torch.bfloat16: 8e-3,  # the same: 2**-8
}

# ---------------------------------------------------------------------------------------------------
# The estimators under test

#: Name of a case -> its estimator, from a temperature and a number of samples.
CASES = {
    "straight_through": lambda tau, k: estimators.StraightThrough(tau),
    "gumbel_softmax": lambda tau, k: estimators.GumbelSoftmax(tau),
    "gumbel_rao": lambda tau, k: estimators.GumbelRao(tau, k),
    "gst_0": lambda tau, k: estimators.GST(tau, gap=0.0),
    "gst_0.7": lambda tau, k: estimators.GST(tau, gap=0.7),
    "gst_4": lambda tau, k: estimators.GST(tau, gap=4),
    "gst_pi": lambda tau, k: estimators.GST(tau, gap="pi"),
    "nz_gst": lambda tau, k: estimators.GST(tau, gap=0.7, detach_perturbation=False),
    "nz_gst_pi": lambda tau, k: estimators.GST(tau, gap="pi", detach_perturbation=False),
    "reinmax": lambda tau, k: estimators.ReinMax(tau),
    "reinmax_argmax": lambda tau, k: estimators.ReinMaxArgmax(tau),
    "reinmax_rao": lambda tau, k: estimators.ReinMaxRao(tau, k),
    "reinmax_cv": lambda tau, k: estimators.ReinMaxCV(tau, eta=1.5, num_samples=k),
    "reinmax_cv_gumbel": lambda tau, k: estimators.ReinMaxCV(tau, eta=0.6, num_samples=k, control="gumbel"),
    "reinmax_rk2": lambda tau, k: estimators.ReinMaxRK2(beta=0.5),
    "reinmax_rk2_1.3": lambda tau, k: estimators.ReinMaxRK2(beta=1.3),
    "reinmax_rk2_centred": lambda tau, k: estimators.ReinMaxRK2(beta=0.2, centred=True),
    "mix": lambda tau, k: estimators.Mix(a=0.7),
    "mve": lambda tau, k: estimators.MVE(),
    "mve_100": lambda tau, k: estimators.MVE(tau=100),
}

#: Cases with a soft sample behind ``hard=False``.
SOFT = ("gumbel_softmax", "gumbel_rao", "gst_0", "gst_0.7", "gst_pi", "nz_gst", "nz_gst_pi")


def make(name: str, tau: float | Tensor = 1.0, num_samples: int = 3) -> Any:
    return CASES[name](tau, num_samples)


def pairs(names: Any = tuple(CASES)) -> pytest.MarkDecorator:
    """Parametrise (backend, name) over what runs here; the NZ ablation of GST lives in the reference alone."""
    return pytest.mark.parametrize(
        ("backend", "name"),
        [(b, n) for b in CPU_BACKENDS for n in names if b == "reference" or not n.startswith("nz_")],
    )


def compilers(quick: str) -> pytest.MarkDecorator:
    """(compiler, backend): a quick compiler with every backend; inductor, which takes g++ half a minute, with one."""
    every = [*((quick, backend) for backend in CPU_BACKENDS), ("inductor", CPU_BACKENDS[-1])]
    return pytest.mark.parametrize(("compiler", "backend"), every)


every_estimator = pairs()
every_soft = pairs(SOFT)


def draw_and_pull(estimator: Any, logits: Tensor, v: Tensor, **options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Sample, index and the gradient at ``logits`` of ``<v, sample>``."""
    logits = logits.detach().requires_grad_()
    sample, index = estimator(logits, return_index=True, **options)
    (gradient,) = torch.autograd.grad(sample, logits, v)
    return sample.detach(), index, gradient


# ---------------------------------------------------------------------------------------------------
# The papers, naively. l, v: (rows, N) float64; D: one-hot (rows, N); E: exponentials (draws, rows, N)


def noise(seed: int, draws: int, rows: int, columns: int, dtype: torch.dtype = torch.float64, e: Any = None) -> Tensor:
    """The exponentials E of a call, of an estimator ``e`` if its draws are stratified: float64 ones for float64 logits,
    else float32 ones."""
    dtype = dtype if dtype == torch.float64 else torch.float32
    of = (torch.tensor([seed]), torch.arange(draws), rows, columns, dtype)
    independent = philox.exponential(*of)
    if getattr(e, "draws", "independent") == "independent":
        return independent.double()
    first = int(isinstance(e, estimators.ReinMaxCV))  # the control's draw goes before them
    stratified = philox.exponential(*of, strata=philox.Strata(first, e.num_samples))
    return torch.cat([independent[:first], stratified[first:]]).double()


def conditional(l: Tensor, D: Tensor, E: Tensor) -> Tensor:  # noqa: E741
    """``Y = l + G`` given that D is its argmax (GST sec. 2.4), from exponentials, as the papers print it."""
    Z = l.logsumexp(-1, keepdim=True)
    E_i = (E * D).sum(-1, keepdim=True)
    return torch.where(D == 1, -E_i.log() + Z, -(E * (-l).exp() + E_i * (-Z).exp()).log())


def algorithm_1(l: Tensor, D: Tensor, tau: float, gap: float | str, detach: bool) -> Tensor:  # noqa: E741
    """GST Algorithm 1, line by line: the soft sample."""
    if gap == "pi":
        pi = l.softmax(-1).detach()
        gap = -(pi * (1 - D)).sum(-1, keepdim=True).log() / (pi * D).sum(-1, keepdim=True)  # -log(1 - pi_i) / pi_i
    top = l.amax(-1, keepdim=True)
    m1 = (top - (l * D).sum(-1, keepdim=True)) * D
    m2 = torch.where(D == 1, 0.0, torch.relu(l + gap - top))
    if detach:
        m1, m2 = m1.detach(), m2.detach()
    return ((l + m1 - m2) / tau).softmax(-1)


def jacobian(p: Tensor, q: Tensor) -> Tensor:
    """``diag(p) - p q^T`` as full matrices."""
    return torch.diag_embed(p) - p[..., :, None] * q[..., None, :]


def naive_soft(e: Any, l: Tensor, D: Tensor, E: Tensor) -> Tensor:  # noqa: E741
    """The soft sample whose plain autograd is the estimator (not for the ReinMax family)."""
    if isinstance(e, estimators.StraightThrough):
        return (l / e.tau).softmax(-1)
    if isinstance(e, estimators.GST):
        return algorithm_1(l, D, e.tau, e.gap, e.detach_perturbation)
    draws = getattr(e, "num_samples", 1)
    G = (conditional(l, D, E[:draws]) - l).detach()  # the noise is held fixed
    return ((l + G) / e.tau).softmax(-1).mean(0)


def naive_reinmax(e: Any, l: Tensor, D: Tensor, E: Tensor) -> Tensor:  # noqa: E741
    """The pull-back of the ReinMax family as a matrix: BR Eq. 12, 16 (ReinMax), 17 (Rao), 18 (CV), 27 (RK2), 26."""
    pi = l.softmax(-1)
    if isinstance(e, estimators.ReinMaxRK2) and e.centred:
        off = D - pi
        return (1 - e.beta) * jacobian(pi, pi) + e.beta * off[..., :, None] * off[..., None, :]
    if isinstance(e, estimators.ReinMaxRK2):
        return 2 * jacobian((pi + D) / 2, e.beta * pi + (1 - e.beta) * D) - e.beta * jacobian(pi, pi)
    if isinstance(e, estimators.ReinMaxArgmax):
        D = torch.nn.functional.one_hot(l.argmax(-1), l.shape[-1]).double()
    p_D = ((l / (1.0 if isinstance(e, estimators.ReinMaxCV) else e.tau)).softmax(-1) + D) / 2
    l_D = p_D.log()

    def rao(draws: Tensor) -> Tensor:
        y = (conditional(l_D, D, draws) / e.tau).softmax(-1)
        return jacobian(y, y).mean(0) / e.tau

    if isinstance(e, estimators.ReinMaxRao):
        return 2 * rao(E[: e.num_samples]) - jacobian(pi, pi) / 2
    matrix = 2 * jacobian(p_D, p_D) - jacobian(pi, pi) / 2
    if isinstance(e, estimators.ReinMaxCV):
        s = (conditional(l, D, E[0]) / e.tau).softmax(-1)
        c = (l_D + s).softmax(-1)
        control = jacobian(c, c) / e.tau if e.control == "soft" else rao(E[:1])
        matrix = matrix - e.eta * control + e.eta * rao(E[1 : 1 + e.num_samples])
    return matrix


def naive_mve(t: float, l: Tensor, D: Tensor) -> Tensor:  # noqa: E741
    """The pull-back of MVE as a matrix, by dense solves; ``tests/test_mve.py`` holds the same to its definition."""
    p = l.softmax(-1)
    n = p.shape[-1]
    eye = torch.eye(n, dtype=p.dtype)
    den = 1 + t * (p[:, :, None] + p[:, None, :])
    A = -t * p[:, :, None] * p[:, None, :] / den
    diagonal = (1 + t * p) * (p[:, None, :] / den).sum(-1) - t * p * p / (1 + 2 * t * p)
    A = A * (1 - eye) + torch.diag_embed(diagonal)
    x = (den @ D[..., None])[..., 0]  # den of the sample
    W = torch.diag_embed((1 + t * p) / x) - D[:, :, None] * (t * p / x)[:, None, :]  # w = W v
    Y = ((1 + t * p) / (1 + 2 * t * p))[:, :, None] * torch.linalg.solve(A, W)
    Y = Y + torch.diag_embed(D * t / x)
    return jacobian(p, p) @ Y


def naive_gradient(e: Any, l: Tensor, D: Tensor, v: Tensor, E: Tensor) -> Tensor:  # noqa: E741
    """The gradient that the estimator must give for the incoming gradient v."""
    if isinstance(e, estimators.MVE):
        return (naive_mve(e.tau, l, D) @ v[..., None])[..., 0]
    if isinstance(e, estimators.Mix):
        off = D - l.softmax(-1)
        outer = off[..., :, None] * off[..., None, :]
        pi = l.softmax(-1)
        return (((1 - e.a / 2) * jacobian(pi, pi) + e.a / 2 * outer) @ v[..., None])[..., 0]
    if type(e).__name__.startswith("ReinMax"):
        return (naive_reinmax(e, l, D, E) @ v[..., None])[..., 0]
    l = l.detach().requires_grad_()  # noqa: E741
    return torch.autograd.grad(naive_soft(e, l, D, E), l, v)[0]


def expect_gradient(e: Any, logits: Tensor, v: Tensor, seed: int, backend: str) -> None:
    """Draw with the package, pull v back with the package and naively, and compare."""
    rows, columns = logits.shape
    sample, _, got = draw_and_pull(e, logits, v, seed=seed, backend=None if _nz(e) else backend)
    E = noise(seed, 1 + getattr(e, "num_samples", 1), rows, columns, logits.dtype, e)
    assert_close(got, naive_gradient(e, logits.double(), sample.double(), v.double(), E))


def _nz(e: Any) -> bool:
    return not getattr(e, "detach_perturbation", True)


# ---------------------------------------------------------------------------------------------------
# Comparisons


def assert_close(got: Tensor, want: Tensor, scale: float | None = None) -> None:
    """Elementwise within ``TOLERANCE[got.dtype]`` of the scale (the largest |want|, at least 1); NaN never is."""
    scale = max(1.0, want.abs().max().item() if want.numel() else 0.0) if scale is None else scale
    torch.testing.assert_close(got.double(), want.double(), rtol=0, atol=TOLERANCE[got.dtype] * scale)


def assert_one_hot(sample: Tensor, index: Tensor) -> None:
    """Exactly 1 at the index, exactly 0 elsewhere, along the last dimension."""
    assert ((index >= 0) & (index < sample.shape[-1])).all()
    assert torch.equal(sample, torch.nn.functional.one_hot(index, sample.shape[-1]).to(sample.dtype))


def assert_mean(samples: Tensor, want: Tensor, sigmas: float = 4.0) -> None:
    """The mean over the first dimension is ``want`` within ``sigmas`` standard errors, component by component."""
    error = samples.std(0) / len(samples) ** 0.5
    z = (samples.mean(0) - want) / error
    assert (error > 0).all(), "no spread: the test would say nothing"
    assert (z.abs() < sigmas).all(), f"z scores {z.tolist()}"


def chi_squared(index: Tensor, p: Tensor, least: float = 5.0) -> float:
    """P-value of sampled categories under probabilities p, neighbours pooled into bins of ``least`` expected."""
    observed = torch.bincount(index.flatten(), minlength=len(p)).double().numpy()
    assert len(observed) == len(p), "a category that does not exist"
    return chi_squared_counts(observed, (p.double() / p.double().sum() * index.numel()).numpy(), least)


def chi_squared_counts(observed: np.ndarray, expected: np.ndarray, least: float = 5.0) -> float:
    bins, mass = np.zeros(len(expected), dtype=np.int64), 0.0
    for j in range(1, len(expected)):
        mass += expected[j - 1]
        bins[j] = bins[j - 1] + (mass >= least)
        mass = 0.0 if mass >= least else mass
    if mass + expected[-1] < least and bins[-1] > 0:  # the last bin is thin: into its neighbour
        bins[bins == bins[-1]] -= 1
    observed, expected = np.bincount(bins, observed), np.bincount(bins, expected)
    assert len(expected) >= 2, "one bin tests nothing"
    assert (expected >= least).all()
    p = scipy.stats.chisquare(observed, expected).pvalue
    assert np.isfinite(p)
    return float(p)


# ---------------------------------------------------------------------------------------------------
# Runs of the tasks


def figures(path: Path) -> list[dict[str, float]]:
    """metrics.jsonl without the one field that no two runs share."""
    records = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]
