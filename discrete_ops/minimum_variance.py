"""The minimum-variance estimator (MVE) of Hooper and Shekhovtsov, "Generalized and Optimal Straight-Through
Estimators", AISTATS 2026, on rows in plain PyTorch.

What it is. An estimator that is linear in the gradient v at the sample x is a matrix for each x, ``g = A_x v``. For a
linear loss, whose v is the same at all x, its mean is exact if ``sum_x p_x A_x = J(p)``. For a quadratic one, ``f(d) =
d Q d / 2``, v is column x of Q, and row k of the mean is off by

    sum_x p_x A_x[k] . Q[:, x]  -  sum_x J(p)[k, x] Q[x, x] / 2.

The MVE of temperature t minimises, over all families A_x that are exact for linear losses, the variance that
independent noise of unit variance in v makes, plus t times the squared bias expected of a random Q, symmetric with
elements of variance 1 and 2 on the diagonal:

    sum_x p_x |A_x|^2 + t E |bias|^2.

So no other such estimator has less of both. t = 0 asks for nothing but little variance and is straight-through; t =
infinity asks for no bias on quadratic losses, which ReinMax has not either, at more variance.

Its solution. Rows k of A part; with Lagrange multipliers ``lambda_j`` of the constraint and ``den_xj = 1 + t (p_x +
p_j)`` a row is

    A_x[j] = ((1 + t p_j) lambda_j - t p_j lambda_x) / den_xj,    A_x[x] = (lambda_x + t J[k, x]) / (1 + 2 t p_x),

and the constraint is ``M lambda = R J[k]`` with ``R = diag((1 + t p) / (1 + 2 t p))`` and the symmetric, diagonally
dominant matrix

    M_ij = -t p_i p_j / den_ij,    M_ii = (1 + t p_i) sum_{j != i} p_j / den_ij + p_i / (1 + 2 t p_i).

Put together, ``A_x v = J(p) y`` with

    y = R M^-1 w + e_x t v_x / (1 + 2 t p_x),    w_j = v_j (1 + t p_j) / den_xj - [j = x] sum_k t p_k v_k / den_xk.

A constant added to v adds a constant to y, which J(p) takes away: v counts from v_x on, and its last term is gone.

How it is solved. With K the matrix of ``1 / den_ij`` and ``s = (1 + t p) K p``, M is ``diag(s) - t diag(p) K diag(p)``:
conjugate gradients preconditioned by s need three or four steps at t = 4, seven in the mean at a t of 10^9. Long rows
never hold K, see :class:`Cauchy`.
"""

import math

import torch
from torch import Tensor

#: What stands for an infinite temperature: the bias on quadratic losses that is left is about its inverse.
MOST_TEMPERATURE = 2.0**30
DENSE = 128  #: Longest row whose system is written out.
_ELEMENTS = 2**22  #: Of matrices that are held at once.


class Cauchy:
    """Products with ``K_ij = 1 / (1 + t (p_i + p_j))`` in O(N): a sum of products of a function of i and one of j.

    With ``a = 1/2 + t p``, ``1 / (a + b)`` is ``2 c / ((a + c) (b + c))`` plus ``(a - c) (b - c) / ((a + c) (b + c))``
    times itself, for any c. R such steps with c spread over [1/2, 1/2 + t] leave a remainder of about ``exp(-R pi^2 /
    log(4 + 8 t))`` of it: these are the shifts of the ADI method, Zolotarev's but for their ends.

    Args:
        p: ``(rows, N)`` float64.
        t: a number, or ``(rows, 1)``.
    """

    def __init__(self, p: Tensor, t: float | Tensor) -> None:
        reach = math.log1p(3 + 8 * (MOST_TEMPERATURE if isinstance(t, Tensor) else t))
        self.terms, self.a = math.ceil(33 * reach / math.pi**2), 0.5 + t * p
        given = torch.as_tensor(t, dtype=p.dtype, device=p.device)
        length = (3 + 8 * given).log1p()
        places = [(r + 0.5) / self.terms * length for r in range(self.terms)]
        least, most = 0.5, 0.5 + given
        self.shifts = [
            torch.where(2 * place <= length, most / place.cosh(), least * (length - place).cosh()) for place in places
        ]

    def __matmul__(self, x: Tensor) -> Tensor:
        u, total = torch.ones_like(self.a), torch.zeros_like(x)
        for shift in self.shifts:
            u = u / (self.a + shift)
            total = total + u * (2 * shift * (u * x).sum(-1, keepdim=True))
            u = u * (self.a - shift)
        return total


