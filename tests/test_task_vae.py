"""The VAE task: the model against naive formulas, runs that survive interruption, files that lie."""

import gzip
import hashlib
import math
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import figures
from torch import Tensor

from discrete_ops.estimators import GST, GumbelRao, ReinMax
from tasks.common import checkpoint, files
from tasks.common.errors import RunError
from tasks.vae import data, train
from tasks.vae.baselines import BASELINES, METHODS
from tasks.vae.ensemble import Ensemble
from tasks.vae.model import VAE
from tasks.vae.recipes import configure

pytestmark = pytest.mark.usefixtures("one_thread", "saved_each_epoch")


def vae(members: int = 1, seed: int = 0, relu_logits: bool = False, pixels: int = 9) -> VAE:
    """float64; 9 pixels, 3 latents of 4 categories: no two axes are of one length by chance."""
    generators = [torch.Generator().manual_seed(seed + member) for member in range(members)]
    return VAE(pixels, 3, 4, generators, relu_logits=relu_logits).double()


def terms(model: VAE, images: Tensor, estimator: Any, seed: Tensor) -> Tensor:
    """The two halves of -ELBO, ``(2, M)``."""
    return torch.stack(model(images, lambda f, logits: f(estimator(logits, seed=seed, backend="reference"))))


# ---------------------------------------------------------------------------------------------------
# Model


