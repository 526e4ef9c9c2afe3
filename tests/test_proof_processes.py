"""The short form of what is tried with processes, builds and spoiled installations."""

import sys
from types import ModuleType

import pytest
from proof_lines import assert_hold

from proof import builds, installs, processes


@pytest.mark.skipif(sys.platform != "linux", reason="NOT COVERED: ELF, fork after threads and capabilities are Linux's")
@pytest.mark.parametrize("check", [processes, installs, builds], ids=lambda check: check.__name__)
def test_every_line_holds(check: ModuleType) -> None:
    assert_hold(check.run(**check.SHORT))
