"""Packages and compiled libraries of the wheel.

``triton_kernels`` is a taken name on PyPI, so ours installs inside ``discrete_ops``. The operators live in plain
libraries on torch's stable ABI, which depends on neither the Python version nor torch's minor version, so one wheel
serves every Python. ``_C`` is a Python extension for the tests of a source tree: no wheel has it.

nvcc compiles the CUDA library wherever it is found, with or without a GPU and against any torch: what it needs of
torch resolves when a torch that has CUDA loads it.

On Linux the libraries need no newer runtime than manylinux_2_28 has, as torch's own wheels, wherever they are built:
see stand_ins() and csrc/old_runtime.cpp.

Environment: MAX_JOBS (parallel compilation), CXX, DISCRETE_OPS_CUDA (0: no CUDA library, 1: an error without nvcc,
auto: where nvcc is found), CUDA_HOME, TORCH_CUDA_ARCH_LIST (as torch reads it, "8.0;9.0+PTX"),
DISCRETE_OPS_NAMESPACE (of the operators, for a process with two copies of the package; discrete_ops),
DISCRETE_OPS_SANITIZE (address: with AddressSanitizer and UndefinedBehaviourSanitizer, thread: with ThreadSanitizer;
see `make sanitize`; CPU only).
Without a C++ compiler the package installs pure Python.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel

LIBRARY, CUDA_LIBRARY = "discrete_ops.libdiscrete_ops_cpu", "discrete_ops.libdiscrete_ops_cuda"
BINDING = "discrete_ops._C"
ARCHITECTURES = "8.0;9.0;10.0+PTX"
SANITIZERS = {
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    "thread": ["-fsanitize=thread"],
}
STABLE_ABI = "0x020a000000000000"  # torch 2.10


def compiler() -> str | None:
    """The C++ compiler torch's build will call, or None."""
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        if name and shutil.which(name.split()[0]):
            return name
    return None


def compiler_command() -> list[str]:
    """That compiler, which may be of several words."""
    return (compiler() or "c++").split()


def nvcc() -> str | None:
    """CUDA's compiler, or None where the CUDA library is not wanted or cannot be built."""
    wish = os.environ.get("DISCRETE_OPS_CUDA", "auto")
    if wish not in ("0", "1", "auto"):
        raise SystemExit(f"DISCRETE_OPS_CUDA: got {wish!r}, allowed: 0, 1, auto")
    if wish == "0" or (wish == "auto" and sanitizers()):
        return None
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    paths = [*(os.path.join(home, "bin") for home in homes), os.environ.get("PATH", ""), "/usr/local/cuda/bin"]
    found = shutil.which("nvcc", path=os.pathsep.join(paths))
    if found is None and wish == "1":
        raise SystemExit(
            "DISCRETE_OPS_CUDA: got '1', but no nvcc in CUDA_HOME, PATH or /usr/local/cuda; allowed: 0, auto"
        )
    return found


def sanitizers() -> list[str]:
    """The flags of those that the CPU library is built with."""
    name = os.environ.get("DISCRETE_OPS_SANITIZE")
    if name and name not in SANITIZERS:
        raise SystemExit(f"DISCRETE_OPS_SANITIZE: got {name!r}, allowed: {', '.join(SANITIZERS)}")
    return SANITIZERS[name] if name else []


def architectures() -> list[tuple[str, str]]:
    """What nvcc generates code for: pairs of a virtual architecture and a real one, or twice the virtual for PTX."""
    pairs = []
    wish = os.environ.get("TORCH_CUDA_ARCH_LIST") or ARCHITECTURES
    for name in wish.replace(" ", ";").split(";"):
        match = re.fullmatch(r"(\d+)\.(\d)([af]?)(\+PTX)?", name)
        if not match:
            raise SystemExit(f"TORCH_CUDA_ARCH_LIST: got {name!r} in {wish!r}, allowed: as '8.0', '9.0a' or '10.0+PTX'")
        number = "".join(match.group(1, 2, 3))
        pairs.append((f"compute_{number}", f"sm_{number}"))
        if match.group(4):
            pairs.append((f"compute_{number}", f"compute_{number}"))
    return pairs


