"""Speech units: frames of sound become codes of two codebooks, as in wav2vec 2.0 (Baevski et al., 2020).

    python examples/speech_quantizer.py

The sound is made up: a few hidden units, each heard as a noisy prototype. The codes are to bring the frames back, many
of them are to be used, and the temperature falls to a quarter as training goes on. It runs in bfloat16.
"""

from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import discrete_ops as do

UNITS, FEATURES = 24, 64
GROUPS, ENTRIES, WIDTH = 2, 320, 32
BATCH, FRAMES = 8, 40


class Learned(NamedTuple):
    first_loss: float
    last_loss: float
    perplexity: float  # codes of a codebook in use, as the exponential of their entropy; of the mean codebook
    tau: float


class Quantizer(nn.Module):
    def __init__(self, estimator: str) -> None:
        super().__init__()
        self.logits = nn.Linear(FEATURES, GROUPS * ENTRIES)
        self.codebooks = do.nn.StraightThroughEmbedding(ENTRIES, WIDTH, estimator, tables=GROUPS)
        self.decoder = nn.Sequential(nn.Linear(GROUPS * WIDTH, 128), nn.ReLU(), nn.Linear(128, FEATURES))

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Frames ``(B, T, features)`` to frames, codes ``(B * T, groups)`` and logits ``(B * T, groups, entries)``."""
        logits = self.logits(frames).view(-1, GROUPS, ENTRIES)
        # was: F.gumbel_softmax(logits.float(), self.tau, hard=True).type_as(logits), in eval() scatter_ of the argmax,
        # and its product with the codebooks
        vectors, codes = self.codebooks(logits, return_index=True)
        return self.decoder(vectors.flatten(1)).view_as(frames), codes, logits


def perplexity(probs: Tensor) -> Tensor:
    """Of each codebook, from its mean use ``(groups, entries)``."""
    return (-(probs * (probs + 1e-7).log()).sum(-1)).exp()


def main(steps: int = 400, seed: int = 0, estimator: str = "gumbel_softmax(tau=2.0)") -> Learned:
    torch.manual_seed(seed)
    prototypes = torch.randn(UNITS, FEATURES)
    model = Quantizer(estimator)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    losses: list[float] = []
    tau = model.codebooks.tau.clone()

    def speech() -> Tensor:
        units = torch.randint(UNITS, (BATCH, FRAMES // 4)).repeat_interleave(4, 1)  # a unit lasts four frames
        return prototypes[units] + 0.3 * torch.randn(BATCH, FRAMES, FEATURES)

    for step in range(steps):
        model.codebooks.tau = (tau * 0.5 ** (4 * step / steps)).clamp_min(tau / 4)
        frames = speech()
        with torch.autocast("cpu", torch.bfloat16):
            heard, _, logits = model(frames)
        loss = F.mse_loss(heard.float(), frames)
        use = logits.float().softmax(-1).mean(0)
        diversity = 1 - perplexity(use).mean() / ENTRIES
        optimizer.zero_grad()
        torch.autograd.backward(loss + 0.1 * diversity)
        optimizer.step()
        losses.append(float(loss.detach()))

    model.eval()
    with torch.no_grad():
        use = F.one_hot(torch.cat([model(speech())[1] for _ in range(8)]), ENTRIES).float().mean(0)
    learned = Learned(fmean(losses[:5]), fmean(losses[-5:]), float(perplexity(use).mean()), float(model.codebooks.tau))
    print(f"error of the frames: {learned.first_loss:.3f} at first, {learned.last_loss:.3f} at last")
    print(f"codes in use: {learned.perplexity:.0f} of {ENTRIES} for {UNITS} units, at temperature {learned.tau:.2f}")
    return learned


if __name__ == "__main__":
    main()
