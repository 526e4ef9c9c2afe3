"""Where a command line prints, and how it ends."""

import sys
from collections.abc import Callable

from rich.console import Console

from . import interrupts
from .errors import RunError

WIDTH = 120  #: columns of a table that goes to a file or a pipe


def console() -> Console:
    """The terminal, or standard output as wide as a table needs."""
    found = Console()
    return found if found.is_terminal else Console(width=WIDTH)


def exit_status(command: Callable[[], int | None]) -> int:
    """The status of ``command``: what it returns (None: 0); 130 after ^C, 143 after SIGTERM; 1 after a RunError, which
    is printed, or an OSError, say of a full disk, which names the path."""
    try:
        with interrupts.raised():
            return command() or 0
    except (RunError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print("interrupted; a run goes on from its last whole epoch, unless told to start anew", file=sys.stderr)
        return getattr(error, "status", 130)
