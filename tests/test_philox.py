"""The noise: Random123's known answers, and the layout that every backend shares."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from discrete_ops import philox

ONES = 0xFFFFFFFF


def naive_philox(seed: int, counter: tuple[int, ...]) -> tuple[int, ...]:
    """Salmon et al. 2011, in Python's integers."""
    k0, k1 = seed & ONES, seed >> 32
    c0, c1, c2, c3 = counter
    for _ in range(10):
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & ONES, (a >> 32) ^ c3 ^ k1, a & ONES
        k0, k1 = (k0 + 0x9E3779B9) & ONES, (k1 + 0xBB67AE85) & ONES
    return c0, c1, c2, c3


def one(seed: int, counter: tuple[int, ...]) -> tuple[int, ...]:
    seed = seed - 2**64 if seed >= 2**63 else seed
    return tuple(int(w) for w in philox.philox4x32(torch.tensor(seed), *(torch.tensor(c) for c in counter)))


@pytest.mark.parametrize(
    ("seed", "counter", "answer"),
    [
        (0, (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (2**64 - 1, (ONES, ONES, ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            0x299F31D0_A4093822,  # key words a4093822, 299f31d0: the low one first
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_known_answers_of_random123(seed, counter, answer):
    assert one(seed, counter) == answer
    assert naive_philox(seed, counter) == answer


def test_random_counters():
    rng = np.random.default_rng(0)
    for _ in range(200):
        seed, counter = int(rng.integers(2**63)), tuple(int(c) for c in rng.integers(2**32, size=4))
        assert one(seed, counter) == naive_philox(seed, counter)


def test_counters_broadcast():
    c0, c1 = torch.arange(5)[:, None], torch.arange(3)
    zero = torch.tensor(0)
    lanes = [lane.expand(5, 3) for lane in philox.philox4x32(torch.tensor([9]), c0, c1, zero, zero)]
    for a in range(5):
        for b in range(3):
            assert tuple(int(lane[a, b]) for lane in lanes) == naive_philox(9, (a, b, 0, 0))


@pytest.mark.parametrize("row", [2**32 - 1, 2**32, 2**32 + 1, 2**45 + 12345])
def test_rows_beyond_32_bits_use_the_high_word(row):
    low, high = torch.tensor(row & ONES), torch.tensor(row >> 32)
    got = philox.philox4x32(torch.tensor([77]), torch.tensor(1), torch.tensor(2), low, high)
    assert tuple(int(w) for w in got) == naive_philox(77, (1, 2, row & ONES, row >> 32))
    assert naive_philox(77, (1, 2, row & ONES, row >> 32)) != naive_philox(77, (1, 2, row & ONES, 0)) or row < 2**32


@pytest.mark.parametrize("columns", [1, 3, 4, 5, 9])
def test_layout(columns):
    """Counter (column // 4, draw, row low, row high), lane column % 4."""
    seed, draws, rows = 2**40 + 3, [0, 5, 2**32 - 1], 3
    words = philox.words(torch.tensor([seed]), torch.tensor(draws), rows, columns)
    assert words.shape == (3, rows, columns)
    for k, draw in enumerate(draws):
        for row in range(rows):
            for column in range(columns):
                want = naive_philox(seed, (column // 4, draw, row, 0))[column % 4]
                assert int(words[k, row, column]) == want


def test_groups_of_seeds_equal_separate_calls():
    seeds, draw = [3, 2**62 + 1, 4], torch.arange(2)
    together = philox.words(torch.tensor(seeds), draw, 6, 5)
    apart = [philox.words(torch.tensor([s]), draw, 2, 5) for s in seeds]
    assert torch.equal(together, torch.cat(apart, 1))
    u = philox.uniform(torch.tensor(seeds), 6)
    assert torch.equal(u, torch.cat([philox.uniform(torch.tensor([s]), 2) for s in seeds]))
    e = philox.exponential(torch.tensor(seeds), draw, 6, 5, torch.float32)
    apart = [philox.exponential(torch.tensor([s]), draw, 2, 5, torch.float32) for s in seeds]
    assert torch.equal(e, torch.cat(apart, 1))


@pytest.mark.usefixtures("fresh_dynamo")
def test_compiled_noise_is_the_same():
    """Of seeds with any bits set: C++ that relies on int64 to wrap would be undefined."""
    one = torch.tensor([1])

    def noise(seed):
        strata = philox.Strata(0, 2**31 - 2)
        formulas = torch.stack(philox.philox4x32(seed, one, one, one, one))
        return formulas, philox.words(seed, torch.arange(2), 1, 6), philox.stratum(seed, torch.arange(2), 1, 6, strata)

    compiled = torch.compile(noise, backend="inductor", fullgraph=True)
    for seed in (0xD821CCC1, 2**31, 2**63 - 1, *torch.randint(2**63 - 1, (40,)).tolist()):
        for got, want in zip(compiled(torch.tensor([seed])), noise(torch.tensor([seed])), strict=True):
            assert torch.equal(got, want), seed


def test_words_as_an_operator():
    seeds, draw = torch.randint(2**63 - 1, (3, 2)), torch.tensor([0, 5])
    torch.library.opcheck(torch.ops.discrete_ops.words, (seeds[0], draw, 4, 6, 3))
    want = torch.stack([philox.words(seed, draw, 4, 6, 3) for seed in seeds])
    assert torch.equal(torch.vmap(lambda seed: philox.words(seed, draw, 4, 6, 3))(seeds), want)
    of_draws = torch.vmap(lambda k: philox.words(seeds[0], k, 4, 6, 3))(draw[:, None])
    assert torch.equal(of_draws, want[0, :, None])


def test_no_rows():
    assert philox.words(torch.tensor([1]), torch.arange(2), 0, 5).shape == (2, 0, 5)
    assert philox.uniform(torch.tensor([1]), 0).shape == (0, 1)


def test_uniform_is_52_bits_of_the_forward_draw():
    seed, rows = 123456789012345, 50
    u = philox.uniform(torch.tensor([seed]), rows)
    for row in range(rows):
        high, low, *_ = naive_philox(seed, (0, 2**32 - 1, row, 0))
        assert u[row].item() == ((high << 20 | low >> 12) + 0.5) / 2**52


def test_uniform_stays_inside_the_unit_interval(monkeypatch):
    for word in (0, ONES):
        monkeypatch.setattr(philox, "words", lambda *_, w=word: torch.full((1, 1, 2), w))
        assert 0 < philox.uniform(torch.tensor([0]), 1).item() < 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exponential_is_never_zero_and_never_infinite(dtype, monkeypatch):
    words = torch.tensor([0, 1, 2, 3, 2**16, 2**31, ONES - 256, ONES - 1, ONES])
    monkeypatch.setattr(philox, "words", lambda *_: words.view(1, 1, -1))
    e = philox.exponential(torch.tensor([0]), torch.arange(1), 1, len(words), dtype).flatten()
    assert e.dtype == dtype
    assert e.isfinite().all()
    assert (e > 0).all()
    assert (e[1:] >= e[:-1]).all()
    top = 1 - 2.0**-24 if dtype == torch.float32 else 1.0  # where float32 clips u
    for got, word in zip(e.tolist(), words.tolist(), strict=True):
        want = -math.log1p(-min((word + 0.5) / 2**32, top))
        # float32 rounds u to 24 bits, and near 1 the logarithm magnifies that: 2**-25 / (1 - u)
        slack = 4 * torch.finfo(dtype).eps + (2.0**-25 / math.exp(-want) if dtype == torch.float32 else 0)
        assert got == pytest.approx(want, rel=slack)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exponential_law(dtype):
    e = philox.exponential(torch.tensor([5]), torch.arange(3), 100, 100, dtype).flatten()
    assert scipy.stats.kstest(e.double().numpy(), "expon").pvalue > 1e-4


def test_exponential_resolves_its_small_end():
    """A float32 uniform would stop at 2**-24 and tie; the winner of a race is decided below that."""
    words = philox.words(torch.tensor([1]), torch.arange(50), 1000, 100).flatten()
    e = philox.exponential(torch.tensor([1]), torch.arange(50), 1000, 100, torch.float32).flatten()
    small = words < 2**16
    assert 40 < small.sum() < 120, "76 of 5e6 words are expected"
    want = -torch.log1p(-(words[small].double() + 0.5) / 2**32)
    torch.testing.assert_close(e[small].double(), want, rtol=1e-6, atol=0)
