"""What an installed wheel must do beside any torch: every estimator on the C++ kernels is the reference's.

Runs in an environment of torch and discrete-ops alone, and says what it found as a line of JSON.
"""

import importlib.util
import json
from pathlib import Path

import torch

import discrete_ops as do
from discrete_ops import backends, estimators

SEED, SHAPE = 7, (300, 10)  # gradients of size 1


def drawn(estimator: estimators.Estimator, backend: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The sample, and the gradient of its product with a fixed vector."""
    noise = torch.Generator().manual_seed(1)
    logits = torch.randn(SHAPE, generator=noise).requires_grad_()
    v = torch.randn(SHAPE, generator=noise)
    with do.use_backend(backend):
        sample = estimator(logits, seed=SEED)
    (gradient,) = torch.autograd.grad(sample, logits, v)
    return sample, gradient


def main() -> None:
    where = Path(do.__file__)
    assert "site-packages" in where.parts, f"not the wheel: {where}"
    info = do.build_info()
    assert "cpp" in do.available_backends(), info
    assert {"compiler", "torch", "machine"} <= set(info["libraries"]), info
    worst = 0.0
    for estimator in (*(make() for make in estimators.Estimator.__subclasses__()), estimators.GST(gap="pi")):
        (sample, gradient), (want, want_gradient) = drawn(estimator, "cpp"), drawn(estimator, "reference")
        assert torch.equal(sample.argmax(-1), want.argmax(-1)), f"{estimator}: other indices than the reference's"
        difference = float((gradient - want_gradient).abs().max())
        assert difference <= 1e-5, (
            f"{estimator}: a gradient differs from the reference's by {difference}, allowed: 1e-5"
        )
        worst = max(worst, difference)
    logits = torch.randn(SHAPE).requires_grad_()
    compiled = torch.compile(lambda x: do.reinmax(x, tau=1.0, seed=SEED), fullgraph=True)
    assert torch.equal(compiled(logits), do.reinmax(logits, tau=1.0, seed=SEED))
    compiled(logits).square().sum().backward()

    layer = do.nn.StraightThroughCategorical("gst(tau=1.0, gap=1.0)")
    layer.tau = 0.5
    latent = do.distributions.OneHotCategoricalStraightThrough(logits=logits, estimator=layer.estimator, unimix=0.01)
    whole = torch.compile(lambda x: layer(x, seed=SEED), fullgraph=True)(logits)
    assert torch.equal(whole, do.gst(logits, tau=0.5, gap=1.0, seed=SEED))
    (whole * latent.rsample()).sum().backward()
    assert torch.distributions.kl_divergence(latent, latent).abs().max() == 0
    assert str(do.estimator(str(layer.estimator))) == "gst(tau=0.5, gap=1.0)"
    assert Path(do.__file__).with_name("py.typed").exists()
    numpy = importlib.util.find_spec("numpy") is not None
    loaded = [torch.__version__, *(name for name in ("cpp", "cuda") if name in backends._BACKENDS)]
    print(json.dumps({"loaded": loaded, "numpy": numpy, "difference": worst}))


if __name__ == "__main__":
    main()
