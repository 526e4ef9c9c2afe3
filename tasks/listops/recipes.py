"""What a run computes: the presets, and the frozen ``Config`` that they and the flags make.

Source: GST is Fan et al., ICML 2022 (section on ListOps, Table 6).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch

from discrete_ops import backends, checks
from discrete_ops.estimators import ESTIMATORS, Estimator
from tasks.common.errors import RunError
from tasks.common.settings import check_device, parameters, refuse_unused

HYPER_PARAMETERS = ("tau", "gap", "eta", "num_samples")  # of the estimators
LEAVES = ("lstm", "affine")
TREES = ("learned", "gold", "left", "right", "random")
LONGER = ("epochs", "patience")  #: may differ from a checkpoint's: a run may be made longer


@dataclass(frozen=True)
class Preset:
    """A size of the experiment; every field can be overridden by a flag."""

    hidden: int
    max_tokens: int
    dropout: float
    epochs: int
    patience: int
    batch_size: int
    lr: float = 1e-3
    clip: float = 5.0
    epoch_steps: int | None = None
    tau: float = 1.0
    gap: float = 1.0
    eta: float = 1.5
    num_samples: int = 100
    leaf: str = "lstm"
    trees: str = "learned"


PRESETS: dict[str, Preset] = {
    # Sizes, batch and epochs as the paper's public code has them.
    "paper": Preset(hidden=300, max_tokens=100, dropout=0.5, epochs=20, patience=5, batch_size=16),
    "small": Preset(hidden=64, max_tokens=30, dropout=0.0, epochs=6, patience=3, batch_size=64, lr=2e-3),
}


@dataclass(frozen=True)
class Config:
    """All that decides a run's figures, with the data. ``None`` where the estimator has no such hyper-parameter."""

    preset: str
    estimator: str
    tau: float | None
    gap: float | str | None
    eta: float | None
    num_samples: int | None
    hidden: int
    max_tokens: int
    dropout: float
    lr: float
    clip: float
    batch_size: int
    epochs: int
    epoch_steps: int | None
    patience: int
    seed: int
    device: str
    backend: str
    leaf: str = "lstm"
    trees: str = "learned"

    def build_estimator(self) -> Estimator:
        """The estimator, which checks its hyper-parameters."""
        given = {name: getattr(self, name) for name in HYPER_PARAMETERS}
        return ESTIMATORS[self.estimator](**{name: value for name, value in given.items() if value is not None})


def configure(
    preset: str = "small",
    estimator: str = "gst",
    seed: int = 0,
    device: str = "cpu",
    backend: str | None = None,
    **overrides: Any,
) -> Config:
    """A preset for one estimator, with overrides.

    Args:
        preset, estimator: a key of ``PRESETS``, of ``ESTIMATORS``.
        seed: of the weights, the order of the data and the noise, in ``[0, 2**63)``.
        device: as torch names it.
        backend: of discrete_ops; the device's default if None.
        overrides: any field of ``Preset``; None leaves the preset's value.

    Raises:
        RunError: naming the argument, what came and what is allowed.
    """
    try:
        checks.choice("preset", preset, tuple(PRESETS))
        checks.choice("estimator", estimator, tuple(ESTIMATORS))
        given = {name: value for name, value in overrides.items() if value is not None}
        config = Config(
            preset=preset,
            estimator=estimator,
            seed=checks.count("seed", seed, 0, 2**63 - 1),
            device=check_device(device),
            backend=backends.resolve(backend, torch.device(device).type),
            **_values(PRESETS[preset], estimator, given),
        )
        _check(config)
    except (TypeError, ValueError) as error:
        raise RunError(str(error)) from error
    return config


def _values(preset: Preset, estimator: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The preset's values and those given; refuses hyper-parameters that the estimator has no use for."""
    refuse_unused(given, HYPER_PARAMETERS, estimator, ESTIMATORS)
    unused = dict.fromkeys(set(HYPER_PARAMETERS) - parameters(ESTIMATORS[estimator]))
    return {field.name: getattr(preset, field.name) for field in fields(preset)} | unused | dict(given)


def _check(config: Config) -> None:
    for name in ("hidden", "max_tokens", "batch_size", "epochs", "patience"):
        checks.count(name, getattr(config, name))
    checks.choice("leaf", config.leaf, LEAVES)
    checks.choice("trees", config.trees, TREES)
    if config.epoch_steps is not None:
        checks.count("epoch_steps", config.epoch_steps)
    for name in ("lr", "clip"):
        value = getattr(config, name)
        if not 0 < checks.number(name, value, "allowed: a finite number > 0") < math.inf:
            raise ValueError(f"{name}: got {value}, allowed: a finite number > 0")
    if not 0 <= checks.number("dropout", config.dropout, "allowed: a number in [0, 1)") < 1:
        raise ValueError(f"dropout: got {config.dropout}, allowed: a number in [0, 1)")
    config.build_estimator()
