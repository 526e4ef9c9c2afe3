"""What stands before an estimator's name where its rows or its draws are of another kind."""

#: Before any estimator: logits ``(..., 1)`` of binary variables. The row of l is ``[l, 0]``, of which the second
#: category is in no memory; what goes in and comes out belongs to the first. And what that adds to the number.
BINARY, BINARY_NUMBER = "binary_", 512
#: K of "binary_gumbel_rao": its mean over all draws, without one.
ALL_DRAWS = 0
#: Before "gst" or "gst_pi": the same sample and h, with the gradient through m1 and m2 too. In the reference alone.
NONZERO = "nonzero_"

#: Before an estimator that takes draws: they are stratified. A number that is added to its place in the table.
STRATIFIED, STRATIFIED_NUMBER = "stratified_", 256
WITH_DRAWS = ("gumbel_rao", "reinmax_rao", "reinmax_cv", "reinmax_cv_gumbel")


def is_binary(estimator: str) -> bool:
    return estimator.startswith(BINARY)


def without_binary(estimator: str) -> str:
    return estimator.removeprefix(BINARY)


def is_stratified(estimator: str) -> bool:
    return without_binary(estimator).startswith(STRATIFIED)


def row_of(estimator: str) -> str:
    """Its key in ``TERMS``."""
    return without_binary(estimator).removeprefix(STRATIFIED).removeprefix(NONZERO)
