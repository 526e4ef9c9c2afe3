"""The random numbers of a run, all decided by its seed."""

import torch
from torch import Tensor


class Streams:
    """The random generators of one seed, on the CPU. Members of an ensemble that share a seed share its numbers.

    ``order`` of the images, ``noise`` of the training draws; ``test`` and ``variance`` of what only looks at a run,
    which therefore does not change it.
    """

    def __init__(self, seed: int, shared_order: bool) -> None:
        root = torch.Generator().manual_seed(seed)
        weights, order, noise, test, variance = torch.randint(2**63 - 1, (5,), generator=root).tolist()
        self.weights = weights
        self.generators = {
            "order": torch.Generator().manual_seed(0 if shared_order else order),
            "noise": torch.Generator().manual_seed(noise),
            "test": torch.Generator().manual_seed(test),
            "variance": torch.Generator().manual_seed(variance),
        }

    def order(self, images: int) -> Tensor:
        """``(images,)``: a permutation, the order of an epoch."""
        return torch.randperm(images, generator=self.generators["order"])

    def seeds(self, name: str, count: int) -> Tensor:
        """``(count,)`` int64: seeds of as many draws."""
        return torch.randint(2**63 - 1, (count,), generator=self.generators[name])

    def state_dict(self) -> dict[str, Tensor]:
        return {name: generator.get_state() for name, generator in self.generators.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, saved in state.items():
            self.generators[name].set_state(saved)
