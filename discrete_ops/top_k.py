"""k distinct categories of a row, drawn without replacement, with any estimator's gradient.

The law is that of the k largest of logits plus Gumbel noise. It is drawn as k categories one after the other, each by
one number and one pass over what the draws before left, by the kernels that there are; the first of the draws is the
estimator's own, so that k = 1 is the estimator. Noise for all categories at once would take a random word and a
logarithm each, then torch.topk: on a CPU core, 4096 rows, float32, with torch's own ``exponential_``, 0.8 ms for 2 of 8
(one after the other: 0.1) and 7 ms for 2 of 64 (0.4); at 32 of 1024 the two are about level. The gradient would have to
go through the draws one after the other all the same.

Below autograd there are a copy of the logits and a few arrays of its size, whatever k is.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch._C import _get_tracing_state
from torch.compiler import is_exporting
from torch.overrides import handle_torch_function, has_torch_function_unary

from . import backends, checks, ops, sharded
from .call import OPERATOR, DrawOptions, Generator, Pair, Real, Seed, Unpack
from .estimators import Estimator
from .estimators import estimator as estimator_of
from .reference import Parameters
from .register import apply, at_once, below_autograd, is_plain, operator, trains


@overload
def top_k(
    logits: Tensor,
    k: int,
    estimator: str | Estimator = "straight_through",
    *,
    return_index: Literal[False] = False,
    dim: int = -1,
    **options: Unpack[DrawOptions],
) -> Tensor: ...
@overload
def top_k(
    logits: Tensor,
    k: int,
    estimator: str | Estimator = "straight_through",
    *,
    return_index: Literal[True],
    dim: int = -1,
    **options: Unpack[DrawOptions],
) -> Pair: ...
@overload
def top_k(
    logits: Tensor,
    k: int,
    estimator: str | Estimator = "straight_through",
    *,
    return_index: bool,
    dim: int = -1,
    **options: Unpack[DrawOptions],
) -> Tensor | Pair: ...
def top_k(
    logits: Tensor,
    k: int,
    estimator: str | Estimator = "straight_through",
    *,
    return_index: bool = False,
    dim: int = -1,
    sample_tau: Real | None = None,
    mask: Tensor | None = None,
    generator: Generator = None,
    seed: Seed = None,
    backend: str | None = None,
) -> Tensor | Pair:
    """k distinct categories of each row, without replacement, as a k-hot sample with an estimator's gradient.

    The law is Plackett and Luce's, that of the k largest of ``logits + Gumbel noise`` (Gumbel top-k: Vieira, 2014;
    Kool, van Hoof, Welling, ICML 2019): draw j is from ``pi_j``, the softmax of the logits without the categories that
    the draws before it took. The first draw is the estimator's: ``top_k(l, 1, e, seed=s)`` is ``e(l, seed=s)``, value
    and gradient.

    The gradient is the sum over the draws of the estimator's pull-back, each at the logits in which the categories
    taken before are masked. For a loss ``<v, k_hot>`` straight-through's, at temperature 1, has the mean
    ``sum_j E[J(pi_j; v)]``: the derivative of every draw's mean given the draws before it, which are held fixed. The
    exact gradient of ``E<v, k_hot>`` has ``sum_j E[(D_j - pi_j) sum_{m > j} <pi_m, v>]`` beside it, ``D_j`` the one-hot
    of draw j: what is taken early is gone later. It is nothing at k = 1 and grows with k; at k = N it cancels the rest,
    for all categories are taken whatever the logits are.

    Args:
        logits: unnormalised log-probabilities, ``(..., N)`` with the N categories along ``dim``; float64, float32,
            float16 or bfloat16, any strides, empty batches too. ``-inf`` masks a category: it is never sampled and gets
            no gradient. NaN or +inf in a row gives a NaN row.
        k: how many, from 1 to N. A row with fewer categories that are not masked gives them all, and no more.
        estimator: an estimator (:mod:`discrete_ops.estimators`), or what describes one to
            :func:`discrete_ops.estimator`: ``"reinmax"``, ``"gst(tau=0.5, gap=1.0)"``. Its tau's gradient, where it has
            one, is the sum over the draws, too.
        return_index: also return the categories, int64, in the order of the draws: the logits' shape with k in
            ``dim``, as of torch.topk; -1 for a draw that there is not: of what is masked whole by then, of a NaN row.
        dim: the dimension of the categories.
        sample_tau: in place of the estimator's: the law is that of ``logits / sample_tau``.
        mask: bool tensor that broadcasts to the logits: True where a category may be sampled; False is as ``-inf``.
        generator: where the seed is drawn from; torch's default generator of the device if None. As every estimator's.
        seed: int in ``[0, 2**63)``, or an int64 tensor on the logits' device with one element (or S: then each of S
            equal consecutive groups of rows has its own). Equal seed, equal sample, and equal gradient up to rounding,
            in every backend.
        backend: one of ``available_backends()``; the device's default if None.

    Returns:
        The k-hot sample, like ``logits`` in shape, dtype and device: rows of k ones among zeros.
        ``(k_hot, index)`` with ``return_index``.

    Raises:
        TypeError, ValueError: naming the argument, what came and what is allowed.
        RuntimeError: when the gradient itself is differentiated in the logits or in tau; in the incoming gradient it
            may be.
    """
    options: dict[str, Any] = {"dim": dim, "mask": mask, "generator": generator, "seed": seed, "backend": backend}
    if sample_tau is not None:
        options["sample_tau"] = sample_tau
    if not isinstance(logits, Tensor) and has_torch_function_unary(logits):
        return handle_torch_function(top_k, (logits,), logits, k, estimator, return_index=return_index, **options)
    return_index, count = checks.flag("return_index", return_index), checks.count("k", k)
    options[OPERATOR] = partial(_of_rows, count)
    k_hot, index = estimator_of(estimator)(logits, return_index=True, **options)
    return (k_hot, index if dim == -1 else index.movedim(-1, dim)) if return_index else k_hot


def _of_rows(
    k: int,
    logits: Tensor,
    seed: Tensor,
    parameters: Parameters,
    hard: bool,
    estimator: str,
    num_samples: int,
    first_row: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """In the place of :func:`ops.draw`; the index is ``(..., k)``."""
    if sharded.is_sharded(logits):
        raise TypeError("logits: got a DTensor, allowed: a tensor of one device, such as its to_local()")
    if _get_tracing_state() is None and k > logits.shape[-1]:  # traced, a size is a tensor
        raise ValueError(f"k: got {k}, allowed: at most {logits.shape[-1]}, the number of categories")
    if k == 1:  # the very draw, its gradient to the last bit
        sample, index = ops.draw(logits, seed, parameters, hard, estimator, num_samples, first_row, backend)
        return sample, index.unsqueeze(-1)
    if not is_plain(logits):  # the ways of ops.draw
        parameters = ops.as_parameters(parameters, logits)
        if is_exporting() and torch.onnx.is_in_onnx_export():
            return _top_k(logits, seed, parameters, k, estimator, num_samples, first_row, "reference")
        return _top_k_op(logits, seed, parameters, k, estimator, num_samples, first_row, backend)
    backend = backend or backends.default(logits)
    if trains(parameters, logits):
        return _top_k_at_once(None, logits, seed, parameters, k, estimator, num_samples, first_row, backend)
    return _top_k(logits, seed, parameters, k, estimator, num_samples, first_row, backend)


def _pull_back(
    grad: Tensor, logits: Tensor, index: Tensor, seed: Tensor, parameters: Parameters, transposed: bool, spec: ops.Spec
) -> Tensor:
    """As :func:`ops.pull_back`."""
    if torch.is_grad_enabled() or not is_plain(grad, logits):
        return _pull_back_op(grad, logits, index, seed, ops.as_parameters(parameters, logits), transposed, *spec)
    return _pull_back_rows(grad, logits, index, seed, parameters, transposed, *spec)


def _tau_derivative(logits: Tensor, index: Tensor, seed: Tensor, parameters: Parameters, spec: ops.Spec) -> Tensor:
    """As :func:`ops.tau_derivative`, of the sum of the soft samples."""
    ops.check_tau_derivative(spec)
    return _tau_derivative_op(logits, index, seed, parameters, *spec)


# --- below autograd -------------------------------------------------------------------------------------------------


def _draws(logits: Tensor, index: Tensor, seed: Tensor, first_row: int) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Of each draw: the logits that are left, its index, which may be written now, and the number of its first row.

    It is one array, in float32 for half types, so that what is summed over the draws is rounded once.
    """
    left = ops.widened(logits).clone(memory_format=torch.contiguous_format)
    rows = index[..., 0].numel() // max(1, seed.numel())  # each seed counts its own
    for j, drawn in enumerate(index.unbind(-1)):
        if j:
            _add(left, index[..., j - 1], -torch.inf)
        yield left, drawn, first_row + j * rows


