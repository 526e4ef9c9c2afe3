"""The commands of the study: ``table``, ``figure`` and ``sweep``."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console

from discrete_ops import checks
from tasks.common.errors import RunError
from tasks.common.settings import check_folder, set_threads

from . import costs, data, measured, properties, report, study, sweep
from .data import Source
from .results import Result
from .tables import FIGURES, STUDIES, TABLES, Table

#: Of the papers' experiments, wherever a command is run.
RESULTS = Path(__file__).parents[1] / "results"

#: Tables that do not train a VAE for each cell: one measures a trained one, one what training costs.
BR_1, GST_5 = "br-1", "gst-5"
#: What is neither trained nor measured on a VAE: figures of the text of GST 5.1.2, 4.3 and Lemma 1, of BR 2.3.
COMPUTED = ("gst-entropy", "gst-variance", "gst-gap", "br-speed")
FIGURE_NAMES = ("br-1", "br-2", "gst-1", "gst-2", "gst-3", *COMPUTED)


def _choice(name: str, value: str, allowed: Sequence[str]) -> str:
    try:
        return checks.choice(name, value, tuple(allowed))
    except ValueError as error:
        raise RunError(str(error)) from error


def _some(name: str, chosen: tuple[str, ...] | None, usual: Sequence[str], more: Sequence[str] = ()) -> tuple[str, ...]:
    return tuple(_choice(name, value, (*usual, *more)) for value in chosen) if chosen else tuple(usual)


def _count(name: str, value: int) -> int:
    try:
        return checks.count(name, value)
    except ValueError as error:
        raise RunError(str(error)) from error


_CELLS = ("columns", "methods")
_RUNS = (*_CELLS, "epochs", "seeds", "shared_order")
#: Flags that a command has no use for: it has no cells, trains no runs, or computes on the CPU.
UNUSED: dict[str, tuple[str, ...]] = {
    "table br-1": _CELLS,
    "table gst-1": (*_RUNS, "device"),
    "table gst-5": _RUNS,
    "figure br-1": _CELLS,
    "figure br-speed": _RUNS,
    **{f"figure gst-{name}": (*_RUNS, "device") for name in ("1", "2", "entropy", "variance", "gap")},
}


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every command of the study takes."""

    columns: tuple[str, ...] | None = None
    """Which columns; all if not given. Only for tables and figures of trained runs."""
    methods: tuple[str, ...] | None = None
    """Which rows, say GST-1.0, or beta=0.5 of figure br-2; all if not given. Likewise."""
    seeds: int = 1
    """How many seeds, from 0."""
    epochs: int | None = None
    """Epochs of each run; the paper's if not given."""
    data: Literal["digits", "mnist"] = "mnist"
    """mnist: as in the papers, downloaded once or from --data-dir. digits: 1797 images of 8x8 pixels, to try it out."""
    data_dir: Path | None = None
    """Directory with MNIST's idx.gz files."""
    shared_order: bool = False
    """The same minibatches for every seed, in place of each seed's own order as the papers' separate runs have it."""
    device: str = "cpu"
    """As torch names it: cpu, cuda, cuda:1."""
    out: Path = Path("runs/tables")
    """Directory of the runs, from whose checkpoints an interrupted command goes on."""
    results: Path | None = None
    """Directory of the results' JSON lines, Markdown and plots, with --shared-order RESULTS/shared-order; default
    tasks/results beside this code; for digits OUT/results, with --shared-order OUT/shared-order/results, since neither
    is the papers' experiment."""
    threads: int | None = None
    """Threads of torch; its own default if not given."""

    @property
    def folder(self) -> Path:
        if self.results is not None:
            return self.results / "shared-order" if self.shared_order else self.results
        paper = self.data == "mnist" and not self.shared_order
        return RESULTS if paper else self.where / "results"

    @property
    def where(self) -> Path:
        """The directory of these runs: runs with and without --shared-order are other runs."""
        return self.out / "shared-order" if self.shared_order else self.out

    @property
    def images(self) -> Source:
        """Read when a run needs it: wrong flags are told first, and a report of known results needs no data."""
        return cache(lambda: data.load(self.data, self.data_dir))

    def named(self, name: str, usual: int | None) -> str:
        """What a report's files are called: a shorter run, to try it out, does not take the place of the paper's."""
        return name if usual is None or self.epochs in (None, usual) else f"{name}-{self.epochs}-epochs"

    def is_papers(self, usual: int) -> bool:
        """Whether the paper's figures are of the same data and epochs."""
        return self.data == "mnist" and self.epochs in (None, usual)

    @staticmethod
    def usual(table: Table) -> int:
        """The epochs of a table's runs in the paper."""
        shown = STUDIES[table.study]
        return shown.config(next(iter(shown.columns)), next(iter(shown.methods))).epochs

    def overrides(self) -> dict[str, Any]:
        return {"data": self.data, "device": self.device, "epochs": self.epochs, "shared_order": self.shared_order}

    def prepare(self) -> None:
        """Settings of the process; wrong folders are told before anything is trained."""
        set_threads(self.threads)
        check_folder("out", self.where)
        check_folder("results", self.folder)

    def refuse_unused(self, command: str) -> None:
        """Raises RunError if a flag was given that the command has no use for."""
        defaults = {field.name: field.default for field in fields(Common)}
        for name in UNUSED.get(command, ()):
            given = getattr(self, name)
            if given != defaults[name]:
                shown = ", ".join(given) if isinstance(given, tuple) else given
                raise RunError(f"{name}: got {shown}, allowed with {command}: none")

    def train(self, name: str, table: Table, console: Console) -> list[Result]:
        """Train what is pending of a table; returns all its results on this data set, at these epochs and settings."""
        plan = study.Plan(
            study=table.study,
            columns=_some("columns", self.columns, table.shown()),
            methods=_some("methods", self.methods, table.rows(), table.more),
            seeds=range(_count("seeds", self.seeds)),
            overrides=self.overrides(),
            out=self.where,
            folder=self.folder,
        )
        study.run(plan, self.images, console)
        return study.shown(plan.read(name), table, self.overrides())

    def measure(self, name: str, what: measured.Measurement, epochs: Sequence[int], console: Console) -> list[Result]:
        """Measure estimators on trained VAEs."""
        return measured.run(
            name,
            what,
            epochs=epochs,
            seeds=range(_count("seeds", self.seeds)),
            images=self.images,
            out=self.where,
            folder=self.folder,
            console=console,
            data=self.data,
            device=self.device,
            shared_order=self.shared_order,
        )