class AnyPythonWheel(bdist_wheel):
    """A wheel without what belongs to one Python, tagged by platform only."""

    def run(self) -> None:
        modules = self.distribution.ext_modules or []
        self.distribution.ext_modules = [module for module in modules if module.name != BINDING]
        # What earlier builds left there would be packed, too; objects are elsewhere.
        shutil.rmtree(self.get_finalized_command("build").build_lib, ignore_errors=True)
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        platform_tag = super().get_tag()[2]
        return "py3", "none", platform_tag if self.distribution.has_ext_modules() else "any"


def namespace() -> str:
    """Of the operators, for torch.ops."""
    name = os.environ.get("DISCRETE_OPS_NAMESPACE", "discrete_ops")
    if not re.fullmatch(r"[a-zA-Z_]\w*", name, re.ASCII):
        raise SystemExit(f"DISCRETE_OPS_NAMESPACE: got {name!r}, allowed: a name of letters, digits and underscores")
    return name


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


GLIBC = (2, 28)
#: Its libraries whose functions have newer versions since: where they are now, and what they are called.
RENEWED = {
    "libm.so.6": ("libm.so.6", r"\w+"),
    "libdl.so.2": ("libc.so.6", r"dl\w+"),
    "libpthread.so.0": ("libc.so.6", r"(?:pthread|sem)_\w+"),
    "librt.so.1": ("libc.so.6", r"shm_\w+"),
}


def older_versions(library: str, functions: str) -> dict[str, list[str]]:
    """The functions that this machine's library has both newer than GLIBC and older, by their last version up to it."""
    asked = [*compiler_command(), f"-print-file-name={library}"]
    path = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    listed = subprocess.run(["nm", "-D", "--defined-only", path], capture_output=True, text=True).stdout
    had: dict[str, list[tuple[int, ...]]] = {}
    for function, version in re.findall(rf" [TWi] ({functions})@+GLIBC_([\d.]+)$", listed, re.MULTILINE):
        had.setdefault(function, []).append(tuple(map(int, version.split("."))))
    older: dict[str, list[str]] = {}
    for function, versions in had.items():
        if max(versions) > GLIBC >= min(versions):
            last = max(version for version in versions if version <= GLIBC)
            older.setdefault("GLIBC_" + ".".join(map(str, last)), []).append(function)
    return older


def stand_ins(directory: Path) -> dict[str, Path]:
    """Empty libraries to link to before this machine's, with the versions of functions that GLIBC had.

    glibc keeps every version of a function that a binary may ask for, and a linker takes the newest it sees. It sees
    these first. What is loaded is the machine's own; a glibc of before 2.34 still has those libraries.
    """
    directory.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, (library, functions) in RENEWED.items():
        older = older_versions(library, functions)
        if older:  # neither another C library nor one that is old enough
            stem = directory / name.partition(".")[0]
            source, script, found[name] = (stem.with_suffix(suffix) for suffix in (".c", ".map", ".so"))
            source.write_text("".join(f"void {f}(void) {{}}\n" for group in older.values() for f in group))
            script.write_text("".join(f"{version} {{ {'; '.join(group)}; }};\n" for version, group in older.items()))
            linked = [f"-Wl,-soname,{name}", f"-Wl,--version-script={script}", "-o", str(found[name])]
            command = [*compiler_command(), "-shared", "-nostdlib", "-w", "-x", "c", str(source), *linked]
            subprocess.run(command, check=True)
    return found


def built_by() -> dict[str, str | int]:
    """The C++ compiler, by its own words."""
    command = [*compiler_command(), "-std=c++17", "-x", "c++", "-dM", "-E", "-"]
    said = subprocess.run(command, input="", capture_output=True, text=True, check=True).stdout
    macros = dict(re.findall(r'^#define (\w+) "?(.*?)"?$', said, re.MULTILINE))
    name = f"clang {macros['__clang_version__']}" if "__clang__" in macros else f"gcc {macros['__VERSION__']}"
    return {"compiler": name, "cplusplus": int(macros["__cplusplus"].rstrip("L"))}


def definitions() -> list[str]:
    """Of every file that includes torch's headers."""
    return [f"-DTORCH_TARGET_VERSION={STABLE_ABI}", f"-DDISCRETE_OPS_KERNELS={namespace()}_kernels"]


