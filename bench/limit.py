"""A pytest plugin (-p bench.limit): a test that takes longer than LIMIT seconds ends its process and is told by name.

Under xdist that is one worker: it is reported as crashed in that test, and another takes the rest.
"""

import faulthandler
import os
import sys
from collections.abc import Iterator

import pytest

LIMIT = float(os.environ.get("TEST_LIMIT", "30"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    # Not sys.stderr, which pytest captures: what it held would be lost with the process.
    out = sys.__stderr__
    assert out is not None
    faulthandler.dump_traceback_later(LIMIT, exit=True, file=out)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()
