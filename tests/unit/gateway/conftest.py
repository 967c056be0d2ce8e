"""What several tests of the gateway look at."""

import io
import logging
from collections.abc import Iterator
from contextlib import redirect_stderr

import pytest

from tollway.gateway.observability import log_format


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What is written to the log in JSON; afterwards it is as before."""
    root = logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in ("", "tollway")}
    before = list(root.handlers)
    root.handlers.clear()  # so that those of pytest are not closed
    out = io.StringIO()
    with redirect_stderr(out):
        log_format.write("json", "debug")
    yield out
    root.handlers[:] = before
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
