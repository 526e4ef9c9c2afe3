"""Objects of the package and tensors, sent to a spawned process and back by ``torch.multiprocessing``."""

import functools
import inspect
from typing import Any

import torch
import torch.multiprocessing
from torch import Tensor

import discrete_ops as do
from discrete_ops import distributions, estimators, functional, nn

SEED = 3


def objects(logits: Tensor) -> dict[str, Any]:
    """One of each kind: every estimator, layers, a distribution, every function."""
    made = {name: kind() for name, kind in inspect.getmembers(estimators, inspect.isclass) if _is_estimator(kind)}
    made |= {f"{name} of tensors": _of_tensors(estimator) for name, estimator in made.items()}
    layer, table = nn.StraightThroughCategorical("gst(tau=0.5, gap=1.0)"), nn.StraightThroughEmbedding(10, 4, "reinmax")
    distribution = distributions.OneHotCategoricalStraightThrough(logits=logits, estimator="mve", unimix=0.01)
    made |= {"layer": layer, "table": table, "distribution": distribution}
    made["partial"] = functools.partial(do.gumbel_rao, tau=0.5, num_samples=3)
    return made | {name: getattr(do, name) for name in do.__all__ if inspect.isfunction(getattr(do, name))}


def _is_estimator(kind: Any) -> bool:
    return issubclass(kind, estimators.Estimator) and kind is not estimators.Estimator


def _of_tensors(estimator: Any) -> Any:
    """With a tensor for its temperature of samples."""
    return type(estimator)(sample_tau=torch.tensor(0.8, dtype=torch.float64))


def used(found: Any, logits: Tensor) -> tuple[Tensor, ...]:
    """A sample and the gradient at the logits; nothing of a function that takes something else."""
    logits = logits.detach().clone().requires_grad_()
    if isinstance(found, torch.distributions.Distribution):
        torch.manual_seed(SEED)
        return (found.rsample((2,)),)
    if inspect.isfunction(found) and (found.__module__ != functional.__name__ or found is do.expected_gap):
        return ()
    sample = found(logits, seed=SEED)
    (gradient,) = torch.autograd.grad(sample, logits, torch.ones_like(sample).cumsum(-1))
    return sample.detach(), gradient


def serve(requests: Any, replies: Any) -> None:
    """In the other process."""
    while (message := requests.get()) is not None:
        name, found, logits = message
        try:
            replies.put((name, found, used(found, logits)))
        except Exception as error:  # told to who waits
            replies.put((name, found, f"{type(error).__name__}: {error}"))
        logits.add_(1.0)  # shared


def fault(sent: Any, back: Any, mine: tuple[Tensor, ...], theirs: Any) -> str:
    if isinstance(theirs, str):
        return theirs
    if len(mine) != len(theirs) or not all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True)):
        return "other samples or gradients there"
    if isinstance(sent, torch.distributions.Distribution | torch.nn.Module | functools.partial):
        return "" if repr(sent) == repr(back) else f"came back as {back!r}"
    return "" if sent == back else f"came back as {back!r}"


def through_queues() -> tuple[int, list[str]]:
    """How many objects, and what does not hold."""
    context: Any = torch.multiprocessing.get_context("spawn")
    requests, replies = context.Queue(), context.Queue()
    process = context.Process(target=serve, args=(requests, replies), daemon=True)
    process.start()
    logits = torch.linspace(-2, 2, 60).reshape(6, 10).share_memory_()
    faults, sent = [], objects(logits.clone())
    with torch.random.fork_rng(devices=[]):
        for number, (name, each) in enumerate(sent.items()):
            mine, before = used(each, logits), logits.clone()
            requests.put((name, each, logits))
            of, back, theirs = replies.get(timeout=120)
            words = fault(each, back, mine, theirs) if of == name else f"came back as {of}"
            requests.put((name, None, torch.zeros(1)))  # once it is answered, the logits were added to
            replies.get(timeout=120)
            if not torch.equal(logits, before + 1.0):
                words = words or f"what it wrote into shared logits is not seen, at number {number}"
            faults += [f"{name}: {words}"] if words else []
    requests.put(None)
    process.join(60)
    if process.exitcode != 0:
        faults.append(f"the process ended with {process.exitcode}")
    return len(sent), faults