class MinimumVariance:
    """What takes v to y, a linear function of each row, and its transpose.

    Args:
        p: probabilities, ``(rows, N)`` float64.
        D: one-hot of the sampled index.
        t: temperature, a number >= 0 or ``(rows, 1)``; infinity is ``MOST_TEMPERATURE``. Of another one the row is NaN.
    """

    def __init__(self, p: Tensor, D: Tensor, t: float | Tensor) -> None:
        self.p, self.D = p, D
        if isinstance(t, Tensor):
            self.valid = t >= 0
            t = torch.where(self.valid, t.clamp(max=MOST_TEMPERATURE), 0.0)
        else:
            self.valid = torch.tensor(t >= 0, device=p.device)
            t = min(t, MOST_TEMPERATURE) if t >= 0 else 0.0
        self.t = t
        p_x = (p * D).sum(-1, keepdim=True)
        self.of_sample = 1 / (1 + t * (p + p_x))  # 1 / den_xj
        self.ratio = (1 + t * p) / (1 + 2 * t * p)

    def __call__(self, v: Tensor) -> Tensor:
        p, D, t = self.p, self.D, self.t
        v = v - (v * D).sum(-1, keepdim=True)
        share = v * self.of_sample
        w = share * (1 + t * p) - D * (t * p * share).sum(-1, keepdim=True)
        return torch.where(self.valid, self.ratio * self.solve(w), torch.nan)

    def transposed(self, y: Tensor) -> Tensor:
        p, D, t = self.p, self.D, self.t
        w = self.solve(self.ratio * y)
        v = self.of_sample * (w * (1 + t * p) - t * p * (w * D).sum(-1, keepdim=True))
        v = torch.where(D.bool(), 0.0, v)
        return torch.where(self.valid, v - D * v.sum(-1, keepdim=True), torch.nan)

    def solve(self, w: Tensor) -> Tensor:
        """``M^-1 w``."""
        columns = w.shape[-1]
        if columns > DENSE:
            return self._solve_in_steps(w)
        size = max(1, _ELEMENTS // columns**2)
        t = self.t if isinstance(self.t, Tensor) else torch.full_like(w[:, :1], self.t)
        parts = zip(self.p.split(size), t.split(size), w.split(size), strict=True)
        return torch.cat([torch.linalg.solve(matrix(p, t), w[..., None])[..., 0] for p, t, w in parts])

    def _solve_in_steps(self, w: Tensor) -> Tensor:
        """By conjugate gradients; nothing waits for their residual, which is why a row that has arrived stands."""
        p, t, K = self.p, self.t, Cauchy(self.p, self.t)
        s = (1 + t * p) * (K @ p)
        size = w.abs().amax(-1, keepdim=True).clamp(2.0**-1000, 2.0**1000)  # squares of any gradient are to be numbers
        x, residual = torch.zeros_like(w), w / size
        direction = residual / s
        rho = (residual * direction).sum(-1, keepdim=True)
        least = rho * 2.0**-92
        for _ in range(steps(MOST_TEMPERATURE if isinstance(t, Tensor) else t)):
            applied = s * direction - t * p * (K @ (p * direction))
            alpha = torch.where(rho > least, rho / (direction * applied).sum(-1, keepdim=True), 0.0)
            x, residual = x + alpha * direction, residual - alpha * applied
            next_rho = (residual * residual / s).sum(-1, keepdim=True)
            direction = residual / s + torch.where(rho > least, next_rho / rho, 0.0) * direction
            rho = next_rho
        return x * size


def steps(t: float) -> int:
    """Most steps that float64 takes; the mean is half of it."""
    return 8 + math.ceil(math.log10(1 + t))


def matrix(p: Tensor, t: Tensor) -> Tensor:
    """M, ``(rows, N, N)``."""
    p_i, p_j, t = p[:, :, None], p[:, None, :], t[:, :, None]
    den = 1 + t * (p_i + p_j)
    own = torch.eye(p.shape[-1], dtype=torch.bool, device=p.device)
    others = (p_j / den).masked_fill(own, 0.0).sum(-1)
    diagonal = (1 + t[..., 0] * p) * others + p / (1 + 2 * t[..., 0] * p)
    return torch.where(own, torch.diag_embed(diagonal), -t * p_i * p_j / den)
