"""``python -m tasks.frontier``: bias against spread of every estimator, as a table and a picture."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch
import tyro
from rich.console import Console

from discrete_ops import checks
from discrete_ops.estimators import Estimator
from tasks.common.cells import Cells
from tasks.common.command import console, exit_status
from tasks.common.errors import RunError
from tasks.common.progress import bar
from tasks.common.settings import check_folder, set_threads
from tasks.vae import data

from .estimators import every
from .jacobians import Problem, figures, jacobians
from .problems import Trained, sources

NAME = "frontier"
RESULTS = Path(__file__).parents[1] / "results"
DIGITS = 4  #: that a figure is noted with, after the point


@dataclass(frozen=True)
class Command:
    """Bias and spread of every estimator, exact by enumeration: a table, and the frontier as a picture.

    On polynomial programming, on random two-layer losses and on the VAEs of BR Figure 1, which are trained first unless
    "python -m tasks.vae figure br-1" has. What is in OUT/frontier.json is not measured again.
    """

    epochs: tuple[int, ...] = (5, 25, 50)
    """Epochs of the VAEs' training after which they are looked at."""
    seeds: int = 3
    """How many VAEs, seeds from 0."""
    powers: tuple[float, ...] = (1.5, 3.0)
    """Of the polynomials."""
    images: int = 10
    """At whose logits the gradients of a VAE are measured."""
    draws: int = 2048
    """Of Gumbel noise for each latent and category, of the estimators that have such noise."""
    data: Literal["digits", "mnist"] = "mnist"
    """The VAEs'. mnist: downloaded once, or from --data-dir. digits: 1797 images of 8x8 pixels, to try it out."""
    data_dir: Path | None = None
    """Directory with MNIST's idx.gz files."""
    runs: Path = Path("runs/tables")
    """Directory of the VAEs' runs, that of the VAE task's tables."""
    out: Path = RESULTS
    """Directory of frontier.json, .md and .png."""
    threads: int | None = None
    """Threads of torch; its own default if not given."""

    def run(self, console: Console) -> int:
        from . import report  # matplotlib is slow to import

        epochs = self._checked()
        set_threads(self.threads)
        for name in ("out", "runs"):
            check_folder(name, getattr(self, name))
        self.out.mkdir(parents=True, exist_ok=True)
        images = cache(lambda: data.load(self.data, self.data_dir))
        trained = Trained(self.data, images, self.images, self.seeds, epochs, self.runs, console)
        panels = sources(self.powers, trained)
        cells = Cells(self.out / f"{NAME}.json", {"images": self.images, "seeds": self.seeds, "draws": self.draws})
        estimators = every()
        with bar(console) as progress:
            task = progress.add_task("settings", total=len(panels) * len(estimators))
            for panel, source in panels.items():
                pending = {text: each for text, each in estimators.items() if cell(panel, text) not in cells}
                progress.advance(task, len(estimators) - len(pending))
                found = source() if pending else []
                for text, each in pending.items():
                    cells.add({cell(panel, text): measure(each, found, self.draws)})
                    progress.advance(task)
        shown = {panel: {text: cells[cell(panel, text)] for text in estimators} for panel in panels}
        report.write(self.out / f"{NAME}.md", shown, cells, console)
        return 0

    def _checked(self) -> list[int]:
        try:
            for name in ("images", "seeds", "draws"):
                checks.count(name, getattr(self, name))
            if not all(checks.number("powers", power) > 1 for power in self.powers):
                raise ValueError(f"powers: got {self.powers}, allowed: numbers > 1, whose derivative is not a constant")
            epochs = sorted({checks.count("epochs", epoch) for epoch in self.epochs})
            if not epochs:
                raise ValueError("epochs: got none, allowed: one or more")
        except (TypeError, ValueError) as error:
            raise RunError(str(error)) from error
        return epochs


def cell(panel: str, text: str) -> str:
    """The name of a setting's figures."""
    return f"{panel}: {text}"


def measure(estimator: Estimator, found: Sequence[Problem], draws: int) -> dict[str, float]:
    """The median over problems of each figure."""
    with torch.no_grad():
        each = [figures(jacobians(estimator, problem.logits, draws), problem) for problem in found]
    names = each[0]._fields
    return {name: round(statistics.median(getattr(one, name) for one in each), DIGITS) for name in names}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    command = tyro.cli(Command, prog="python -m tasks.frontier", args=arguments)
    return exit_status(lambda: command.run(console()))