@dataclass(frozen=True)
class TableCommand(Common):
    """Train the runs of a table of the papers and print it beside the paper's figures.

    Names: br-1, br-2, br-3, gst-1, gst-2, gst-3, gst-4, gst-5, gst-7; family is no paper's: mix and MVE beside what
    the papers tune.
    """

    name: tyro.conf.Positional[str]
    """Which table."""

    def run(self, console: Console) -> int:
        self.prepare()
        _choice("name", self.name, sorted((BR_1, GST_5, properties.NAME, *TABLES)))
        self.refuse_unused(f"table {self.name}")
        if self.name not in TABLES:
            commands = {BR_1: self._br_1, properties.NAME: self._gst_1, GST_5: self._gst_5}
            return commands[self.name](console)
        table = TABLES[self.name]
        found = self.train(self.name, table, console)
        usual = self.usual(table)
        report.write(self.named(self.name, usual), table.title, found, self.folder, console, self.is_papers(usual))
        return 0

    def _br_1(self, console: Console) -> int:
        epochs = measured.LAST if self.epochs is None else _count("epochs", self.epochs)
        found = self.measure(BR_1, measured.table_1(), (epochs,), console)
        path = self.folder / f"{self.named(BR_1, measured.LAST)}.md"
        measured.report_table_1(path, found, self.is_papers(measured.LAST), console)
        return 0

    def _gst_1(self, console: Console) -> int:
        properties.report(self.folder, console)
        return 0

    def _gst_5(self, console: Console) -> int:
        config = {"data": self.data, "device": self.device}
        found = costs.measure_table_5(GST_5, config, self.data_dir, self.folder, console)
        costs.report_table_5(self.folder / f"{GST_5}.md", found, self.data == "mnist", console)
        return 0


