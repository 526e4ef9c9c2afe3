"""What type checkers make of a user's code: right code passes in their strictest mode, each mistake is seen."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TYPED = ROOT / "tests" / "typed"


def mypy(directory: Path, *files: Path) -> str:
    # --follow-imports=silent: as for an installed package, of which only the types are read.
    flags = ["--strict", "--follow-imports=silent", "--no-error-summary", "--hide-error-context"]
    command = [sys.executable, "-m", "mypy", *flags, "--config-file=", f"--cache-dir={directory}", *map(str, files)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout


def pyright(directory: Path, *files: Path) -> str:
    """As basedpyright, which brings its own Node.js, with pyright's strict rules."""
    # The examples call what torch leaves untyped, such as manual_seed(); what is unknown of ours user_code.py asserts.
    of_torch = {f"reportUnknown{what}Type": "none" for what in ("Member", "Variable", "Argument")}
    environments = [{"root": str(ROOT / "examples"), "extraPaths": [str(ROOT)], **of_torch}]
    config = {"typeCheckingMode": "strict", "pythonVersion": "3.10", "extraPaths": [str(ROOT)]}
    config = {**config, "executionEnvironments": environments}
    (directory / "pyrightconfig.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "basedpyright", "-p", str(directory), "--pythonpath", sys.executable]
    return subprocess.run([*command, *map(str, files)], cwd=ROOT, capture_output=True, text=True).stdout


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_right_code_passes_and_each_mistake_is_seen(checker, tmp_path):
    examples = sorted((ROOT / "examples").glob("*.py"))
    mistakes = TYPED / "mistakes.py"
    said = checker(tmp_path, TYPED / "user_code.py", mistakes, *examples)
    errors = set(re.findall(r"([\w/.]+\.py):(\d+):.*error", said))
    lines = mistakes.read_text().splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if line.startswith(("do.", "index"))}
    assert len(wrong) >= 12
    assert {int(number) for file, number in errors if file.endswith("mistakes.py")} == wrong, said
    assert {file for file, _ in errors if not file.endswith("mistakes.py")} == set(), said


@pytest.mark.parametrize("module", ["functional", "embeddings"])
def test_the_stub_has_the_functions_signatures(module):
    """Each has three overloads, alike but for return_index and the result."""

    def parameters(function: ast.FunctionDef) -> dict[str, str]:
        names = [*function.args.args, *function.args.kwonlyargs]
        named = {name.arg: ast.unparse(name.annotation) for name in names if name.annotation}
        defaults = [*function.args.defaults, *function.args.kw_defaults]
        given = [ast.unparse(default) if default else "" for default in defaults]
        named["defaults"] = ", ".join(given[: -1 if "return_index" in named else None])
        named["options"] = ast.unparse(function.args.kwarg.annotation) if function.args.kwarg else ""
        return {name: value for name, value in named.items() if name != "return_index"}

    def functions(name: str) -> list[ast.FunctionDef]:
        module = ast.parse((ROOT / "discrete_ops" / name).read_text())
        return [node for node in module.body if isinstance(node, ast.FunctionDef)]

    stubs = functions(f"{module}.pyi")
    for function in functions(f"{module}.py"):
        mine = [stub for stub in stubs if stub.name == function.name]
        if not mine and function.name.startswith("_"):
            continue
        returns_index = "return_index" in [name.arg for name in function.args.kwonlyargs]
        assert len(mine) == (3 if returns_index else 1)
        for stub in mine:
            assert parameters(stub) == parameters(function)
        stubs = [stub for stub in stubs if stub.name != function.name]
    assert not stubs
