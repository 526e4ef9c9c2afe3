"""What only a GPU shows of the cuda and triton backends: graphs, streams, devices, memory, large tensors."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import discrete_ops as do
from discrete_ops import backends, reference

if not torch.cuda.is_available():
    pytest.skip("NOT COVERED: no GPU", allow_module_level=True)

ON_GPU = [name for name in ("cuda", "triton") if name in do.available_backends()]
if not ON_GPU:
    pytest.skip("NOT COVERED: neither the cuda nor the triton backend is installed", allow_module_level=True)

pytestmark = pytest.mark.parametrize("name", ON_GPU)
SHAPES = [(3000, 10), (64, 1000), (3, 8000), (3, 12000), (3, 40000)]


def captured(call: Callable[[], object]) -> torch.cuda.CUDAGraph:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_replays_draw_fresh_noise_and_follow_the_generator(name: str, shape: tuple[int, int]) -> None:
    logits = torch.randn(shape, device="cuda", requires_grad=True)
    v, kept = torch.randn(shape, device="cuda"), {}

    def step() -> None:
        kept["sample"] = do.gumbel_rao(logits, num_samples=3, backend=name)
        (kept["gradient"],) = torch.autograd.grad(kept["sample"], logits, v)

    graph = captured(step)

    def replay() -> list[Tensor]:
        graph.replay()
        return [kept["sample"].detach().clone(), kept["gradient"].clone()]

    torch.cuda.manual_seed(1)
    first, second = replay(), replay()
    torch.cuda.manual_seed(1)
    again = replay()
    for a, b, c in zip(first, second, again, strict=True):
        assert not torch.equal(a, b)
        assert torch.equal(a, c)


@pytest.mark.parametrize("shape", [*SHAPES, (3, 128256)], ids=str)
@pytest.mark.parametrize("estimator", reference.NUMBERS)
def test_two_runs_of_one_seed_are_bit_equal(name: str, estimator: str, shape: tuple[int, int]) -> None:
    kernels, seed = backends.get(name), torch.tensor([7], device="cuda")
    logits, v = torch.randn(shape, device="cuda"), torch.randn(shape, device="cuda")
    sample, index = kernels.sample(logits, seed)
    pulled = kernels.surrogate_vjp(v, logits, index, seed, (0.7, 1.0, 1.0), estimator, 5)
    for _ in range(3):
        again, index_again = kernels.sample(logits, seed)
        assert torch.equal(again, sample)
        assert torch.equal(index_again, index)
        assert torch.equal(kernels.surrogate_vjp(v, logits, index, seed, (0.7, 1.0, 1.0), estimator, 5), pulled)


def test_samples_follow_the_softmax(name: str) -> None:
    """Chi-squared of 4 million draws; the 0.1% point, so that one seed in a thousand fails, not this one."""
    logits = torch.tensor([0.0, 1.0, -2.0, 0.5, -6.0, 2.0, 0.1], device="cuda")
    n = 2**22
    index = backends.get(name).sample(logits.expand(n, 7), torch.tensor([3], device="cuda"))[1]
    seen = torch.bincount(index, minlength=7).double()
    want = logits.double().softmax(-1) * n
    assert float(((seen - want) ** 2 / want).sum()) < 22.46  # chi-squared of 6 degrees of freedom


def test_draws_take_no_memory(name: str) -> None:
    logits = torch.randn(3000, 10, device="cuda", requires_grad=True)
    v = torch.randn(3000, 10, device="cuda")
    peaks = []
    for k in (1, 1000, 1000):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        torch.autograd.grad(do.gumbel_rao(logits, num_samples=k, backend=name), logits, v)
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] == peaks[0]
    assert peaks[2] == peaks[0]


def test_a_side_stream_is_used(name: str) -> None:
    """The call waits for what its own stream did before: logits that are written late are read late."""
    kernels, seed = backends.get(name), torch.tensor([5], device="cuda")
    late = torch.randn(4096, 64, device="cuda")
    want = kernels.sample(late, seed)[1]
    logits, side = torch.zeros_like(late), torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)
        logits.copy_(late)
        index = kernels.sample(logits, seed)[1]
    side.synchronize()
    assert torch.equal(index, want)


def test_another_device_than_the_current_one(name: str) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("NOT COVERED: one GPU; the device guard is not tested")
    logits = torch.randn(100, 10, device="cuda:1", requires_grad=True)
    with torch.cuda.device(0):
        sample = do.gumbel_rao(logits, seed=3, backend=name)
        (gradient,) = torch.autograd.grad(sample, logits, torch.ones_like(sample))
    want = do.gumbel_rao(logits.detach().cpu(), seed=3, backend="reference")
    assert sample.device == gradient.device == logits.device
    assert torch.equal(sample.detach().cpu(), want)


def test_tensors_on_two_devices_are_refused(name: str) -> None:
    x = torch.randn(4, 10, device="cuda")
    with pytest.raises((RuntimeError, ValueError)):
        backends.get(name).sample(x, torch.tensor([1]))


def test_a_tensor_of_more_than_2_31_elements(name: str) -> None:
    """64-bit offsets: the last rows of a large batch are those of the same rows alone."""
    columns, rows = 64, 2**25 + 3
    free, _ = torch.cuda.mem_get_info()
    if free < 5 * 2 * columns * rows:
        pytest.skip("NOT COVERED: less free memory than four half-precision tensors of 2**31 elements")
    kernels = backends.get(name)
    tail = torch.randn(5, columns, generator=torch.Generator().manual_seed(0)).to("cuda", torch.float16)
    logits = torch.zeros(rows, columns, device="cuda", dtype=torch.float16)
    logits[-5:] = tail
    # As many seeds as rows: every row counts from 0 under its own, so that the tail alone draws the same noise.
    seeds = torch.arange(rows, device="cuda")
    sample, index = kernels.sample(logits, seeds)
    alone, index_alone = kernels.sample(tail, seeds[-5:])
    assert torch.equal(sample[-5:], alone)
    assert torch.equal(index[-5:], index_alone)
    del sample
    pulled = kernels.surrogate_vjp(logits, logits, index, seeds, reference.AT_ONE, "gumbel_rao", 1)[-5:]
    alone = kernels.surrogate_vjp(tail, tail, index_alone, seeds[-5:], reference.AT_ONE, "gumbel_rao", 1)
    torch.testing.assert_close(pulled, alone, rtol=2**-10, atol=1e-7)  # few rows are summed by other threads


@pytest.mark.parametrize("shape", [(300, 10), (5, 1000), (3, 20000)], ids=str)
@pytest.mark.parametrize(
    "estimator", [do.estimators.GumbelRao(0.7, 3), do.estimators.ReinMax(), do.estimators.GST(gap="pi")]
)
def test_compiled_is_eager(
    name: str, estimator: do.estimators.Estimator, shape: tuple[int, int], fresh_dynamo: None
) -> None:
    """Through Inductor, which copies Triton's kernels into its own module."""
    logits = torch.randn(shape, device="cuda", requires_grad=True)
    v = torch.randn(shape, device="cuda")

    def pull(x: Tensor) -> Tensor:
        return estimator(2 * x, seed=3, backend=name) * 1.0

    want = pull(logits)
    got = torch.compile(pull, fullgraph=True)(logits)
    assert torch.equal(got, want)
    gradients = [torch.autograd.grad(y, logits, v)[0] for y in (got, want)]
    torch.testing.assert_close(*gradients, rtol=2e-6, atol=1e-6)