def compiled() -> dict:
    """The extension modules and the command that builds them, where they can be built."""
    cuda_compiler, operators, reason = nvcc(), namespace(), obstacle()
    if reason:
        if os.environ.get("DISCRETE_OPS_CUDA") == "1":
            raise SystemExit(f"DISCRETE_OPS_CUDA: got '1', but {reason}; allowed: 0, auto")
        if operators != "discrete_ops":
            raise SystemExit(f"DISCRETE_OPS_NAMESPACE: got {operators!r}, but {reason}; allowed: discrete_ops")
        print(f"discrete-ops: {reason}, installing without the compiled CPU backend", file=sys.stderr)
        return {}
    import torch
    from torch.utils.cpp_extension import BuildExtension, CppExtension

    flags = ["-O3", "-g0", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
    if sanitizers():
        flags += [*sanitizers(), "-O1", "-g1", "-fno-omit-frame-pointer"]
    warnings = ["-Wall", "-Wextra", "-Wno-psabi", "-Wno-unused-parameter"]
    warnings += ["-Wno-uninitialized", "-Wno-maybe-uninitialized"]  # false ones, from GCC's own intrinsics
    kernels = [f"csrc/cpu/kernels_{isa}.cpp" for isa in ("avx512", "avx2", "baseline")]  # slowest to compile first
    # _Float16's conversions, which libgcc_s has from GCC 12 on only: from libgcc.a, which has no unwinder.
    conversions = ["-lgcc"] if sys.platform == "linux" else []
    library = CppExtension(
        LIBRARY,
        [*kernels, "csrc/cpu/ops.cpp", "csrc/library.cpp", "csrc/old_runtime.cpp"],
        py_limited_api=True,
        extra_compile_args=[*flags, *warnings, *definitions()],
        extra_link_args=[*sanitizers(), *conversions],
    )
    binding = CppExtension(
        BINDING,
        ["csrc/binding.cpp"],
        extra_compile_args=[*flags, f"-DDISCRETE_OPS_TORCH={torch.__version__}"],
        extra_link_args=sanitizers(),
    )

    targets = architectures() if cuda_compiler else []
    cuda_library = [Extension(CUDA_LIBRARY, [])] if cuda_compiler else []  # build_cuda() names its sources

    class Build(BuildExtension):
        def get_ext_filename(self, name: str) -> str:
            if LIBRARY.endswith(name) or CUDA_LIBRARY.endswith(name):  # loaded by torch: no interpreter's suffix
                return os.path.join(*name.split(".")) + ".so"
            return super().get_ext_filename(name)

        def build_extensions(self) -> None:
            older = {}
            if sys.platform == "linux":
                older = stand_ins(Path(self.build_temp, "stand_ins").resolve())
            if "libm.so.6" in older:
                library.extra_link_args.append(str(older.pop("libm.so.6")))
            every = self.extensions
            self.extensions = [extension for extension in every if extension.name != CUDA_LIBRARY]
            super().build_extensions()
            self.extensions = every
            if cuda_compiler:
                temporary, path = Path(self.build_temp, "cuda"), Path(self.get_ext_fullpath(CUDA_LIBRARY))
                build_cuda(cuda_compiler, targets, temporary, path, [*older.values()])

        def copy_file(self, infile: str, outfile: str, *options: object, **named: object) -> tuple[str, bool]:
            """Of a library, from the build to a source tree."""
            place(Path(infile), Path(outfile))
            return outfile, True

        def run(self) -> None:
            super().run()
            built_for: dict[str, object] = {"torch": torch.__version__}
            built_for |= {"system": platform.system(), "machine": platform.machine(), **built_by()}
            built_for["namespace"] = operators
            if cuda_compiler:
                said = subprocess.run([cuda_compiler, "--version"], capture_output=True, text=True, check=True).stdout
                built_for["nvcc"] = re.findall(r"release ([\d.]+)", said)[-1]
                built_for["cuda_architectures"] = [code for _, code in targets]
            about = Path(self.build_temp, "build.json")
            about.parent.mkdir(parents=True, exist_ok=True)
            about.write_text(json.dumps(built_for))
            place(about, Path(self.get_ext_fullpath(LIBRARY)).with_name("build.json"))

    modules = [library, binding, *cuda_library]
    return {"ext_modules": modules, "cmdclass": {"build_ext": Build.with_options(use_ninja=True)}}


# torch's own CUDA extensions need a torch built for the same CUDA as nvcc; on the stable ABI any will do, so ninja
# calls nvcc directly.
CUDA_RULES = """\
rule object
  command = {nvcc} {flags} -MD -MF $out.d -c $in -o $out
  depfile = $out.d
  deps = gcc
rule stub
  command = {cxx} -shared -x c $in -Wl,-soname,libtorch_cuda.so -o $out
rule library
  command = {nvcc} -shared -nodlink -ccbin {cxx} -cudart static -Xlinker --exclude-libs,ALL $in $
      -Xlinker --no-as-needed {stand_ins} -L{torch_lib} -ltorch_cpu -o $out
"""


def build_cuda(
    nvcc: str, targets: list[tuple[str, str]], directory: Path, library: Path, stand_ins: list[Path]
) -> None:
    """Compile csrc/cuda in ``directory`` and link ``library``, to ``stand_ins`` for what CUDA's runtime takes.

    It is linked to a libtorch_cuda.so of one empty function, since a CPU-only torch has none: so the real one is
    loaded, or found missing, before this library.
    """
    from torch.utils.cpp_extension import include_paths, library_paths

    here, cxx = Path(__file__).parent.resolve(), compiler_command()[0]
    slowest_first = ("double", "usual", "without_draws", "draws", "mve", "draws_long", "sample")
    sources = [here / f"csrc/cuda/kernels_{name}.cu" for name in slowest_first]
    jobs = int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1)
    flags = ["-O3", "-std=c++17", f"-ccbin {cxx}", "-Xcompiler -fPIC,-fvisibility=hidden"]
    flags += [f"--threads {-(-jobs // len(sources))}", *definitions()]
    flags += [f"-gencode arch={virtual},code={real}" for virtual, real in targets]
    flags += [f"-isystem {path}" for path in include_paths()]
    first = " ".join(map(str, stand_ins))
    rules = CUDA_RULES.format(nvcc=nvcc, cxx=cxx, flags=" ".join(flags), torch_lib=library_paths()[0], stand_ins=first)
    objects = []
    for source in [*sources, here / "csrc/cuda/ops.cpp", here / "csrc/old_runtime.cpp"]:
        objects.append(f"{source.stem}.o")
        rules += f"build {objects[-1]}: object {source}\n"
    rules += f"build libtorch_cuda.so: stub stub.c\nbuild library.so: library {' '.join(objects)} libtorch_cuda.so\n"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "stub.c").write_text("void aoti_torch_get_current_cuda_stream(void) {}\n")
    (directory / "build.ninja").write_text(rules)
    subprocess.run(["ninja", "-j", str(jobs)], cwd=directory, check=True)
    library.parent.mkdir(parents=True, exist_ok=True)
    place(directory / "library.so", library)


