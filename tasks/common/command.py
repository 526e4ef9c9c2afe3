"""How a command line ends."""

import sys
from collections.abc import Callable

from .errors import RunError


def exit_status(command: Callable[[], int | None]) -> int:
    """The status of ``command``: what it returns (None: 0); 1 after a RunError, which is printed; 130 after ^C."""
    try:
        return command() or 0
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; a run that has a checkpoint goes on from it, unless told to start anew", file=sys.stderr)
        return 130
