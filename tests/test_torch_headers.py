"""Every source that includes torch compiles against the oldest torch that is supported and the newest there is.

The headers come from wheels of the package index (of aarch64, the smallest; headers do not depend on it), once, into
build/torch_headers. Without an index this is not covered, which CI does not accept.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CUDA = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "include"
STABLE = "TORCH_TARGET_VERSION=0x020a000000000000"
SOURCES = {  # with setup.py's definitions; CUDA's last, as its headers may be missing
    "csrc/library.cpp": STABLE,
    "csrc/cpu/ops.cpp": STABLE,
    "csrc/binding.cpp": "DISCRETE_OPS_TORCH=any",
    "csrc/cuda/ops.cpp": STABLE,
}
OLDEST = re.search(r'"torch>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="NOT COVERED: no g++, no source is compiled")


def pip(*arguments: str) -> str:
    """What pip says about a wheel for aarch64, which this machine need not be."""
    platforms = [flag for glibc in ("2_28", "2_34") for flag in ("--platform", f"manylinux_{glibc}_aarch64")]
    options = ["--no-deps", "--only-binary=:all:", "--python-version=3.12", *platforms]
    done = subprocess.run([sys.executable, "-m", "pip", *arguments, *options], capture_output=True, text=True)
    if done.returncode:
        reason = f"NOT COVERED: no wheel of torch to take headers from: {done.stderr.strip().splitlines()[-1:]}"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return done.stdout


def newest() -> str:
    """Asked every time, of the index's metadata alone: what is newest does not stay so."""
    said = pip("install", "--dry-run", "--ignore-installed", "--target=none", "--quiet", "--report=-", "torch")
    return json.loads(said)["install"][0]["metadata"]["version"]


def headers(version: str) -> Path:
    """The include directory of torch ``version``."""
    directory = ROOT / "build" / "torch_headers" / version
    if not directory.exists():
        unfinished = directory.with_name(f"{version}.{os.getpid()}")
        pip("download", "-d", str(unfinished), f"torch=={version}")
        (wheel,) = unfinished.glob("*.whl")
        with zipfile.ZipFile(wheel) as file:
            file.extractall(unfinished, [name for name in file.namelist() if name.startswith("torch/include/")])
        wheel.unlink()
        unfinished.rename(directory)
    return directory / "torch" / "include"


@pytest.mark.parametrize("which", ["oldest", "newest"])
def test_every_source_compiles_against_the_headers_of(which: str) -> None:
    assert OLDEST is not None
    version = f"{OLDEST[1]}.0" if which == "oldest" else newest()
    print(f"{which}: torch {version}")
    include = headers(version)
    paths = (include, include / "torch/csrc/api/include", CUDA, sysconfig.get_path("include"))
    flags = ["-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", *(f"-isystem{path}" for path in paths)]
    for source, define in SOURCES.items():
        if "cuda" in source and not (CUDA / "cuda_runtime_api.h").exists():
            pytest.skip(f"NOT COVERED: no CUDA headers in {CUDA}, {source} is not compiled")
        command = ["g++", *flags, f"-D{define}", source]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, f"{source}:\n{done.stderr}"