@pytest.mark.parametrize("estimator", [ReinMax(tau=1.3), GumbelRao(tau=0.5, num_samples=3)])
@pytest.mark.parametrize("relu_logits", [False, True])
def test_members_are_independent_models(estimator: Any, relu_logits: bool) -> None:
    """An ensemble of three gives the losses and gradients of three models with its weights and seeds."""
    images = torch.rand(5, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    seed = torch.tensor([11, 22, 33])
    ensemble = vae(3, relu_logits=relu_logits)
    ours = terms(ensemble, images, estimator, seed)
    assert ours.shape == (2, 3)
    ours.sum().backward()
    for member in range(3):
        alone = vae(1, seed=99, relu_logits=relu_logits)
        alone.load_state_dict({name: value[member : member + 1] for name, value in ensemble.state_dict().items()})
        expected = terms(alone, images, estimator, seed[member : member + 1])
        expected.sum().backward()
        torch.testing.assert_close(ours[:, member : member + 1], expected, rtol=0, atol=1e-10)
        for mine, theirs in zip(ensemble.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(mine.grad[member : member + 1], theirs.grad, rtol=0, atol=1e-10)


@pytest.mark.parametrize("relu_logits", [False, True])
def test_loss_is_the_naive_formula(relu_logits: bool) -> None:
    """Layer by layer, image by image and pixel by pixel."""
    model, estimator = vae(relu_logits=relu_logits), GST(tau=0.7)
    images = torch.rand(4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    seed = torch.tensor([5])
    bce, kl = terms(model, images, estimator, seed).flatten().tolist()

    def layers(x: Tensor, modules: Any) -> Tensor:
        linear = [module for module in modules if hasattr(module, "weight")]
        for layer in linear[:-1]:
            x = torch.clamp(x @ layer.weight[0] + layer.bias[0], min=0)
        return x @ linear[-1].weight[0] + linear[-1].bias[0]

    logits = layers(images, model.encoder)
    assert (logits < 0).any()  # else the ReLU would not be seen
    if relu_logits:
        logits = torch.clamp(logits, min=0)
    logits = logits.reshape(4, 3, 4)
    codes = estimator(logits, seed=seed, backend="reference")
    pixels = 1 / (1 + torch.exp(-layers(codes.reshape(4, 12), model.decoder)))
    naive_bce = naive_kl = 0.0
    for image, output, latents in zip(images.tolist(), pixels.tolist(), logits.tolist(), strict=True):
        naive_bce -= sum(x * math.log(s) + (1 - x) * math.log(1 - s) for x, s in zip(image, output, strict=True))
        for row in latents:
            total = sum(math.exp(value) for value in row)
            naive_kl += sum(math.exp(value) / total * math.log(4 * math.exp(value) / total) for value in row)
    assert bce == pytest.approx(naive_bce / 4, rel=1e-12)
    assert kl == pytest.approx(naive_kl / 4, rel=1e-10)


def test_weights_start_as_those_of_torch_linear() -> None:
    """Uniform up to 1/sqrt(fan_in), fan_in being the images' side of the matrix, and new for each member."""
    model = VAE(784, 4, 8, [torch.Generator().manual_seed(seed) for seed in (0, 1)])
    shapes = [tuple(parameter.shape) for name, parameter in model.named_parameters() if "weight" in name]
    assert shapes == [(2, 784, 512), (2, 512, 256), (2, 256, 32), (2, 32, 256), (2, 256, 512), (2, 512, 784)]
    for module in (*model.encoder[::2], *model.decoder[::2]):
        torch_linear = torch.nn.Linear(*module.weight.shape[1:])
        for ours, theirs in ((module.weight, torch_linear.weight), (module.bias, torch_linear.bias)):
            largest = ours.abs().max().item()
            assert 0.9 <= largest * math.sqrt(module.weight.shape[1]) <= 1 + 1e-6
            if theirs.numel() >= 256:  # the standard error of a uniform's std is then below 3 %
                assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.15)
        assert not torch.equal(module.weight[0], module.weight[1])


# ---------------------------------------------------------------------------------------------------
# Training and resuming


class Killed(Exception):
    pass


def weights(run: Ensemble) -> Tensor:
    return torch.cat([p.detach().flatten() for block in run.blocks for p in block.model.parameters()])


def kill_in(counter: int) -> Any:
    calls = iter(range(1, counter + 1))

    def callback(*_: Any) -> None:
        if next(calls) == counter:
            raise Killed

    return callback


@pytest.mark.parametrize(("estimator", "optimizer"), [("gumbel_rao", "adam"), ("reinmax", "radam")])
def test_resumed_run_is_the_uninterrupted_one(
    estimator: str, optimizer: str, few: data.Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(estimator=estimator, optimizer=optimizer, epochs=4)
    if config.num_samples:
        config = replace(config, num_samples=2)
    whole = train.fit(config, few, tmp_path / "whole")
    assert len(figures(tmp_path / "whole")) == 4

    out = tmp_path / "parts"
    for epoch in (1, 2):  # after an epoch, one more each time
        with pytest.raises(Killed):
            train.fit(config, few, out, on_epoch=kill_in(1))
        assert len(figures(out)) == epoch
    with pytest.raises(Killed):  # within epoch 3 (the first call comes before any step)
        train.fit(config, few, out, on_step=kill_in(3))
    with monkeypatch.context() as patch:  # between its metrics and its checkpoint
        patch.setattr(checkpoint, "save", kill_in(1))
        with pytest.raises(Killed):
            train.fit(config, few, out)
    assert len(figures(out)) == 3
    resumed = train.fit(config, few, out)
    assert figures(out) == figures(tmp_path / "whole")
    assert torch.equal(weights(resumed), weights(whole))


def test_longer_run_goes_on_and_fresh_run_starts_anew(few: data.Images, tmp_path: Path) -> None:
    short, long = (configure(epochs=epochs) for epochs in (1, 2))
    train.fit(short, few, tmp_path)
    first = figures(tmp_path)
    train.fit(long, few, tmp_path)
    assert figures(tmp_path)[:1] == first
    assert len(figures(tmp_path)) == 2
    train.fit(short, few, tmp_path, resume=False)
    assert figures(tmp_path) == first


def test_seed_decides_the_figures(few: data.Images, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train.fit(configure(epochs=1, seed=seed), few, tmp_path / name)
    assert figures(tmp_path / "a") == figures(tmp_path / "b") != figures(tmp_path / "c")


def test_figures_are_means_over_images(few: data.Images) -> None:
    """With nothing learnt, an epoch's train figures are those of one pass over all images, short batch included."""
    run = Ensemble([configure(lr=1e-30, latent="2x1", tau=1.0, optimizer="adam")], few)
    (record,) = run.run_epoch()
    model = run.member(0)
    both_bce = []
    with torch.no_grad():
        log_pi = model.encode(few.train[None]).log_softmax(-1)[0]
        for code in torch.eye(2).view(2, 1, 1, 1, 2):
            output = model.decode(code.expand(1, len(few.train), 1, 2))
            bce = torch.nn.functional.binary_cross_entropy_with_logits(output[0], few.train, reduction="none")
            both_bce.append(bce.sum(-1).mean().item())
        kl = (log_pi.exp() * (log_pi + math.log(2))).sum((-2, -1)).mean().item()
    assert record["train_kl"] == pytest.approx(kl, rel=1e-4)
    assert min(both_bce) <= record["train_bce"] <= max(both_bce)  # untrained, the codes differ by a per mille
    assert max(both_bce) - min(both_bce) < 0.02 * min(both_bce)
    assert record["train_loss"] == record["train_bce"] + record["train_kl"]


@pytest.mark.parametrize("estimator", list(METHODS))
def test_training_lowers_the_loss(estimator: str, digits: data.Images) -> None:
    config = configure(estimator=estimator, **({"lr": 5e-4, "optimizer": "adam"} if estimator in BASELINES else {}))
    if config.num_samples:
        config = replace(config, num_samples=4)
    run = Ensemble([config], digits)
    (first,), (second,) = (run.run_epoch() for _ in range(2))
    for name in ("train_loss", "test_loss"):
        assert second[name] < first[name] - 1  # nats; from 41 to 31 with ReinMax


@pytest.mark.parametrize("estimator", ["reinmax", "gst"])
def test_encoder_learns_through_the_estimator(estimator: str, digits: data.Images) -> None:
    """The decoder alone learns the mean image at best; one that depends on the code needs the encoder's gradient."""
    model = Ensemble([configure(estimator=estimator)], digits).member(0)
    bce, _ = terms(model, digits.train[:50], configure(estimator=estimator).build_estimator(), torch.tensor([3]))
    bce.sum().backward()  # without the KL, whose gradient reaches the encoder by itself
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.encoder.parameters())


# ---------------------------------------------------------------------------------------------------
# Files that lie


def test_checkpoint_of_another_config_is_refused(few: data.Images, tmp_path: Path) -> None:
    train.fit(configure(epochs=2), few, tmp_path)
    with pytest.raises(
        RunError, match=r"checkpoint\.pt: .*tau is 1\.3 there and 0\.7 here, seed is 0 there and 1 here;"
    ):
        train.fit(configure(epochs=2, tau=0.7, seed=1), few, tmp_path)
    with pytest.raises(RunError, match=r"checkpoint\.pt: epochs: got 1, allowed: 2 or more"):
        train.fit(configure(epochs=1), few, tmp_path)
    assert len(figures(tmp_path)) == 2  # neither touched the run


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "one byte", "other content"])
def test_damaged_checkpoint_is_named(damage: str, few: data.Images, tmp_path: Path) -> None:
    config = configure(epochs=1)
    train.fit(config, few, tmp_path)
    path = tmp_path / "checkpoint.pt"
    content = bytearray(path.read_bytes())
    if damage == "one byte":
        content[len(content) // 2] ^= 1
    elif damage == "other content":
        torch.save({"model": 1}, path)
        content = bytearray(path.read_bytes())
    else:
        content = {"empty": content[:0], "text": bytearray(b"hello"), "truncated": content[:-1000]}[damage]
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"checkpoint\.pt: not a readable checkpoint"):
        train.fit(config, few, tmp_path)


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_atomically(path, lambda file: file.write(b"old"))

    def fail(file: Any) -> None:
        file.write(b"new, but")
        raise Killed

    with pytest.raises(Killed):
        files.write_atomically(path, fail)
    assert path.read_bytes() == b"old"


def idx(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


IMAGES = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 15


def test_idx_reader_reads_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx(IMAGES)))
    np.testing.assert_array_equal(data.read_idx(path), IMAGES)


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(idx(IMAGES))[:-12],  # the gzip stream ends early
        gzip.compress(idx(IMAGES)[:-1]),  # the data
        gzip.compress(idx(IMAGES)[:9]),  # the header
        gzip.compress(b""),
        gzip.compress(b"\0\0\x0d" + idx(IMAGES)[3:]),  # floats
        gzip.compress(idx(IMAGES) + b"\0"),
        idx(IMAGES),  # not compressed
    ],
    # gzip writes the time into its output: a name made of it would differ from one test process to the next
    ids=["gzip cut", "data cut", "header cut", "empty", "floats", "data too long", "not compressed"],
)
def test_damaged_idx_file_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"images\.gz: "):
        data.read_idx(path)


