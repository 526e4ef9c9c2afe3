"""The training loop: one run from its config to its directory.

``config.json`` (the config and what it ran on), ``metrics.jsonl`` (one ``Record`` a line), ``checkpoint.pt``, and at
the end ``result.json``. Every random number comes from a generator whose state is in the checkpoint, so a run that was
interrupted after any epoch and resumed ends with the figures of one that was not (bit for bit on a CPU with one
thread).
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from discrete_ops import build_info
from tasks.common import checkpoint, events, interrupts
from tasks.common.errors import RunError
from tasks.common.files import append, locked, write_json, write_text

from . import given, treelstm, trees
from .data import Batch, Lines, Splits, digest_of
from .model import Parser
from .recipes import LONGER, Config

EVAL_TOKENS = 16_384  #: at once in a greedy pass

#: An epoch's figures: epoch (from 1); train_loss (nats) and train_accuracy of the sampled trees; of the greedy trees on
#: the validation lines valid_accuracy, valid_f1 against the gold trees, valid_depth, and the F1 of trees that know
#: nothing, valid_f1_random, _left and _right; lines_per_second while training; seconds of wall time and cpu_seconds of
#: all threads, validation included.
Record = dict[str, float]


class Steps(NamedTuple):
    """How far an epoch is, in optimiser steps."""

    epoch: int
    done: int
    total: int


class Trainer:
    """Model, optimiser and random generators of one run, and what it has recorded so far."""

    def __init__(self, config: Config, splits: Splits) -> None:
        self.config = config
        self.train, self.valid = (
            _shorter(lines, config.max_tokens, name)
            for name, lines in (("train", splits.train), ("valid", splits.valid))
        )
        root = torch.Generator().manual_seed(config.seed)
        weights, order, dropout, choice = torch.randint(2**63 - 1, (4,), generator=root).tolist()
        self.generators = {
            "order": torch.Generator().manual_seed(order),
            "dropout": torch.Generator(config.device).manual_seed(dropout),
            "choice": torch.Generator("cpu" if config.trees != "learned" else config.device).manual_seed(choice),
        }
        self.model = parser(config, torch.Generator().manual_seed(weights))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.lr, fused=True)
        self.data_hashes = {f"{name}.tsv": digest_of(getattr(splits, name)) for name in ("train", "valid")}
        self.history: list[Record] = []
        self.best = _copy(self.model.state_dict())

    @property
    def epoch(self) -> int:
        return len(self.history)

    @property
    def steps_per_epoch(self) -> int:
        steps = math.ceil(len(self.train) / self.config.batch_size)
        return min(steps, self.config.epoch_steps or steps)

    @property
    def best_epoch(self) -> int:
        """The first of the best validation accuracy; 0 before the first."""
        accuracies = [record["valid_accuracy"] for record in self.history]
        return 1 + accuracies.index(max(accuracies)) if accuracies else 0

    @property
    def finished(self) -> bool:
        return self.epoch >= self.config.epochs or self.epoch - self.best_epoch >= self.config.patience

    def run_epoch(self, on_step: Callable[[Steps], None]) -> Record:
        """Train on the lines once (or for ``epoch_steps``), then validate; add and return the record."""
        start, cpu_start = time.perf_counter(), time.process_time()
        total = torch.zeros(2, dtype=torch.float64, device=self.config.device)
        count = 0
        on_step(Steps(self.epoch + 1, 0, self.steps_per_epoch))
        batches = self.train.shuffled(self.config.batch_size, self.generators["order"])
        for step, batch in enumerate(islice(batches, self.steps_per_epoch), 1):
            total += self._step(batch.to(self.config.device)) * len(batch.numbers)
            count += len(batch.numbers)
            on_step(Steps(self.epoch + 1, step, self.steps_per_epoch))
        loss, accuracy = (total / count).tolist()
        trained = time.perf_counter() - start
        record = {"epoch": self.epoch + 1, "train_loss": loss, "train_accuracy": accuracy}
        record |= {f"valid_{name}": value for name, value in evaluate(self.model, self.config, self.valid).items()}
        record |= {"lines_per_second": count / trained, "seconds": time.perf_counter() - start}
        record |= {"cpu_seconds": time.process_time() - cpu_start}
        for name, value in record.items():
            if not math.isfinite(value):
                raise RunError(f"{self.config.estimator}: {name} is {value} in epoch {record['epoch']}")
        if record["valid_accuracy"] > max((each["valid_accuracy"] for each in self.history), default=-1.0):
            self.best = _copy(self.model.state_dict())
        self.history.append(record)  # last: with it the epoch is done
        return record

    def _step(self, batch: Batch) -> Tensor:
        """One update; returns loss and accuracy."""
        noise = self.generators["choice"]
        if self.config.trees == "learned":
            choose: treelstm.Choice | Tensor = estimator_choice(self.config, batch.tokens.shape[1], noise)
        else:
            choose = given.merges(self.config.trees, batch, self.train, noise)
        logits, _ = self.model(batch, choose, self.generators["dropout"])
        loss = cross_entropy(logits, batch.labels)
        self.optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        return torch.stack((loss.detach(), (logits.argmax(-1) == batch.labels).float().mean())).double()

    def best_model(self) -> Parser:
        """The model as it was after the best epoch."""
        model = parser(self.config, torch.Generator())
        model.load_state_dict(self.best)
        return model

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "data": self.data_hashes,
            "history": self.history,
            "model": self.model.state_dict(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "generators": {name: generator.get_state() for name, generator in self.generators.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history = state["history"]
        self.model.load_state_dict(state["model"])
        self.best = state["best"]
        self.optimizer.load_state_dict(state["optimizer"])
        for name, generator in self.generators.items():
            generator.set_state(state["generators"][name])


def parser(config: Config, generator: torch.Generator) -> Parser:
    """The config's model with weights from ``generator``, on its device."""
    return Parser(config.hidden, config.dropout, generator, config.leaf).to(config.device)


