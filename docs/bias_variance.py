"""Bias and spread of every estimator on one small problem, for the pages of the estimators.

    python docs/bias_variance.py          # measures, under a minute of one core; then writes rows and picture
    python docs/bias_variance.py --write  # from bias_variance.json, without measuring

The problem: three latents of ten categories, logits of standard deviation 1, and the squared error of a fixed two-layer
tanh decoder. Its thousand codes are enumerated, so that the exact gradient is known. Twenty such problems by twenty
seeds; each figure is the median over them.
"""

import json
import math
import re
import statistics
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

import discrete_ops as do
from discrete_ops.diagnostics import Loss, Measurement
from discrete_ops.estimators import (
    GST,
    MVE,
    Estimator,
    GumbelRao,
    GumbelSoftmax,
    Mix,
    ReinMax,
    ReinMaxArgmax,
    ReinMaxCV,
    ReinMaxRao,
    ReinMaxRK2,
    StraightThrough,
)

HERE = Path(__file__).parent
LATENTS, CATEGORIES, HIDDEN, OUTPUTS = 3, 10, 16, 8
PROBLEMS, DRAWS = 20, 20_000

#: By the name of the page.
ESTIMATORS: dict[str, dict[str, Estimator]] = {
    "straight_through": {f"tau {tau}": StraightThrough(tau=tau) for tau in (0.5, 1.0, 1.5)},
    "gumbel_softmax": {f"tau {tau}": GumbelSoftmax(tau=tau) for tau in (0.1, 0.5, 1.0)},
    "gumbel_rao": {
        **{f"tau {tau}, 100 draws": GumbelRao(tau=tau) for tau in (0.1, 0.5, 1.0)},
        **{f"tau {tau}, 32 stratified": GumbelRao(tau, 32, draws="stratified") for tau in (0.1, 0.5, 1.0)},
    },
    "gst": {
        **{f"tau {tau}, gap 1": GST(tau=tau) for tau in (0.1, 0.5, 1.0)},
        **{f'tau {tau}, gap "pi"': GST(tau=tau, gap="pi") for tau in (0.5, 1.0)},
    },
    "reinmax": {f"tau {tau}": ReinMax(tau=tau) for tau in (1.0, 1.3)},
    "reinmax_rao": {
        **{f"tau {tau}, 100 draws": ReinMaxRao(tau=tau) for tau in (0.5, 1.0)},
        **{f"tau {tau}, 32 stratified": ReinMaxRao(tau, 32, draws="stratified") for tau in (0.5, 1.0)},
    },
    "reinmax_cv": {
        "tau 1.0, eta 1.5, soft": ReinMaxCV(),
        "tau 0.1, eta 1.5, soft": ReinMaxCV(tau=0.1),
        "tau 1.0, eta 1.5, gumbel": ReinMaxCV(control="gumbel"),
    },
    "reinmax_rk2": {
        "beta 0.25, centred": ReinMaxRK2(beta=0.25, centred=True),
        "beta 0.5": ReinMaxRK2(),
        "beta 0.25": ReinMaxRK2(beta=0.25),
        "reinmax_argmax, tau 1.0": ReinMaxArgmax(),
    },
    "mix": {f"a {a}": Mix(a=a) for a in (0.25, 0.5, 0.75)},
    "mve": {f"tau {tau}": MVE(tau=tau) for tau in (1.0, 4.0, 16.0, math.inf)},
}
#: The score functions give losses, not samples: ``(f, logits, seed) -> loss``. Two samples a draw for all but rebar.
SCORE_FUNCTIONS: dict[str, Callable[[Loss, Tensor, Tensor], Tensor]] = {
    "reinforce, 2 samples": lambda f, logits, seed: do.score_function.reinforce(f, logits, 2, seed=seed),
    "rloo, 2 samples": lambda f, logits, seed: do.score_function.rloo(f, logits, 2, seed=seed),
    "disarm_tree, 2 samples": lambda f, logits, seed: do.score_function.disarm_tree(f, logits, 2, seed=seed),
    "rebar, tau 0.5, eta 1": lambda f, logits, seed: do.score_function.rebar(f, logits, seed=seed),
}


