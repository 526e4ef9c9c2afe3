"""The trainer: M independent runs side by side, in blocks whose every weight has a leading member axis.

The members share data set, shapes, batch size and epochs. Each has its own estimator, learning rate, optimiser and
seed, and every random number of a member (initial weights, order of the data, noise) comes from generators that its
seed alone decides: trained in any company, it ends with the figures it has alone.
"""

import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tasks.common.errors import RunError

from . import data
from .block import Block
from .graphs import CapturedStep
from .linear import by_member
from .model import VAE
from .parallel import Alone, Processes
from .recipes import Config
from .streams import Streams

EVAL_BATCH = 1000  #: images at once in the test pass

#: Members of a block where their products go one by one: enough of them that Python's part of a step counts little,
#: few enough that what they work on stays in the cache.
TOGETHER = 4

#: What members of one ensemble have in common.
SHARED = (
    *("latent", "relu_logits", "leak", "binarize", "data", "train_images", "batch_size", "epochs"),
    *("shared_order", "variance_draws", "variance_every", "device", "backend"),
)

#: A member's figures of an epoch: epoch (from 1); {train,test}_{loss,bce,kl} in nats an image; variance of the gradient
#: where that was asked for; seconds of wall time of the whole ensemble, test included.
Record = dict[str, float]


def first_failure(history: Sequence[Record]) -> int | None:
    """The first epoch of a run in which a figure was not finite, if there was one."""
    return next((int(r["epoch"]) for r in history if not all(map(math.isfinite, r.values()))), None)