@dataclass(frozen=True)
class FigureCommand(Common):
    """Draw a figure of the papers, after training what it needs. Names: br-1, br-2, gst-1, gst-2, gst-3.

    What the papers say in their text, beside ours: gst-entropy (GST 5.1.2), gst-variance (4.3), gst-gap (Lemma 1),
    br-speed (BR 2.3).
    """

    name: tyro.conf.Positional[str]
    """Which figure."""

    def run(self, console: Console) -> int:
        from . import figures  # matplotlib is slow to import

        self.prepare()
        name = f"figure-{_choice('name', self.name, FIGURE_NAMES)}"
        self.refuse_unused(f"figure {self.name}")
        if self.name in COMPUTED:
            return self._computed(name, console)
        if self.epochs is not None:
            _count("epochs", self.epochs)
        usual = measured.LAST if self.name == "br-1" else self.usual(FIGURES[name]) if name in FIGURES else None
        stem = self.named(name, usual)
        path = self.folder / f"{stem}.png"
        if self.name == "br-1":
            self._figure_1(name, path, console)
        elif self.name in ("gst-1", "gst-2"):
            self.folder.mkdir(parents=True, exist_ok=True)
            (figures.plot_simplex_samples if self.name == "gst-1" else figures.plot_simplex_moves)(path)
        else:
            table = FIGURES[name]
            found = self.train(name, table, console)
            if self.name == "br-2":
                draw, shown = partial(figures.plot_betas, found), found
            else:
                titles = {"variance": "variance of the gradient"}
                draw = partial(figures.plot_by_epoch, found, titles, log=("variance",))
                shown = [r for r in found if r.epochs == max(r.epochs for r in found)]
            report.write(stem, table.title, shown, self.folder, console, draw=draw)
        console.print(f"written: {path}", highlight=False, soft_wrap=True)
        return 0

    def _computed(self, name: str, console: Console) -> int:
        from . import sketches

        path = self.folder / f"{name}.md"
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.name == "gst-entropy":
            sketches.report_entropies(path, self.images(), self.data, console)
        elif self.name == "br-speed":
            costs.report_speeds(path, self.images(), self.device, self.data, console)
        else:
            sketches.REPORTS[self.name](path, console)
        console.print(f"written: {path}", highlight=False, soft_wrap=True)
        return 0

    def _figure_1(self, name: str, path: Path, console: Console) -> None:
        last = measured.LAST if self.epochs is None else self.epochs
        found = self.measure(name, measured.figure_1(), measured.epochs_until(last), console)
        measured.report_figure_1(path.with_suffix(".md"), found, console)


@dataclass(frozen=True)
class SweepCommand:
    """Search the grid of BR Appendix B for one estimator and shape.

    Optimiser, learning rate and temperature; for reinmax_cv temperature and eta, with ReinMax's optimiser and rate.
    """

    estimator: str = "reinmax"
    """Gradient estimator, by the name of its function in discrete_ops."""
    latent: str = "8x4"
    """Categories x latents of the code."""
    seeds: int = 1
    """How many seeds, from 0."""
    epochs: int | None = None
    """Epochs of each run; the paper's 160 if not given."""
    optimizers: tuple[str, ...] | None = None
    """Optimisers to try; the paper's if not given."""
    lrs: tuple[float, ...] | None = None
    """Learning rates to try; likewise."""
    taus: tuple[float, ...] | None = None
    """Temperatures to try; likewise."""
    etas: tuple[float, ...] | None = None
    """Weights of reinmax_cv's control variate to try; likewise."""
    engine: str = "local"
    """local: processes on this machine. ray: the cluster of RAY_ADDRESS, or a local one."""
    processes: int = 1
    """Runs at a time, one thread each."""
    group: int = 1
    """Runs that train as one ensemble in a process; as many as fit on a GPU."""
    data: Literal["digits", "mnist"] = "mnist"
    """As for table."""
    data_dir: Path | None = None
    """Directory with MNIST's idx.gz files."""
    device: str = "cpu"
    """As torch names it."""
    out: Path = Path("runs/sweeps")
    """Directory of the sweeps, from which an interrupted one goes on."""

    def run(self, console: Console) -> int:
        check_folder("out", self.out)
        configs = sweep.grid(
            self.estimator,
            range(_count("seeds", self.seeds)),
            optimizers=self.optimizers,
            lrs=self.lrs,
            taus=self.taus,
            etas=self.etas,
            latent=self.latent,
            epochs=self.epochs,
            data=self.data,
            device=self.device,
        )
        sweep.run(
            configs,
            self.out / f"{self.data}-{self.latent}-{self.estimator}",
            data_dir=self.data_dir,
            engine=_choice("engine", self.engine, sweep.ENGINES),
            processes=_count("processes", self.processes),
            group=_count("group", self.group),
            console=console,
        )
        return 0
