"""Samples drawn in the workers of torch's DataLoader: in a data set's ``__getitem__``, and where a batch is made."""

from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

import discrete_ops as do

ASKED = "each worker's own noise, of its torch generator: what torch.manual_seed with the worker's seed gives"


class Draws(Dataset[dict[str, Any]]):
    """Items that are drawn when they are asked for."""

    def __init__(self, items: int) -> None:
        self.items = items

    def __len__(self) -> int:
        return self.items

    def __getitem__(self, item: int) -> dict[str, Any]:
        index, worker = do.gst(torch.zeros(8, 1000), return_index=True)[1], get_worker_info()
        assert worker is not None
        return {"index": index, "uniform": torch.rand(1), "worker": worker.id, "seed": torch.initial_seed()}


def collated(items: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch: its items' draws, and one of its own."""
    index = torch.stack([item["index"] for item in items])
    own = do.reinmax(torch.zeros(8, 1000), return_index=True)[1]
    return {
        **items[0],
        "index": torch.cat([index, own[None]]),
        "uniform": torch.cat([item["uniform"] for item in items]),
    }


def batches(start: str, workers: int, items: int, seed: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(seed)
    options: Any = {"num_workers": workers, "multiprocessing_context": start, "timeout": 120, "generator": generator}
    return [*DataLoader(Draws(items), batch_size=4, collate_fn=collated, **options)]


def replayed(worker: list[dict[str, Any]]) -> list[torch.Tensor]:
    """A worker's batches, drawn here."""
    found = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(worker[0]["seed"])
        for batch in worker:
            index = []
            for _ in batch["uniform"]:
                index.append(do.gst(torch.zeros(8, 1000), return_index=True)[1])
                torch.rand(1)
            found.append(torch.stack([*index, do.reinmax(torch.zeros(8, 1000), return_index=True)[1]]))
    return found


def drawn(start: str, workers: int, items: int) -> tuple[int, list[str]]:
    """How many items, and what does not hold."""
    first = batches(start, workers, items, 1)
    faults = []
    for worker in range(workers):
        of_worker = [batch for batch in first if batch["worker"] == worker]
        if not all(
            torch.equal(batch["index"], here) for batch, here in zip(of_worker, replayed(of_worker), strict=True)
        ):
            faults.append(f"worker {worker} draws other samples than its seed")
    every = [tuple(index.tolist()) for batch in first for index in batch["index"]]
    if len(set(every)) < len(every):
        faults.append("two items of one sample")
    count = len(first)
    if start == "fork":  # a seed of the loader is one of its workers, however they are started
        again, other = batches(start, workers, items, 1), batches(start, workers, items, 2)
        count += len(again) + len(other)
        if not all(torch.equal(a["index"], b["index"]) for a, b in zip(first, again, strict=True)):
            faults.append("one generator, two samples")
        if any(torch.equal(a["index"], b["index"]) for a, b in zip(first, other, strict=True)):
            faults.append("two generators, one sample")
    return 4 * count, faults
