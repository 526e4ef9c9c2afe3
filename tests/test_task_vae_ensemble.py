"""The ensemble: a member is the run that it would be alone, whatever becomes of its neighbours."""

import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import figures
from torch import Tensor

from discrete_ops import philox
from discrete_ops.estimators import GST
from tasks.common import checkpoint
from tasks.common.errors import RunError
from tasks.vae import block, data, linear, losses, optimizers, train
from tasks.vae.ensemble import Ensemble, Record
from tasks.vae.recipes import Config, configure

pytestmark = pytest.mark.usefixtures("one_thread", "saved_each_epoch")

#: Two optimisers, two learning rates, three seeds, shared and unshared settings; in no order.
MIXED = [
    configure(estimator="reinmax", lr=1e-3, optimizer="radam", seed=3),
    configure(estimator="gumbel_rao", num_samples=3),
    configure(estimator="gst", lr=1e-3, optimizer="radam", seed=1),
    configure(estimator="gst", gap="pi", lr=1e-3, optimizer="radam", seed=3),
    configure(estimator="reinmax", seed=1),
    configure(estimator="gst", lr=1e-3, optimizer="radam", seed=3),
    configure(estimator="reinmax_cv", num_samples=2, control="gumbel"),
    configure(estimator="straight_through", mid_tau=0.5, tau=2.0, low_every=2, lr=5e-4),
    configure(estimator="straight_through", mid_tau=0.5, tau=2.0, low_every=2, lr=5e-4, seed=1),
    configure(estimator="straight_through", mid_tau=0.5, tau=1.0, low_every=3, lr=5e-4),
    configure(estimator="gst", detach_perturbation=False, lr=1e-3, optimizer="radam"),
    configure(estimator="rloo", lr=5e-4, optimizer="adam"),
    configure(estimator="disarm_tree", lr=5e-4, optimizer="adam", num_samples=4),
]


def without_time(records: list[Record]) -> list[Record]:
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


def largest_difference(ours: list[Record], theirs: list[Record]) -> float:
    pairs = zip(without_time(ours), without_time(theirs), strict=True)
    return max(abs(a[name] - b[name]) for a, b in pairs for name in a)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_member_is_the_run_alone(dtype: torch.dtype, few: data.Images) -> None:
    """Alone and in blocks of several; in float32 bit for bit, for rounding would grow."""
    few = data.Images(few.train[:110], few.test[:30])
    ensemble = Ensemble(MIXED, few, dtype)
    assert len(ensemble.blocks) < len(MIXED)
    for _ in range(2):
        ensemble.run_epoch()
    for member, config in enumerate(MIXED):
        alone = Ensemble([config], few, dtype)
        for _ in range(2):
            alone.run_epoch()
        exact = dtype == torch.float32
        assert largest_difference(ensemble.history_of(member), alone.history_of(0)) <= (0 if exact else 1e-9)
        ours, theirs = ensemble.member(member).state_dict(), alone.member(0).state_dict()
        for name in theirs:
            torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=0 if exact else 1e-9)


def test_members_differ() -> None:
    """What the test above would not see if all members were one and the same run."""
    few = data.Images(torch.rand(200, 16), torch.rand(20, 16))
    ensemble = Ensemble(MIXED, few)
    ensemble.run_epoch()
    weights = [ensemble.member(member).state_dict().values() for member in range(len(MIXED))]
    assert len({tuple(torch.cat([x.flatten() for x in one]).tolist()) for one in weights}) == len(MIXED)


def test_shared_order_gives_all_seeds_the_same_minibatches(few: data.Images) -> None:
    def batches(shared: bool) -> list[Tensor]:
        seen: list[Tensor] = []
        configs = [configure(estimator="gst", seed=seed, shared_order=shared) for seed in (0, 1)]
        ensemble = Ensemble(configs, few)
        step = ensemble.step
        ensemble._step = lambda index, seed, tau: (seen.append(index.clone()), step(index, seed, tau))[1]
        ensemble.run_epoch()
        return seen

    for index in batches(shared=True):
        assert torch.equal(index[0], index[1])
    own = batches(shared=False)
    assert not any(torch.equal(index[0], index[1]) for index in own)
    for member in torch.cat(own, 1):  # each image once, the last batch short
        assert sorted(member.tolist()) == list(range(350))
    assert [index.shape[1] for index in own] == [100, 100, 100, 50]


