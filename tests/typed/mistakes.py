"""Each line is wrong: both type checkers must say so."""

import torch

import discrete_ops as do

logits = torch.zeros(4, 3)
do.reinmax(logits, temperature=0.5)
do.gst(logits, gap="e")
do.gst(logits, gap=None)
do.reinmax_cv(logits, control="hard")
do.gumbel_softmax(logits, 1.0, "yes")
do.straight_through(logits, dim="last")
do.straight_through([1.0, 2.0])
do.reinmax(logits, return_index=True).argmax(-1)
index: int = do.reinmax(logits)
do.estimator(0.5)
do.top_k(logits, 2, hard=False)
do.top_k(logits)
do.nn.StraightThroughCategorical(estimator=3)
do.distributions.OneHotCategoricalStraightThrough(logits=logits, unimix="1%")
do.estimators.GST()(logits, dimm=3)
do.nn.StraightThroughCategorical().tau = "1"
do.embedding(logits, logits.T, tau=0.5)
do.embedding(logits, logits.T, soft="yes")
do.embedding(logits, logits.T, return_index=True).sum()
do.nn.StraightThroughEmbedding(3)
do.linear_embedding(logits, logits, logits, 0.5)
