"""Packages and compiled libraries of the wheel.

``triton_kernels`` is a taken name on PyPI, so ours installs inside ``discrete_ops``. The operators live in a plain
library on torch's stable ABI, which depends on neither the Python version nor torch's minor version; ``_C`` is a Python
extension for build information and tests that nothing else needs. So one wheel serves every Python.

Environment: MAX_JOBS (parallel compilation), CXX, DISCRETE_OPS_CUDA (0, 1 or auto: the CUDA library; there is none yet,
so 1 is an error), DISCRETE_OPS_SANITIZE=1 (AddressSanitizer and UndefinedBehaviourSanitizer, see `make sanitize`).
Without a C++ compiler the package installs pure Python.
"""

import json
import os
import platform
import shutil
import subprocess
import sys

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel

LIBRARY = "discrete_ops.libdiscrete_ops_cpu"
STABLE_ABI = "0x020a000000000000"  # torch 2.10


def compiler() -> str | None:
    """The C++ compiler torch's build will call, or None."""
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        if name and shutil.which(name.split()[0]):
            return name
    return None


def check_cuda_wish() -> None:
    wish = os.environ.get("DISCRETE_OPS_CUDA", "auto")
    if wish not in ("0", "1", "auto"):
        raise SystemExit(f"DISCRETE_OPS_CUDA: got {wish!r}, allowed: 0, 1, auto")
    if wish == "1":
        raise SystemExit("DISCRETE_OPS_CUDA: got '1', but this version has no CUDA library; allowed: 0, auto")


class AnyPythonWheel(bdist_wheel):
    """Tags the wheel by platform only."""

    def get_tag(self) -> tuple[str, str, str]:
        platform_tag = super().get_tag()[2]
        return "py3", "none", platform_tag if self.distribution.has_ext_modules() else "any"


def obstacle() -> str | None:
    """Why the libraries cannot be compiled here, or None."""
    if sys.platform == "win32":
        return "Windows is not supported yet"
    command = compiler()
    if command is None:
        return "no C++ compiler found"
    probe = [*command.split(), "-x", "c++", "-std=c++17", "-fsyntax-only", "-"]
    half = "__fp16" if platform.machine() == "aarch64" else "_Float16"
    if subprocess.run(probe, input=f"{half} x;", text=True, capture_output=True).returncode:
        return f"{command} has no {half} (GCC has _Float16 from version 12 on, Clang from 15)"
    return None


def compiled() -> dict:
    """The extension modules and the command that builds them, where they can be built."""
    reason = obstacle()
    if reason:
        print(f"discrete-ops: {reason}, installing without the compiled CPU backend", file=sys.stderr)
        return {}
    import torch
    from torch.utils.cpp_extension import BuildExtension, CppExtension

    flags = ["-O3", "-g0", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
    sanitizers = []
    if os.environ.get("DISCRETE_OPS_SANITIZE") == "1":
        sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
        flags += [*sanitizers, "-O1", "-g1", "-fno-omit-frame-pointer"]
    warnings = ["-Wall", "-Wextra", "-Wno-psabi", "-Wno-unused-parameter"]
    warnings += ["-Wno-uninitialized", "-Wno-maybe-uninitialized"]  # false ones, from GCC's own intrinsics
    kernels = [f"csrc/cpu/kernels_{isa}.cpp" for isa in ("avx512", "avx2", "baseline")]  # slowest to compile first
    library = CppExtension(
        LIBRARY,
        [*kernels, "csrc/cpu/ops.cpp", "csrc/library.cpp"],
        py_limited_api=True,
        extra_compile_args=[*flags, *warnings, f"-DTORCH_TARGET_VERSION={STABLE_ABI}"],
        extra_link_args=sanitizers,
    )
    binding = CppExtension(
        "discrete_ops._C",
        ["csrc/binding.cpp"],
        extra_compile_args=[*flags, f"-DDISCRETE_OPS_TORCH={torch.__version__}"],
        extra_link_args=sanitizers,
    )

    class Build(BuildExtension):
        def get_ext_filename(self, name: str) -> str:
            if LIBRARY.endswith(name):  # loaded by torch, not by Python: no interpreter's suffix
                return os.path.join(*name.split(".")) + ".so"
            return super().get_ext_filename(name)

        def run(self) -> None:
            super().run()
            built_for = {"torch": torch.__version__, "system": platform.system(), "machine": platform.machine()}
            with open(os.path.join(os.path.dirname(self.get_ext_fullpath(LIBRARY)), "build.json"), "w") as file:
                json.dump(built_for, file)

    return {"ext_modules": [library, binding], "cmdclass": {"build_ext": Build.with_options(use_ninja=True)}}


check_cuda_wish()
options = compiled()
options["cmdclass"] = {**options.get("cmdclass", {}), "bdist_wheel": AnyPythonWheel}
setup(
    packages=["discrete_ops", "discrete_ops.triton_kernels"],
    package_dir={"discrete_ops.triton_kernels": "triton_kernels"},
    **options,
)
