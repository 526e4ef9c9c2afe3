"""A pytest plugin (-p bench.limit): a test that takes longer than TEST_LIMIT seconds ends its process.

Under xdist that is one worker's: the test is reported as failed, by name, and another worker takes the rest.
"""

import faulthandler
import os
from collections.abc import Iterator

import pytest

LIMIT = float(os.environ.get("TEST_LIMIT", "30"))
#: Taken before pytest captures the descriptor: what is captured is lost with the process.
STDERR = os.dup(2)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    faulthandler.dump_traceback_later(LIMIT, exit=True, file=STDERR)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()