def estimator_choice(config: Config, tokens: int, noise: torch.Generator) -> treelstm.Choice:
    """Draws with the config's estimator, with a seed for each level of a batch of up to ``tokens`` tokens."""
    estimator = config.build_estimator()
    seeds = torch.randint(2**63 - 1, (tokens,), generator=noise, device=noise.device)

    def choose(scores: Tensor, level: int) -> tuple[Tensor, Tensor]:
        seed = seeds[level : level + 1]
        drawn: tuple[Tensor, Tensor] = estimator(scores, seed=seed, return_index=True, backend=config.backend)
        return drawn

    return choose


@torch.no_grad()
def evaluate(model: Parser, config: Config, lines: Lines) -> Record:
    """Means over the lines: accuracy, parse F1 and depth of the greedy trees, or the given ones, and the baselines' F1.

    Random trees, of a config that asks for them, are the same ones in every call.
    """
    sums, noise = torch.zeros(6, dtype=torch.float64), torch.Generator().manual_seed(0)
    for batch in lines.in_order(EVAL_TOKENS):
        choose = treelstm.greedy if config.trees == "learned" else given.merges(config.trees, batch, lines, noise)
        logits, merges = model(batch.to(config.device), choose)
        sums[0] += int((logits.argmax(-1).cpu() == batch.labels).sum())
        for number, length, row in zip(batch.numbers.tolist(), batch.lengths.tolist(), merges.tolist(), strict=True):
            tree, gold = trees.spans(row[: length - 1]), trees.gold_spans(lines.texts[number])
            sums[1:] += torch.tensor(
                (trees.f1(tree, gold), trees.depth(tree), *trees.baselines(gold)), dtype=torch.float64
            )
    names = ("accuracy", "f1", "depth", *(f"f1_{name}" for name in trees.Baselines._fields))
    return dict(zip(names, (sums / len(lines)).tolist(), strict=True))


