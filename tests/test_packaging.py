"""What is handed to others: the runtime that the libraries need, an index's README, the sdist, the wheel."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import discrete_ops as do
from discrete_ops import __main__ as report

ROOT = Path(__file__).parent.parent
PACKAGE = Path(do.__file__).parent
#: The newest symbols that manylinux_2_28 allows on x86-64 and aarch64: PEP 600, and auditwheel's policy for GCC's.
MANYLINUX = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 24), "CXXABI": (1, 3, 11), "GCC": (7, 0, 0)}
#: What PEP 600 lets a library link to, of what we do.
SYSTEM = {"libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "librt.so.1", "libstdc++.so.6"}
LIBRARIES = sorted(PACKAGE.glob("libdiscrete_ops_*.so"))
PROJECT = (ROOT / "pyproject.toml").read_text()
(VERSION,) = re.findall(r'^version = "(.+)"$', PROJECT, re.MULTILINE)
(REPOSITORY,) = re.findall(r'^Repository = "(.+)"$', PROJECT, re.MULTILINE)


def readelf(option: str, path: Path) -> str:
    return subprocess.run(["readelf", option, "--wide", str(path)], check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="NOT COVERED: manylinux is Linux's")
@pytest.mark.skipif(not LIBRARIES, reason="NOT COVERED: no compiled libraries")
@pytest.mark.parametrize("path", LIBRARIES, ids=lambda path: path.stem)
def test_a_library_needs_no_newer_runtime_than_manylinux_2_28(path: Path) -> None:
    said = readelf("--version-info", path).partition("needs section")[2]
    needed = re.findall(r"Name: (\w+?)_(\d[\d.]*)\s+Flags", said)
    assert ("GLIBC", "2.2.5") in needed or ("GLIBC", "2.17") in needed, "nothing was read"
    newer = [f"{of}_{version}" for of, version in needed if tuple(map(int, version.split("."))) > MANYLINUX[of]]
    assert not newer


@pytest.mark.skipif(sys.platform != "linux", reason="NOT COVERED: manylinux is Linux's")
@pytest.mark.skipif(not LIBRARIES, reason="NOT COVERED: no compiled libraries")
@pytest.mark.parametrize("path", LIBRARIES, ids=lambda path: path.stem)
def test_a_library_links_to_torch_and_the_system_alone(path: Path) -> None:
    needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", readelf("--dynamic", path)))
    assert "libtorch_cpu.so" in needed
    loader = {name for name in needed if name.startswith("ld-linux")}
    assert needed - SYSTEM - loader <= {"libtorch_cpu.so", "libtorch_cuda.so"}


def test_build_info_is_printed_a_key_a_line() -> None:
    printed = subprocess.run([sys.executable, "-m", "discrete_ops"], check=True, capture_output=True, text=True).stdout
    names = [line.partition(": ")[0] for line in printed.splitlines()]
    assert len(set(names)) == len(names)
    assert f"torch: {do.build_info()['torch']}" in printed.splitlines()
    for name, value in do.build_info().items():
        assert name in names or all(f"{name}.{inner}" in names for inner in value)  # type: ignore[attr-defined]


def test_a_message_of_many_lines_is_one_line_for_any_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [*report.lines({"missing": {"cpp": "no\n  such file"}, "backends": ("a", "b")})] == [
        "missing.cpp: no such file",
        "backends: a, b",
    ]
    script = (
        "import runpy, discrete_ops\n"
        "discrete_ops.build_info = lambda: {'missing': {'cpp': '/home/Zo\\u00eb/lib.so'}}\n"
        "runpy.run_module('discrete_ops', run_name='__main__')\n"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout == "missing.cpp: /home/Zo\\xeb/lib.so\n"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git tracks."""
    if not (ROOT / ".git").exists():
        pytest.skip("NOT COVERED: not a clone, from which an sdist is made")
    here = tmp_path_factory.mktemp("source")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (here / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, here / name)
    return here


@pytest.fixture(scope="module")
def sdist(source: Path) -> Path:
    subprocess.run([sys.executable, "setup.py", "-q", "sdist"], cwd=source, check=True, capture_output=True)
    return source / "dist" / f"discrete_ops-{VERSION}.tar.gz"


