"""A training step of the VAE study on one core, beside its matrix products alone: the same routine, the same shapes.

python -m bench.study_step [--members M ...] [--steps N] [--out bench/results/study_step.md] [NAME ...]

The two take turns, step by step, and each figure is a median of the thread's CPU time: on a machine that others share,
the ratios are what can be compared.
"""

import argparse
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from tasks.common import jsonl, sheets
from tasks.common.sheets import Sheet
from tasks.vae import data, linear
from tasks.vae.costs import machine
from tasks.vae.ensemble import Ensemble
from tasks.vae.recipes import configure

PIXELS, BATCH = 784, 100

CASES: dict[str, dict[str, Any]] = {
    "8x4 ReinMax, Adam": {"latent": "8x4", "estimator": "reinmax"},
    "8x4 Gumbel-Rao, Adam": {"latent": "8x4", "estimator": "gumbel_rao"},
    "8x16 ReinMax, RAdam": {"latent": "8x16", "estimator": "reinmax"},
    "10x30 ReinMax, Adam": {"latent": "10x30", "estimator": "reinmax", "optimizer": "adam"},
    "10x30 ReinMax, RAdam": {"latent": "10x30", "estimator": "reinmax"},
    "10x30 Gumbel-Rao, RAdam": {"latent": "10x30", "estimator": "gumbel_rao"},
}


def training_step(members: int, case: dict[str, Any]) -> Callable[[], Tensor]:
    """A step as an epoch takes it, on images of noise."""
    generator = torch.Generator().manual_seed(0)
    images = data.Images(*(torch.rand(count, PIXELS, generator=generator) for count in (60 * BATCH, 1)))
    ensemble = Ensemble([configure(seed=seed, **case) for seed in range(members)], images)
    index = torch.stack([torch.randperm(60 * BATCH, generator=generator)[:BATCH] for _ in range(members)])
    seed = torch.arange(members)
    tau = torch.ones(members, dtype=torch.float64)
    return lambda: ensemble.step(index, seed, tau)


def products(members: int, case: dict[str, Any]) -> Callable[[], None]:
    """What a step cannot do without: the layers forward, and the gradients of their inputs and weights."""
    config = configure(**case)
    widths = (PIXELS, 512, 256, config.latents * config.categories, 256, 512, PIXELS)
    layers = [
        (torch.rand(BATCH, inputs), torch.rand(inputs, outputs), torch.rand(outputs), torch.rand(BATCH, outputs))
        for inputs, outputs in pairwise(widths)
        for _ in range(members)
    ]

    def run() -> None:
        for x, weight, bias, _ in layers:
            linear._product(x, weight, bias)
        for place, (x, weight, _, grad) in reversed(list(enumerate(layers))):
            linear._product(x.t(), grad)
            if place >= members:  # the images need none
                linear._product(grad, weight.t())

    return run


def milliseconds(calls: list[Callable[[], Any]], count: int) -> list[float]:
    """The median CPU time of each call, all of them in turn ``count`` times."""
    found: list[list[float]] = [[] for _ in calls]
    for _ in range(count):
        for call, times in zip(calls, found, strict=True):
            start = time.thread_time()
            call()
            times.append(time.thread_time() - start)
    return [1e3 * median(times[len(times) // 10 :]) for times in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="NAME", help=f"parts of the names of: {'; '.join(CASES)}")
    parser.add_argument("--members", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, help="Markdown file of what is printed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for members in arguments.members:
        rows = []
        for name, case in CASES.items():
            if not arguments.cases or any(part in name for part in arguments.cases):
                step, alone = milliseconds([training_step(members, case), products(members, case)], arguments.steps)
                rows.append((name, f"{step:.2f}", f"{alone:.2f}", f"{step / alone:.2f}"))
        found.append(Sheet(f"{members} side by side", ("", "step (ms)", "its products (ms)", "ratio"), rows))
    note = (
        f"On {machine('cpu')}; commit {jsonl.commit()}. Medians of {arguments.steps} steps and of as many "
        "times their matrix products alone, in turns, in CPU time; images of noise."
    )
    sheets.write(arguments.out, "A training step of the VAE study", [note], found, Console())


if __name__ == "__main__":
    main()
