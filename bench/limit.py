"""A pytest plugin (-p bench.limit): a test that takes longer than TEST_LIMIT seconds ends its process.

Under xdist that is one worker's: the test is reported as failed, by name, and another worker takes the rest.
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
    faulthandler.dump_traceback_later(LIMIT, exit=True, file=sys.__stderr__ or sys.stderr)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()
