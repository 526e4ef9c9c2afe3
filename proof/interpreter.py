"""Triton's interpreter in less than half its time, by leaving out what it does for nothing."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any


def hasten() -> None:
    """Of a process that interprets and compiles nothing.

    A launch, and each call of a function of ``triton.language``, searches that for what to replace by NumPy's; a
    launch undoes it. It is searched once a function, and stays replaced. And every sum and product of integers is
    formed again in 64 bits to see whether it overflows, which is reported in the debugging mode alone.
    """
    from triton.runtime import interpreter

    options = interpreter.interpreter_builder.options
    if not (hasattr(interpreter, "_patch_lang") and hasattr(options, "sanitize_overflow")):
        return  # another Triton, which takes its time
    patch: Callable[[Any], Any] = interpreter._patch_lang

    @cache
    def patched(function: Any) -> Any:
        patch(function)
        return SimpleNamespace(restore=lambda: None)

    interpreter._patch_lang = patched
    interpreter.interpreter_builder.options = replace(options, sanitize_overflow=options.debug)
