"""The decorators of functions that kernels call.

torch.compile copies a kernel and what it calls, as text, into a module of its own, with the numbers that they name but
without infinities (it writes ``inf``) and classes. So kernels write ``float("inf")``, and ask a function that imports
it, at compile time, for the class of a named tuple.
"""

from collections.abc import Callable
from typing import Any

import triton

#: Whether kernels run on the CPU, in Triton's interpreter (``TRITON_INTERPRET=1``).
INTERPRETED: bool = triton.knobs.runtime.interpret


def device_function(function: Callable[..., Any]) -> Any:
    """``triton.jit``; in the interpreter the plain function, whose calls cost it a hundredth."""
    return function if INTERPRETED else triton.jit(function)


def compile_time(function: Callable[[], Any]) -> Any:
    """``triton.constexpr_function``: run by the compiler, for its value."""
    return function if INTERPRETED else triton.constexpr_function(function)
