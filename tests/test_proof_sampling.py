"""Laws, noise and threads in their short form; and that each would be seen."""

import numpy as np
import pytest
import torch
from proof_lines import assert_hold

from proof import laws, noise, sampling
from proof.laws import Draws


def test_laws_noise_and_threads() -> None:
    assert_hold(sampling.run(**sampling.SHORT))


@pytest.mark.parametrize("law", ["uniform", "skewed", "tails"])
def test_another_law_is_seen(law: str) -> None:
    """A category's probability off by a twentieth; the rarest drawn three times as often."""
    draws = Draws(law, 10, 10**8 if law == "tails" else 10**6)
    p = draws.probabilities()
    rng = np.random.default_rng(0)
    assert min(laws.p_values(draws, rng.multinomial(draws.count, p))) > 1e-4
    wrong = p * (np.where(p < 2e-7, 3.0, 1.0) if law == "tails" else np.where(np.arange(10) == 3, 1.05, 1.0))
    assert min(laws.p_values(draws, rng.multinomial(draws.count, wrong / wrong.sum()))) < 1e-6


def test_shared_noise_is_seen() -> None:
    rows = noise.Rows(100, (7,))
    later = noise.Rows(100, (7,), first_row=90)
    keys = np.concatenate([noise.keys(each, "cpp") for each in (rows, later)])
    assert noise.duplicates(keys) == 10 * noise.BLOCKS
    draws = [noise.keys(noise.Rows(100, (7,), draw=draw), "cpp") for draw in (2, 3, 2)]
    assert noise.duplicates(np.concatenate(draws)) == 100 * noise.BLOCKS


def test_another_bit_is_seen() -> None:
    case = next(sampling.calls(((5, 3),)))
    a, b = (sampling.called(sampling.outcome_of, case, sampling.NATIVE) for _ in range(2))
    assert sampling.same_bits(a, b)
    b.at_rows[2, 1] = torch.nextafter(b.at_rows[2, 1], torch.tensor(torch.inf))
    assert not sampling.same_bits(a, b)
