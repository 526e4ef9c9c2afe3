"""``python -m discrete_ops``: what is installed, a line each. For bug reports."""

import sys
from collections.abc import Iterator, Mapping

from . import build_info


def lines(info: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    """``name: value``, and ``outer.name: value`` for what a mapping holds."""
    for name, value in info.items():
        if isinstance(value, Mapping):
            yield from lines(value, f"{prefix}{name}.")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            yield f"{prefix}{name}: {' '.join(text.split())}"


if __name__ == "__main__":
    encoding = sys.stdout.encoding or "ascii"  # a path in a loader's message may not fit it
    for line in lines(build_info()):
        print(line.encode(encoding, "backslashreplace").decode(encoding))