def _zeros(logits: Tensor) -> Tensor:
    return torch.zeros_like(ops.widened(logits), memory_format=torch.contiguous_format)


def _add(x: Tensor, index: Tensor, value: float) -> None:
    """Adds the value to the rows' categories, in place: to none where the index is -1."""
    each = torch.where(index < 0, 0.0, value).to(x.dtype)
    x.scatter_add_(-1, index.clamp_min(0).unsqueeze(-1), each.unsqueeze(-1))


def _top_k(
    logits: Tensor,
    seed: Tensor,
    parameters: Parameters,
    k: int,
    estimator: str,
    num_samples: int,
    first_row: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    kernels = ops.kernels_of(backend, logits)
    index = logits.new_empty((*logits.shape[:-1], k), dtype=torch.int64)
    k_hot = torch.empty(())
    for j, (left, drawn, row) in enumerate(_draws(logits, index, seed, first_row)):
        sample, now = kernels.sample(left, seed, parameters, row)
        drawn.copy_(now)
        if j:
            _add(k_hot, now, 1.0)
        else:
            k_hot = sample  # with NaN where a row has it
    return k_hot.to(logits.dtype), index


def _pull_back_rows(
    grad: Tensor,
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Parameters,
    transposed: bool,
    estimator: str,
    num_samples: int,
    first_row: int,
    backend: str,
) -> Tensor:
    grad, total = ops.widened(grad), _zeros(logits)
    for left, drawn, row in _draws(logits, index, seed, first_row):
        call = (left, drawn, seed, parameters, transposed, estimator, num_samples, row, backend)
        total += ops._pull_back(grad, *call)
    return total.to(logits.dtype)


def _tau_derivative_rows(
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Tensor,
    estimator: str,
    num_samples: int,
    first_row: int,
    backend: str,
) -> Tensor:
    total = _zeros(logits)
    for left, drawn, row in _draws(logits, index, seed, first_row):
        total += ops._tau_derivative(left, drawn, seed, parameters, estimator, num_samples, row, backend)
    return total.to(logits.dtype)


# --- autograd and registration --------------------------------------------------------------------------------------


class TopK(ops.Draw):
    """Autograd of ``top_k``."""

    @staticmethod
    def forward(
        ctx: Any, keyset: Any, logits: Tensor, seed: Tensor, parameters: Parameters, k: int, *spec: Any
    ) -> tuple[Tensor, Tensor]:
        call = (logits, seed, parameters, k, *spec)
        k_hot, index = _top_k(*call) if keyset is None else below_autograd(_top_k_op, keyset, *call)
        ops.keep(ctx, keyset is not None, (logits, index, seed, parameters), spec, _pull_back, _tau_derivative)
        return k_hot, index


_top_k_at_once = at_once(TopK)


class PullBack(ops.PullBack):
    """Autograd of ``top_k_pull_back``."""

    @staticmethod
    def forward(ctx: Any, keyset: Any, grad: Tensor, *call: Any) -> Tensor:
        ops.keep_pull_back(ctx, call, _pull_back)
        return below_autograd(_pull_back_op, keyset, grad, *call)


class TauDerivative(ops.TauDerivative):
    """Has none of its own."""

    @staticmethod
    def forward(ctx: Any, keyset: Any, *call: Any) -> Tensor:
        return below_autograd(_tau_derivative_op, keyset, *call)


_top_k_op = operator(
    f"top_k(Tensor logits, Tensor seed, Tensor parameters, SymInt k, {ops.SPEC}) -> (Tensor k_hot, Tensor index)",
    _top_k,
    partial(apply, TopK),
    lambda logits, seed, parameters, k, *_: (
        logits.new_empty(logits.shape),
        logits.new_empty((*logits.shape[:-1], k), dtype=torch.int64),
    ),
    partial(ops.vmap, 1),
    whole=True,
)
_pull_back_op = operator(
    "top_k_pull_back(Tensor grad, Tensor logits, Tensor index, Tensor seed, Tensor parameters, bool transposed, "
    f"{ops.SPEC}) -> Tensor",
    _pull_back_rows,
    partial(ops.pull_back_autograd, PullBack),
    lambda grad, logits, *_: logits.new_empty(logits.shape),
    partial(ops.vmap, 3),
    whole=True,
)
_tau_derivative_op = operator(
    f"top_k_tau_derivative(Tensor logits, Tensor index, Tensor seed, Tensor parameters, {ops.SPEC}) -> Tensor",
    _tau_derivative_rows,
    partial(apply, TauDerivative),
    lambda logits, *_: logits.new_empty(logits.shape),
    partial(ops.vmap, 2),
    whole=True,
)
