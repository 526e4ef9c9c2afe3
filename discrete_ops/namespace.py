"""Where the operators are: ``torch.ops.discrete_ops``, with ``_kernels`` and ``_triton`` beside it.

A build that was given DISCRETE_OPS_NAMESPACE has them elsewhere: torch knows an operator by its name alone, so a
process with two copies of the package needs two names.
"""

import json
from pathlib import Path

BUILT = Path(__file__).parent / "build.json"  #: what the libraries were built by, for and as

try:
    NAMESPACE: str = json.loads(BUILT.read_text())["namespace"]
except (OSError, ValueError, KeyError):  # installed without the compiled libraries
    NAMESPACE = "discrete_ops"
