"""Where the operators are: ``torch.ops.discrete_ops``, with ``_kernels`` and ``_triton`` beside it.

A build that was given DISCRETE_OPS_NAMESPACE has them elsewhere: torch knows an operator by its name alone, so a
process with two copies of the package needs two names.
"""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def built(directory: Path = HERE) -> dict[str, Any]:
    """What build.json says of the libraries beside it: what they were built by, for and as. Empty where there is none,
    or where it is not one."""
    try:
        said = json.loads((directory / "build.json").read_text())
    except (OSError, ValueError):  # installed without the compiled libraries
        return {}
    return said if isinstance(said, dict) else {}


_said = built().get("namespace")
NAMESPACE: str = _said if isinstance(_said, str) and _said.isidentifier() else "discrete_ops"
