"""``python -m tasks.polynomial``: train every estimator on every polynomial, and show the curves."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from discrete_ops import checks
from discrete_ops.estimators import Estimator, estimator
from tasks.common.cells import Cells
from tasks.common.command import console, exit_status
from tasks.common.errors import RunError
from tasks.common.progress import bar
from tasks.common.settings import check_folder, set_threads

from .programming import Setting, train

NAME = "polynomial"
RESULTS = Path(__file__).parents[1] / "results"
ESTIMATORS = (
    "straight_through",
    "gumbel_softmax",
    "gumbel_rao",
    "gst",
    "reinmax",
    "mix(a=0.5)",
    "mve(tau=4.0)",
)


@dataclass(frozen=True)
class Command:
    """Train binary latents on polynomials with every estimator; a table, and the curves as a picture.

    The setting is that of Liu et al., NeurIPS 2023, section 5. What is in OUT/polynomial.json is not trained again.
    """

    estimators: tuple[str, ...] = ESTIMATORS
    """Which ones, as discrete_ops.estimator reads them: "gst(tau=0.5)"."""
    powers: tuple[float, ...] = (1.5, 2.0, 3.0)
    """Of the polynomials."""
    seeds: int = 3
    """How many seeds, from 0."""
    latents: int = Setting.latents
    """How many binary latents."""
    c: float = Setting.c
    """What each latent is to come near to; between 0 and 1/2 all should end at 0."""
    batch: int = Setting.batch
    """Samples a step."""
    lr: float = Setting.lr
    """Learning rate of Adam."""
    steps: int = Setting.steps
    """Steps of each run."""
    out: Path = RESULTS
    """Directory of polynomial.json, .md and .png."""
    threads: int | None = None
    """Threads of torch; its own default if not given."""

    def run(self, console: Console) -> int:
        from . import report  # matplotlib is slow to import

        estimators, seeds, setting = self._checked()
        set_threads(self.threads)
        check_folder("out", self.out)
        self.out.mkdir(parents=True, exist_ok=True)
        cells = Cells(self.out / f"{NAME}.json", setting.as_json())
        with bar(console) as progress:
            task = progress.add_task("runs", total=len(self.powers) * len(estimators) * len(seeds))
            for power in self.powers:
                for each in estimators:
                    pending = [seed for seed in seeds if cell(power, each, seed) not in cells]
                    if pending:
                        curves = train(each, power, pending, setting)
                        cells.add({cell(power, each, seed): c for seed, c in zip(pending, curves, strict=True)})
                    progress.advance(task, len(seeds))
        found = {
            power: {str(each): [cells[cell(power, each, seed)] for seed in seeds] for each in estimators}
            for power in self.powers
        }
        report.write(self.out / f"{NAME}.md", found, setting, cells.commits, console)
        return 0

    def _checked(self) -> tuple[list[Estimator], range, Setting]:
        try:
            estimators = [estimator(each) for each in self.estimators]
            for name, value in (("c", self.c), ("lr", self.lr), *(("powers", power) for power in self.powers)):
                checks.number(name, value)
            if not 0 < self.c < 0.5:
                raise ValueError(f"c: got {self.c}, allowed: between 0 and 0.5")
            if not self.lr > 0:
                raise ValueError(f"lr: got {self.lr}, allowed: a number > 0")
            if not all(power > 1 for power in self.powers):
                raise ValueError(f"powers: got {self.powers}, allowed: numbers > 1, whose derivative is not a constant")
            counts = {name: checks.count(name, getattr(self, name)) for name in ("seeds", "latents", "batch", "steps")}
        except (TypeError, ValueError) as error:
            raise RunError(str(error)) from error
        setting = Setting(counts["latents"], self.c, counts["batch"], self.lr, counts["steps"])
        return list(dict.fromkeys(estimators)), range(counts["seeds"]), setting


def cell(power: float, each: Estimator, seed: int) -> str:
    """The name of a run."""
    return f"p={power:g}, {each}, seed {seed}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    command = tyro.cli(Command, prog="python -m tasks.polynomial", args=arguments)
    return exit_status(lambda: command.run(console()))
