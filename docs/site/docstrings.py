"""The docstrings as the site shows them.

Sphinx roles such as ``:func:`gst``` are links. What ``discrete_ops/documented.py`` adds to the estimators' when they
are imported is there without an import, which would take torch.
"""

import ast
import functools
import importlib.util
import inspect
import re
import sys
import types
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).parents[2]
ROLE = re.compile(r":(?:func|mod|class|meth):`~?([\w.]+)`")


class Docstrings(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if not obj.docstring:
            return
        if obj.is_function and any(str(decorator.value) == "documented" for decorator in obj.decorators):
            _complete(obj)
        obj.docstring.value = ROLE.sub(lambda match: _link(match[1], obj), obj.docstring.value)


def _complete(function: griffe.Object) -> None:
    """Gives such a function the docstring and the signature that its decorator gives it."""
    documented, defaults, annotations = _shared()
    (source,) = (node for node in ast.parse(function.filepath.read_text()).body if _defines(node, function.name))
    twin = ast.parse(f"def {function.name}(): pass")
    twin.body[0].args = source.args  # type: ignore[attr-defined]
    for argument in (*source.args.args, *source.args.kwonlyargs, source.args.kwarg):
        argument.annotation = None
    namespace: dict[str, Any] = {}
    exec(compile(ast.fix_missing_locations(twin), "<twin>", "exec"), namespace)
    namespace[function.name].__doc__ = function.docstring.value
    twin_function = documented.documented(namespace[function.name])
    function.docstring.value = twin_function.__doc__
    kept = [parameter for parameter in function.parameters if parameter.kind is not griffe.ParameterKind.var_keyword]
    for name in list(inspect.signature(twin_function).parameters)[len(kept) :]:
        option = {"annotation": annotations[name], "default": repr(defaults[name])}
        kept.append(griffe.Parameter(name, kind=griffe.ParameterKind.keyword_only, **option))
    function.parameters = griffe.Parameters(*kept)


@functools.cache
def _shared() -> tuple[Any, dict[str, Any], dict[str, str]]:
    """The module of the decorator, and the shared options' defaults and types, which its neighbour call.py has."""
    tree = ast.parse((ROOT / "discrete_ops" / "call.py").read_text())
    (defaults,) = (ast.literal_eval(node.value) for node in tree.body if _assigns(node, "DEFAULTS"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    fields = [field for node in classes for field in node.body if isinstance(field, ast.AnnAssign)]
    annotations = {ast.unparse(field.target): ast.unparse(field.annotation) for field in fields}
    package, call = types.ModuleType("house"), types.ModuleType("house.call")
    package.__path__ = []
    call.__dict__.update(
        DEFAULTS=defaults, Options=type("Options", (), {"__annotations__": dict.fromkeys(defaults, int)})
    )
    sys.modules.update({"house": package, "house.call": call})
    spec = importlib.util.spec_from_file_location("house.documented", ROOT / "discrete_ops" / "documented.py")
    assert spec
    assert spec.loader
    documented = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(documented)
    return documented, defaults, annotations


def _assigns(node: ast.stmt, name: str) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name


def _defines(node: ast.stmt, name: str) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == name


def _link(name: str, obj: griffe.Object) -> str:
    """A name is that of a thing in the package, or in the docstring's own module; a module is one with a page."""
    package = obj.package
    for module in (package, package["functional"], obj if obj.is_module else obj.module):
        short = name.removeprefix(f"{package.name}.")
        if short in module.members:
            target = module[short]
            if not target.is_module or (ROOT / "docs" / "api" / f"{short}.md").exists():
                return f"[`{name}`][{target.canonical_path}]"
    return f"`{name}`"
