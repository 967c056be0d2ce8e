"""After each fault this process, too, has open what it had before."""

import gc
import os
from collections.abc import Iterator

import pytest

from tests.faults.leaks import of_process


@pytest.fixture(autouse=True)
def nothing_is_left_open(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Compare files, sockets and processes before and after: journals, ledgers, gateways."""
    gc.collect()
    base = of_process(os.getpid())
    yield
    # What is logged with a traceback keeps its frames, and so their files.
    caplog.get_records("call").clear()
    gc.collect()
    # Memory is the test's own: it holds what thousands of clients were told.
    left = of_process(os.getpid()).above(base, files=0, memory_mib=float("inf"))
    assert not left, f"still open after the test: {left}"
