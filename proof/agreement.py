"""What must hold of a case: of each backend's outcome by itself, and between any two of them."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from discrete_ops import philox
from discrete_ops.minimum_variance import MOST_TEMPERATURE

from .calls import Outcome
from .cases import Case, Contents
from .magnitudes import magnitudes, of_factors
from .workers import REFERENCE

#: An error as a share of what a gradient is the sum of; tests/helpers.py says where each is from.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}
#: Of MVE, for every unit of its temperature, as tests/test_mve.py has it.
OF_TEMPERATURE = 1e-15
#: How near a uniform may be to a boundary of the CDF for rounding to decide on which side it is, as tests/draws.py has.
CDF_ERROR = {torch.float64: 1e-13}
CDF_ERROR_FLOAT32 = 2.0**-21
#: Gradients at what is not a row's.
TABLES = ("at_tau", "at_weight", "at_proj", "at_bias")


@dataclass(frozen=True)
class Seen:
    """An outcome with its draws and rows in two dimensions, ragged ones padded, binary ones as two categories."""

    sample: Tensor  # (draws, rows, N), or of an embedding (draws, rows, D); of top_k one for all draws
    index: Tensor | None  # (draws, rows)
    at_rows: Tensor  # (rows, N), or of a linear_embedding (rows, H)


class Agreement:
    """The rows of a case, and what holds of them.

    Attributes:
        counts: what was compared, and what was not.
        worst: the largest error of the case, as a share of what is allowed.
    """

    def __init__(self, case: Case, made: Contents) -> None:
        self.case, self.made = case, made
        self.dtype = made.logits.dtype
        self.draws = case.num_draws or case.k
        self.binary, self.embedding = case.call == "bernoulli", made.weight is not None
        self.one_by_one = case.call == "top_k"  # whether draws have what those before left
        logits = made.logits if made.mask is None else made.logits.masked_fill(~made.mask, -torch.inf)
        if case.call not in ("ragged", "bernoulli"):
            logits = logits.movedim(case.dim, -1)
        self.logits = self._rows(logits.detach(), -torch.inf).double()
        top = self.logits.amax(-1)
        self.invalid = self.logits.isnan().any(-1) if self.binary else top.isnan() | (top == torch.inf)
        self.empty = ~self.invalid & (top == -torch.inf) & (not self.binary)
        #: Where a ragged row has elements; an embedding's result has other columns.
        self.present = torch.ones((), dtype=torch.bool)
        if made.offsets is not None:
            self.present = self._rows(torch.ones_like(logits, dtype=torch.bool), False)
        masked = self.logits.isinf() if self.binary else self.logits == -torch.inf
        self.masked = masked & ~self.invalid[:, None]
        before = torch.arange(self.draws) * self.one_by_one
        #: Draws that a row has none for.
        self.without = self.invalid | self.empty | ((~masked).sum(-1) <= before[:, None])
        if self.binary:
            self.without = self.invalid[None]
        self.counts: Counter[str] = Counter()
        self.worst = 0.0

    # --- shapes

    def _rows(self, x: Tensor, padding: float = 0.0) -> Tensor:
        """Of elements, ``(rows, columns)``."""
        offsets = self.made.offsets
        if offsets is None:
            return x.reshape(self.case.rows, 1 if self.binary else x.shape[-1])
        rows = x.new_full((self.case.rows, max(1, self.case.columns)), padding)
        for row, (begin, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
            rows[row, : end - begin] = x[begin:end]
        return rows

    def seen(self, outcome: Outcome) -> Seen:
        drawn = outcome.sample if self.case.num_draws is not None else outcome.sample.unsqueeze(0)
        sample = torch.stack([self._rows(each) for each in drawn])
        index = outcome.index
        if index is not None:
            index = index.reshape(-1, self.draws).T if self.one_by_one else index.reshape(self.draws, self.case.rows)
        if self.binary:
            sample = torch.cat([sample, 1 - sample], -1)
            if self.case.hard:
                index = torch.where(sample[..., 0].isnan(), -1, (sample[..., 0] == 0).long())
        return Seen(sample, index, self._rows(outcome.at_rows))

    # --- of one backend

    def faults(self, outcome: Outcome) -> Iterator[str]:
        """What is wrong with an outcome, whatever another backend says."""
        seen = self.seen(outcome)
        if outcome.sample.dtype != self.dtype or outcome.at_rows.dtype != self.dtype:
            yield f"dtypes {outcome.sample.dtype}, {outcome.at_rows.dtype} for logits in {self.dtype}"
        without = self.without.expand(self.draws, -1)
        if seen.index is not None:
            if not torch.equal(seen.index == -1, without):
                yield "an index is -1 of a row that has a sample, or is not of one that has none"
                return
            expected = self._of_index(seen.index)
            expected = expected.masked_fill(self.empty[:, None], 0.0).masked_fill(self.invalid[:, None], torch.nan)
            hard = self.case.hard or self.embedding
            if hard and not _same(seen.sample, expected.where(self.present, 0.0)):
                yield "a sample is not the one-hots of its index" if not self.embedding else "a row is not the table's"
            masked = self.masked.expand(self.draws, -1, -1)
            if not self.binary and masked.gather(-1, seen.index.clamp_min(0).unsqueeze(-1))[~without].any():
                yield "a masked category was sampled"
        valid = ~self.invalid
        if not self.embedding:
            soft = seen.sample[:, valid & ~self.empty].double()
            ones = (~without).sum(0)[valid & ~self.empty] if self.one_by_one else 1
            if not ((soft >= 0).all() and ((soft.sum(-1) - ones).abs() <= TOLERANCE[self.dtype]).all()):
                yield "a sample is negative, or does not add up to what it has of ones"
        if seen.at_rows[valid & ~self._overflows].isnan().any():
            yield "NaN in the gradient of a row without NaN and +inf"
        if (self._at_masked(seen, outcome) != 0).any() or (seen.at_rows[self.empty] != 0).any():
            yield "a gradient at a masked category"
        # At proj a row masked whole by a hidden inf has 0 times that.
        finite = bool(valid.all()) and (self.made.factors is None or bool(self.made.factors.hidden.isfinite().all()))
        for name in TABLES:
            found = getattr(outcome, name)
            size = self._sizes.get(name)
            beyond = size is not None and not bool((size < torch.finfo(self.dtype).max).all())
            may_have = beyond or self._overflows.any() or not (finite or name == "at_weight")
            if found is not None and found.isnan().any() and not may_have:
                yield f"NaN in the gradient {name}"

    def _at_masked(self, seen: Seen, outcome: Outcome) -> Tensor:
        """The gradient at masked categories; of logits that are a product at those that no row has."""
        if self.made.factors is None:
            return seen.at_rows[self.masked]
        return torch.zeros(()) if outcome.at_bias is None else outcome.at_bias[self.masked.all(0)]

    def _of_index(self, index: Tensor) -> Tensor:
        kept = index.clamp_min(0)
        if self.embedding:
            assert self.made.weight is not None
            return self.made.weight[kept]
        columns = 2 if self.binary else self.logits.shape[-1]
        one_hots = torch.nn.functional.one_hot(kept, columns)
        if self.one_by_one:
            one_hots = one_hots.masked_fill(index.unsqueeze(-1) < 0, 0).sum(0, keepdim=True)
        return one_hots.to(self.dtype)

    # --- of all

    def differences(self, outcomes: dict[str, Outcome]) -> Iterator[str]:
        """Where two backends differ by more than rounding does. Every pair is compared: all are in tolerance of each
        other where the largest and the least of them are."""
        self.counts["pairs"] += len(outcomes) * (len(outcomes) - 1) // 2
        seen = {name: self.seen(outcome) for name, outcome in outcomes.items()}
        same = torch.ones(self.draws, self.case.rows, dtype=torch.bool)  # draws that all backends have alike
        if self.binary and not self.case.hard:
            same = ~self._near(torch.zeros(same.shape, dtype=torch.int64))
        for name, one in seen.items():
            wanted = seen[REFERENCE].index
            if one.index is None or wanted is None:
                continue
            differs = one.index != wanted
            if differs.any():
                first = differs.cumsum(0) == 1 if self.one_by_one else True  # after which the others may
                if (differs & first & ~self._near(one.index)).any():
                    yield f"{name}: another index than the reference's, and no tie"
                same &= ~differs
        self.counts["draws"] += same.numel()
        self.counts["ties"] += int((~same).sum())
        rows = same.all(0) & ~self._overflows
        self.counts["rows"] += rows.numel()
        self.counts["overflowing rows"] += int(self._overflows.sum())
        alike = same.all(0, keepdim=True) if self.one_by_one else same
        samples = {name: one.sample[alike] for name, one in seen.items()}
        yield from self._spread("sample", samples, self._tolerance + torch.tensor(self._least))
        allowed = self._allowed
        gradients = {name: one.at_rows[rows] for name, one in seen.items()}
        yield from self._spread("gradient", gradients, allowed["at_rows"][rows])
        for name in TABLES:
            if name not in allowed or not same.all():
                continue
            fits = allowed[name] < self._tolerance * torch.finfo(self.dtype).max
            if name not in ("at_tau", "at_weight") and self._overflows.any():
                continue
            found = {n: getattr(o, name)[fits] for n, o in outcomes.items()}
            yield from self._spread(f"gradient {name}", found, allowed[name][fits])

    def _spread(self, what: str, found: dict[str, Tensor], allowed: Tensor) -> Iterator[str]:
        names, stacked = list(found), torch.stack([x.double() for x in found.values()])
        nan = stacked.isnan()
        if (nan.any(0) != nan.all(0)).any():
            yield f"{what}: NaN of some of {', '.join(n for n, x in found.items() if x.isnan().any())} alone"
            return
        most = torch.finfo(next(iter(found.values())).dtype).max
        stacked = stacked.nan_to_num(0.0).clamp(-most, most)  # beyond the range of a type is as its end
        if not stacked.numel():
            return
        share = (stacked.amax(0) - stacked.amin(0)) / allowed
        worst = float(share.max())
        self.worst = max(self.worst, worst)
        if not worst <= 1:
            place = int(share.argmax())
            each = stacked.flatten(1)[:, place].tolist()
            values = ", ".join(f"{name} {value:.9g}" for name, value in zip(names, each, strict=True))
            yield f"{what}: {values}: {worst:.3g} times what is allowed"

    @cached_property
    def _magnitudes(self) -> Outcome:
        return magnitudes(self.case, self.made)

    @cached_property
    def _allowed(self) -> dict[str, Tensor]:
        """By how much rounding may move each gradient. A soft sample is rounded to the type before it meets what comes
        in at a table. Behind a gradient at a factor of the logits is theirs, and the product of each draw is rounded to
        the type. Each time by two backends."""
        eps = torch.finfo(self.dtype).eps
        shares = {"at_tau": self._tolerance, "at_weight": self._tolerance + eps * (not self.case.hard)}
        allowed = {name: shares[name] * size + self._least for name, size in self._sizes.items() if name in shares}
        if self.made.factors is None:
            return allowed | {"at_rows": self._tolerance * self._largest + self._least}
        of_logits = (self._tolerance + self.draws * eps) * self._rows(self._magnitudes.at_rows) + self._least
        moved = of_factors(of_logits, self.made.factors)
        moved["at_rows"] = moved["at_rows"].masked_fill(self.invalid[:, None], torch.inf)
        return allowed | {name: x + self._least for name, x in moved.items()}

    @cached_property
    def _sizes(self) -> dict[str, Tensor]:
        """What each gradient but that at the logits is the sum of."""
        tables = {name: getattr(self._magnitudes, name) for name in ("at_tau", "at_weight")}
        sizes = {name: size for name, size in tables.items() if size is not None}
        if self.made.factors is None:
            return sizes
        return sizes | of_factors(self._rows(self._magnitudes.at_rows), self.made.factors)

    @cached_property
    def _largest(self) -> Tensor:
        """Of each row, what its gradient is the sum of."""
        return self._rows(self._magnitudes.at_rows).nan_to_num(0.0, posinf=torch.inf).amax(-1, keepdim=True)

    @cached_property
    def _overflows(self) -> Tensor:
        """Rows of whose gradient a term, or of a table what comes in, is beyond the largest number of the type."""
        most = torch.finfo(self.dtype).max
        overflows = self._largest[:, 0] >= most
        if self.made.weight is not None:
            place = self.case.dim if self.case.num_draws is None else self.case.dim + 1
            grad = self.made.grad.movedim(place, -1).double().abs()
            came_in = (grad @ self.made.weight.double().abs().T).amax(-1) >= most
            overflows = overflows | came_in.view(self.draws, -1).any(0)
        if self.made.factors is not None:
            overflows = overflows | ~(self._sizes["at_rows"].nan_to_num(0.0, posinf=torch.inf) < most).all(-1)
        return overflows

    @cached_property
    def _tolerance(self) -> float:
        """MVE solves a system, worse conditioned the larger its temperature is."""
        if self.case.estimator != "mve":
            return TOLERANCE[self.dtype]
        temperature = self.made.arguments["tau"]
        most = float(temperature.amax()) if isinstance(temperature, Tensor) else temperature
        return TOLERANCE[self.dtype] + OF_TEMPERATURE * min(most, MOST_TEMPERATURE)

    @cached_property
    def _least(self) -> float:
        """What is lost below the normal numbers: of the type, where a draw is rounded to it, and of float32, where a
        probability is, whose weight may be large, as an eta or beta is."""
        of_type = torch.finfo(self.dtype).smallest_normal * torch.finfo(self.dtype).eps
        grad = self.made.grad.double().abs().flatten().tolist()
        weights = (torch.as_tensor(self.made.arguments.get(name, 0.0)) for name in ("eta", "beta"))
        weight = max(2.0**30, *(float(each.abs().amax()) if each.numel() else 0.0 for each in weights))
        of_probability = torch.finfo(torch.float32).tiny * weight * max(grad, default=0.0)
        return self.draws * max(of_type, of_probability)

    def _near(self, index: Tensor) -> Tensor:
        """Whether a row's uniform is in the category's part of the CDF, but for rounding."""
        case, made = self.case, self.made
        logits = torch.cat([self.logits, torch.zeros_like(self.logits)], -1) if self.binary else self.logits
        if self.one_by_one:
            one_hots = torch.nn.functional.one_hot(index.clamp_min(0), logits.shape[-1])
            logits = logits.masked_fill(one_hots.cumsum(0) > one_hots, -torch.inf)
        seed = made.seed if isinstance(made.seed, Tensor) else torch.tensor([made.seed])
        uniform = philox.uniform(seed, self.draws * case.rows, case.first_row)
        uniform = (
            uniform.view(len(seed), self.draws, case.rows // len(seed))
            .transpose(0, 1)
            .reshape(self.draws, case.rows, 1)
        )
        tau = made.arguments.get("sample_tau", 1.0)
        tau = tau.reshape(-1, 1) if isinstance(tau, Tensor) else tau
        weight = ((logits - logits.amax(-1, keepdim=True)) / tau).exp()
        cdf = (weight.cumsum(-1) / weight.sum(-1, keepdim=True)).expand(self.draws, -1, -1)
        ends = torch.nn.functional.pad(cdf, (1, 0))
        place = index.clamp_min(0).unsqueeze(-1)
        error = CDF_ERROR.get(self.dtype, CDF_ERROR_FLOAT32)
        if self.binary and not case.hard:  # the index is in no result: whether another is near
            return ((cdf[..., :1] - uniform).abs() <= error)[..., 0]
        near = (ends.gather(-1, place) - error <= uniform) & (uniform <= ends.gather(-1, place + 1) + error)
        return near[..., 0] & (index >= 0)


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(0.0), b.nan_to_num(0.0))
