"""The papers' tables and trained figures as data: which runs make which cells, and which of the papers' stand beside.

A study is a set of runs: every method (row) in every column. A table shows some figures of some of a study's methods
and columns, so tables of one study share runs. GST: Fan et al., ICML 2022; BR: Wang and Bui, arXiv 2603.08257, 2026.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.common import papers

from . import recipes
from .recipes import Config

TAUS = (1.0, 0.5, 0.1, 0.01)  #: the temperatures of GST Table 3


@dataclass(frozen=True)
class Method:
    """A row: an estimator under the paper's name, with what it overrides in the recipe."""

    estimator: str
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """Runs of every method in every column, under one recipe, or that which a column's overrides name.

    ``overrides`` are of all runs, ``cells`` of one method in one column.
    """

    recipe: str
    columns: Mapping[str, Mapping[str, Any]]  # name -> overrides
    methods: Mapping[str, Method]
    overrides: Mapping[str, Any] = field(default_factory=dict)
    cells: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)

    def config(self, column: str, method: str, **overrides: Any) -> Config:
        """The run of a cell; a given override that is not None wins over the study's."""
        row = self.methods[method]
        given = {name: value for name, value in overrides.items() if value is not None}
        cell = self.cells.get((column, method), {})
        merged = {"recipe": self.recipe, **self.overrides, **self.columns[column], **row.overrides, **cell, **given}
        return recipes.configure(estimator=row.estimator, **merged)


@dataclass(frozen=True)
class Table:
    """What a table (or a figure made of trained runs) shows.

    Attributes:
        title: of the report.
        study: a key of ``STUDIES``.
        splits: figures of a run: train, test, variance.
        methods: rows, all of the study's if empty.
        columns: all of the study's if empty.
        more: rows that are trained and shown only if they are asked for.
        by_epoch: a result for each epoch, not only for the last.
        paper: the paper's table that has the figures of a split; none of a table that is our own.
        note: on what a table of our own is of.
    """

    title: str
    study: str
    splits: tuple[str, ...]
    methods: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    by_epoch: bool = False
    paper: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    def rows(self) -> tuple[str, ...]:
        return self.methods or tuple(STUDIES[self.study].methods)

    def shown(self) -> tuple[str, ...]:
        """Its columns."""
        return self.columns or tuple(STUDIES[self.study].columns)

    def has(self, column: str, method: str) -> bool:
        return column in self.shown() and method in (*self.rows(), *self.more)

    def published(self, split: str, column: str, method: str) -> papers.Figure | None:
        """What the paper prints there; None where it prints nothing."""
        if split not in self.paper:
            return None
        row = papers.figures(self.paper[split]).get(method, {})
        return row.get(PRINTED.get(column, column))


BR_METHODS = {row: Method(estimator) for row, estimator in recipes.BR_ROWS.items()}
#: Not the paper's: the other reading of ReinMax-CV's control variate.
CV_GUMBEL = {"ReinMax-CV (gumbel)": Method("reinmax_cv", {"control": "gumbel"})}

#: The rows of GST Tables 3 and 7.
GST_ROWS = {
    "STGS": Method("gumbel_softmax"),
    "GR-MC100": Method("gumbel_rao"),
    "GST-0.8": Method("gst", {"gap": 0.8}),
    "GST-1.0": Method("gst", {"gap": 1.0}),
    "GST-1.2": Method("gst", {"gap": 1.2}),
    "GST-pi": Method("gst", {"gap": "pi"}),
}
#: Those of its Tables 1 and 2. NZ: the gradient flows through the perturbation, too.
ABLATION = {
    "ST": Method("straight_through"),
    "NZ-GST-0.0": Method("gst", {"gap": 0.0, "detach_perturbation": False}),
    "NZ-GST-1.0": Method("gst", {"gap": 1.0, "detach_perturbation": False}),
    "GST-0.0": Method("gst", {"gap": 0.0}),
    "GST-1.0": GST_ROWS["GST-1.0"],
}

#: GST Table 4. Two codes a step, the fewest that the score functions take.
DISARM_METHODS = {
    "RLOO": Method("rloo", {"num_samples": 2}),
    "DisARM-Tree": Method("disarm_tree", {"num_samples": 2}),
    **{name: GST_ROWS[name] for name in ("STGS", "GR-MC100", "GST-1.0", "GST-1.2")},
}

#: BR Figure 2: "spaced evenly from -0.2 to 1.2 in increments of 0.05".
BETAS = tuple(round(-0.2 + 0.05 * i, 2) for i in range(29))
CENTRED = " (centred)"
#: The estimator of Eq. 27, whose mean is not the Eq. 26 that it is derived from unless beta is 1/2, and the one with
#: that mean: does the figure's minimum at 1/2 belong to the method or to that slip?
BETA_METHODS = {
    **{f"beta={beta}": Method("reinmax_rk2", {"beta": beta}) for beta in BETAS},
    **{f"beta={beta}{CENTRED}": Method("reinmax_rk2", {"beta": beta, "centred": True}) for beta in BETAS},
}
#: Optimiser and learning rate of each shape are ReinMax's in Table 4: the paper does not say which it took here.
BETA_LATENTS = ("8x4", "8x16", "4x24")