def test_a_temperature_on_the_cpu(name: str) -> None:
    logits = torch.randn(30, 10, device="cuda", requires_grad=True)
    for hard in (True, False):
        gradients = [
            torch.autograd.grad(do.gst(logits, tau, hard=hard, seed=1, backend=name).square().sum(), logits)[0]
            for tau in (0.5, torch.tensor(0.5), torch.tensor(0.5, device="cuda"))
        ]
        assert torch.equal(gradients[0], gradients[1])
        assert torch.equal(gradients[0], gradients[2])


def test_annealing_compiles_nothing_new(name: str) -> None:
    if name != "triton":
        pytest.skip("compiled ahead of time")
    import triton

    compiled = []
    hook = getattr(triton.knobs.runtime, "jit_post_compile_hook", None)
    logits, v = torch.randn(3000, 10, device="cuda"), torch.randn(3000, 10, device="cuda")
    seed, kernels = torch.tensor([1], device="cuda"), backends.get(name)
    index = kernels.sample(logits, seed)[1]
    kernels.surrogate_vjp(v, logits, index, seed, (1.0, 1.0, 1.0), "gst", 1)
    kernels.surrogate_vjp(v, logits, index, seed, (0.9, 1.0, 1.0), "gst", 1)
    triton.knobs.runtime.jit_post_compile_hook = lambda *_, **__: compiled.append(1)
    try:
        for step in range(10):
            kernels.surrogate_vjp(v, logits, index, seed, (0.9**step + 0.01, 1.0, 1.0), "gst", 1)
    finally:
        triton.knobs.runtime.jit_post_compile_hook = hook
    assert not compiled