def test_failed_member_leaves_the_others_alone(few: data.Images, tmp_path: Path) -> None:
    """It is reported with its epoch; its neighbours' figures are those without it."""
    healthy = [configure(estimator="gst", epochs=2), configure(estimator="reinmax", seed=1, epochs=2)]
    sick = configure(estimator="straight_through", lr=1e30, epochs=2)
    company = train.fit([healthy[0], sick, healthy[1]], few, tmp_path / "company")
    without = train.fit(healthy, few, tmp_path / "without")
    assert [company.failed(member) for member in range(3)] == [None, 1, None]
    for ours, theirs in ((0, 0), (2, 1)):
        assert without_time(company.history_of(ours)) == without_time(without.history_of(theirs))
    lines = figures(tmp_path / "company")
    assert [line["member"] for line in lines] == [0, 1, 2] * 2
    assert lines[1]["test_loss"] is None  # JSON has no NaN

    with pytest.raises(RunError, match="straight_through: train_loss is nan in epoch 1"):
        train.fit(sick, few, tmp_path / "alone")

    grouped = Ensemble([replace(sick, seed=seed, lr=lr) for seed, lr in ((0, 1e-3), (1, 1e-3))], few, torch.float64)
    assert len(grouped.blocks) == 1
    with torch.no_grad():
        next(grouped.blocks[0].model.parameters())[1] = math.nan
    grouped.run_epoch()
    alone = Ensemble([replace(sick, lr=1e-3)], few, torch.float64)
    alone.run_epoch()
    assert [grouped.failed(member) for member in range(2)] == [None, 1]
    assert largest_difference(grouped.history_of(0), alone.history_of(0)) < 1e-9


def test_members_of_different_shape_are_refused(few: data.Images) -> None:
    with pytest.raises(RunError, match="latent: got 8x16, 8x4 in one ensemble"):
        Ensemble([configure(latent="8x4"), configure(latent="8x16")], few)


def test_checkpoint_of_other_members_is_refused(few: data.Images, tmp_path: Path) -> None:
    configs = [configure(estimator=name, epochs=1) for name in ("gst", "reinmax")]
    train.fit(configs, few, tmp_path)
    with pytest.raises(RunError, match=r"checkpoint\.pt: .*member 1: tau is 1\.3 there and 0\.7 here"):
        train.fit([configs[0], replace(configs[1], tau=0.7)], few, tmp_path)
    with pytest.raises(RunError, match="members are 2 there and 1 here"):
        train.fit(configs[0], few, tmp_path)


def test_checkpoint_from_before_a_field_was_added_is_read(few: data.Images, tmp_path: Path) -> None:
    config = configure(estimator="gst", epochs=1)
    run = train.fit(config, few, tmp_path)
    path = tmp_path / "checkpoint.pt"
    content = torch.load(path, weights_only=True)
    del content["configs"][0]["leak"]
    torch.save(content, path)
    assert checkpoint.load(path, [config])["epoch"] == run.epoch
    with pytest.raises(RunError, match=r"leak is 0\.0 there and 0\.2 here"):
        checkpoint.load(path, [replace(config, leak=0.2)])


def test_kept_epochs_stay(few: data.Images, tmp_path: Path) -> None:
    config = configure(estimator="gst", epochs=3)
    train.fit(config, few, tmp_path, keep=(1, 3))
    assert sorted(path.name for path in tmp_path.glob("epoch-*.pt")) == ["epoch-1.pt", "epoch-3.pt"]
    first = Ensemble([config], few)
    first.load_state_dict(checkpoint.load(tmp_path / "epoch-1.pt", [config]))
    assert without_time(first.history_of(0)) == figures(tmp_path)[:1]


