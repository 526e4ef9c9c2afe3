"""An estimator that reads its own dial from the batch, and the figures of without_temperature.md.

    python docs/without_temperature.py                      # writes the tables from without_temperature.json
    python docs/without_temperature.py exact polynomial     # measures first what these parts lack there: minutes
    python docs/without_temperature.py expert_router vae    # trainings: minutes an estimator (MNIST: its directory)

The dial is the ``a`` of ``g = J(pi; v) + a e`` with ``e = ((D - pi) <D - pi, v> - J(pi; v)) / 2``: straight-through at
0, ReinMax at 1.
"""

import contextlib
import importlib
import io
import json
import os
import re
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot

import discrete_ops as do
from discrete_ops import functional
from discrete_ops.estimators import Estimator
from discrete_ops.reference import jacobian_product

HERE = Path(__file__).parent
RESULTS = HERE / "without_temperature.json"
#: ``pull(p, D, v)`` of ``(..., batch, latents, N)`` gives the gradient at the logits.
Pull = Callable[[Tensor, Tensor, Tensor], Tensor]


def J(p: Tensor, v: Tensor) -> Tensor:
    return jacobian_product(p, p, v)


# ---------------------------------------------------------------------------------------------------
# The estimators


def correction(p: Tensor, D: Tensor, v: Tensor) -> Tensor:
    """What ReinMax adds to straight-through: its mean is the second-order part of the gradient."""
    return ((D - p) * ((D - p) * v).sum(-1, keepdim=True) - J(p, v)) / 2


def mix(a: float) -> Pull:
    return lambda p, D, v: J(p, v) + a * correction(p, D, v)


def shrunk(twiced: bool, least: float) -> Pull:
    """The correction, shrunk as James and Stein shrink a mean: ``1 - rho``, rho the variance of its mean over the batch
    over the square of that mean. Twiced, as Tukey has it: the same share of what was shrunk off comes back."""

    def pull(p: Tensor, D: Tensor, v: Tensor) -> Tensor:
        e = correction(p, D, v)
        mean, batch = e.mean(-3, keepdim=True), e.shape[-3]
        variance = (e - mean).square().sum((-3, -2, -1), keepdim=True) / (batch * (batch - 1))
        rho = (variance / mean.square().sum((-2, -1), keepdim=True).clamp_min(1e-38)).clamp_max(1)
        return J(p, v) + (1 - (rho.square() if twiced else rho)).clamp_min(least) * e

    return pull