def test_the_sdist_has_all_of_a_clone_but_what_is_githubs(source: Path, sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        packed = {member.name.partition("/")[2] for member in archive if member.isfile()}
    tracked = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    left = {path for path in tracked - packed if not path.startswith(("dist/", ".github/"))}
    assert left == {".gitignore"}
    assert not [path for path in packed if path.endswith((".so", ".pyc", "build.json"))]


def test_an_index_shows_a_readme_whose_links_lead_somewhere(source: Path, sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        metadata = archive.extractfile(f"discrete_ops-{VERSION}/PKG-INFO")
        assert metadata is not None
        shown = metadata.read().decode()
    assert "\nDescription-Content-Type: text/markdown\n" in shown
    assert "\nLicense-Expression: BSD-3-Clause\n" in shown
    links = re.findall(r"\]\(([^)\s]+)\)", shown) + re.findall(r'src="([^"]+)"', shown)
    ours = [match for link in links if (match := re.match(rf"{REPOSITORY}/(blob|raw)/v{VERSION}/([^#]+)", link))]
    assert ours
    assert [match[0] for match in ours if not (source / match[2]).exists()] == []
    assert [link for link in links if not re.match(r"https?://|mailto:|#", link)] == []


def test_the_citation_is_of_this_version_licence_and_repository() -> None:
    citation = dict(re.findall(r"^([\w-]+): (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE))
    assert citation["version"] == do.__version__ == VERSION
    assert citation["repository-code"] == REPOSITORY
    assert f'license = "{citation["license"]}"' in PROJECT


@pytest.mark.skipif(shutil.which("c++") is None, reason="NOT COVERED: no C++ compiler to ask for its version")
def test_a_wheel_is_of_a_platform_and_no_python(source: Path, tmp_path: Path) -> None:
    """Built with a compiler that leaves empty files: what is packed, and how it is called."""
    compiler = tmp_path / "c++"
    compiler.write_text(
        "#!/bin/sh\n"
        'case "$*" in *-dM*) exec c++ "$@";; *-print-file-name*) exit;; esac\n'
        'while [ $# -gt 0 ]; do case "$1" in -o|-MF) : >"$2";; esac; shift; done\n'
    )
    compiler.chmod(0o755)
    environment = {**os.environ, "CXX": str(compiler), "DISCRETE_OPS_CUDA": "0", "DISCRETE_OPS_NAMESPACE": "elsewhere"}
    for name in ("lib", f"lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"):
        earlier = source / "build" / name / "discrete_ops" / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
        earlier.parent.mkdir(parents=True)
        earlier.touch()
    command = [sys.executable, "setup.py", "-q", "bdist_wheel", "--dist-dir", str(tmp_path)]
    subprocess.run(command, cwd=source, env=environment, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert re.fullmatch(rf"discrete_ops-{VERSION}-py3-none-(linux|macosx)_\w+\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
        built = archive.read("discrete_ops/build.json").decode()
    assert {name for name in packed if name.endswith(".so")} == {"discrete_ops/libdiscrete_ops_cpu.so"}
    assert {
        "discrete_ops/py.typed",
        "discrete_ops/functional.pyi",
        "discrete_ops/triton_kernels/operators.py",
    } <= packed
    assert f"discrete_ops-{VERSION}.dist-info/licenses/LICENSE" in packed
    assert {name.partition("/")[0] for name in packed} == {"discrete_ops", f"discrete_ops-{VERSION}.dist-info"}
    assert '"namespace": "elsewhere"' in built
    assert '"compiler": "' in built


def test_a_cell_of_the_matrix_is_run_until_it_does_not_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = pytest.importorskip("bench.wheels", reason="NOT COVERED: not a source tree")
    ok = {"state": "ok", "loaded": ["2.10.0+cpu", "cpp"], "numpy": False, "difference": 3e-7}
    answers = {
        "3.10": [{"state": "failed", "why": "ImportError: no such file"}, ok],
        "3.11": [ok],
        "3.12": [{"state": "not reachable", "why": "no interpreter"}],
    }
    wheel = tmp_path / "discrete_ops-0-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(wheels, "HERE", tmp_path)
    monkeypatch.setattr(wheels, "BUILD", tmp_path / "build")
    monkeypatch.setattr(wheels, "cell", lambda wheel, torch, python, directory: answers[python].pop(0))
    monkeypatch.setattr(sys, "argv", ["wheels", str(wheel), "--commit=c", "--torch=2.10.0", "--python", *answers])
    shown = []
    for _ in range(3):
        wheels.main()
        shown.append(
            [line for line in (tmp_path / "results" / "wheels.md").read_text().splitlines() if "2.10.0 " in line]
        )
    good = "ok: 2.10.0+cpu, cpp"
    assert shown[0] == [f"| 2.10.0 | failed (1) | {good} | not reachable (2) |"]
    assert shown[1] == shown[2] == [f"| 2.10.0 | {good} | {good} | not reachable (1) |"]
    assert not any(answers.values())
    assert wheels.last_line("error: none\n  cause: torch has no wheel\nhint: another") == "cause: torch has no wheel"
    assert wheels.last_line("Traceback\n  line\na.b.SomeError: said\n\nSet VERBOSE=1\n") == "a.b.SomeError: said"