def place(built: Path, path: Path) -> None:
    """Put what was built where others read it, whole: who imports meanwhile finds the old file or the new one, and who
    runs on the old one keeps it."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        new = Path(file.name)
    try:
        shutil.copy(built, new)
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def readme() -> str:
    """README.md as a package index shows it: links into the tree lead to the repository, at this version."""
    here = Path(__file__).parent
    project = (here / "pyproject.toml").read_text()
    (repository,) = re.findall(r'^Repository = "(.+)"$', project, re.MULTILINE)
    (version,) = re.findall(r'^version = "(.+)"$', project, re.MULTILINE)
    text = (here / "README.md").read_text()
    text = re.sub(r'(src="|!\[[^\]]*\]\()(?!\w+:)', rf"\1{repository}/raw/v{version}/", text)
    return re.sub(r"\]\((?!\w+:|#)", f"]({repository}/blob/v{version}/", text)


options = {} if "sdist" in sys.argv else compiled()  # sources need neither torch nor a compiler
options["cmdclass"] = {**options.get("cmdclass", {}), "bdist_wheel": AnyPythonWheel}
setup(
    long_description=readme(),
    long_description_content_type="text/markdown",
    package_data={"discrete_ops": ["py.typed", "*.pyi"]},
    packages=["discrete_ops", "discrete_ops.triton_kernels"],
    package_dir={"discrete_ops.triton_kernels": "triton_kernels"},
    **options,
)