def aligned(p: Tensor, D: Tensor, v: Tensor) -> Tensor:
    """Both terms get the weights that are best, in the mean square over the batch, for the mean of their sum: the least
    squares of James and Stein in two dimensions. The ratio of the weights is the dial, for an optimiser such as Adam
    undoes what they have in common. Where the two terms agree, the correction is left out; where it turns the
    gradient around, it counts in full."""
    e, first = correction(p, D, v), J(p, v)
    batch = e.shape[-3]

    def product(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Of the two means over the batch, and how much of it is noise."""
        m, n = x.mean(-3, keepdim=True), y.mean(-3, keepdim=True)
        noise = ((x - m) * (y - n)).sum((-3, -2, -1), keepdim=True) / (batch * (batch - 1))
        return (m * n).sum((-3, -2, -1), keepdim=True), noise

    (ff, noise_ff), (ee, noise_ee), (fe, noise_fe) = product(first, first), product(e, e), product(first, e)
    signal_ff, signal_ee = (ff - noise_ff).clamp_min(0), (ee - noise_ee).clamp_min(0)
    most = (signal_ff * signal_ee).sqrt()
    signal_fe = (fe - noise_fe).clamp(-most, most)
    ff, ee, fe = signal_ff + noise_ff, signal_ee + noise_ee, signal_fe + noise_fe
    of_first = ee * (signal_ff + signal_fe) - fe * (signal_ee + signal_fe)
    of_e = ff * (signal_ee + signal_fe) - fe * (signal_ff + signal_fe)
    ratio = torch.where(of_first > of_e, of_e / of_first.clamp_min(1e-38), 1.0)
    return first + torch.where(of_e > 0, ratio, 0.0) * e


def with_baseline(a: float) -> Pull:
    """The mix, with ``v - beta c`` in its correction: c is the mean of v over the other rows of the batch, beta the
    least squares of <D - pi, v> on <D - pi, c>. The mean stays (but for beta's fit), the variance falls."""

    def pull(p: Tensor, D: Tensor, v: Tensor) -> Tensor:
        c = (v.sum(-3, keepdim=True) - v) / (v.shape[-3] - 1)
        d = D - p
        x, y, weight = (d * c).sum(-1, keepdim=True), (d * v).sum(-1, keepdim=True), (d * d).sum(-1, keepdim=True)
        beta = (weight * x * y).sum((-3, -2), keepdim=True) / (weight * x * x).sum((-3, -2), keepdim=True).clamp_min(
            1e-30
        )
        return J(p, v) + a * correction(p, D, v - beta.clamp(0, 1) * c)

    return pull


def mve(t: float, by_categories: bool = False) -> Pull:
    """Hooper and Shekhovtsov's, in closed form; ``by_categories``: t times ``1 / sum p^2``, the categories in use."""

    def pull(p: Tensor, D: Tensor, v: Tensor) -> Tensor:
        scale = 1 / p.square().sum(-1, keepdim=True) if by_categories else torch.ones_like(p[..., :1])
        s = t * scale
        den = 1 + s[..., None] * (p[..., :, None] + p[..., None, :])
        den_D = (den * D[..., None, :]).sum(-1)
        w = v * (1 + s * p) / den_D - D * (s * p / den_D * v).sum(-1, keepdim=True)
        diagonal = (1 + s * p) * (p[..., None, :] / den).sum(-1) - s * p * p / (1 + 2 * s * p)
        off = -s[..., None] * p[..., :, None] * p[..., None, :] / den
        A = torch.where(torch.eye(p.shape[-1], dtype=torch.bool), torch.diag_embed(diagonal), off)
        y = (1 + s * p) / (1 + 2 * s * p) * torch.linalg.solve(A, w[..., None])[..., 0] + D * s * v / den_D
        return J(p, y)

    return pull


def gumbel_rao(tau: float, draws: int = 100) -> Pull:
    def pull(p: Tensor, D: Tensor, v: Tensor) -> Tensor:
        log_e = torch.empty(draws, *p.shape, dtype=p.dtype).exponential_().log()
        lead = log_e - (log_e * D).sum(-1, keepdim=True) - p.log()
        y = (-torch.nn.functional.softplus(lead).masked_fill(D.bool(), 0) / tau).softmax(-1)
        return J(y, v).mean(0) / tau

    return pull


PULLS: dict[str, Pull] = {
    "straight-through": mix(0),
    **{f"mix {a}": mix(a) for a in (0.25, 0.5, 0.75)},
    "ReinMax": mix(1),
    **{f"MVE {t}": mve(t) for t in (1, 4, 16)},
    "MVE 2, by categories": mve(2, by_categories=True),
    "baseline, a 1": with_baseline(1),
    "baseline, a 0.5": with_baseline(0.5),
    "shrunk": shrunk(twiced=False, least=0),
    "shrunk, at least 0.5": shrunk(twiced=False, least=0.5),
    "twiced, at least 0.5": shrunk(twiced=True, least=0.5),
    "aligned": aligned,
}
RAO = {f"Gumbel-Rao, tau {tau}": tau for tau in (0.5, 1.0)}  # 100 draws
TRAINED = ["straight-through", "mix 0.25", "mix 0.5", "mix 0.75", "ReinMax", "MVE 4"]
TRAINED += ["shrunk", "shrunk, at least 0.5", "twiced, at least 0.5", "aligned"]


def pull_of(label: str) -> Pull:
    return PULLS[label] if label in PULLS else gumbel_rao(RAO[label])


class Sample(torch.autograd.Function):
    """A one-hot sample whose backward is a pull."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, pull: Pull) -> Tensor:
        p = logits.softmax(-1)
        index = torch.multinomial(p.reshape(-1, p.shape[-1]), 1).view(*p.shape[:-1], 1)
        D = torch.zeros_like(p).scatter_(-1, index, 1.0)
        ctx.save_for_backward(p, D)
        ctx.pull = pull
        return D

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        p, D = ctx.saved_tensors
        return ctx.pull(p, D, v), None


# ---------------------------------------------------------------------------------------------------
# Exactly: 16 rows with losses and logits of their own, all codes enumerated

ROWS, PROBLEMS = 16, 4
LossOfRows = Callable[[Tensor], Tensor]  #: codes ``(C, latents, N)`` to ``(rows, C)``


def two_layer(randn: Callable[..., Tensor], alike: float) -> tuple[LossOfRows, Tensor]:
    """As docs/bias_variance.py; targets and logits of two rows correlate by ``alike``."""
    hidden, output = randn(30, 16), randn(16, 8) / 4
    target, logits = _of_rows(randn, alike, 8), _of_rows(randn, alike, 3, 10)
    return lambda codes: ((codes.flatten(-2) @ hidden).tanh() @ output - target[:, None]).square().sum(-1), logits


def quadratic(randn: Callable[..., Tensor], alike: float) -> tuple[LossOfRows, Tensor]:
    Q = randn(18, 18)
    Q = (Q + Q.T) / 2**0.5
    linear, logits = _of_rows(randn, alike, 18), _of_rows(randn, alike, 3, 6)
    return lambda x: ((x.flatten(-2) @ Q) * x.flatten(-2)).sum(-1) / 2 + linear @ x.flatten(-2).T, logits


def cubic(randn: Callable[..., Tensor], alike: float) -> tuple[LossOfRows, Tensor]:
    hidden, weights = randn(18, 16) / 3**0.5, randn(16)
    linear, logits = _of_rows(randn, alike, 18), _of_rows(randn, alike, 3, 6)
    return lambda x: (x.flatten(-2) @ hidden) ** 3 @ weights + linear @ x.flatten(-2).T, logits


def _of_rows(randn: Callable[..., Tensor], alike: float, *shape: int) -> Tensor:
    return alike**0.5 * randn(1, *shape) + (1 - alike) ** 0.5 * randn(ROWS, *shape)


EXACT = {
    "two-layer": (two_layer, 0.5),
    "two-layer, rows unrelated": (two_layer, 0.0),
    "quadratic": (quadratic, 0.5),
    "cubic": (cubic, 0.5),
}


def exact(found: "Results", batches: int = 1000) -> None:
    """Bias and spread of a row's gradient, relative to the norm of the exact one."""
    for name, (make, alike) in EXACT.items():
        squares: dict[str, list[list[float]]] = {}
        labels = found.missing(name, [*PULLS, *RAO])
        for seed in range(PROBLEMS) if labels else ():
            generator = torch.Generator().manual_seed(seed)
            f, logits = make(lambda *shape, g=generator: torch.randn(*shape, generator=g, dtype=torch.float64), alike)
            p, latents, N = logits.softmax(-1), *logits.shape[1:]
            codes = one_hot(torch.cartesian_prod(*[torch.arange(N)] * latents), N).double().requires_grad_()
            losses = f(codes)
            v_of = torch.stack([torch.autograd.grad(row.sum(), codes, retain_graph=True)[0] for row in losses])
            codes = codes.detach()
            probability = (p[:, None] * codes).sum(-1).prod(-1)
            truth = torch.einsum("bc,bcln->bln", probability * losses.detach(), codes - p[:, None])
            for label in labels:
                torch.manual_seed(seed)
                count = batches if label in PULLS else batches // 10
                code = torch.multinomial(probability, count, True).T
                g = pull_of(label)(p.expand(count, -1, -1, -1), codes[code], v_of[torch.arange(ROWS), code])
                variance = float(g.var(0).sum())
                bias, size = float((g.mean(0) - truth).square().sum()) - variance / count, float(truth.square().sum())
                squares.setdefault(label, []).append([bias / size, variance / size])
        for label, each in squares.items():
            bias, variance = (max(0.0, statistics.fmean(part)) for part in zip(*each, strict=True))
            found.add(name, label, [round(bias**0.5, 3), round(variance**0.5, 3)])


# ---------------------------------------------------------------------------------------------------
# Trainings


def polynomial(found: "Results") -> None:
    """64 binary latents minimise the mean of |x - .45|^power: the probability of the worse value that is left."""
    c, seeds = 0.45, 4
    for power in (1.25, 1.5, 2.0, 3.0):
        for label in found.missing(f"power {power}", [*PULLS, *RAO]):
            torch.manual_seed(0)
            logits = torch.zeros(seeds, 64, 2, requires_grad=True)
            optimizer = torch.optim.Adam([logits], lr=0.05)
            for _ in range(600):
                x = Sample.apply(logits[:, None].expand(seeds, 8, 64, 2).contiguous(), pull_of(label))
                optimizer.zero_grad()
                (x[..., 1] - c).abs().pow(power).mean(-1).mean(-1).sum().backward()
                optimizer.step()
            left = logits.detach().softmax(-1)[..., 1].mean(-1)
            found.add(f"power {power}", label, [round(x, 4) for x in left.tolist()])


@dataclass(frozen=True, eq=False)
class Probe(Estimator):
    """A pull where an example asks for an estimator."""

    function: ClassVar[Any] = functional.straight_through
    pull: Any = None
    tau: Any = 1.0

    def __call__(self, logits: Tensor, tau: Any = None, dim: int = -1, **options: Any) -> Any:
        given = {name: value for name, value in options.items() if value is not None}
        return Known.apply(logits, do.straight_through(logits.detach(), **given), self.pull)


class Known(torch.autograd.Function):
    """A sample that was drawn before. In float64; of ``(batch, N)`` the batch is the first dimension, of more all but
    the last two."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, D: Tensor, pull: Pull) -> Tensor:
        ctx.save_for_backward(logits, D)
        ctx.pull = pull
        return D.clone()

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        logits, D = ctx.saved_tensors
        p = logits.double().softmax(-1)
        latents = logits.shape[-2] if logits.ndim > 2 else 1
        rows = (x.double().reshape(-1, latents, logits.shape[-1]) for x in (p, D, v.masked_fill(p == 0, 0)))
        return ctx.pull(*rows).reshape(logits.shape).to(logits.dtype), None, None


#: The example, its figure, the seeds.
EXAMPLES = {
    "expert_router": ("one_expert_router", "last_loss", range(5)),
    "expert_router, seven more seeds": ("one_expert_router", "last_loss", range(5, 12)),
    "architecture_cell": ("architecture_cell", "chosen_loss", range(5)),
    "masked_policy": ("masked_policy", "arrived_after", range(5)),
    "table_generator": ("table_generator", "distance_after", range(3)),
}


def example(found: "Results", name: str) -> None:
    """As the example says, at temperature 1 throughout."""
    script, figure, seeds = EXAMPLES[name]
    sys.path.insert(0, str(HERE.parent / "examples"))
    module = importlib.import_module(script)
    for label in found.missing(name, TRAINED):
        with contextlib.redirect_stdout(io.StringIO()):
            runs = [module.main(seed=seed, estimator=Probe(pull=PULLS[label])) for seed in seeds]
        found.add(name, label, [round(getattr(run, figure), 4) for run in runs])


def vae(found: "Results", seeds: int = 3, steps: int = 2000) -> None:
    """-ELBO of 3000 test images of MNIST after 2000 steps of Adam at 1e-3 on 20000 training images."""
    from tasks.vae import data
    from tasks.vae.model import VAE

    images = data.load("mnist", Path(os.environ["MNIST"]) if "MNIST" in os.environ else None)
    images = data.Images(images.train[:20000], images.test[:3000])
    for categories, latents in ((8, 4), (4, 8)):
        for label in found.missing(f"vae {categories}x{latents}", TRAINED):
            model = VAE(images.pixels, latents, categories, [torch.Generator().manual_seed(s) for s in range(seeds)])
            optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
            torch.manual_seed(1234)
            order = torch.Generator().manual_seed(99)

            def minus_elbo(x: Tensor, model: VAE = model, label: str = label) -> Tensor:
                error, kl = model(x, lambda f, logits: f(Sample.apply(logits, PULLS[label])))
                return error + kl

            for step in range(1, steps + 1):
                index = torch.randint(len(images.train), (seeds, 100), generator=order)
                loss = minus_elbo(images.train[index.flatten()].view(seeds, 100, -1)).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if step % (steps // 4) == 0:
                    with torch.no_grad():  # two codes an image
                        test = torch.stack([minus_elbo(part) for part in images.test.split(1000) * 2]).mean(0)
            found.add(f"vae {categories}x{latents}", label, [round(x, 2) for x in test.tolist()])


# ---------------------------------------------------------------------------------------------------
# Results and their tables


class Results:
    """Problem, label: figures; kept in the file, so that what was measured is not measured again."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, list[float]]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}

    def missing(self, problem: str, labels: list[str]) -> list[str]:
        return [label for label in labels if label not in self.found.get(problem, {})]

    def add(self, problem: str, label: str, figures: list[float]) -> None:
        self.found.setdefault(problem, {})[label] = figures
        print(problem, label, figures, flush=True)
        RESULTS.write_text(json.dumps(self.found, indent=2) + "\n")


def table(found: dict[str, dict[str, list[float]]], problems: list[str]) -> str:
    """A row an estimator: bias / spread of the exact problems, means of the others over seeds."""
    labels = [label for label in [*PULLS, *RAO] if any(label in found.get(problem, {}) for problem in problems)]
    lines = ["| | " + " | ".join(problems) + " |", "|---|" + "---:|" * len(problems)]
    for label in labels:
        cells = []
        for problem in problems:
            figures = found.get(problem, {}).get(label)
            if figures is None:
                cells.append("")
            elif problem in EXACT:
                cells.append(f"{figures[0]:.2f} / {figures[1]:.2f}")
            else:
                digits = 1 if problem.startswith("vae") else 3
                mean, least, most = (f"{x:.{digits}f}" for x in (statistics.fmean(figures), min(figures), max(figures)))
                cells.append(f"{mean} ({least} to {most})")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page_text(text: str, found: dict[str, dict[str, list[float]]]) -> str:
    """The page with the tables that its ``<!-- dials of PROBLEM; PROBLEM -->`` ask for."""
    return re.sub(
        r"(<!-- dials of (.+) -->\n)(?:\n(?:\|.*\n)+)?",
        lambda match: f"{match[1]}\n{table(found, match[2].split('; '))}\n",
        text,
    )


def main() -> None:
    torch.set_num_threads(1)
    found = Results()
    for part in sys.argv[1:]:
        if part in EXAMPLES:
            example(found, part)
        else:
            {"exact": exact, "polynomial": polynomial, "vae": vae}[part](found)
    page = HERE / "without_temperature.md"
    page.write_text(page_text(page.read_text(), found.found))


if __name__ == "__main__":
    main()
