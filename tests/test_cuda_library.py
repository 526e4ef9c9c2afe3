"""The CUDA library as built, without a GPU: its architectures, registers and spills, and what it needs of torch."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import discrete_ops

PACKAGE = Path(discrete_ops.__file__).parent
LIBRARY = PACKAGE / "libdiscrete_ops_cuda.so"
ROOT = Path(__file__).parent.parent

needs_library = pytest.mark.skipif(
    not LIBRARY.exists(), reason="NOT COVERED: no CUDA library (built without nvcc), its contents are not checked"
)


def cuobjdump(*options: str) -> str:
    """CUDA's own, or the one that Triton brings."""
    candidates = [shutil.which("cuobjdump"), "/usr/local/cuda/bin/cuobjdump"]
    try:
        import triton

        candidates.append(str(Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"))
    except ImportError:
        pass
    for candidate in candidates:
        if candidate and Path(candidate).exists():
            return subprocess.run(
                [candidate, *options, str(LIBRARY)], check=True, capture_output=True, text=True
            ).stdout
    pytest.skip("NOT COVERED: no cuobjdump, the CUDA library's code is not checked")


@needs_library
def test_it_holds_the_architectures_that_the_build_names() -> None:
    named = json.loads((PACKAGE / "build.json").read_text())["cuda_architectures"]
    machine_code = set(re.findall(r"\.(sm_\w+)\.cubin", cuobjdump("--list-elf")))
    assert machine_code == {name for name in named if name.startswith("sm_")}
    ptx = set(re.findall(r"\.(sm_\w+)\.ptx", cuobjdump("--list-ptx")))
    assert ptx == {name.replace("compute_", "sm_") for name in named if name.startswith("compute_")}
    print(f"machine code: {', '.join(sorted(machine_code))}; PTX: {', '.join(sorted(ptx))}")


#: Bytes of stack that MVE's shifts and moments take, by the kernels that serve it: its own, and that of float64.
OF_MVE = {"If(Li[12]E)?LNS_4ModeE0ELNS_6ServesE3E": 80, "Id(Li1E)?LNS_4ModeE0ELNS_6ServesE0E": 1264}
#: And that long rows may take, for two blocks on a multiprocessor.
OF_TWO_BLOCKS = 40


@needs_library
def test_rows_in_registers_spill_nothing() -> None:
    """Kernels of rows in registers have no stack but for MVE, those of long rows little; prints them."""
    said = cuobjdump("--dump-resource-usage")
    found, architecture, name = 0, "", ""
    for line in said.splitlines():
        if match := re.search(r"arch = (sm_\w+)|\.(sm_\w+)\.cubin", line):
            architecture = match.group(1) or match.group(2)
        elif match := re.search(r"Function (\S+):", line):
            name = match.group(1)
        elif match := re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", line):
            registers, stack, local = (int(group) for group in match.groups())
            print(f"{architecture} {name}: {registers} registers, {stack + local} bytes of stack")
            found += "_long" not in name
            of_mve = next((size for pattern, size in OF_MVE.items() if re.search(pattern, name)), 0)
            spilled = OF_TWO_BLOCKS if "_long" in name else 0
            assert stack + local <= of_mve + spilled, (architecture, name)
    assert found > 0, said


@needs_library
def test_it_needs_the_stable_abi_alone() -> None:
    if shutil.which("nm") is None:
        pytest.skip("NOT COVERED: no nm, the CUDA library's symbols are not checked")
    listed = subprocess.run(["nm", "-D", str(LIBRARY)], check=True, capture_output=True, text=True).stdout
    undefined = {name.split("@")[0]: name for name in re.findall(r" U (\S+)", listed)}
    assert "aoti_torch_get_current_cuda_stream" in undefined
    for name, versioned in undefined.items():
        of_torch = re.match(r"(aoti_)?torch_", name)
        of_system = re.search(r"@(GLIBC|GLIBCXX|CXXABI|GCC)_", versioned)
        assert of_torch or of_system, f"{name}: neither torch's stable ABI nor the C and C++ runtime"
    defined = set(re.findall(r" [TBDRV] (\S+)", listed))
    ours = {name for name in defined if "cuda" in name or "discrete_ops" in name}
    assert ours == {"discrete_ops_cuda_obstacle"}, "symbols that others could meet"


@needs_library
def test_it_is_not_loaded_where_torch_has_no_cuda() -> None:
    import torch

    if torch.version.cuda is not None:
        pytest.skip("torch has CUDA here")
    assert "cuda" not in discrete_ops.available_backends()
    script = f"import ctypes; ctypes.CDLL({str(LIBRARY)!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode
    assert "libtorch_cuda.so" in done.stderr  # it says what it misses


@needs_library
def test_it_loads_and_serves_the_operators_beside_a_torch_that_has_cuda(tmp_path: Path) -> None:
    """With a libtorch_cuda.so of one empty function: everything else that it needs of torch is in libtorch_cpu.so."""
    import torch

    if torch.version.cuda is not None:
        pytest.skip("the real libtorch_cuda.so is here")
    if shutil.which("cc") is None:
        pytest.skip("NOT COVERED: no C compiler, the CUDA library is not loaded")
    source, stub = tmp_path / "stub.c", tmp_path / "libtorch_cuda.so"
    source.write_text("void aoti_torch_get_current_cuda_stream(void) {}\n")
    subprocess.run(["cc", "-shared", str(source), "-Wl,-soname,libtorch_cuda.so", "-o", str(stub)], check=True)
    script = (
        "import ctypes, torch, discrete_ops\n"
        f"ctypes.CDLL({str(stub)!r}, ctypes.RTLD_GLOBAL)\n"
        f"torch.ops.load_library({str(LIBRARY)!r})\n"
        "for name in ('sample', 'surrogate', 'surrogate_vjp', 'tau_derivative'):\n"
        "    assert torch._C._dispatch_has_kernel_for_dispatch_key(f'discrete_ops_kernels::{name}', 'CUDA'), name\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="NOT COVERED: not a source tree")
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DISCRETE_OPS_CUDA", "yes", "DISCRETE_OPS_CUDA: got 'yes', allowed: 0, 1, auto"),
        ("TORCH_CUDA_ARCH_LIST", "8.0;Hopper", "TORCH_CUDA_ARCH_LIST: got 'Hopper'"),
    ],
)
def test_a_build_option_that_is_unknown_is_named(name: str, value: str, said: str) -> None:
    command, environment = [sys.executable, "setup.py", "--version"], {**os.environ, name: value}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode
    assert said in done.stderr


@needs_library
def test_the_wheel_has_both_libraries() -> None:
    script = (
        "from distutils.core import run_setup\n"
        "modules = run_setup('setup.py', stop_after='init').ext_modules\n"
        "print(*(module.name for module in modules))\n"
    )
    command = [sys.executable, "-c", f"import setuptools\n{script}"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    assert {"discrete_ops.libdiscrete_ops_cpu", "discrete_ops.libdiscrete_ops_cuda"} <= set(names)
