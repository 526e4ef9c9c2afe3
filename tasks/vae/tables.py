"""The papers' tables and trained figures as data: which runs make which cells.

A study is a set of runs: every method (row) in every column. A table shows some figures of some of a study's methods,
so tables of one study share runs. The text of GST's tables was not at hand: what each of them shows is read from its
code and from what the tables are cited for (``docs/reproduction.md`` says which is which), and no figure of theirs is
printed beside ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import recipes
from .recipes import Config

TAUS = (1.0, 0.5, 0.1, 0.01)  #: the temperatures of the GST tables


@dataclass(frozen=True)
class Method:
    """A row: an estimator under the paper's name, with what it overrides in the recipe."""

    estimator: str
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """Runs of every method in every column, under one recipe; ``overrides`` are of all of them."""

    recipe: str
    columns: Mapping[str, Mapping[str, Any]]  # name -> overrides
    methods: Mapping[str, Method]
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def config(self, column: str, method: str, **overrides: Any) -> Config:
        """The run of a cell; a given override that is not None wins over the study's."""
        row = self.methods[method]
        given = {name: value for name, value in overrides.items() if value is not None}
        merged = {**self.overrides, **self.columns[column], **row.overrides, **given}
        return recipes.configure(recipe=self.recipe, estimator=row.estimator, **merged)


@dataclass(frozen=True)
class Table:
    """What a table (or a figure made of trained runs) shows.

    Attributes:
        title: of the report.
        study: a key of ``STUDIES``.
        splits: figures of a run: train, test, variance.
        methods: rows, all of the study's if empty.
        more: rows that are trained and shown only if they are asked for.
        by_epoch: a result for each epoch, not only for the last.
    """

    title: str
    study: str
    splits: tuple[str, ...]
    methods: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    by_epoch: bool = False

    def rows(self) -> tuple[str, ...]:
        return self.methods or tuple(STUDIES[self.study].methods)

    def has(self, method: str) -> bool:
        return method in (*self.rows(), *self.more)


BR_METHODS = {
    "STGS": Method("gumbel_softmax"),
    "GR-MC100": Method("gumbel_rao"),
    "GST-1.0": Method("gst"),
    "ST": Method("straight_through"),
    "ReinMax": Method("reinmax"),
    "ReinMax-Rao": Method("reinmax_rao"),
    "ReinMax-CV": Method("reinmax_cv"),
}
#: Not the paper's: the other reading of ReinMax-CV's control variate.
CV_GUMBEL = {"ReinMax-CV (gumbel)": Method("reinmax_cv", {"control": "gumbel"})}

GST_METHODS = {
    "STGS": Method("gumbel_softmax"),
    "GR-MC100": Method("gumbel_rao"),
    "GST-1.0": Method("gst", {"gap": 1.0}),
    "GST-1.2": Method("gst", {"gap": 1.2}),
    "GST-pi": Method("gst", {"gap": "pi"}),
    # The ablation: the gradient flows through the perturbation, no gap, no perturbation at all.
    "NZ-GST-1.0": Method("gst", {"gap": 1.0, "detach_perturbation": False}),
    "GST-0.0": Method("gst", {"gap": 0.0}),
    "ST": Method("straight_through"),
}

#: GST A.3: each step takes one of the temperatures.
MIXED_METHODS = {
    name: Method(method.estimator, {**method.overrides, "taus": TAUS}) for name, method in GST_METHODS.items()
}

#: GST Table 4. Two codes a step, the fewest that the score functions take.
DISARM_METHODS = {
    "RLOO": Method("rloo", {"num_samples": 2}),
    "DisARM-Tree": Method("disarm_tree", {"num_samples": 2}),
    **{name: GST_METHODS[name] for name in ("STGS", "GR-MC100", "GST-1.0", "GST-pi")},
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

TEMPERATURES = {f"tau={tau}": {"tau": tau} for tau in TAUS}

VARIANCE_AT_LAST = {"variance_draws": 100, "variance_every": 0}  # each time costs half an epoch of training

STUDIES: dict[str, Study] = {
    "br": Study("br", {latent: {"latent": latent} for latent in recipes.BR_SETTINGS}, {**BR_METHODS, **CV_GUMBEL}),
    "gst": Study("gst", TEMPERATURES, GST_METHODS),
    "mixed": Study("gst", {"mixed": {}}, MIXED_METHODS),
    "disarm": Study("disarm", {"64x32": {"latent": "64x32"}}, DISARM_METHODS, VARIANCE_AT_LAST),
    "beta": Study("br", {latent: {"latent": latent} for latent in BETA_LATENTS}, BETA_METHODS, {"epochs": 50}),
    "variance": Study(
        "gst",
        {"tau=0.5": {"tau": 0.5}},
        {name: GST_METHODS[name] for name in ("STGS", "GR-MC100", "GST-1.0", "GST-1.2", "GST-pi")},
        {"epochs": 100, "variance_draws": 100},
    ),
}

#: The rows of GST Table 3 (and 7).
GST_ROWS = ("STGS", "GR-MC100", "GST-1.0", "GST-1.2", "GST-pi")
BOTH = ("train", "test")

TABLES: dict[str, Table] = {
    "br-2": Table("BR Table 2: train -ELBO", "br", ("train",), tuple(BR_METHODS), tuple(CV_GUMBEL)),
    "br-3": Table("BR Table 3: test -ELBO", "br", ("test",), tuple(BR_METHODS), tuple(CV_GUMBEL)),
    "gst-1": Table("GST Table 1: gradient through the perturbation", "gst", BOTH, ("GST-1.0", "NZ-GST-1.0")),
    "gst-2": Table("GST Table 2: no gap, no perturbation", "gst", BOTH, ("GST-1.0", "GST-0.0", "ST")),
    "gst-3": Table("GST Table 3: -ELBO by temperature", "gst", BOTH, GST_ROWS),
    "gst-4": Table("GST Table 4: -ELBO beside score functions", "disarm", BOTH),
    "gst-7": Table("GST Table 7: -ELBO with mixed temperatures", "mixed", BOTH, GST_ROWS),
}

#: Figures that are made of trained runs; the others are in ``figures.py``.
FIGURES: dict[str, Table] = {
    "figure-br-2": Table("BR Figure 2: train -ELBO by beta", "beta", ("train",)),
    "figure-gst-3": Table("GST Figure 3: gradient variance by epoch", "variance", ("variance",), by_epoch=True),
}
