"""The VAE's ensemble on a GPU: the step as a CUDA graph does what it does eagerly."""

from pathlib import Path

import pytest
import torch

from tasks.vae import data, train
from tasks.vae.ensemble import Ensemble
from tasks.vae.graphs import CapturedStep
from tasks.vae.recipes import configure

if not torch.cuda.is_available():
    pytest.skip("NOT COVERED: training on a GPU, of which there is none", allow_module_level=True)

CONFIGS = [
    configure(device="cuda", **given)
    for given in (
        {"estimator": "reinmax", "lr": 1e-3, "optimizer": "radam", "seed": 3},
        {"estimator": "gumbel_rao", "num_samples": 3},
        {"estimator": "gst", "gap": "pi"},
        {"estimator": "straight_through", "mid_tau": 0.5, "tau": 2.0, "low_every": 2, "lr": 5e-4},
        {"estimator": "gst", "detach_perturbation": False, "seed": 1},
        {"estimator": "rloo", "lr": 5e-4, "optimizer": "adam"},
    )
]


@pytest.fixture
def images() -> data.Images:
    """Eight full batches an epoch and a short one."""
    generator = torch.Generator().manual_seed(0)
    return data.Images(torch.rand(830, 64, generator=generator), torch.rand(50, 64, generator=generator))


def losses(ensemble: Ensemble, epochs: int = 2) -> torch.Tensor:
    records = [ensemble.run_epoch() for _ in range(epochs)]
    return torch.tensor([[[r["train_loss"], r["test_loss"]] for r in epoch] for epoch in records])


def test_captured_step_is_the_eager_one(images: data.Images) -> None:
    """Three eager steps, a capture, replays, and an eager step for the short batch."""
    captured, eager = Ensemble(CONFIGS, images, torch.float64), Ensemble(CONFIGS, images, torch.float64)
    eager._step = eager.step
    found, want = losses(captured), losses(eager)
    assert isinstance(captured._step, CapturedStep)
    assert captured._step.graph is not None
    torch.testing.assert_close(found, want, rtol=1e-9, atol=0)
    assert (want[1] != want[0]).all()


def test_member_is_the_run_alone(images: data.Images) -> None:
    together = losses(Ensemble(CONFIGS, images, torch.float64))
    for member, config in enumerate(CONFIGS):
        alone = losses(Ensemble([config], images, torch.float64))
        torch.testing.assert_close(together[:, member], alone[:, 0], rtol=1e-9, atol=0)


def test_resumed_run_goes_on(images: data.Images, tmp_path: Path) -> None:
    whole = Ensemble(CONFIGS, images, torch.float64)
    want = losses(whole, 3)
    first = Ensemble(CONFIGS, images, torch.float64)
    losses(first, 2)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = Ensemble(CONFIGS, images, torch.float64)
    losses(second, 1)  # a graph of other tensors
    second.load_state_dict(torch.load(tmp_path / "state.pt", map_location="cpu"))
    torch.testing.assert_close(losses(second, 1), want[2:], rtol=1e-9, atol=0)


def test_files_of_a_run(images: data.Images, tmp_path: Path) -> None:
    config = configure(estimator="gst", device="cuda", epochs=2)
    run = train.fit(config, images, tmp_path)
    assert run.epoch == 2
    assert {"checkpoint.pt", "config.json", "metrics.jsonl"} <= {path.name for path in tmp_path.iterdir()}
