"""The distribution for Pyro models; needs ``pip install discrete-ops[pyro]``."""

from pyro.distributions.torch_distribution import TorchDistributionMixin

from . import distributions


class OneHotCategoricalStraightThrough(  # type: ignore[misc]
    distributions.OneHotCategoricalStraightThrough, TorchDistributionMixin
):
    """:class:`discrete_ops.distributions.OneHotCategoricalStraightThrough`, for ``pyro.sample``."""
