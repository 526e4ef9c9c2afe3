"""Every source that includes torch compiles against the oldest torch that is supported and the newest there is.

The headers come from wheels of the package index (of aarch64, the smallest; headers do not depend on it), once, into
build/torch_headers. Without an index this is not covered, which CI does not accept.
"""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CUDA = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "include"
SOURCES = ("csrc/library.cpp", "csrc/cpu/ops.cpp", "csrc/cuda/ops.cpp")
OLDEST = re.search(r'"torch>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="NOT COVERED: no g++, no source is compiled")


def headers(version: str) -> Path:
    """The include directory of torch ``version``, or of the newest where that is empty."""
    directory = ROOT / "build" / "torch_headers" / (version or "newest")
    if (directory / "torch").exists():
        return directory / "torch" / "include"
    unfinished = directory.with_name(f"{directory.name}.{os.getpid()}")
    platforms = [flag for glibc in ("2_28", "2_34") for flag in ("--platform", f"manylinux_{glibc}_aarch64")]
    download = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--python-version=3.12"]
    wanted = f"torch=={version}" if version else "torch"
    done = subprocess.run([*download, *platforms, "-d", str(unfinished), wanted], capture_output=True, text=True)
    if done.returncode:
        reason = f"NOT COVERED: no wheel of {wanted} to take headers from: {done.stderr.strip().splitlines()[-1:]}"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    (wheel,) = unfinished.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(unfinished, [name for name in file.namelist() if name.startswith("torch/include/")])
    (unfinished / "name").write_text(wheel.name)
    wheel.unlink()
    unfinished.rename(directory)
    return directory / "torch" / "include"


@pytest.mark.parametrize("version", ["oldest", "newest"])
def test_every_source_compiles_against_the_headers_of(version: str) -> None:
    assert OLDEST is not None
    include = headers(f"{OLDEST[1]}.0" if version == "oldest" else "")
    print(f"{version}: {(include.parent.parent / 'name').read_text()}")
    for source in SOURCES:
        if "cuda" in source and not (CUDA / "cuda_runtime_api.h").exists():
            pytest.skip(f"NOT COVERED: no CUDA headers in {CUDA}, {source} is not compiled")
        includes = [f"-isystem{path}" for path in (include, include / "torch/csrc/api/include", CUDA)]
        flags = [
            "-std=c++17",
            "-fsyntax-only",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-DTORCH_TARGET_VERSION=0x020a000000000000",
        ]
        done = subprocess.run(["g++", *flags, *includes, source], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, f"{source}:\n{done.stderr}"
