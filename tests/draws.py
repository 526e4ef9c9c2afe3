"""What it takes to hold one backend to another. Apart from ``helpers.py``: it needs nothing but torch."""

import math

import torch
from torch import Tensor

from discrete_ops import philox, reference

#: The coefficient that each estimator is compared at, of those that have one.
COEFFICIENT = {
    "gst": 1.0,
    "reinmax_cv": 1.5,
    "stratified_reinmax_cv": 1.5,
    "reinmax_cv_gumbel": 1.5,
    "reinmax_rk2": 0.3,
    "mix": 0.6,
    "mve": 4.0,
}

#: The table, and of the stratified ones those between them that have all that is their own: a soft sample, a control.
ESTIMATORS = (*reference.TERMS, "stratified_gumbel_rao", "stratified_reinmax_cv")

#: What rounding moves a boundary of the CDF by at most, as a share of the total. Float32 weights: exp is right to
#: 2**-22, and so is every sum of them; the same again for the order of the summation.
CDF_ERROR = {torch.float64: 1e-13}
CDF_ERROR_FLOAT32 = 2.0**-21


def assert_same_draws(got: Tensor, logits: Tensor, seed: Tensor, sample_tau: float = 1.0, first_row: int = 0) -> Tensor:
    """``got`` is the reference's index, but where a category's boundary lies so near to the row's uniform that rounding
    decides which side it is on. Returns the reference's index, on the CPU."""
    logits, seed, got = logits.cpu(), seed.cpu(), got.cpu()
    want = reference.sample(logits, seed, (1.0, 0.0, sample_tau), first_row)[1]
    rows, flat, drawn = logits.double().reshape(-1, logits.shape[-1]), want.reshape(-1), got.reshape(-1)
    for row in torch.nonzero(flat != drawn).flatten().tolist():
        index = int(drawn[row])
        assert 0 <= index < rows.shape[1], f"row {row}: got index {index}, want {int(flat[row])}"
        assert int(flat[row]) >= 0, f"row {row}: got index {index} where the row has no sample"
        assert rows[row, index] > -math.inf, f"row {row}: got the masked category {index}"
        weight = ((rows[row] - rows[row].max()) / sample_tau).exp()
        cdf = weight.cumsum(-1) / weight.sum()
        uniform = float(philox.uniform(seed, len(rows), first_row)[row])
        below, above = float(cdf[index - 1]) if index else 0.0, float(cdf[index])
        error = CDF_ERROR.get(logits.dtype, CDF_ERROR_FLOAT32)
        near = below - error <= uniform <= above + error
        assert near, f"row {row}: got index {index}, want {int(flat[row])}, no tie: {below}, {uniform}, {above}"
    return want
