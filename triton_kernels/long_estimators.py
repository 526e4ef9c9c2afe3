"""The estimators on long rows: each is its list of terms, as in ``surrogate_vjp.py``, and a term is two launches."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .launch import PARTS, TILE, TILE_WARPS, Launcher, Parameters, Strided, bits, is_vector, split
from .long_rows import term_kernel, tops_kernel

DRAWS = 32  #: Draws a launch: what the result in memory is read and written for.


class Term(NamedTuple):
    """What the weights of a term are; see ``long_rows.weights``."""

    name: str
    at_one: bool = False  # logits at temperature 1
    partition: Tensor | None = None  # sums of the softmax whose draws are taken, or of the others of a winner
    factor: float = 1.0  # of the partition
    soft_total: Tensor | None = None  # sums of the draw that is the control's
    is_stratified: bool = False  # its draws


class Weight(NamedTuple):
    """Of a term: the number, times each row's coefficient, over its tau."""

    number: float = 1.0
    times_coefficient: bool = False
    over_tau: bool = False


class LongRows:
    """The inputs of a call, and its result as it grows: float32 also for half types."""

    def __init__(
        self,
        launch: Launcher,
        mode: str,
        grad: Strided,
        logits: Strided,
        index: Tensor,
        seed: Tensor,
        parameters: Parameters,
        first_row: int,
        num_samples: int,
        is_stratified: bool,
    ) -> None:
        self.launch, self.mode, self.grad, self.logits, self.index = launch, mode, grad, logits, index
        self.seed, self.parameters, self.first_row, self.num_samples = seed, parameters, first_row, num_samples
        self.is_stratified = is_stratified
        x = logits.tensor
        self.rows, self.columns = index.numel(), x.shape[-1]
        self.parts, self.length = split(self.rows, self.columns)
        self.dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        self.out = torch.empty(x.shape, dtype=self.dtype, device=x.device)
        self.is_empty = True
        self.first_stratified = 0
        self.layout = {"C": TILE, "VECTOR": is_vector(self.logits, self.grad), "num_warps": TILE_WARPS}

    def find_tops(self) -> None:
        self.tops = self.out.new_empty((self.rows, self.parts, 2))
        arguments = (self.tops, self.logits.tensor, self.index, self.columns, self.length, *self.logits[1:])
        self.launch(tops_kernel, (self.rows, self.parts), *arguments, **self.layout)

    def weigh(self, term: Term, first: int = 0, draws: int = 1) -> Tensor:
        """``(rows, slots, parts, 2)`` float64: sums over each part of the term's weights w, and of w v."""
        slots = 1 if draws == 1 else DRAWS
        sums = self.out.new_empty((self.rows, slots, self.parts, 2), dtype=torch.float64)
        self._launch("weigh", term, sums, slots, first, draws, Weight())
        return sums

    def add(
        self,
        term: Term,
        weight: Weight,
        step: str = "jacobian",
        sums: Tensor | None = None,
        first: int = 0,
        draws: int = 1,
        is_last: bool = True,
    ) -> None:
        """``out += weight J(p; v)``; ``step`` as in ``term_kernel``; ``is_last`` of the estimator's terms."""
        sums = self.weigh(term, first, draws) if sums is None else sums
        self._launch(step, term, sums, 1 if draws == 1 else DRAWS, first, draws, weight, is_last)
        self.is_empty = False

    def add_draws(self, term: Term, first: int, number: float = 1.0, times_coefficient: bool = False) -> None:
        """The last term: ``out += weight / (K tau) * sum of J`` over the draws ``first .. first + K - 1``."""
        term, self.first_stratified = term._replace(is_stratified=self.is_stratified), first
        end = first + self.num_samples
        weight = Weight(number / self.num_samples, times_coefficient, over_tau=True)
        for start in range(first, end, DRAWS):
            draws = min(DRAWS, end - start)
            self.add(term, weight, first=start, draws=draws, is_last=start + draws == end)

    def _launch(
        self,
        step: str,
        term: Term,
        sums: Tensor,
        slots: int,
        first: int,
        draws: int,
        weight: Weight,
        is_last: bool = False,
    ) -> None:
        unused = sums
        self.launch(
            term_kernel,
            (self.rows, self.parts),
            self.out,
            sums,
            self.tops,
            unused if term.partition is None else term.partition,
            unused if term.soft_total is None else term.soft_total,
            self.grad.tensor,
            self.logits.tensor,
            self.index,
            self.seed,
            self.parameters.groups,
            self.parameters.rows_per_group,
            self.parameters.tau,
            self.parameters.coefficient,
            bits(weight.number),
            bits(term.factor),
            int(term.at_one),
            int(weight.times_coefficient),
            int(weight.over_tau),
            int(self.is_empty),
            int(is_last),
            first,
            draws,
            slots,
            self.first_stratified,
            self.num_samples,
            self.columns,
            self.length,
            self.rows // self.seed.numel(),
            self.first_row,
            *self.logits[1:],
            *self.grad[1:],
            STEP=step,
            MODE=self.mode,
            TERM=term.name,
            STRATIFIED=term.is_stratified,
            PARTS=PARTS,
            **self.layout,
        )