# ---------------------------------------------------------------------------------------------------
# The step


def test_step_is_pure_in_its_buffers(few: data.Images) -> None:
    """What a CUDA graph needs: the same tensors, filled anew, give the same update as new tensors."""
    runs = [Ensemble(MIXED[:3], few, torch.float64) for _ in range(2)]
    index, seed, tau = (torch.zeros(3, 4, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), torch.ones(3).double())
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        new = torch.randint(350, (3, 4), generator=generator), torch.randint(2**62, (3,), generator=generator)
        index.copy_(new[0])
        seed.copy_(new[1])
        assert torch.equal(runs[0].step(index, seed, tau), runs[1].step(*new, tau.clone()))


@pytest.mark.parametrize("leak", [0.0, 0.2])
@pytest.mark.parametrize("members", [1, 3])
def test_perceptrons_agree_with_torch(members: int, leak: float) -> None:
    """Forward and all gradients, float32 against float64, and that against torch's own layers."""
    generator = torch.Generator().manual_seed(members)
    shapes = ((members, 6, 5), (members, 5, 4), (members, 4, 3), (members, 1, 4), (members, 1, 3))
    given = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    v = torch.randn(members, 6, 3, generator=generator, dtype=torch.float64)
    results = []
    for dtype in (torch.float32, torch.float64):
        x, *parameters = (t.to(dtype).requires_grad_() for t in given)
        y = linear.perceptron(x, parameters[:2], parameters[2:], leak)
        results.append([y, *torch.autograd.grad(y, [x, *parameters], v.to(dtype))])
    for single, double in zip(*results, strict=True):
        torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-5)
    for member in range(members):
        x, w1, w2, b1, b2 = (t[member] for t in given)
        hidden = torch.nn.functional.leaky_relu(x @ w1 + b1, leak)
        torch.testing.assert_close(results[1][0][member], hidden @ w2 + b2, rtol=0, atol=1e-12)


def test_perceptrons_work_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias = torch.randn(2, 6, 5), torch.randn(2, 5, 4), torch.randn(2, 1, 4)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    torch.testing.assert_close(linear.perceptron(x, [weight], [bias]), torch.baddbmm(bias, x, weight))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("leak", [0.0, 0.2])
def test_perceptrons_pass_nan_on(dtype: torch.dtype, leak: float) -> None:
    """A run whose weights are not finite is to be seen by its figures."""
    first, last = torch.full((1, 5, 4), math.nan, dtype=dtype), torch.ones(1, 4, 3, dtype=dtype)
    x, biases = torch.ones(1, 6, 5, dtype=dtype), [torch.zeros(1, 1, n, dtype=dtype) for n in (4, 3)]
    assert linear.perceptron(x, [first, last], biases, leak).isnan().all()


