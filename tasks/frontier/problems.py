"""What estimators are measured on: polynomial programming, random two-layer losses, and a VAE while it trains.

Each is enumerated whole, and becomes one or several :class:`Problem`; of several the figures are medians.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from tasks.polynomial.programming import Setting, losses
from tasks.vae import data, measured, train
from tasks.vae.gradients import CHUNK, Decoded
from tasks.vae.model import VAE
from tasks.vae.recipes import configure

from .jacobians import Problem, problem

#: The two-layer losses: latents, categories, hidden units, outputs; how many of them.
LATENTS, CATEGORIES, HIDDEN, OUTPUTS = 3, 10, 16, 8
PROBLEMS = 20
#: Codes that are rarer have no part in the two moments of a VAE: of 2**16, less than 1e-7 of all in sum.
RAREST = 1e-12

#: What computes the problems of one panel.
Source = Callable[[], list[Problem]]


@dataclass(frozen=True)
class Trained:
    """The VAEs of BR Figure 1 (8x4, trained with ReinMax at tau 1), and where they are looked at.

    Attributes:
        data_set: its name.
        images: to train them on.
        count: gradients are measured at the logits of so many training images.
        seeds: of the runs.
        epochs: after which they are looked at; training ends with that of BR's figure, or with the last of these.
        out: directory of their runs; the study's own are taken.
        console: for the progress of the training.
    """

    data_set: str
    images: data.Source
    count: int
    seeds: int
    epochs: Sequence[int]
    out: Path
    console: Console


def sources(powers: Sequence[float], trained: Trained) -> dict[str, Source]:
    """Every panel's problems, by its title."""
    polynomials = {f"polynomial, p = {power:g}": partial(polynomial, power) for power in powers}
    random = {f"{PROBLEMS} random two-layer losses": lambda: [two_layer(seed) for seed in range(PROBLEMS)]}
    panels = {f"8x4 VAE, {trained.data_set}, epoch {epoch}": partial(vaes, trained, epoch) for epoch in trained.epochs}
    return {**polynomials, **random, **panels}


def polynomial(power: float, setting: Setting = Setting(), seed: int = 0) -> list[Problem]:  # noqa: B008  (frozen)
    """``mean_i |x_i - c|^p`` at normal log-odds. The loss is a sum over latents, so that each is enumerated alone."""
    log_odds = torch.randn(setting.latents, generator=torch.Generator().manual_seed(seed))
    x = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)  # of the two categories
    loss = losses(x, power, setting.c) / setting.latents
    (slope,) = torch.autograd.grad(loss.sum(), x)
    v = torch.stack([slope, torch.zeros(2)], -1)[:, None]  # x is entry 0 of the code
    codes = torch.tensor([[0], [1]])
    parts = []
    for each in log_odds:
        logits = torch.stack([each, torch.zeros(())])[None]
        parts.append(problem(logits, codes, logits[0].double().softmax(-1), loss.detach(), v))
    return [_together(parts)]


def two_layer(seed: int) -> Problem:
    """The squared error of a fixed two-layer tanh decoder of three latents of ten categories, at normal logits: the
    problem of docs/bias_variance.py."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(LATENTS * CATEGORIES, HIDDEN, generator=generator)
    output = torch.randn(HIDDEN, OUTPUTS, generator=generator) / HIDDEN**0.5
    target = torch.randn(OUTPUTS, generator=generator)
    logits = torch.randn(LATENTS, CATEGORIES, generator=generator)
    codes = torch.cartesian_prod(*[torch.arange(CATEGORIES)] * LATENTS)
    D = torch.nn.functional.one_hot(codes, CATEGORIES).float().requires_grad_()
    loss = ((D.flatten(-2) @ hidden).tanh() @ output - target).square().sum(-1)
    (v,) = torch.autograd.grad(loss.sum(), D)
    return problem(logits, codes, _probabilities(logits, codes), loss.detach().double(), v)


def vaes(trained: Trained, epoch: int) -> list[Problem]:
    """The cross-entropy of images at the logits of a VAE, all images as one vector; one problem a seed."""
    last = max(measured.LAST, *trained.epochs) if trained.data_set == "mnist" else max(trained.epochs)
    kept = sorted({*measured.epochs_until(last), *trained.epochs} - {0})
    images, found = trained.images(), []
    for seed in range(trained.seeds):
        config = configure(estimator="reinmax", data=trained.data_set, tau=1.0, seed=seed, epochs=last)
        paths = measured.checkpoints(config, kept, trained.epochs, images, trained.out, trained.console)
        model = train.load(config, images, paths[epoch]).member(0).requires_grad_(False)
        order = torch.randperm(len(images.train), generator=torch.Generator().manual_seed(seed))
        found.append(of_vae(model, images.train[order[: trained.count]]))
    return found


def of_vae(model: VAE, images: Tensor) -> Problem:
    """The gradient of images' cross-entropy at the logits of a model with one member."""
    decoded = Decoded(model)
    codes = decoded.codes.argmax(-1)
    with torch.no_grad():
        logits = model.encode(images[None])[0]
    return _together([_of_image(decoded, codes, *pair) for pair in zip(logits, images, strict=True)])


def _of_image(decoded: Decoded, codes: Tensor, logits: Tensor, image: Tensor) -> Problem:
    p = _probabilities(logits, codes)
    likely = (p >= RAREST).nonzero()[:, 0]
    v = torch.cat([decoded.gradient(image, places) for places in likely.split(CHUNK)])
    return problem(logits, codes[likely], p[likely], decoded.losses(image)[likely], v)


def _probabilities(logits: Tensor, codes: Tensor) -> Tensor:
    """``(C,)`` float64, of ``(C, L)`` codes."""
    return logits.double().log_softmax(-1).gather(1, codes.T).sum(0).exp()


def _together(parts: Sequence[Problem]) -> Problem:
    """Problems of their own latents as one, whose gradient is all of theirs."""
    return Problem(*(torch.cat(fields) for fields in zip(*parts, strict=True)))
