"""What a compiled or checkpointed backward pass makes again is what was returned: a sample is never redrawn."""

from functools import partial

import pytest
import torch
import torch._functorch.config
from helpers import CPU_BACKENDS

import discrete_ops as do
from discrete_ops import reference

pytestmark = pytest.mark.usefixtures("fresh_dynamo")
V = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
LOGITS = torch.randn(40, 6, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("budget", [1.0, 0.5, 0.1, 0.0])
@pytest.mark.parametrize(
    ("compiler", "backend"),
    [*(("aot_eager_decomp_partition", b) for b in CPU_BACKENDS), ("inductor", CPU_BACKENDS[-1])],
)
def test_a_recomputed_sample_is_its_own(compiler, backend, budget):
    """At every memory budget the gradient is that of the sample that was returned."""

    def f(x):
        return do.reinmax(x.sin().cos(), backend=backend), do.gumbel_softmax(x.cos(), 0.5, True, backend=backend)

    x = LOGITS.clone().requires_grad_()
    with torch._functorch.config.patch(activation_memory_budget=budget):
        compiled = torch.compile(f, fullgraph=True, backend=compiler)
        sample, other = compiled(x)
        (got,) = torch.autograd.grad((sample * V).sum() + other.sum(), x)  # sum() has the gradient 0
        torch.manual_seed(5)
        again = compiled(x)
    h = LOGITS.clone().requires_grad_()
    logits = h.sin().cos()
    call = (sample.argmax(-1), torch.tensor([0]), reference.AT_ONE, "reinmax", 1)
    pulled = reference.surrogate_vjp(V, logits.detach(), *call)
    torch.testing.assert_close(got, torch.autograd.grad(logits, h, pulled)[0], rtol=1e-5, atol=1e-6)
    torch.manual_seed(5)
    for compiled_sample, eager in zip(again, f(x), strict=True):
        assert torch.equal(compiled_sample, eager), "equal generator, equal sample"


@pytest.mark.parametrize("budget", [1.0, 0.1, 0.0])
def test_a_recomputed_score_is_that_of_its_samples(budget):
    """DisARM-Tree has no operator that draws."""

    def f(x):
        return do.score_function.disarm_tree(lambda d: (d * V).sum(-1).exp(), x.sin().cos(), 2).sum()

    found = []
    with torch._functorch.config.patch(activation_memory_budget=budget):
        for call in (torch.compile(f, fullgraph=True, backend="aot_eager_decomp_partition"), f):
            torch.manual_seed(5)
            x = LOGITS.clone().requires_grad_()
            loss = call(x)
            torch.rand(3)  # the generator goes on
            found.append((loss.detach(), torch.autograd.grad(loss, x)[0]))
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("budget", [1.0, 0.1, 0.0])
def test_a_seed_that_a_model_makes_is_not_recomputed_as_another(budget):
    """Behind an operator with two random results."""

    def f(x):
        q = x.view(1, 2, 20, 6)
        h = torch.nn.functional.scaled_dot_product_attention(q, q.sin(), q.cos(), dropout_p=0.5).reshape(40, 6)
        seed = (h.detach()[0, :1] * 1e6).long().abs()
        return do.gumbel_softmax(x.sin().cos(), 0.5, False, seed=seed)

    with torch._functorch.config.patch(activation_memory_budget=budget):
        x = LOGITS.clone().requires_grad_()
        soft = torch.compile(f, fullgraph=True, backend="aot_eager_decomp_partition")(x)
        torch.rand(3)
        (got,) = torch.autograd.grad(soft, x, V)
    y = soft.detach()
    at_logits = y * (V - (y * V).sum(-1, keepdim=True)) / 0.5
    torch.testing.assert_close(got, -at_logits * (x.sin().sin() * x.cos()).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("budget", [0.5, 0.0])
def test_a_region_of_a_memory_budget_recomputes_its_own_sample(budget, backend):
    """The budget that torch.autograd.graph gives a part of a program."""
    region = getattr(torch.autograd.graph, "region_activation_memory_budget", None)
    if region is None:
        pytest.skip(f"NOT COVERED: torch {torch.__version__} has no memory budget of a region")

    def f(x):
        with region(budget):
            return do.gumbel_softmax(x.sin().cos(), 0.5, True, return_index=True, backend=backend)

    x = LOGITS.clone().requires_grad_()
    torch.manual_seed(5)
    got = torch.compile(f, fullgraph=True, backend="aot_eager_decomp_partition")(x)
    torch.manual_seed(5)
    want = do.gumbel_softmax(x.sin().cos(), 0.5, True, return_index=True, backend=backend)
    assert torch.equal(got[1], want[1])
    torch.testing.assert_close(*(torch.autograd.grad(sample, x, V)[0] for sample, _ in (got, want)))


@pytest.mark.parametrize("backend", [b for b in CPU_BACKENDS if b != "reference"])  # a graph of formulas there
def test_a_compiled_call_keeps_what_an_eager_one_keeps(backend):
    """And parameters, which are a tensor there; not the state of a generator."""

    def kept(f):
        found = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: found.append(x.nbytes) or x, lambda x: x):
            f(LOGITS.clone().requires_grad_())
        return sum(found)

    f = partial(do.gumbel_softmax, hard=True, backend=backend)
    compiled = torch.compile(f, fullgraph=True, backend="aot_eager_decomp_partition")
    assert kept(compiled) == kept(f) + 3 * torch.float64.itemsize


def test_a_checkpoint_inside_a_compiled_model(backend):
    def f(x):
        return torch.utils.checkpoint.checkpoint(
            lambda x: do.reinmax(x.sin(), backend=backend) * x.cos(), x, use_reentrant=False
        )

    x, y = (LOGITS.clone().requires_grad_() for _ in range(2))
    torch.manual_seed(5)
    got = torch.compile(f, fullgraph=True, backend="aot_eager")(x)
    torch.manual_seed(5)
    want = f(y)
    assert torch.equal(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, x, V)[0], torch.autograd.grad(want, y, V)[0])
