"""What a user's type checker must understand; checked by mypy --strict and pyright, run by nobody."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from typing_extensions import assert_type

import discrete_ops as do

logits = torch.zeros(4, 3)
flag = bool(torch.rand(()) > 0.5)

assert_type(do.reinmax(logits), Tensor)
assert_type(do.reinmax(logits, return_index=False), Tensor)
assert_type(do.reinmax(logits, 0.5, return_index=True), tuple[Tensor, Tensor])
assert_type(do.gumbel_rao(logits, num_samples=3, hard=False, dim=0, return_index=flag), Tensor | tuple[Tensor, Tensor])
assert_type(do.gst(logits, torch.tensor(0.5), "pi", mask=logits > -1, seed=3), Tensor)
assert_type(do.gumbel_softmax(logits, 1.0, True, 1e-10, 0), Tensor)
assert_type(do.straight_through(logits, sample_tau=2.0, generator=torch.Generator(), backend="reference"), Tensor)
assert_type(do.reinmax_cv(logits, control="gumbel", eta=torch.tensor(0.7)), Tensor)
assert_type(do.reinmax_rk2(logits, 0.25, centred=True), Tensor)
assert_type(do.reinmax_rao(logits, 1.0, 10), Tensor)
assert_type(do.reinmax_argmax(logits), Tensor)
assert_type(do.top_k(logits, 2), Tensor)
assert_type(do.top_k(logits, 2, do.estimators.GST(), return_index=True, dim=0, seed=3), tuple[Tensor, Tensor])
assert_type(do.top_k(logits, 2, "reinmax", return_index=flag, mask=logits > 0), Tensor | tuple[Tensor, Tensor])
assert_type(do.expected_gap(logits, logits.argmax(-1)), Tensor)

table = torch.zeros(3, 2)
assert_type(do.linear_embedding(logits, table, table), Tensor)
assert_type(do.linear_embedding(logits, table, table, "reinmax", return_index=True), tuple[Tensor, Tensor])

estimator = do.estimator("gst(tau=0.5)")
assert_type(estimator, do.estimators.Estimator)
assert_type(estimator(logits), Tensor)
assert_type(do.estimators.GST(0.5, gap="pi")(logits, return_index=True), tuple[Tensor, Tensor])

layer = do.nn.StraightThroughCategorical(estimator)
layer.tau = 0.5
model: nn.Module = nn.Sequential(nn.Linear(3, 3), layer)
sampler: Callable[[Tensor], Tensor] = do.straight_through

table = nn.Parameter(torch.zeros(3, 8))
assert_type(do.embedding(logits, table), Tensor)
assert_type(do.embedding(logits, table, "gst", soft=True, return_index=True), tuple[Tensor, Tensor])
assert_type(do.embedding(logits, table, estimator, dim=0, return_index=flag), Tensor | tuple[Tensor, Tensor])
codebooks = do.nn.StraightThroughEmbedding(3, 8, "reinmax", tables=4, dtype=torch.float64)
codebooks.tau = 0.5
assert_type(codebooks.forward(logits), Tensor)
assert_type(codebooks.forward(logits, return_index=True), tuple[Tensor, Tensor])
assert_type(codebooks.weight, nn.Parameter)

policy = do.distributions.OneHotCategoricalStraightThrough(logits=logits, estimator="reinmax", unimix=0.01)
assert_type(policy.rsample((2,)), Tensor)
assert_type(policy.expand((2, 4)).sample(), Tensor)

sample, probs = do.compat.reinmax(logits, 1.0)
assert_type(sample, Tensor)
assert_type(do.compat.gumbel_rao(logits, 3), Tensor)
assert_type(do.__version__, str)
assert_type(do.available_backends(), tuple[str, ...])
with do.patch_torch(), do.use_backend("reference"):
    pass