SOFTMAX, SOFTMAX_AT_ONE = Term("softmax"), Term("softmax", at_one=True)
OVER_TAU, MINUS_HALF = Weight(over_tau=True), Weight(-0.5)


def straight_through(r: LongRows) -> None:
    """GST Eq. 7, BR Eq. 3."""
    r.add(SOFTMAX, OVER_TAU)


def gumbel_rao(r: LongRows) -> None:
    """GST Eq. 11, BR Eq. 6-7."""
    r.add_draws(Term("draws", at_one=True, partition=r.weigh(SOFTMAX_AT_ONE)), first=0)


def gst(r: LongRows) -> None:
    """GST Eq. 17-19, Algorithm 1."""
    r.add(Term("perturbed"), OVER_TAU)


def gst_pi(r: LongRows) -> None:
    """GST with the gap of Lemma 1."""
    r.add(Term("perturbed_pi", partition=r.weigh(Term("others"))), OVER_TAU)


def reinmax(r: LongRows) -> None:
    """BR Eq. 12, 16."""
    r.add(SOFTMAX, Weight(), step="half_way", is_last=False)
    r.add(SOFTMAX_AT_ONE, MINUS_HALF)


def reinmax_argmax(r: LongRows) -> None:
    """The diagnostic of BR Table 1: ReinMax with the argmax where the sample belongs."""
    r.index = r.logits.tensor.argmax(-1)
    reinmax(r)


def reinmax_rao(r: LongRows) -> None:
    """BR Eq. 17; the last term is at temperature 1. Off the winner p_D is pi_t / 2, so the partition doubles."""
    r.add(SOFTMAX_AT_ONE, MINUS_HALF, is_last=False)
    r.add_draws(Term("draws", partition=r.weigh(SOFTMAX), factor=2.0), first=0, number=2.0)


def _reinmax_cv(r: LongRows, is_soft: bool) -> None:
    pi = r.weigh(SOFTMAX_AT_ONE)
    r.add(SOFTMAX_AT_ONE, Weight(), step="half_way", sums=pi, is_last=False)
    r.add(SOFTMAX_AT_ONE, MINUS_HALF, sums=pi, is_last=False)
    of_rao = Term("draws", at_one=True, partition=pi, factor=2.0)
    if is_soft:
        soft_total = r.weigh(Term("draws", at_one=True, partition=pi))
        control = Term("control", at_one=True, partition=pi, soft_total=soft_total)
    else:
        control = of_rao
    r.add(control, Weight(-1.0, times_coefficient=True, over_tau=True), is_last=False)
    r.add_draws(of_rao, first=1, times_coefficient=True)


def reinmax_cv(r: LongRows) -> None:
    """BR Eq. 18; the control is the ReinMax term nudged by the soft sample that chose D, over tau."""
    _reinmax_cv(r, is_soft=True)


def reinmax_cv_gumbel(r: LongRows) -> None:
    """BR Eq. 18 with draw 0 of the Rao term as its control."""
    _reinmax_cv(r, is_soft=False)


def reinmax_rk2(r: LongRows) -> None:
    """BR Eq. 27, at temperature 1."""
    r.add(SOFTMAX_AT_ONE, Weight(times_coefficient=True), step="rk2")


def mix(r: LongRows) -> None:
    """Straight-through at a = 0, ReinMax at a = 1."""
    r.add(SOFTMAX_AT_ONE, Weight(times_coefficient=True), step="mix")


#: The table of the family, ``reference.TERMS``, without MVE, whose solver goes over a row too often.
PULL_BACKS: dict[str, Callable[[LongRows], Any]] = {
    f.__name__: f
    for f in (
        straight_through,
        gumbel_rao,
        gst,
        gst_pi,
        reinmax,
        reinmax_argmax,
        reinmax_rao,
        reinmax_cv,
        reinmax_cv_gumbel,
        reinmax_rk2,
        mix,
    )
}


def pull_back(r: LongRows, estimator: str) -> Tensor:
    """The gradient, or what another mode makes."""
    r.find_tops()
    PULL_BACKS[estimator](r)
    return r.out.to(r.logits.tensor.dtype)
