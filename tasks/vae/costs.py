"""What estimators cost: memory and seconds of MNIST-VAE training (GST Table 5), and seconds beside ST's (BR 2.3)."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor

from tasks.common import jsonl, papers, sheets
from tasks.common.sheets import Sheet, number, printed

from . import data, results
from .ensemble import Ensemble
from .recipes import Config, configure
from .results import Result

CHUNK = 5  #: steps between two readings of the clock
CHUNKS = 40
SECONDS = 60.0  #: after which a slow estimator has been timed enough, with LEAST readings or more
LEAST = 6
WARM_UP = 2  #: readings that do not count

#: The rows of GST Table 5: estimator and what it overrides.
TABLE_5: dict[str, tuple[str, dict[str, Any]]] = {
    "STGS": ("gumbel_softmax", {}),
    "GST-1.0": ("gst", {"gap": 1.0}),
    "GR-MC100": ("gumbel_rao", {"num_samples": 100}),
    "GR-MC1000": ("gumbel_rao", {"num_samples": 1000}),
}


class _EnoughError(Exception):
    """Ends an epoch early."""


# ---------------------------------------------------------------------------------------------------
# Clocks and memory


def clock(device: str) -> float:
    """Seconds: of the processor on a CPU, which another process there does not add to; of the wall on a GPU."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def steps(run: Ensemble, chunks: int, limit: float = float("inf")) -> list[float]:
    """Train; seconds a step, one reading for each ``CHUNK`` steps, until there are so many or the time is over."""
    device, readings, done = run.config.device, list[float](), 0
    start = last = clock(device)

    def on_step() -> None:
        nonlocal done, last
        done += 1
        if done % CHUNK == 0:
            now = clock(device)
            readings.append((now - last) / CHUNK)
            if len(readings) >= chunks or (now - start > limit and len(readings) >= LEAST):
                raise _EnoughError
            last = now

    try:
        while True:
            run.run_epoch(on_step)
    except _EnoughError:
        return readings


def peak_memory(config: Config, images: data.Images) -> int:
    """Bytes of all tensors but the images at the peak of a few training steps: weights, optimiser, what a step holds.

    On a CPU as torch's profiler counts its allocations, the same each time; on a GPU as its allocator does.
    """
    if torch.device(config.device).type == "cuda":
        run = Ensemble([config], images)
        steps(run, 1)
        held = sum(x.numel() * x.element_size() for x in run.images)
        return torch.cuda.max_memory_allocated(config.device) - held
    from torch._C._profiler import _EventType
    from torch.profiler import ProfilerActivity, profile

    gc.collect()  # or what another run left may be freed, and counted, meanwhile
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        steps(Ensemble([config], images), 1)
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    tree = profiler.profiler.kineto_results.experimental_event_tree()
    found = [event for event in _walk(tree) if event.tag == _EventType.Allocation]
    first = min(found, key=lambda event: event.start_time_ns).extra_fields
    before = first.total_allocated - first.alloc_size  # what an earlier profile left
    return max(event.extra_fields.total_allocated for event in found) - before


def _walk(events: Any) -> Iterator[Any]:
    for event in events:
        yield event
        yield from _walk(event.children)


# ---------------------------------------------------------------------------------------------------
# GST Table 5


class Cost(NamedTuple):
    """Of training with one estimator."""

    bytes: int
    seconds: float  #: an epoch of training steps, without the test pass
    losses: tuple[float, float]  #: -ELBO of the first test images before and after the timed steps


def cost(config: Config, data_dir: Path | None, chunks: int) -> Cost:
    """Body of a process of its own, whose memory is that of one estimator."""
    torch.set_num_threads(1)
    images = data.load(config.data, data_dir)
    peak = peak_memory(config, images)
    run = Ensemble([config], images)
    before = _loss(run)
    readings = steps(run, chunks, SECONDS)[WARM_UP:]
    return Cost(peak, statistics.median(readings) * run.steps_per_epoch, (before, _loss(run)))


def _loss(run: Ensemble) -> float:
    (block,) = run.blocks
    seed = torch.zeros(1, dtype=torch.int64, device=run.config.device)
    with torch.no_grad():
        return float(block.terms(run.images.test[:100], seed).sum())


def measure_table_5(
    table: str, overrides: Mapping[str, Any], data_dir: Path | None, folder: Path, console: Console
) -> list[Result]:
    """Each row in a fresh process; what is known is not measured again. Returns all results of this device."""
    jsonl.commit()
    for name, (estimator, own) in TABLE_5.items():
        config = configure(recipe="gst", estimator=estimator, **own, **overrides)
        column = machine(config.device)
        if any(r.method == name for r in _known(folder, table, config)):
            continue
        # spawn, and a process that ends with its row: nothing of another one is left in it
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            found = pool.submit(cost, config, data_dir, CHUNKS).result()
        figures = {"memory": found.bytes / 1e9, "time": found.seconds}
        results.add(
            folder,
            [
                Result.of(
                    config,
                    table=table,
                    column=column,
                    method=name,
                    split=split,
                    value=value,
                    epochs=1,
                    commit=jsonl.commit(),
                    failed=None,
                )
                for split, value in figures.items()
            ],
        )
        text = f"{name}: {found.bytes / 1e6:.1f} MB, {found.seconds:.2f} s an epoch"
        console.print(f"{text}; -ELBO {found.losses[0]:.2f} to {found.losses[1]:.2f}", highlight=False)
    return _known(folder, table, configure(recipe="gst", estimator="gst", **overrides))


def machine(device: str) -> str:
    """What the costs are of."""
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else "CPU, one thread"


