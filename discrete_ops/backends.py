"""Which implementation of the row kernels runs.

A backend is a module with the four functions of ``reference.py``: ``sample``, ``surrogate``, ``tau_derivative`` and
``surrogate_vjp``, same names, same arguments. Importing this never probes a driver; triton, slow to import, is
imported by the first call that runs on it.
"""

import contextlib
import importlib
import importlib.util
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

import torch

from . import reference
from .namespace import built

#: Backends by name; None is one that its first call will import.
_BACKENDS: dict[str, ModuleType | None] = {"reference": reference}
#: Why a backend did not load.
_MISSING: dict[str, str] = {}
#: What runs by default on a device type, best first; the reference where none of them loaded.
_PREFERENCE: dict[str, tuple[str, ...]] = {"cpu": ("cpp",), "cuda": ("cuda", "triton")}
#: Where a backend runs; the reference runs anywhere.
_DEVICES: dict[str, tuple[str, ...]] = {"cpp": ("cpu",), "cuda": ("cuda",), "triton": ("cuda",)}

_chosen: str | None = None
_warned: set[tuple[str, int | None]] = set()
#: Why the cuda backend cannot run on a device, or on any (None); asked once.
_OBSTACLES: dict[int | None, str | None] = {}


def _load(name: str, module: str) -> None:
    try:
        _BACKENDS[name] = importlib.import_module(module, __package__)
    except ImportError as error:
        _BACKENDS.pop(name, None)
        _MISSING[name] = str(error)


# torch.compile runs it instead of tracing an import. It is what torch.compiler.assume_constant_result sets, which would
# import torch._dynamo, and triton with it.
_load._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _announce_triton() -> None:
    """Make Triton available without importing it."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if importlib.util.find_spec("triton") is None:
        _MISSING["triton"] = "triton is not installed"
    elif importlib.util.find_spec(".triton_kernels", __package__) is None:
        _MISSING["triton"] = "discrete_ops.triton_kernels is not part of this installation"
    elif torch.version.cuda is None and not interpreted:
        _MISSING["triton"] = "torch here is built without CUDA; TRITON_INTERPRET=1 runs the kernels on a CPU, slowly"
    else:
        _BACKENDS["triton"] = None
        _DEVICES["triton"] = ("cuda", "cpu") if interpreted else ("cuda",)


_load("cpp", ".cpp")
_load("cuda", ".cuda")
_announce_triton()


def available_backends() -> tuple[str, ...]:
    """Names that ``backend=``, :func:`set_backend` and :func:`use_backend` accept here.

    ``cuda`` is one of them where torch sees a GPU that its library has code for; this asks the driver.
    """
    return tuple(name for name in [*_BACKENDS] if name != "cuda" or _obstacle("cuda", None) is None)


def check(name: str, argument: str = "backend") -> str:
    """``name`` if such a backend is loaded. Raises ValueError naming ``argument`` otherwise, and why it is not."""
    if name not in _BACKENDS:
        reason = f" ({_MISSING[name]})" if name in _MISSING else ""
        raise ValueError(f"{argument}: got {name!r}, available here: {', '.join(map(repr, _BACKENDS))}{reason}")
    return name


def _obstacle(name: str, device: int | None) -> str | None:
    """Why a loaded backend cannot run on a CUDA device, by default on any of this machine's; None: it can.

    The first call for a device asks the driver; importing does not.
    """
    if name != "cuda":
        return None
    if device not in _OBSTACLES:
        if not torch.cuda.is_available():
            _OBSTACLES[device] = "torch sees no GPU"
        elif device is None:
            # No further than the first that can: asking takes a context of the device, with its memory.
            found = any(_obstacle(name, number) is None for number in range(torch.cuda.device_count()))
            _OBSTACLES[device] = None if found else _OBSTACLES[0]
        else:
            _OBSTACLES[device] = get(name).obstacle(device)
    return _OBSTACLES[device]


# As _load: what it asks is the same on every call.
_obstacle._dynamo_marked_constant = True  # type: ignore[attr-defined]


def chosen(name: str | None, x: torch.Tensor) -> str:
    """A call's own choice, else the process's, which can run on the device of x; empty: the default of any device."""
    name = _chosen if name is None else name
    return "" if name is None else _ready(name, x.device.type, x.device.index)


def _ready(name: str, device_type: str, device: int | None) -> str:
    """``name``, imported and able to run there."""
    name = resolve(name, device_type, device)
    get(name)
    return name


# As _load: traced, it would be guarded by what the import changes.
_ready._dynamo_marked_constant = True  # type: ignore[attr-defined]


def default(x: torch.Tensor) -> str:
    """The backend of a call on this tensor that names none."""
    if x.is_cpu:
        return "cpp" if _chosen is None and "cpp" in _BACKENDS else resolve(None, "cpu")  # the first, for small calls
    return resolve(None, x.device.type, x.device.index)


def resolve(name: str | None, device_type: str, device: int | None = None) -> str:
    """The backend a call uses: its own choice, else the process's choice, else the default of ``device``."""
    name = _chosen if name is None else name
    if name is not None:
        allowed = _DEVICES.get(check(name), (device_type,))
        if device_type not in (*allowed, "meta"):
            raise ValueError(
                f"backend: got {name!r} for a tensor on {device_type}, allowed: one on {' or '.join(allowed)}"
            )
        obstacle = _obstacle(name, device) if device_type == "cuda" else None
        if obstacle:
            raise ValueError(f"backend: got {name!r}, which cannot run on this GPU: {obstacle}")
        return name
    preference, missing = _PREFERENCE.get(device_type, ()), []
    chosen = "reference"
    for preferred in preference:
        loaded = _is_loaded(preferred)
        obstacle = _obstacle(preferred, device) if loaded and device_type == "cuda" else _MISSING.get(preferred)
        if loaded and obstacle is None:
            chosen = preferred
            break
        missing.append(f"{preferred}: {obstacle}")
    if missing and (device_type, device) not in _warned:
        _warned.add((device_type, device))
        what = "no fast backend" if chosen == "reference" else "not the fastest backend"
        message = f"discrete_ops: {what} for {device_type}, using {chosen!r} ({'; '.join(missing)})"
        warnings.warn(message, stacklevel=_caller())
    return chosen


