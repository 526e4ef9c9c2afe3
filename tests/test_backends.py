"""Which kernels run: choosing a backend, what is said when one is missing, and what importing must not touch."""

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
import types

import pytest
import torch

import discrete_ops as do
from discrete_ops import backends, reference

L = torch.zeros(4, 3)


@pytest.fixture
def spy(monkeypatch):
    """A backend that counts its calls."""
    calls = []

    def counted(function):
        return lambda *arguments: calls.append(function.__name__) or function(*arguments)

    functions = (reference.sample, reference.surrogate, reference.surrogate_vjp)
    module = types.SimpleNamespace(**{f.__name__: counted(f) for f in functions})
    monkeypatch.setitem(backends._BACKENDS, "spy", module)
    yield calls
    do.set_backend(None)


def test_a_call_names_a_backend_of_another_device():
    for name in set(do.available_backends()) - {"reference"}:
        device = "cpu" if name == "cuda" else "cuda"
        if device == "cpu" or torch.cuda.is_available():
            with pytest.raises(ValueError, match=f"backend: got '{name}' for a tensor on {device}"):
                do.reinmax(torch.zeros(2, 3, device=device), backend=name)


def test_a_backend_for_another_device_is_refused():
    for name in set(do.available_backends()) - {"reference", "triton"}:
        here, elsewhere = ("cuda", "cpu") if name == "cuda" else ("cpu", "cuda")
        assert backends.resolve(name, here) == name
        with pytest.raises(ValueError, match=f"backend: got '{name}' for a tensor on {elsewhere}, allowed: .*{here}"):
            backends.resolve(name, elsewhere)


def test_a_backend_that_fails_at_its_first_call_is_named_and_passed_over(monkeypatch):
    monkeypatch.setattr(backends, "_BACKENDS", {"reference": reference, "triton": None})
    monkeypatch.setattr(backends, "_MISSING", {"cuda": "no library"})
    monkeypatch.setattr(backends, "_warned", set())
    monkeypatch.setitem(sys.modules, "discrete_ops.triton_kernels", None)  # what a failing import looks like
    with pytest.warns(UserWarning, match=r"no fast backend for cuda.*no library.*triton_kernels"):
        assert backends.resolve(None, "cuda") == "reference"
    assert do.available_backends() == ("reference",)


@pytest.fixture
def gpus(monkeypatch):
    """A machine whose first GPU the cuda library has no code for, and whose second it serves."""
    words = {0: "no kernel image is available for execution on the device", 1: None}
    cuda = types.SimpleNamespace(obstacle=words.get)
    loaded = {"reference": reference, "cuda": cuda, "triton": types.ModuleType("triton_kernels")}
    monkeypatch.setattr(backends, "_BACKENDS", loaded)
    monkeypatch.setattr(backends, "_MISSING", {})
    monkeypatch.setattr(backends, "_warned", set())
    monkeypatch.setattr(backends, "_OBSTACLES", {})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    return loaded


def test_a_device_without_code_falls_to_triton_then_to_the_reference_and_says_why(gpus):
    with pytest.warns(UserWarning, match="using 'triton' .cuda: no kernel image is available"):
        assert backends.resolve(None, "cuda", 0) == "triton"
    assert backends.resolve(None, "cuda", 0) == "triton"  # said once: a warning would be an error here
    assert backends.resolve(None, "cuda", 1) == "cuda"
    assert "cuda" in do.available_backends()
    with pytest.raises(ValueError, match="backend: got 'cuda', which cannot run on this GPU: no kernel image"):
        backends.resolve("cuda", "cuda", 0)
    del gpus["triton"]
    backends._MISSING["triton"] = "triton is not installed"
    backends._warned.clear()
    with pytest.warns(UserWarning, match="using 'reference' .cuda: no kernel image.*triton is not installed"):
        assert backends.resolve(None, "cuda", 0) == "reference"


def test_where_no_device_can_run_it_the_cuda_backend_is_not_available(gpus, monkeypatch):
    gpus["cuda"] = types.SimpleNamespace(obstacle=lambda device: "CUDA driver version is insufficient")
    assert "cuda" not in do.available_backends()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    backends._OBSTACLES.clear()
    assert "cuda" not in do.available_backends()


def test_gpus_beyond_the_first_that_serves_are_left_alone(gpus, monkeypatch):
    asked = []
    gpus["cuda"] = types.SimpleNamespace(obstacle=asked.append)
    assert "cuda" in do.available_backends()
    assert asked == [0]


def test_triton_is_not_available_without_our_kernels(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(backends, "_BACKENDS", {"reference": reference})
    monkeypatch.setattr(backends, "_MISSING", {})
    gone = {".triton_kernels": None, "triton": found("json")}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *package: gone.get(name, found("json")))
    backends._announce_triton()
    assert do.available_backends() == ("reference",)
    with pytest.raises(ValueError, match=r"backend: got 'triton'.*triton_kernels is not part of this installation\)$"):
        do.reinmax(L, backend="triton")