def _known(folder: Path, table: str, config: Config) -> list[Result]:
    found = results.read(folder, table)
    return [r for r in found if r.data == config.data and r.column == machine(config.device)]


def report_table_5(path: Path, found: list[Result], is_papers: bool, console: Console) -> None:
    """GST Table 5 beside the paper's, with the ratios to STGS, which a machine has less part in."""
    table = papers.figures("GST Table 5")
    columns = {split: next(c for c in table["STGS"] if split in c) for split in ("memory", "time")}
    shown = []
    for split, title in {"memory": "Allocated memory (GB)", "time": "Seconds an epoch"}.items():
        ours = {r.method: r.value for r in found if r.split == split and r.value is not None}
        theirs = {row: cells[columns[split]] for row, cells in table.items()} if is_papers else {}
        rows = [
            (
                row,
                printed(theirs.get(row)),
                number(ours.get(row)),
                number(theirs[row].over(theirs["STGS"]) if row in theirs else None),
                number(_ratio(ours.get(row), ours.get("STGS"))),
            )
            for row in TABLE_5
        ]
        shown.append(Sheet(title, ("", "paper", "ours", "paper, to STGS", "ours, to STGS"), rows))
    commits = ", ".join(sorted({r.commit for r in found}))
    notes = [
        f"{found[0].data}, 10x30, batch 100 on {found[0].column}; commit {commits}. The paper's are of an Nvidia "
        "1080-Ti.",
        "Memory: all tensors but the data set at the peak of a training step (weights, gradients, Adam's two moments, "
        "what the step holds): on a CPU as torch's profiler counts allocations, on a GPU as its allocator does. The "
        "kernels here draw one conditional sample after the other, so memory does not grow with K.",
        "Time: the median step times 600, the test pass left out; on a CPU seconds of the processor, one thread. Each "
        "row is a process of its own.",
    ]
    sheets.write(path, "GST Table 5: memory and time of MNIST-VAE training", notes, shown, console)


def _ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base is not None else None


# ---------------------------------------------------------------------------------------------------
# BR 2.3: "generally around three times slower than the other estimators"

SPEED_LATENTS = ("8x4", "10x30")
#: The rows, and whether they take the Gumbel-Rao approximation with K = 100.
SPEED_ROWS = {
    "ST": "straight_through",
    "STGS": "gumbel_softmax",
    "GST-1.0": "gst",
    "ReinMax": "reinmax",
    "GR-MC100": "gumbel_rao",
    "ReinMax-Rao": "reinmax_rao",
    "ReinMax-CV": "reinmax_cv",
}
ROUNDS, CALLS = 15, 20


@dataclass(frozen=True)
class Speed:
    """Seconds of one estimator at one latent shape."""

    call: float  # a sample of a batch of 100 and its backward pass
    step: float  # a training step


def speeds(latent: str, images: data.Images, device: str, data_set: str) -> dict[str, Speed]:
    """The least of rounds in which the estimators take turns, so that what a machine does meanwhile has little part."""
    # One optimiser for all: in Table 4 they differ, and RAdam takes longer.
    given: dict[str, Any] = {"latent": latent, "data": data_set, "device": device, "optimizer": "adam"}
    runs = {name: Ensemble([configure(estimator=e, **given)], images) for name, e in SPEED_ROWS.items()}
    config = next(iter(runs.values())).config
    generator = torch.Generator().manual_seed(0)
    logits, v = (
        torch.randn(config.batch_size, config.latents, config.categories, generator=generator).to(device)
        for _ in range(2)
    )
    calls: dict[str, list[float]] = {name: [] for name in runs}
    trained: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            estimator = run.config.build_estimator()
            calls[name].append(_seconds_a_call(lambda e=estimator: _call(e, logits, v), device))  # type: ignore[misc]
            trained[name] += steps(run, 2)
    return {name: Speed(min(calls[name]), min(trained[name])) for name in runs}


def _call(estimator: Any, logits: Tensor, v: Tensor) -> None:
    leaf = logits.requires_grad_()
    torch.autograd.grad(estimator(leaf, seed=0), leaf, v)


def _seconds_a_call(call: Callable[[], None], device: str) -> float:
    start = clock(device)
    for _ in range(CALLS):
        call()
    return (clock(device) - start) / CALLS


def report_speeds(path: Path, images: data.Images, device: str, data_set: str, console: Console) -> None:
    """Seconds of the call alone and of a training step, and how many of ST's they are."""
    torch.set_num_threads(1)
    shown = []
    for latent in SPEED_LATENTS:
        found = speeds(latent, images, device, data_set)
        st = found["ST"]
        rows = [
            (
                name,
                number(1e6 * speed.call),
                f"{speed.call / st.call:.2f}",
                number(1e3 * speed.step),
                f"{speed.step / st.step:.2f}",
            )
            for name, speed in found.items()
        ]
        shown.append(Sheet(latent, ("", "call (us)", "to ST", "training step (ms)", "to ST"), rows))
    notes = [
        f"{data_set}, batch 100, float32, on {machine(device)}; commit {jsonl.commit()}. The least of {ROUNDS} "
        "rounds in which the estimators take turns; on a CPU seconds of the processor. A call is the sample and its "
        "backward pass; a step is one of training by BR's recipe, with Adam for all.",
        "The paper (2.3): Gumbel-Rao, and with it ReinMax-Rao and ReinMax-CV, is generally around three times slower "
        "than the other estimators (K = 100).",
    ]
    sheets.write(path, "BR 2.3: how much slower the Gumbel-Rao estimators are", notes, shown, console)
