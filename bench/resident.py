"""Resident memory of this process, in bytes.

Where Linux tells it, from there: what ``getrusage`` calls the peak is that of the process that started this one, where
that was larger.
"""

import re
import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def now() -> int:
    return _status("VmRSS")


def peak() -> int:
    if STATUS.exists():
        return _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def reset_peak() -> None:
    """The peak is what is resident now."""
    (STATUS.parent / "clear_refs").write_text("5")


def _status(field: str) -> int:
    found = re.search(rf"^{field}:\s*(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])