@pytest.mark.parametrize("content", [b"no library", None], ids=["text", "missing symbol"])
def test_a_library_that_does_not_load_says_why_in_the_loaders_words(content, monkeypatch, tmp_path):
    compiled = pytest.importorskip("discrete_ops.compiled")
    broken = tmp_path / "libbroken.so"
    if content is None:
        if shutil.which("cc") is None:
            pytest.skip("NOT COVERED: no C compiler, a library with a missing symbol is not built")
        source = tmp_path / "broken.c"
        source.write_text("void gone_with_the_upgrade(void); void f(void) { gone_with_the_upgrade(); }")
        subprocess.run(["cc", "-shared", "-fPIC", "-Wl,-z,now", str(source), "-o", str(broken)], check=True)
    else:
        broken.write_bytes(content)
    with pytest.raises(OSError) as loader:  # noqa: PT011  (its words are what is compared)
        ctypes.CDLL(str(broken))
    monkeypatch.setattr(compiled, "_HERE", tmp_path)
    with pytest.raises(ImportError) as refused:
        compiled.load(broken.name)
    assert str(refused.value).endswith(str(loader.value).strip())


def test_choosing_a_backend(spy):
    assert "spy" in do.available_backends()
    do.reinmax(L)
    assert not spy
    do.reinmax(L, backend="spy")
    assert spy == ["sample"]
    with do.use_backend("spy"):
        do.reinmax(L)
        assert len(spy) == 2
        do.reinmax(L, backend="reference")
        with do.use_backend("reference"):
            do.reinmax(L)
        assert len(spy) == 2
        with pytest.raises(KeyError), do.use_backend("reference"):
            raise KeyError
        do.reinmax(L)
        assert len(spy) == 3
    do.reinmax(L)
    assert len(spy) == 3
    do.set_backend("spy")
    x = L.clone().requires_grad_()
    do.gumbel_softmax(x)[0, 0].backward()
    assert spy[3:] == ["sample", "surrogate", "surrogate_vjp"]
    with do.use_backend(None):
        do.reinmax(L)
    assert len(spy) == 6
    do.set_backend(None)
    do.reinmax(L)
    assert len(spy) == 6


def test_the_backward_pass_stays_with_the_backend_of_the_forward(spy):
    x = L.clone().requires_grad_()
    sample = do.reinmax(x, backend="spy")
    with do.use_backend("reference"):
        sample[0, 0].backward()
    assert spy == ["sample", "surrogate_vjp"]


@pytest.mark.parametrize(
    "call",
    [
        do.reinmax,
        lambda x: do.reinmax(x, num_draws=2),
        lambda x: do.reinmax(x.flatten(), offsets=torch.tensor([0, 2, x.numel()])),
        lambda x: do.embedding(x, torch.ones(x.shape[-1], 2), "reinmax"),
        lambda x: do.top_k(x, 2, "reinmax"),
    ],
    ids=["draw", "many", "ragged", "embedding", "top_k"],
)
def test_it_stays_with_the_default_too(call, monkeypatch):
    used, get = [], backends.get
    monkeypatch.setattr(backends, "get", lambda name: used.append(name) or get(name))
    sample = call(L.clone().requires_grad_())
    with do.use_backend("reference"):
        sample[0].sum().backward()
    assert len(used) > 1
    assert set(used) == {backends.default(L)}


def test_build_info_tells_the_versions_and_backends():
    info = do.build_info()
    assert info["torch"] == torch.__version__
    assert tuple(info["backends"]) == do.available_backends()


def test_import_touches_neither_triton_nor_a_driver(tmp_path):
    """With a triton to be found, and one that would show."""
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton" / "__init__.py").write_text("")
    code = (
        "import sys, torch; before = set(sys.modules); import discrete_ops; "
        "new = {m for m in set(sys.modules) - before if m.split('.')[0] == 'triton'}; "
        "assert not new, new; assert not torch.cuda.is_initialized(); import triton; assert not triton.__path__ is None"
    )
    path = {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_the_library_the_reference_serves_with_one_warning() -> None:
    script = (
        "import sys, warnings\n"
        "sys.modules['discrete_ops.cpp'] = None\n"  # what a failing import looks like
        "sys.modules['discrete_ops.cuda'] = None\n"
        "import torch, discrete_ops as do\n"
        "assert 'cpp' not in do.available_backends(), do.available_backends()\n"
        "with warnings.catch_warnings(record=True) as said:\n"
        "    warnings.simplefilter('always')\n"
        "    x = torch.randn(5, 4, requires_grad=True)\n"
        "    for _ in range(3):\n"
        "        do.gst(x).sum().backward()\n"
        "assert len(said) == 1 and 'cpp' in str(said[0].message), said\n"
        "assert said[0].filename == '<string>', said[0].filename\n"  # it points at the caller
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
