"""The docstrings' Sphinx roles, such as ``:func:`gst```, as links of the site."""

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:func|mod|class|meth):`~?([\w.]+)`")


class Roles(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = ROLE.sub(lambda match: _link(match[1], obj), obj.docstring.value)


def _link(name: str, obj: griffe.Object) -> str:
    """A name is that of a thing in the package, or in the docstring's own module."""
    package = obj.package
    for module in (package, package["functional"], obj if obj.is_module else obj.module):
        short = name.removeprefix(f"{package.name}.")
        if short in module.members:
            return f"[`{name}`][{module[short].canonical_path}]"
    return f"`{name}`"
