"""Rows in parts: every part draws and pulls back as its rows do in the whole."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from discrete_ops import parts, reference


@given(st.data())
def test_parts_are_the_whole(data):
    seeds, groups, temperatures, more = (data.draw(st.sampled_from([1, 2, 3, 4])) for _ in range(4))
    rows = more * seeds * groups * temperatures
    most, first_row = data.draw(st.integers(1, rows + 2)), data.draw(st.sampled_from([0, 5]))
    logits, v = torch.randn(2, rows, 3, dtype=torch.float64)
    seed = torch.arange(seeds)
    tau = torch.rand(temperatures, 3, dtype=torch.float64) + 0.5
    index = reference.sample(logits, seed, tau, first_row)[1]
    pulled = reference.surrogate_vjp(v, logits, index, seed, tau, "gumbel_rao", 2, first_row)
    end = 0
    for part in parts.parts(rows, most, seed, tau, first_row, groups):
        assert part.begin == end < part.end <= part.begin + most
        assert part.begin // (rows // groups) == (part.end - 1) // (rows // groups)
        end = part.end
        own, call = slice(part.begin, part.end), part[2:]
        assert torch.equal(reference.sample(logits[own], *call)[1], index[own])
        again = reference.surrogate_vjp(v[own], logits[own], index[own], *call[:2], "gumbel_rao", 2, call[2])
        assert torch.equal(again, pulled[own])
    assert end == rows


@pytest.mark.parametrize("columns", [1, 512, 2**21])
def test_a_part_is_as_large_as_it_may_be(columns):
    rows = parts.rows_of(columns, 4, torch.device("cpu"))
    most = parts.BYTES["cpu"]
    assert rows * columns * 4 <= most or rows == 1
    assert (rows + 1) * columns * 4 > most
