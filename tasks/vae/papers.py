"""The papers' figures, as far as they are known: mean and what the paper prints behind +-.

BR Tables 2 and 3: recomputed from the authors' result files (repository danielwang0452/DiscreteNumericalMethodsASC,
commit c9ef131e) by their own rule (process_results.py: last epoch, mean over seeds 0 to 9, +- the population standard
deviation over the square root of 10, so a standard error). The one cell whose printed value is known, ReinMax 8x4
train, 125.08 +- .20, comes out exactly. ReinMax-Rao and ReinMax-CV are each a guess at which of the authors' files the
paper took: Rao at tau 1 and lr 5e-4, CV at the best of their search by train loss. Cells with files of fewer than ten
seeds are left out, and so is all of GST: no table of it could be read.
"""

import math
from typing import NamedTuple


class Published(NamedTuple):
    """A paper's figure."""

    mean: float
    error: float  # standard error over ten seeds

    @property
    def std(self) -> float:
        """Over seeds: what a single run is held against."""
        return self.error * math.sqrt(10)


_COLUMNS = ("8x4", "4x24", "8x16", "16x12", "64x8", "10x30")
_Row = tuple[tuple[float, float] | None, ...]

_BR: dict[str, dict[str, _Row]] = {
    "br-2": {
        "STGS": ((127.59, 0.23), (101.49, 0.09), (99.20, 0.14), (100.42, 0.15), (103.87, 0.13), (99.80, 0.11)),
        "GR-MC100": ((125.65, 0.14), (100.14, 0.12), None, None, (112.48, 0.18), (102.28, 0.19)),
        "GST-1.0": ((128.31, 0.21), (101.64, 0.11), (98.31, 0.16), (98.37, 0.17), (102.41, 0.16), (98.66, 0.14)),
        "ST": ((136.40, 0.41), (112.21, 0.19), (113.32, 0.09), (113.31, 0.08), (113.97, 0.07), (136.73, 0.40)),
        "ReinMax": ((125.08, 0.20), (99.88, 0.08), (97.80, 0.09), (97.98, 0.13), (101.09, 0.11), (98.50, 0.13)),
        "ReinMax-Rao": ((125.31, 0.28), (101.03, 0.19), None, None, None, None),
        "ReinMax-CV": ((124.94, 0.24), (100.19, 0.13), (97.72, 0.07), (98.21, 0.12), (100.66, 0.11), (98.07, 0.15)),
    },
    "br-3": {
        "STGS": ((128.72, 0.22), (103.80, 0.11), (101.37, 0.16), (102.71, 0.13), (106.03, 0.15), (101.74, 0.11)),
        "GR-MC100": ((127.62, 0.12), (102.88, 0.15), None, None, (113.71, 0.17), (103.97, 0.21)),
        "GST-1.0": ((129.15, 0.15), (104.04, 0.11), (101.27, 0.14), (101.67, 0.20), (105.34, 0.18), (100.77, 0.12)),
        "ST": ((137.01, 0.45), (113.63, 0.20), (114.81, 0.10), (114.46, 0.09), (115.45, 0.10), (136.45, 0.61)),
        "ReinMax": ((127.27, 0.16), (102.26, 0.06), (100.73, 0.10), (100.86, 0.13), (103.35, 0.10), (100.80, 0.13)),
        "ReinMax-Rao": ((126.60, 0.28), (103.56, 0.19), None, None, None, None),
        "ReinMax-CV": ((126.63, 0.22), (102.45, 0.13), (100.16, 0.07), (100.57, 0.13), (102.96, 0.14), (100.49, 0.15)),
    },
}

#: BR Table 1: relative standard deviations over ST's, all of that table that is known.
RATIOS = {"ReinMax": 2.7, "ReinMax-Argmax": 1.05}

#: (table, column, method, split) -> the paper's figure.
PUBLISHED: dict[tuple[str, str, str, str], Published] = {
    (table, column, method, split): Published(*value)
    for table, split in (("br-2", "train"), ("br-3", "test"))
    for method, row in _BR[table].items()
    for column, value in zip(_COLUMNS, row, strict=True)
    if value is not None
}
