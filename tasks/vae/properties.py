"""GST Table 1: which of the properties of its section 3 each estimator of the ablation has, tried on random logits.

With ``h = softmax((l + m) / tau)`` an estimator's soft sample and D the sample that it stands for:

- consistency, Eq. 12: the largest entry of h is D's;
- zero-gradient perturbation, Eq. 13: the derivative of h is that of a softmax whose m is a constant;
- strict gap, Eq. 14: the perturbed logit of D is above all others.
"""

from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from discrete_ops import reference
from tasks.common import papers, sheets
from tasks.common.sheets import Sheet

from .recipes import configure
from .tables import ABLATION

NAME, TITLE = "gst-1", "GST Table 1: properties of the ablation's estimators"
ROWS, CATEGORIES, TAU = 2000, 10, 0.5
TIE = 1e-9  #: of logits of order 1 in float64


def properties(method: str, seed: int = 0) -> dict[str, bool]:
    """Of a row of GST Table 1, by its columns' names: whether the property holds in every one of many random rows."""
    row = ABLATION[method]
    config = configure(recipe="gst", estimator=row.estimator, tau=TAU, **row.overrides)
    estimator = config.build_estimator()
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(ROWS, CATEGORIES, generator=generator, dtype=torch.float64).requires_grad_()
    v = torch.randn(ROWS, CATEGORIES, generator=generator, dtype=torch.float64)
    D, index = estimator(logits, seed=seed, return_index=True, backend="reference")
    (pulled,) = torch.autograd.grad(D, logits, v)
    parameters = (TAU, float(row.overrides.get("gap", 0.0)), 1.0)
    h = reference.surrogate(logits.detach(), index, torch.tensor([seed]), parameters, row.estimator, 1)
    lead = _lead(TAU * h.log(), index)
    detached = reference.jacobian_product(h, h, v) / TAU
    return {
        "Consistency": bool((lead >= -TIE).all()),
        "grad_theta m = 0": torch.allclose(pulled, detached, rtol=0, atol=TIE),
        "Gap > 0": bool((lead > TIE).all()),
    }


def _lead(perturbed: Tensor, index: Tensor) -> Tensor:
    """By how much D's entry is above the largest other one, ``(rows, N)`` -> ``(rows,)``."""
    chosen = perturbed.gather(-1, index[:, None])
    others = perturbed.scatter(-1, index[:, None], -torch.inf).amax(-1, keepdim=True)
    return (chosen - others).squeeze(-1)


def report(folder: Path, console: Console) -> None:
    """Print the table beside the paper's and write ``gst-1.md``."""
    printed = papers.cells("GST Table 1")
    header = ("estimator", *(name for name in next(iter(printed.values()))))
    rows = []
    for method, row in printed.items():
        ours = properties(method)
        rows.append((method, *(f"{cell} / {'yes' if ours[name] else 'no'}" for name, cell in row.items())))
    note = f"paper / ours, on {ROWS} rows of {CATEGORIES} normal logits at tau {TAU}."
    sheet = Sheet(TITLE, header, rows, names=len(header))
    sheets.write(folder / f"{NAME}.md", TITLE, [note], [sheet], console)