def _is_loaded(name: str) -> bool:
    """Whether the backend can be used, after importing one that waited for its first call."""
    if _BACKENDS.get(name, reference) is None:
        _load(name, ".triton_kernels")
    return name in _BACKENDS


def _caller() -> int:
    """The stack level of the first frame outside this package, as the warnings module counts from our caller."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(__package__ or ""):
        level, frame = level + 1, frame.f_back
    return level


def get(name: str) -> ModuleType:
    """The module of an available backend. Raises ValueError for another, ImportError if its first import fails."""
    module = _BACKENDS.get(name)
    if module is None:
        if not _is_loaded(name):
            if name in _MISSING:
                raise ImportError(f"backend {name!r}: {_MISSING[name]}")
            check(name)
        module = _BACKENDS[name]
        assert module is not None
    return module


def set_backend(name: str | None) -> None:
    """Use one backend for every call of this process that names none; ``None`` restores the default.

    Raises:
        ValueError: no such backend is available here.
    """
    global _chosen
    _chosen = None if name is None else check(name, "name")


@contextlib.contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """``with use_backend("reference"): ...``, as :func:`set_backend` for a block (process-wide)."""
    previous = _chosen
    set_backend(name)
    try:
        yield
    finally:
        set_backend(previous)


def build_info() -> dict[str, object]:
    """What is installed: versions, the backends that loaded, what the libraries were built by. For bug reports.

    ``python -m discrete_ops`` prints it.
    """
    try:
        package = version("discrete-ops")
    except PackageNotFoundError:  # a source tree on sys.path
        package = "not installed"
    info: dict[str, object] = {
        "discrete_ops": package,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "backends": available_backends(),
        "missing": dict(_MISSING),
    }
    if "cuda" in _BACKENDS and (obstacle := _obstacle("cuda", None)):
        info["missing"] = {**_MISSING, "cuda": obstacle}
    if "cpp" in _BACKENDS:
        info["instruction_set"] = get("cpp").instruction_set()
    if libraries := built():
        info["libraries"] = libraries
    return info
