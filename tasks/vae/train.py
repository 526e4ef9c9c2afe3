"""The training loop: one run from its config to its directory.

``config.json`` (the config and what it ran on), ``metrics.jsonl`` (one ``Record`` a line) and ``checkpoint.pt``. Every
random number comes from a generator whose state is in the checkpoint, so a run that was interrupted after any epoch
and resumed ends with the figures of one that was not (bit for bit on a CPU with one thread).
"""

import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from discrete_ops import build_info

from . import checkpoint, data
from .errors import RunError
from .model import VAE
from .recipes import Config

EVAL_BATCH = 1000  #: images at once in the test pass
MEMBERS = 1  #: a run trains one model

#: An epoch's figures: epoch (from 1); {train,test}_{loss,bce,kl} in nats an image; seconds of wall time, test included.
Record = dict[str, float]


class Steps(NamedTuple):
    """How far a run is, in optimiser steps."""

    done: int
    total: int


class Trainer:
    """Model, optimiser and random generators of one run, and what it has recorded so far."""

    def __init__(self, config: Config, images: data.Images) -> None:
        self.config = config
        self.images = images.to(config.device)
        self.estimator = config.build_estimator()
        root = torch.Generator().manual_seed(config.seed)
        weights, order, noise, test = torch.randint(2**63 - 1, (4,), generator=root).tolist()
        # The test pass has noise of its own, so that looking at a run does not change it.
        self.generators = {
            "order": torch.Generator().manual_seed(order),
            "noise": torch.Generator(config.device).manual_seed(noise),
            "test": torch.Generator(config.device).manual_seed(test),
        }
        self.model = VAE(
            MEMBERS,
            images.pixels,
            config.latents,
            config.categories,
            config.relu_logits,
            torch.Generator().manual_seed(weights),
        ).to(config.device)
        self.optimizer = _optimizer(config, self.model)
        self.history: list[Record] = []

    @property
    def epoch(self) -> int:
        return len(self.history)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.images.train) / self.config.batch_size)

    def run_epoch(self, on_step: Callable[[], None]) -> Record:
        """Train on every image once, then test on every image once; add and return the record."""
        start = time.perf_counter()
        batches = data.batches(self.images.train, self.config.batch_size, self.generators["order"])
        figures = {"epoch": self.epoch + 1, **self._pass("train", batches, on_step)}
        with torch.no_grad():
            figures |= self._pass("test", self.images.test.split(EVAL_BATCH))
        record = {**figures, "seconds": round(time.perf_counter() - start, 4)}
        for name, value in record.items():
            if not math.isfinite(value):
                raise RunError(f"{self.config.estimator}: {name} is {value} in epoch {record['epoch']}")
        self.history.append(record)
        return record

    def _pass(self, name: str, batches: Iterable[Tensor], on_step: Callable[[], None] | None = None) -> Record:
        """Means over images of the two halves of -ELBO; ``on_step`` asks for an update after each batch."""
        noise = self.generators["noise" if on_step else "test"]
        total = torch.zeros(2, MEMBERS, dtype=torch.float64, device=self.config.device)
        count = 0
        for batch in batches:
            seed = torch.randint(2**63 - 1, (MEMBERS,), generator=noise, device=self.config.device)
            terms = torch.stack(self.model(batch, self.estimator, seed, self.config.backend))
            if on_step:
                self.optimizer.zero_grad()
                terms.sum().backward()
                self.optimizer.step()
                on_step()
            total += terms.detach() * len(batch)
            count += len(batch)
        bce, kl = (total.squeeze(-1) / count).tolist()
        return {f"{name}_loss": bce + kl, f"{name}_bce": bce, f"{name}_kl": kl}

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "history": self.history,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generators": {name: generator.get_state() for name, generator in self.generators.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history = state["history"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name, generator in self.generators.items():
            generator.set_state(state["generators"][name])


def fit(
    config: Config,
    images: data.Images,
    out: Path,
    *,
    resume: bool = True,
    tensorboard: bool = False,
    on_step: Callable[[Steps], None] = lambda steps: None,
    on_epoch: Callable[[Record], None] = lambda record: None,
) -> Trainer:
    """Train in the directory ``out``, from its checkpoint on if there is one.

    Args:
        config: what to run.
        images: the data set that it names.
        out: made if missing.
        resume: False starts anew, over what lies in ``out``.
        tensorboard: also write TensorBoard's event files to ``out``.
        on_step, on_epoch: called after each optimiser step and each epoch, and ``on_step`` before the first.

    Raises:
        RunError: the checkpoint is damaged or of another config, or a figure is not finite.
    """
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(config, images)
    path = out / "checkpoint.pt"
    if resume and path.exists():
        trainer.load_state_dict(checkpoint.load(path, config))
    else:
        path.unlink(missing_ok=True)
    environment = {**build_info(), "threads": torch.get_num_threads()}
    checkpoint.write_json(out / "config.json", {**asdict(config), "environment": environment})
    # The checkpoint is behind metrics.jsonl by an epoch if the run was killed between the two.
    lines = "".join(json.dumps(record) + "\n" for record in trainer.history)
    checkpoint.write_atomically(out / "metrics.jsonl", lambda file: file.write(lines.encode()))
    writer = _tensorboard(out, trainer.epoch) if tensorboard else None

    done, total = trainer.epoch * trainer.steps_per_epoch, config.epochs * trainer.steps_per_epoch

    def count_step() -> None:
        nonlocal done
        done += 1
        on_step(Steps(done, total))

    on_step(Steps(done, total))
    while trainer.epoch < config.epochs:
        record = trainer.run_epoch(count_step)
        with open(out / "metrics.jsonl", "a") as file:
            file.write(json.dumps(record) + "\n")
        checkpoint.save(path, config, trainer.state_dict())
        if writer:
            for name, value in record.items():
                writer.add_scalar(name, value, trainer.epoch)
            writer.flush()
        on_epoch(record)
    if writer:
        writer.close()
    return trainer


def load(config: Config, images: data.Images, out: Path) -> Trainer:
    """The run in ``out`` as its checkpoint has it."""
    trainer = Trainer(config, images)
    trainer.load_state_dict(checkpoint.load(out / "checkpoint.pt", config))
    return trainer


def _optimizer(config: Config, model: VAE) -> torch.optim.Optimizer:
    # Weight by weight, Adam would take a third of a step's time on a CPU; RAdam has no fused form.
    if config.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=config.lr, fused=True)
    return torch.optim.RAdam(model.parameters(), lr=config.lr, foreach=True)


def _tensorboard(out: Path, epoch: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RunError("tensorboard: is not installed; pip install tensorboard") from error
    return SummaryWriter(str(out), purge_step=epoch + 1)
