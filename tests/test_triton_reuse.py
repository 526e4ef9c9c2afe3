"""What makes the Triton backend compile anew, and that torch.compile can take its kernels along; without a GPU."""

import importlib
import itertools
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from triton_ahead import BUCKETS, KERNELS, LONG, calls, in_a_process, launches, specialise, without_interpreter

pytest.importorskip("triton", reason="NOT COVERED: triton is not installed, its specialisations are not counted")


def keys(rows: int, columns: int, architecture: int = 90, only_mve: bool = False, **call: Any) -> list[str]:
    """Cache keys of the launches of one call: of all estimators but MVE, or of that."""
    logits = torch.empty(rows, columns)
    if isinstance(parameters := call.get("parameters"), torch.Tensor) and rows % len(parameters):
        call["parameters"] = parameters[:1]
    of_pull_backs = [of for of in calls() if of[0] == "sample" or (of[0] == "vjp" and (of[1] == "mve") == only_mve)]
    recorded = itertools.chain.from_iterable(launches(*of, logits, **call) for of in of_pull_backs)
    return sorted({specialise(architecture, *launch)[0] for launch in recorded})


def reuse() -> dict[str, Any]:
    """Runs in a process without the interpreter."""
    groups = torch.tensor([[0.5, 0.3, 1.0], [1.0, 0.0, 2.0]], dtype=torch.float64)
    changes = [
        *({"numbers": (tau, 1.0, 1.0)} for tau in (1.0, 0.999, 0.5, 1e-3, 1e3)),
        *({"numbers": (1.0, coefficient, 1.0)} for coefficient in (0.0, 0.3, 1e30)),
        *({"numbers": (1.0, 1.0, sample_tau)} for sample_tau in (0.5, 3.0)),
        *({"parameters": x} for x in (groups[:1], groups)),
        *({"first_row": n} for n in (1, 7, 16, 2**40)),
        *({"k": k} for k in (1, 2, 16, 32, 33, 1000)),
    ]
    short = {
        "aligned": [keys(rows, 1024 - 4 * n, **call) for rows in (1, 2, 16, 3000) for n in (0, 3) for call in changes],
        "unaligned": [
            keys(rows, 1023 - 4 * n, **call) for rows in (1, 2, 16, 3000) for n in (0, 3) for call in changes
        ],
    }
    long = [
        keys(rows, 65536 - 16 * n, **call)
        for rows in (2, 16, 600)
        for n in (0, 3)
        for call in changes
        if "k" not in call
    ]
    return {
        "short": {name: [len(set(itertools.chain(*k))), len(k[0])] for name, k in short.items()},
        "long": [len(set(itertools.chain(*long))), len(long[0])],
        "mve": [
            len({key for x in temperatures for key in keys(3, 1024, only_mve=True, **x) if "vjp" in key})
            for temperatures in (
                [{"numbers": (1.0, t, 1.0)} for t in (0.0, 4.0, 16.0)],
                [{"numbers": (1.0, t, 1.0)} for t in (16.5, 1e6)] + [{"parameters": groups[:1]}],
            )
        ],
        "buckets": len({keys(2, n)[0] for n in (*BUCKETS, LONG)}),
    }


def test_sizes_and_numbers_compile_nothing_new(tmp_path: Path) -> None:
    """One binary an estimator, whatever the parameters, K, the rows, the first one's number, and the columns inside a
    bucket are."""
    with without_interpreter(tmp_path):
        found = in_a_process(__name__, "reuse()")
    estimators = sum(call == "vjp" and estimator != "mve" for call, estimator in calls())
    assert found["short"] == {
        "aligned": [1 + estimators, 1 + estimators],
        "unaligned": [1 + estimators, 1 + estimators],
    }
    assert found["long"][0] == found["long"][1]
    assert found["mve"] == [1, 1]  # up to temperature 16; above it, and of tensors, rows are float64
    assert found["buckets"] == len(BUCKETS) + 1  # so the keys do tell specialisations apart


def translate_copies(folder: Path, architecture: int = 90) -> list[str]:
    """Put every kernel through Triton's front end, which resolves the names in it, from the copy of its source that
    torch.compile makes."""
    from torch._inductor.codegen.wrapper import user_defined_triton_kernel_transitive_closure_source_code as source_of
    from triton._C.libtriton import ir
    from triton.compiler import ASTSource, make_backend

    recorded = []
    for columns in (61, LONG):
        logits = torch.empty(3, columns)
        recorded += itertools.chain.from_iterable(launches(*call, logits) for call in calls())
    sys.path.insert(0, str(folder))
    translated = {}
    for kernel, arguments, options in recorded:
        key, (source, target, parsed) = specialise(architecture, kernel, arguments, options)
        if key in translated:
            continue
        name = f"copy_of_{kernel.__name__}"
        if not (folder / f"{name}.py").exists():
            head = "import triton\nimport triton.language as tl\n\n@triton.jit\n"
            (folder / f"{name}.py").write_text(head + source_of(kernel))
        copy = getattr(importlib.import_module(name), kernel.__name__)
        backend, context = make_backend(target), ir.context()
        ir.load_dialects(context)
        backend.load_dialects(context)
        compiler = (backend.get_codegen_implementation(parsed), backend.get_module_map(), context)
        copied = ASTSource(copy, source.signature, source.constants, source.attrs)
        translated[key] = str(copied.make_ir(target, parsed, *compiler))
        assert kernel.__name__ in translated[key]
    return [key.split("_kernel")[0] + "_kernel" for key in translated]


def test_torch_compile_can_copy_every_kernel(tmp_path: Path) -> None:
    """It takes a kernel into its own module as text: every name in it must come along."""
    with without_interpreter(tmp_path):
        kernels = in_a_process(__name__, f"translate_copies(t.Path({str(tmp_path)!r}))")
    assert set(kernels) == KERNELS
