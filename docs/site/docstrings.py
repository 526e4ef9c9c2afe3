"""The docstrings as the site shows them.

Sphinx roles such as ``:func:`gst``` are links. What ``discrete_ops/documented.py`` adds to the estimators' when they
are imported is there without an import, which would take torch.
"""

import ast
import importlib.util
import inspect
import re
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
    spec = importlib.util.spec_from_file_location("documented", ROOT / "discrete_ops" / "documented.py")
    assert spec
    assert spec.loader
    documented = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(documented)
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
        default = repr(documented._DEFAULTS[name])
        kept.append(griffe.Parameter(name, kind=griffe.ParameterKind.keyword_only, default=default))
    function.parameters = griffe.Parameters(*kept)


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