def test_mnist_from_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {name: IMAGES[: 2 - i] for i, name in enumerate(data.MNIST_FILES)}
    contents = {name: gzip.compress(idx(array)) for name, array in arrays.items()}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(data, "MNIST_FILES", hashes)
    train_file, test_file = (tmp_path / name for name in contents)
    train_file.write_bytes(contents[train_file.name])
    with pytest.raises(RunError, match=rf"data_dir: .*{test_file.name} does not exist"):
        data.load("mnist", tmp_path)
    test_file.write_bytes(contents[test_file.name][:-1])
    with pytest.raises(RunError, match=rf"{test_file.name}: .*truncated: sha256 is"):
        data.load("mnist", tmp_path)
    test_file.write_bytes(contents[test_file.name])
    images = data.load("mnist", tmp_path)
    np.testing.assert_allclose(images.train.numpy(), IMAGES.reshape(2, 9) / 255, rtol=1e-6)
    assert images.test.shape == (1, 9)


def test_digits_are_split_once_and_for_all(digits: data.Images) -> None:
    from sklearn.datasets import load_digits

    assert digits.train.shape == (1500, 64)
    assert digits.test.shape == (297, 64)
    everything = torch.cat(digits).numpy()
    expected = load_digits().data / 16
    np.testing.assert_array_equal(np.unique(everything, axis=0), np.unique(expected, axis=0).astype(np.float32))
    np.testing.assert_allclose(everything.sum(), expected.sum())
    assert not np.array_equal(everything, expected)
    assert all(map(torch.equal, digits, data.load("digits")))