def problem(seed: int) -> tuple[Loss, Tensor]:
    """The loss of codes ``(B, latents, categories)``, and logits to differentiate it at."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(LATENTS * CATEGORIES, HIDDEN, generator=generator)
    output = torch.randn(HIDDEN, OUTPUTS, generator=generator) / HIDDEN**0.5
    target = torch.randn(OUTPUTS, generator=generator)
    logits = torch.randn(LATENTS, CATEGORIES, generator=generator)

    def f(codes: Tensor) -> Tensor:
        return ((codes.flatten(-2) @ hidden).tanh() @ output - target).square().sum(-1)

    return f, logits


def measure() -> dict[str, dict[str, dict[str, float]]]:
    """Page, setting, figure: the median over the problems."""
    found: dict[str, dict[str, list[Measurement]]] = {}
    for seed in range(PROBLEMS):
        f, logits = problem(seed)
        exact = do.diagnostics.exact_gradient(f, logits)
        for page, settings in ESTIMATORS.items():
            for setting, estimator in settings.items():
                result = do.diagnostics.measure(estimator, f, logits, DRAWS, exact=exact, seed=seed)
                found.setdefault(page, {}).setdefault(setting, []).append(result)
        for setting, loss in SCORE_FUNCTIONS.items():
            result = do.diagnostics.measure_loss(
                lambda logits, seed, loss=loss, f=f: loss(f, logits, seed), f, logits, DRAWS, exact=exact, seed=seed
            )
            found.setdefault("score_functions", {}).setdefault(setting, []).append(result)
        print(f"problem {seed + 1} of {PROBLEMS}", flush=True)
    return {
        page: {setting: _medians(results) for setting, results in settings.items()} for page, settings in found.items()
    }


def _medians(results: Iterable[Measurement]) -> dict[str, float]:
    results = list(results)
    figures = ("cosine", "relative_bias", "relative_std")
    return {name: round(statistics.median(getattr(r, name) for r in results), 3) for name in figures}


def table(settings: dict[str, dict[str, float]]) -> str:
    """Of one page, in Markdown."""
    lines = ["| setting | cosine | bias | spread |", "|---|---:|---:|---:|"]
    for setting, figures in settings.items():
        cosine, bias, std = figures["cosine"], figures["relative_bias"], figures["relative_std"]
        lines.append(f"| {setting} | {cosine:.3f} | {bias:.2f} | {std:.2f} |")
    return "\n".join(lines)


def page_text(text: str, found: dict[str, dict[str, dict[str, float]]]) -> str:
    """A page with the tables that its ``<!-- bias and spread: NAME -->`` ask for."""
    return re.sub(
        r"(<!-- bias and spread: (\w+) -->\n)(?:\n(?:\|.*\n)+)?",
        lambda match: f"{match[1]}\n{table(found[match[2]])}\n",
        text,
    )


def draw(found: dict[str, dict[str, dict[str, float]]], path: Path) -> None:
    """Bias against spread. What is out of the frame: reinmax_cv's soft control at .1, and gst at .1. What is left out:
    stratified draws, whose places are those of a hundred independent ones."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "discrete_ops", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5.2), layout="constrained")
    shown: dict[str, list[tuple[str, float, float]]] = {}
    for page, settings in found.items():
        for setting, figures in settings.items():
            name, _, label = setting.rpartition(", ") if setting.startswith("reinmax_argmax") else (page, "", setting)
            if figures["relative_std"] > 0.5 and figures["relative_bias"] < 2 and "stratified" not in setting:
                label = label.removeprefix("tau ").removeprefix("beta ").removeprefix("a ").partition(", 100")[0]
                shown.setdefault(name, []).append((label, figures["relative_std"], figures["relative_bias"]))
    for marker, (name, points) in zip("osDv^<>PhX*dp", shown.items(), strict=False):
        axes.plot(*zip(*[point[1:] for point in points], strict=True), marker=marker, linestyle="none", label=name)
    axes.set(
        xscale="log", yscale="log", xlabel="spread: standard deviation / norm of the exact gradient", ylabel="bias"
    )
    axes.set(xlim=(0.7, 18), xticks=(1, 2, 5, 10), xticklabels=("1", "2", "5", "10"))
    axes.set(yticks=(0.03, 0.1, 0.2, 0.5, 1), yticklabels=(".03", ".1", ".2", ".5", "1"))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower left")
    figure.canvas.draw()  # the layout decides where a label has room
    spots = [(axes.transData.transform(point[1:]), *point) for points in shown.values() for point in points]
    taken = [(x - 5, x + 5, y) for (x, y), *_ in spots]  # markers, then labels
    for (x, y), label, *at in spots:
        width = 3.4 * len(label)
        for dy, side in ((dy, side) for dy in (4, -9, 13, -18) for side in ("left", "right")):
            begin = x + 5 if side == "left" else x - 5 - width
            if not any(a < begin + width and begin < b and abs(c - y - dy - 2) < 7 for a, b, c in taken):
                break
        taken.append((begin, begin + width, y + dy + 2))
        offset = (5 if side == "left" else -5, dy)
        axes.annotate(label, at, offset, textcoords="offset points", ha=side, fontsize=6.5, color="0.35")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    torch.set_num_threads(1)
    results = HERE / "bias_variance.json"
    if "--write" not in sys.argv[1:]:
        results.write_text(json.dumps(measure(), indent=2) + "\n")
    found = json.loads(results.read_text())
    for page in HERE.rglob("*.md"):
        old = page.read_text()
        if (new := page_text(old, found)) != old:
            page.write_text(new)
    draw(found, HERE / "bias_variance.svg")


if __name__ == "__main__":
    main()