#: The family of mixtures beside what the papers tune, 40 epochs each. 10x30 is GST's setting, Adam at 1e-3 with a ReLU
#: on the logits, where runs of this length are the paper's own.
FAMILY_COLUMNS = {
    "8x4": {"latent": "8x4"},
    "16x12": {"latent": "16x12"},
    "10x30": {"recipe": "gst", "latent": "10x30"},
}
FAMILY_METHODS = {
    **{row: BR_METHODS[row] for row in ("GST-1.0", "GR-MC100", "ReinMax", "ReinMax-CV")},
    # mix(a=0) and mix(a=0.5) by the name that they had when their runs were trained: a is 2 beta.
    "mix a=0, ST": Method("reinmax_rk2", {"beta": 0.0, "centred": True}),
    "mix a=.5": Method("reinmax_rk2", {"beta": 0.25, "centred": True}),
    "mix a=1, ReinMax tau=1": Method("reinmax", {"tau": 1.0}),
    "MVE tau=4": Method("mve", {"tau": 4.0}),
}
#: Nothing of mix and MVE is tuned: :data:`.recipes.UNTUNED`. At 10x30 ReinMax and
#: ReinMax-CV take BR's temperature and eta of that shape, for GST's paper does not have them.
FAMILY_CELLS = {
    **{
        ("16x12", row): {name: getattr(recipes.UNTUNED["mix"], name) for name in ("optimizer", "lr")}
        for row in ("mix a=0, ST", "mix a=.5", "mix a=1, ReinMax tau=1")
    },
    **{
        ("10x30", row): {
            name: value
            for name, value in recipes.BR_SETTINGS["10x30"][recipes.BR_ROWS[row]]._asdict().items()
            if name in ("tau", "eta") and value is not None
        }
        for row in ("ReinMax", "ReinMax-CV")
    },
}
FAMILY_NOTE = (
    "8x4 and 16x12: GST, GR, ReinMax and ReinMax-CV by BR Table 4, which has an optimiser, learning rate and "
    "temperature for each shape; mix and MVE with Adam at 5e-4, tuned for none. 10x30: GST's recipe, Adam at 1e-3 for "
    "all, GST and GR at temperature .5; ReinMax and ReinMax-CV at BR's temperature and eta of that shape."
)

TEMPERATURES = {f"tau={tau}": {"tau": tau} for tau in TAUS}

#: The papers' name of a column that is called otherwise here.
PRINTED = {"64x32": "Neg. ELBO"}

STUDIES: dict[str, Study] = {
    "br": Study("br", {latent: {"latent": latent} for latent in recipes.BR_SETTINGS}, {**BR_METHODS, **CV_GUMBEL}),
    "gst": Study("gst", TEMPERATURES, {**GST_ROWS, **ABLATION}),
    # GST A.3: one batch in twenty at the column's temperature, the others at .5; (M, mid_temp) = (20, .5).
    "mixed": Study(
        "gst", {f"tau={tau}": {"tau": tau} for tau in (0.1, 0.01)}, GST_ROWS, {"mid_tau": 0.5, "low_every": 20}
    ),
    "disarm": Study("disarm", {"64x32": {"latent": "64x32"}}, DISARM_METHODS),
    "beta": Study("br", {latent: {"latent": latent} for latent in BETA_LATENTS}, BETA_METHODS, {"epochs": 50}),
    "family": Study("br", FAMILY_COLUMNS, FAMILY_METHODS, {"epochs": 40}, FAMILY_CELLS),
    "variance": Study(
        "gst",
        {"tau=0.5": {"tau": 0.5}},
        GST_ROWS,
        {"epochs": 100, "variance_draws": 100},
    ),
}

BOTH = ("train", "test")

TABLES: dict[str, Table] = {
    "br-2": Table(
        "BR Table 2: train -ELBO",
        "br",
        ("train",),
        methods=tuple(BR_METHODS),
        more=tuple(CV_GUMBEL),
        paper={"train": "BR Table 2"},
    ),
    "br-3": Table(
        "BR Table 3: test -ELBO",
        "br",
        ("test",),
        methods=tuple(BR_METHODS),
        more=tuple(CV_GUMBEL),
        paper={"test": "BR Table 3"},
    ),
    # GST's figures are of held-out images.
    "gst-2": Table(
        "GST Table 2: ablation",
        "gst",
        BOTH,
        methods=tuple(ABLATION),
        columns=("tau=1.0", "tau=0.5"),
        paper={"test": "GST Table 2"},
    ),
    "gst-3": Table(
        "GST Table 3: -ELBO by temperature", "gst", BOTH, methods=tuple(GST_ROWS), paper={"test": "GST Table 3"}
    ),
    "gst-4": Table("GST Table 4: -ELBO beside score functions", "disarm", BOTH, paper={"test": "GST Table 4"}),
    "gst-7": Table("GST Table 7: -ELBO with mixed temperatures", "mixed", BOTH, paper={"test": "GST Table 7"}),
    "family": Table("Trained VAEs: -ELBO after 40 epochs", "family", BOTH, note=FAMILY_NOTE),
}

#: Figures that are made of trained runs; the others are in ``figures.py``.
FIGURES: dict[str, Table] = {
    "figure-br-2": Table("BR Figure 2: train -ELBO by beta", "beta", ("train",)),
    "figure-gst-3": Table("GST Figure 3: gradient variance by epoch", "variance", ("variance",), by_epoch=True),
}