class Ensemble:
    """Blocks and random generators of M runs, and what they have recorded so far.

    Args:
        configs: one a member; ``SHARED`` lists what must not differ.
        images: the data set that they name.
        dtype: of weights and images.
        processes: that share each batch.
    """

    def __init__(
        self,
        configs: Sequence[Config],
        images: data.Images,
        dtype: torch.dtype = torch.float32,
        processes: Processes | None = None,
    ) -> None:
        for name in SHARED:
            values = sorted({str(getattr(config, name)) for config in configs})
            if len(values) != 1:
                raise RunError(f"{name}: got {', '.join(values)} in one ensemble, allowed: one value for all members")
        self.configs = list(configs)
        first = self.config = self.configs[0]
        self.processes = processes or Alone()
        train, test = (part.to(first.device, dtype) for part in images)
        self.images = data.Images(train[: first.train_images], test)
        self.streams = {config.seed: Streams(config.seed, first.shared_order) for config in configs}
        seeds = list(self.streams)
        self._stream_of = torch.tensor([seeds.index(config.seed) for config in configs], device=first.device)
        keys: dict[Any, list[int]] = {}
        for member, config in enumerate(configs):
            keys.setdefault(Block.key(config), []).append(member)
        size = TOGETHER if by_member(torch.device(first.device), dtype) else len(configs)
        self.blocks = [
            Block(part, [configs[m] for m in part], images.pixels, dtype, self.streams, self.processes.wrap)
            for members in keys.values()
            for part in [members[at : at + size] for at in range(0, len(members), size)]
        ]
        captured = train.is_cuda and self.processes.count == 1
        self._step = CapturedStep(self.step) if captured else self.step
        self.history: list[list[Record]] = []  # an epoch's records, one a member

    @property
    def epoch(self) -> int:
        return len(self.history)

    @functools.cached_property
    def data_hashes(self) -> dict[str, str]:
        """The hash of each part of the data set, which a checkpoint notes."""
        return {f"{name} images": data.digest(part) for name, part in self.images._asdict().items()}

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.images.train) / self.config.batch_size)

    def history_of(self, member: int) -> list[Record]:
        return [records[member] for records in self.history]

    def failed(self, member: int) -> int | None:
        """The first epoch in which a figure of the member was not finite, if there was one."""
        return first_failure(self.history_of(member))

    def member(self, member: int) -> VAE:
        """A copy of one member as a model of its own."""
        block = next(block for block in self.blocks if member in block.members)
        return block.model.alone(block.members.index(member))

    def run_epoch(self, on_step: Callable[[], None] = lambda: None) -> list[Record]:
        """Train on every image once, then test on every image once; add and return the records, one a member."""
        start = time.perf_counter()
        train = self._train(on_step)
        with torch.no_grad():
            test = self._test()
        variance = self._variance()
        seconds = round(time.perf_counter() - start, 4)
        records: list[Record] = []
        for member in range(len(self.configs)):
            record: Record = {"epoch": self.epoch + 1}
            for name, means in (("train", train), ("test", test)):
                bce, kl = means[member]
                record |= {f"{name}_loss": bce + kl, f"{name}_bce": bce, f"{name}_kl": kl}
            if variance is not None:
                record["variance"] = variance[member]
            records.append({**record, "seconds": seconds})
        self.history.append(records)
        return records

    def step(self, index: Tensor, seed: Tensor, tau: Tensor) -> Tensor:
        """One update of every member: a pure function of its arguments and of the members' state.

        Args:
            index: ``(M, B)``: the images of the batch.
            seed: ``(M,)`` int64: of the noise.
            tau: ``(M,)`` float64: temperature of the members that mix them.

        Returns:
            The two halves of -ELBO, ``(2, M)``.
        """
        terms = torch.empty(2, len(self.configs), dtype=self.images.train.dtype, device=seed.device)
        for block in self.blocks:
            m = block.places
            # Not train[index[m]], which takes five times as long on a CPU.
            images = self.images.train.index_select(0, index[m].flatten()).unflatten(0, (len(block.members), -1))
            terms[:, m] = block.step(images, seed[m], tau[m])
        return terms

    def _train(self, on_step: Callable[[], None]) -> list[list[float]]:
        """Running means over an epoch of the two halves of -ELBO, a pair a member."""
        steps, count = self.steps_per_epoch, len(self.images.train)
        order = self._each_stream(lambda stream: stream.order(count))
        seeds = self._each_stream(lambda stream: stream.seeds("noise", steps))
        taus = self._temperatures(steps)
        total, seen = self._totals(), 0
        for step, index in enumerate(order.split(self.config.batch_size, 1)):
            share = self.processes.share(index)
            if share.shape[1]:
                terms = self._step(share, self.processes.own(seeds[:, step]), taus[:, step])
                total += terms * share.shape[1]
                seen += share.shape[1] * self.processes.count
            on_step()
        return (self.processes.sum(total) / seen).t().tolist()

    def _test(self) -> list[list[float]]:
        """The same of one pass over the test images."""
        batches = self.images.test.split(EVAL_BATCH)
        seeds = self._each_stream(lambda stream: stream.seeds("test", len(batches)))
        total = self._totals()
        for batch, seed in zip(batches, seeds.unbind(1), strict=True):
            for block in self.blocks:
                total[:, block.places] += block.terms(batch, seed[block.places]) * len(batch)
        return (total / len(self.images.test)).t().tolist()

    def _variance(self) -> list[float] | None:
        """Variance of the gradient on the first test images, one a member; None where it was not asked for now."""
        draws, every, epoch = self.config.variance_draws, self.config.variance_every, self.epoch + 1
        if not draws or not (epoch % every == 0 if every else epoch == self.config.epochs):
            return None
        seeds = self._each_stream(lambda stream: stream.seeds("variance", draws))
        variance = torch.zeros(len(self.configs), dtype=torch.float64, device=self.config.device)
        for block in self.blocks:
            images = self.images.test[:EVAL_BATCH]
            variance[block.places] = block.gradient_variance(images, seeds.t()[:, block.places])
        return variance.tolist()

    def _each_stream(self, draw: Callable[[Streams], Tensor]) -> Tensor:
        """What each seed's streams draw, ``(n,)``, for each member, ``(M, n)``; one transfer to the device."""
        return torch.stack([draw(stream) for stream in self.streams.values()]).to(self.config.device)[self._stream_of]

    def _temperatures(self, steps: int) -> Tensor:
        """``(M, steps)`` float64: of a member with mixed temperatures, what each step of an epoch takes. GST A.3."""
        taus = torch.ones(len(self.configs), steps, dtype=torch.float64)
        for config, row in zip(self.configs, taus, strict=True):
            if config.mid_tau is not None:
                row[:] = config.mid_tau
                row[:: config.low_every] = config.tau
        return taus.to(self.config.device)

    def _totals(self) -> Tensor:
        return torch.zeros(2, len(self.configs), dtype=torch.float64, device=self.config.device)

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "data": self.data_hashes,
            "history": self.history,
            "blocks": [block.state_dict() for block in self.blocks],
            "generators": {seed: stream.state_dict() for seed, stream in self.streams.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if isinstance(self._step, CapturedStep):
            self._step.forget()  # the optimisers get new tensors
        self.history = state["history"]
        for block, saved in zip(self.blocks, state["blocks"], strict=True):
            block.load_state_dict(saved)
        for seed, stream in self.streams.items():
            stream.load_state_dict(state["generators"][seed])
