"""DTensors: rows on several devices sample as on one."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import discrete_ops as do

DISTRIBUTED = """
import sys, torch, torch.distributed as dist
from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh
import discrete_ops as do
rank, port = int(sys.argv[1]), int(sys.argv[2])
do.set_backend(sys.argv[3])
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
mesh, generator = init_device_mesh("cpu", (2,)), torch.Generator().manual_seed(0)
logits, v = (torch.randn(7, 3, generator=generator) for _ in range(2))
for one in (logits, logits[:, 0], logits[:1]):
    x, spread = one.clone().requires_grad_(), distribute_tensor(one.clone(), mesh, [Shard(0)]).requires_grad_()
    binary, got = (do.bernoulli(l, "gumbel_rao(tau=0.5)", seed=3) for l in (x, spread))
    assert got.placements[0] == Shard(0)
    assert torch.equal(got.full_tensor(), binary), one.shape
    binary.sum().backward(), got.sum().backward()
    torch.testing.assert_close(spread.grad.full_tensor(), x.grad)
for shape in ((7, 6), (5, 3, 6), (1, 6), (6,)):
    logits, v = (torch.randn(shape, generator=generator) for _ in range(2))
    column = torch.rand(*shape[:-1], 1, generator=generator) + 0.3
    calls = {
        "reinmax": lambda x, tau: do.reinmax(x, seed=3, return_index=True),
        "per row": lambda x, tau: do.gumbel_rao(x, tau, 3, seed=3, return_index=True),
        "soft": lambda x, tau: do.gst(x, tau.mean(), hard=False, seed=3, return_index=True),
        "draws": lambda x, tau: do.gst(x, tau, num_draws=2, seed=3, return_index=True),
        "dim 0": lambda x, tau: do.gumbel_softmax(x, hard=True, dim=0, seed=3, return_index=True),
    }
    for name, f in calls.items():
        x, tau = logits.clone().requires_grad_(), column.clone().requires_grad_()
        sample, index = f(x, tau)
        (sample * v).sum().backward()
        for placement in (Shard(0), Replicate(), Shard(len(shape) - 1)):
            spread = distribute_tensor(logits.clone(), mesh, [placement]).requires_grad_()
            tau_too = column.clone().requires_grad_()
            got, got_index = f(spread, tau_too)
            kept = got.placements[0] == placement
            gathered = name in ("draws", "dim 0") or len(shape) == 1
            assert kept or placement != Shard(0) or gathered, (shape, name, placement)
            (got * distribute_tensor(v, mesh, [placement])).sum().backward()
            for a, b in ((got.full_tensor(), sample), (got_index.full_tensor(), index)):
                assert torch.equal(a, b), (shape, name, placement)
            torch.testing.assert_close(spread.grad.full_tensor(), x.grad)
            if tau.grad is not None:
                torch.testing.assert_close(tau_too.grad, tau.grad)
    weight = torch.randn(3, 6, 2, generator=generator) if len(shape) == 3 else torch.randn(6, 2, generator=generator)
    x, w = logits.clone().requires_grad_(), weight.clone().requires_grad_()
    for soft in (False, True):
        want = do.embedding(x, w, "gst", soft=soft, seed=3)
        spread = distribute_tensor(logits.clone(), mesh, [Shard(0)]).requires_grad_()
        table = distribute_tensor(weight.clone(), mesh, [Replicate()]).requires_grad_()
        got = do.embedding(spread, table, "gst", soft=soft, seed=3)
        torch.testing.assert_close(got.full_tensor(), want)
        for y in (want, got):
            y.square().sum().backward()
        torch.testing.assert_close(spread.grad.full_tensor(), x.grad)
        torch.testing.assert_close(table.grad.full_tensor(), w.grad)
        x.grad = w.grad = None
    torch.manual_seed(4)
    ours = do.reinmax(distribute_tensor(logits, mesh, [Shard(0)])).full_tensor()
    torch.manual_seed(4)
    assert torch.equal(ours, do.reinmax(logits))
print("agrees")
dist.destroy_process_group()
"""


def test_a_dtensor_samples_as_one_device(backend):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(do.__file__).parent.parent)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", DISTRIBUTED, str(rank), str(port), backend],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    for process in ranks:
        out, err = process.communicate(timeout=120)
        assert "agrees" in out, err