@pytest.mark.parametrize("categories", [2, 10])
def test_kl_is_the_naive_one(categories: int) -> None:
    """Value and gradient, through softmax and autograd; a category that underflows adds nothing."""
    logits = torch.randn(2, 3, 4, categories, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        logits[0, 0, 0] *= 1000
    found = losses.kl_to_uniform(logits)
    pi = logits.softmax(-1)
    expected = torch.special.xlogy(pi, pi * categories).sum(-1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    v = torch.randn(2, 3, 4, dtype=torch.float64)
    (ours,) = torch.autograd.grad(found, logits, v)
    with torch.no_grad():  # autograd's own is NaN where a probability is 0
        log_pi = logits.log_softmax(-1)
        theirs = v[..., None] * pi * (log_pi - (pi * log_pi).sum(-1, keepdim=True))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(expected, logits, v)[0][1:], ours[1:], rtol=0, atol=1e-12)


# ---------------------------------------------------------------------------------------------------
# Optimisers


@pytest.mark.parametrize(("ours", "theirs"), [("Adam", torch.optim.Adam), ("RAdam", torch.optim.RAdam)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
@pytest.mark.parametrize("resumed", [0, 3, 20])
def test_fused_optimisers_are_those_of_torch(
    ours: str, theirs: Any, dtype: torch.dtype, tolerance: float, resumed: int
) -> None:
    """50 steps with gradients of all sizes; from torch's state after some of them, and back."""
    generator = torch.Generator().manual_seed(1)
    weights = [torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in ((7, 9), (9,))]
    copies = [torch.nn.Parameter(weight.detach().clone()) for weight in weights]
    expected = theirs(copies, lr=1e-3)
    found = getattr(optimizers, ours)(weights, lr=1e-3)
    for step in range(50):
        for weight, copy in zip(weights, copies, strict=True):
            size = torch.randn(weight.shape, generator=generator, dtype=dtype)
            weight.grad = torch.randn(weight.shape, generator=generator, dtype=dtype) * 10**size
            copy.grad = weight.grad.clone()
        expected.step()
        if step < resumed:
            with torch.no_grad():
                for weight, copy in zip(weights, copies, strict=True):
                    weight.copy_(copy)
            found.load_state_dict(deepcopy(expected.state_dict()))
        else:
            found.step()
    for weight, copy in zip(weights, copies, strict=True):
        torch.testing.assert_close(weight, copy, rtol=tolerance, atol=tolerance * 1e-2)
    back = theirs(weights, lr=1e-3)
    back.load_state_dict(found.state_dict())
    back.step()
    assert [state["step"] for state in back.state.values()] == [51, 51]


def test_only_gradients_that_are_read_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those at frozen weights are not; and a dead unit lets nothing through, not even inf."""
    x = torch.randn(1, 5, 4, requires_grad=True)
    weights = [torch.randn(1, 4, 3), torch.randn(1, 3, 2)]
    biases = [torch.full((1, 1, 3), -100.0), torch.zeros(1, 1, 2)]
    products, counted = linear._products, []
    monkeypatch.setattr(linear, "_products", lambda *arguments: counted.append(1) or products(*arguments))
    y = linear.perceptron(x, weights, biases)
    forward = len(counted)
    (found,) = torch.autograd.grad(y, x, torch.full_like(y, torch.inf))
    assert len(counted) - forward == 2 or not forward  # no oneDNN, no products of ours
    assert (found == 0).all()
    assert all(weight.grad is None for weight in weights)


# ---------------------------------------------------------------------------------------------------
# What some recipes add


def test_mixed_temperatures_are_those_of_the_batch_index(few: data.Images) -> None:
    """GST A.3: index % M == 0 at the low temperature, every other batch at mid_temp; (20, .5) in its Table 7."""
    config = configure(estimator="gst", tau=0.01, mid_tau=0.5)
    ensemble = Ensemble([config, configure(estimator="gst"), replace(config, tau=0.1, low_every=3)], few)
    taus = ensemble._temperatures(600)
    assert taus[0].tolist() == [0.01 if index % 20 == 0 else 0.5 for index in range(600)]
    assert taus[2].tolist() == [0.1 if index % 3 == 0 else 0.5 for index in range(600)]


def test_mixed_temperatures_reach_the_gradient() -> None:
    """The step's temperature in training, the low one where none is given; members without a mix keep their own."""
    low = configure(estimator="gst", tau=0.3, mid_tau=0.5)
    configs = [low, configure(estimator="gst", tau=0.7), replace(low, seed=1)]
    draw = block.Draws(configs)
    logits, seed = torch.randn(3, 3, 4, 8), torch.tensor([5, 6, 7])

    def gradient(call: Any) -> Tensor:
        x = logits.clone().requires_grad_()
        (call(x) * torch.arange(8.0)).sum().backward()
        return x.grad

    for given, expected in ((torch.tensor([2.0, 9.0, 0.4]), (2.0, 0.7, 0.4)), (None, (0.3, 0.7, 0.3))):
        found = gradient(lambda x, tau=given: draw(x, seed=seed, backend="reference", tau=tau))
        for member, tau in enumerate(expected):
            alone = gradient(lambda x, t=tau: GST(tau=t)(x, seed=seed, backend="reference"))
            torch.testing.assert_close(found[member], alone[member])


def test_binarised_pixels_have_the_mean_of_their_grey() -> None:
    images = torch.tensor([0.0, 0.2, 0.7, 1.0]).expand(1, 4000, 4)
    seed = torch.tensor([3])
    pixels = block.binarize(images, seed)
    assert set(pixels.unique().tolist()) == {0.0, 1.0}
    assert pixels[..., 0].sum() == 0
    assert pixels[..., 3].min() == 1
    mean = pixels.mean(1)[0]
    assert mean[1].item() == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / 4000))
    assert mean[2].item() == pytest.approx(0.7, abs=4 * math.sqrt(0.21 / 4000))
    assert torch.equal(pixels, block.binarize(images, seed))
    # Not the noise of the codes, which use the same seed.
    codes = philox.words(seed, torch.tensor([philox.FORWARD_DRAW]), 4000, 4)
    assert not torch.equal((codes + 0.5) * 2.0**-32 < images, pixels.bool())


def test_disarm_recipe_trains(digits: data.Images) -> None:
    """Binary images, leaky ReLUs, the first so many images, a variance each epoch; another estimator, another one."""
    common: dict[str, Any] = {"recipe": "disarm", "latent": "4x3", "train_images": 400, "variance_draws": 4}
    configs: list[Config] = [configure(estimator=name, **common) for name in ("rloo", "gst", "disarm_tree")]
    ensemble = Ensemble(configs, digits)
    assert len(ensemble.images.train) == 400
    first, second = ensemble.run_epoch(), ensemble.run_epoch()
    assert all(b["test_loss"] < a["test_loss"] for a, b in zip(first, second, strict=True))
    assert len({record["variance"] for record in second}) == 3
    assert "LeakyReLU" in str(ensemble.member(0))


def test_variance_of_the_last_epoch_alone(few: data.Images) -> None:
    """Asking for it changes nothing else."""
    config = configure(estimator="gst", epochs=2, variance_draws=3)
    last, each = Ensemble([replace(config, variance_every=0)], few), Ensemble([config], few)
    found = [(*last.run_epoch(), *each.run_epoch()) for _ in range(2)]
    assert ["variance" in record for record in (*found[0], *found[1])] == [False, True, True, True]
    assert found[1][0]["train_loss"] == found[1][1]["train_loss"]


@pytest.mark.parametrize("is_binary", [False, True])
def test_gradient_variance_is_the_naive_one(is_binary: bool, few: data.Images) -> None:
    """Of the estimator's noise alone: images that are black or white at random are drawn once."""
    config = configure(estimator="gst", latent="3x2", lr=1e-3, tau=1.0, optimizer="adam")
    configs = [config, replace(config, seed=1)]
    ensemble = Ensemble(configs, few, torch.float64)
    (group,) = ensemble.blocks
    seeds = torch.randint(2**62, (5, 2), generator=torch.Generator().manual_seed(0))
    images = ensemble.images.test[:20]
    if is_binary:
        (binary,) = Ensemble([replace(c, binarize=True) for c in configs], few, torch.float64).blocks
        variance = binary.gradient_variance(images, seeds)
        images = block.binarize(images.expand(2, -1, -1), seeds[0])
    else:
        variance = group.gradient_variance(images, seeds)
    for member in range(2):
        gradients = []
        for seed in seeds:
            parameters = list(group.model.encoder.parameters())
            grads = torch.autograd.grad(group.terms(images, seed)[:, member].sum(), parameters)
            gradients.append(torch.cat([g[member].flatten() for g in grads]))
        assert variance[member].item() == pytest.approx(torch.stack(gradients).var(0).mean().item(), rel=1e-9)