def fit(
    config: Config,
    splits: Splits,
    out: Path,
    *,
    resume: bool = True,
    tensorboard: bool = False,
    on_step: Callable[[Steps], None] = lambda steps: None,
    on_epoch: Callable[[Record], None] = lambda record: None,
    on_start: Callable[[str], None] = lambda text: None,
) -> Trainer:
    """Train in the directory ``out``, from its checkpoint on if there is one, until the last epoch or an early stop.

    Args:
        config: what to run.
        splits: lines of any length; those of more than ``max_tokens`` tokens are left out of training.
        out: made if missing.
        resume: False starts anew, over what lies in ``out``.
        tensorboard: also write TensorBoard's event files to ``out``.
        on_step, on_epoch: called after each optimiser step (and before an epoch's first) and each epoch.
        on_start: told whether the run goes on from a checkpoint, and from where.

    Raises:
        Occupied: another process trains in ``out``.
        RunError: the checkpoint is damaged, of another config or of other lines; a file cannot be written; no line is
            short enough; a figure is not finite.
    """
    with locked(out, wait=False):
        trainer = Trainer(config, splits)
        path = out / "checkpoint.pt"
        was_there = path.exists()
        if resume and was_there:
            _resume(trainer, path)
        else:
            path.unlink(missing_ok=True)
        on_start(checkpoint.beginning(path, trainer.epoch, config.epochs, trainer.finished, was_there))
        environment = {**build_info(), "threads": torch.get_num_threads(), "data": splits.digest()}
        write_json(out / "config.json", {**asdict(config), "environment": environment})
        # metrics.jsonl is behind the checkpoint by an epoch if the run was killed between the two.
        write_text(out / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in trainer.history))
        writer = events.Events(out, trainer.epoch) if tensorboard else None
        if not trainer.finished:
            (out / "result.json").unlink(missing_ok=True)  # of a shorter run, or of another

        def count_step(steps: Steps) -> None:
            interrupts.raise_lost()
            on_step(steps)

        while not trainer.finished:
            saved = trainer.epoch
            try:
                record = trainer.run_epoch(count_step)
                checkpoint.save(path, [config], trainer.state_dict())
            except KeyboardInterrupt:
                if trainer.epoch > saved:  # between the end of the epoch and that of its checkpoint
                    with interrupts.ignored():
                        checkpoint.save(path, [config], trainer.state_dict())
                raise
            append(out / "metrics.jsonl", json.dumps(record) + "\n")
            if writer:
                writer.add(record, trainer.epoch)
            on_epoch(record)
        if writer:
            writer.close()
        write_json(out / "result.json", result(trainer, splits.test))
    return trainer


def result(trainer: Trainer, test: Lines) -> Record:
    """Test figures of the best epoch's model: on the lines of at most ``max_tokens`` tokens, and on all."""
    model, config = trainer.best_model(), trainer.config
    figures: Record = {"epoch": trainer.best_epoch}
    for name, lines in (("test", test.shorter(config.max_tokens)), ("test_all", test)):
        figures |= {f"{name}_lines": len(lines)}
        if len(lines):
            figures |= {f"{name}_{key}": value for key, value in evaluate(model, config, lines).items()}
    return figures


def load(config: Config, splits: Splits, out: Path) -> Trainer:
    """The run in ``out`` as its checkpoint has it."""
    trainer = Trainer(config, splits)
    _resume(trainer, out / "checkpoint.pt")
    return trainer


def _resume(trainer: Trainer, path: Path) -> None:
    checkpoint.restore(path, [trainer.config], trainer.load_state_dict, trainer.data_hashes, LONGER)


def _shorter(lines: Lines, max_tokens: int, name: str) -> Lines:
    kept = lines.shorter(max_tokens)
    if not len(kept):
        shortest = int(lines.lengths.min())
        raise RunError(f"max_tokens: got {max_tokens}, allowed: {shortest} or more, the shortest {name} line's length")
    return kept


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}
