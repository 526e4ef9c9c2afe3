"""The decorator of functions that kernels call."""

from collections.abc import Callable
from typing import Any

import triton

#: Whether kernels run on the CPU, in Triton's interpreter (``TRITON_INTERPRET=1``).
INTERPRETED: bool = triton.knobs.runtime.interpret


def device_function(function: Callable[..., Any]) -> Any:
    """``triton.jit``; in the interpreter the plain function, whose calls cost it a hundredth."""
    return function if INTERPRETED else triton.jit(function)
