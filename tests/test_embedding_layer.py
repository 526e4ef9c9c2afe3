"""The layer that looks a sample up in a table."""

import pytest
import torch

import discrete_ops as do

nan, inf = torch.nan, torch.inf


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("tables", [None, 2])
def test_the_layer_is_the_function(tables):
    layer = do.nn.StraightThroughEmbedding(5, 3, "gst(tau=1.0)", tables=tables, soft=True, dtype=torch.float64)
    assert layer.weight.shape == ((5, 3) if tables is None else (2, 5, 3))
    assert isinstance(layer.weight, torch.nn.Parameter)
    logits = randn(4, 2, 5).requires_grad_()
    layer.tau = 0.5
    rows, index = layer(logits, seed=3, return_index=True)
    want = do.embedding(logits, layer.weight, do.estimators.GST(0.5), soft=True, seed=3, return_index=True)
    assert torch.equal(rows, want[0])
    assert torch.equal(index, want[1])
    assert set(layer.state_dict()) == {"weight", "tau"}
    shown = "tables=2, " if tables else ""
    assert repr(layer) == f"StraightThroughEmbedding(5, 3, gst(tau=0.5, gap=1.0), {shown}soft=True)"
    before = layer.weight.clone()
    layer.reset_parameters()
    assert layer.tau == 1.0
    assert not torch.equal(layer.weight, before)


@pytest.mark.parametrize("dim", [-1, 0])
@pytest.mark.parametrize("tables", [None, 2])
def test_the_layers_eval_takes_the_likeliest_row(dim, tables):
    layer = do.nn.StraightThroughEmbedding(5, 3, tables=tables, dim=dim).eval()
    logits = torch.randint(3, (6, 2, 5), generator=torch.Generator().manual_seed(0)).float()  # with ties
    logits[0, 0], logits[1, 1, 2], logits[2, 0, 1] = -inf, nan, inf
    logits = logits.movedim(-1, dim).requires_grad_()
    rows, index = layer(logits, return_index=True)
    one_hot = do.nn.StraightThroughCategorical(dim=dim).eval()(logits).movedim(dim, -1)
    look_up = "...ln,lnd->...ld" if tables else "...n,nd->...d"
    assert torch.equal(
        rows.movedim(dim, -1).nan_to_num(7.0), torch.einsum(look_up, one_hot, layer.weight).nan_to_num(7.0)
    )
    assert torch.equal(index == -1, one_hot.sum(-1) != 1)
    assert torch.equal(index[index >= 0], one_hot.argmax(-1)[index >= 0])
    at_logits, at_weight = torch.autograd.grad(rows.nan_to_num().sum(), (logits, layer.weight), allow_unused=True)
    assert at_logits is None
    torch.testing.assert_close(at_weight.sum(), 3.0 * (index >= 0).sum())
    mask = one_hot.nan_to_num(0.0).movedim(-1, dim) == 0
    assert torch.equal(layer(logits, mask, return_index=True)[1] == index, index == -1)


@pytest.mark.usefixtures("fresh_dynamo")
def test_the_layer_is_captured():
    layer = do.nn.StraightThroughEmbedding(5, 3, "gumbel_softmax", tables=2)
    x = randn(4, 2, 5).float()
    for training in (True, False):
        layer.train(training)
        want = layer(x, seed=3)
        assert torch.equal(torch.compile(layer, fullgraph=True, backend="aot_eager")(x, seed=3), want)
        assert torch.equal(torch.export.export(layer, (x,), {"seed": 3}).module()(x, seed=3), want)
        traced = torch.fx.symbolic_trace(torch.nn.Sequential(torch.nn.Identity(), layer))
        assert traced(x).shape == (4, 2, 3)


def test_the_layers_arguments_are_named():
    for bad, message in (
        ({"num_embeddings": 0}, "num_embeddings: got 0"),
        ({"embedding_dim": 2.5}, r"embedding_dim: got 2\.5"),
        ({"tables": 0}, "tables: got 0"),
        ({"estimator": "reinmax", "soft": True}, "soft: got True with reinmax"),
        ({"dim": "x"}, "dim: got 'x'"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            do.nn.StraightThroughEmbedding(**{"num_embeddings": 5, "embedding_dim": 3, **bad})
