"""The calls whose memory runs out, in a process of their own: proof.allocation starts it and reads what it prints.

A line before each point, for who reads on where this process has ended, and one behind it.
"""

import ctypes
import json
import resource
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

import discrete_ops as do
from discrete_ops import backends, reference

#: Smaller allocations of whole calls are torch's own.
LEAST = 4096
FIRST_LIMIT = 2**18
M_MMAP_THRESHOLD = -3
PARAMETERS = (0.7, 0.7, 1.0)

CALLS: dict[str, Callable[..., Tensor]] = {
    "straight_through": do.straight_through,
    "gumbel_rao": partial(do.gumbel_rao, num_samples=2),
    "stratified_gumbel_rao": partial(do.gumbel_rao, num_samples=2, draws="stratified"),
    "gst": do.gst,
    "gst_pi": partial(do.gst, gap="pi"),
    "reinmax": do.reinmax,
    "reinmax_argmax": do.reinmax_argmax,
    "reinmax_rao": partial(do.reinmax_rao, num_samples=2),
    "reinmax_cv": partial(do.reinmax_cv, num_samples=2),
    "reinmax_cv_gumbel": partial(do.reinmax_cv, num_samples=2, control="gumbel"),
    "reinmax_rk2": do.reinmax_rk2,
    "mix": do.mix,
    "mve": do.mve,
}
#: Rows side by side, rows a thread, one row for all threads, and in double.
LAYOUTS = {"short rows": (1024, 10), "long rows": (4, 1500), "one long row": (1, 8000), "float64": (4, 1500)}
DRAWS = 3

#: What runs out: each allocation of the kernels' operators; each of LEAST bytes of a public call; the address space.
KINDS = ("operators", "calls", "limits")

Run = Callable[[], tuple[Tensor, ...]]


def cases(kind: str, estimators: list[str]) -> Iterator[tuple[str, Run]]:
    scale = 64 if kind == "limits" else 1
    for estimator in estimators:
        for layout, (rows, columns) in LAYOUTS.items():
            dtype = torch.float64 if layout == "float64" else torch.float32
            shape = (rows * scale, columns) if layout == "short rows" else (rows, columns * scale)
            logits = torch.randn(shape, dtype=dtype)
            make = _operators if kind == "operators" else _call
            yield f"{estimator}, {layout}", make(estimator, logits)
            if layout == "long rows":
                yield f"{estimator}, {DRAWS} draws", make(estimator, logits, num_draws=DRAWS)
                lengths = torch.tensor([0, 5, 64, *(columns * scale,) * rows])
                offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
                yield f"{estimator}, ragged rows", make(estimator, torch.randn(int(offsets[-1])), offsets=offsets)
                yield f"{estimator}, tau of each row", make(estimator, logits, tau=torch.full((rows, 1), 0.7))


def _call(estimator: str, logits: Tensor, **options: Any) -> Run:
    """A public call with its backward pass."""
    leaf = logits.requires_grad_()
    grad = torch.randn((options["num_draws"], *logits.shape) if "num_draws" in options else logits.shape).to(logits)
    if estimator in ("reinmax_rk2", "mix"):  # which have no tau
        options.pop("tau", None)

    def run() -> tuple[Tensor, ...]:
        sample = CALLS[estimator](leaf, seed=7, backend="cpp", **options)
        return sample.detach(), *torch.autograd.grad(sample, leaf, grad)

    return run


def _operators(
    estimator: str, logits: Tensor, num_draws: int = 1, offsets: Tensor | None = None, tau: Tensor | None = None
) -> Run:
    """The kernels' operators alone: a sample and a pull-back."""
    kernels, seed = backends.get("cpp"), torch.tensor([7])
    parameters: reference.Parameters = PARAMETERS
    if tau is not None:
        parameters = torch.tensor(PARAMETERS, dtype=torch.float64).repeat(len(tau), 1)
    grad = torch.randn((num_draws, *logits.shape) if num_draws > 1 else logits.shape).to(logits)

    def run() -> tuple[Tensor, ...]:
        if offsets is not None:
            sample, index = kernels.sample_ragged(logits, offsets, seed, parameters, 0)
            call = (grad, logits, offsets, index, seed, parameters, estimator, 2, 0)
            return sample, index, kernels.surrogate_vjp_ragged(*call)
        if num_draws > 1:
            sample, index = kernels.sample_many(logits, seed, parameters, num_draws)
            return sample, index, kernels.surrogate_vjp_many(grad, logits, index, seed, parameters, estimator, 2)
        sample, index = kernels.sample(logits, seed, parameters)
        return sample, index, kernels.surrogate_vjp(grad, logits, index, seed, parameters, estimator, 2)

    return run


def tell(**point: Any) -> None:
    print(json.dumps(point), flush=True)


def outcome(run: Run, right: tuple[Tensor, ...], give_back: Callable[[], Any]) -> dict[str, Any]:
    """What comes of a call under a shortage that ``give_back`` ends, and of the next one."""
    said, came = "", None
    try:
        came = run()
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    finally:
        give_back()
    if came is not None and not all(map(torch.equal, came, right)):
        return {"outcome": "wrong", "said": said}
    if not all(map(torch.equal, run(), right)):
        return {"outcome": "the next call is wrong", "said": said}
    return {"outcome": "raised" if said else "right", "said": said}


def fail_each_allocation(case: str, run: Run, least: int, skipped: set[tuple[str, int]]) -> None:
    shortage = ctypes.CDLL(None)
    shortage.bytes_refused.restype = ctypes.c_size_t
    right, number, seen = run(), 0, [1]  # allocations that the call made when it was last run
    while number < seen[-1]:
        number += 1
        if (case, number) in skipped:
            seen.append(number + 1)
            continue
        tell(case=case, at=number)
        shortage.fail_allocation(ctypes.c_long(number), ctypes.c_size_t(least))
        came = outcome(run, right, lambda: seen.append(shortage.allocations()))
        if number <= seen[-1]:
            tell(case=case, at=number, ours=shortage.bytes_refused() >= LEAST and bool(came["said"]), **came)


def end_address_space(case: str, run: Run, limits: int, skipped: set[tuple[str, int]]) -> None:
    """At a little more than there is, and so on to twice as much, in so many steps, until there is enough."""
    allocator = ctypes.CDLL(None)
    allocator.mallopt(M_MMAP_THRESHOLD, LEAST)  # what is given back leaves the address space, and is not there again
    right, unlimited, step = run(), resource.getrlimit(resource.RLIMIT_AS), 0
    while True:
        more, step = round(FIRST_LIMIT * 2 ** (step / limits)), step + 1
        if (case, more) in skipped:
            continue
        tell(case=case, at=more)
        allocator.malloc_trim(0)
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + more, unlimited[1]))
        came = outcome(run, right, lambda: resource.setrlimit(resource.RLIMIT_AS, unlimited))
        tell(case=case, at=more, ours=bool(came["said"]), **came)
        if came["outcome"] == "right":
            return


def main(order: str) -> None:
    estimators, limits, done = json.loads(order)
    skipped = {(case, at) for case, at in done}
    torch.manual_seed(0)
    for kind in KINDS:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for name, run in cases(kind, estimators):
                case = f"{kind}: {name}, {threads} thread{'s' * (threads > 1)}"
                run()
                if kind == "limits":
                    end_address_space(case, run, limits, skipped)
                else:
                    fail_each_allocation(case, run, LEAST if kind == "calls" else 0, skipped)


if __name__ == "__main__":
    main(sys.argv[1])
