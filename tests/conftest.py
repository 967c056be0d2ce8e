"""The fast run does not import what it will not run; the ledgers are fixtures for all."""

import re
from pathlib import Path

import pytest

pytest_plugins = ["tests.support.ledger_fixtures"]
SLOW_ONLY = re.compile(r"^pytestmark = pytest\.mark\.integration$", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files whose tests are all integration tests, where these are deselected anyway.

    Some import the OpenAI client, scikit-learn or matplotlib: seconds of the minute that the fast
    tests may take.
    """
    if config.option.markexpr != "not integration" or collection_path.suffix != ".py":
        return None
    return bool(SLOW_ONLY.search(collection_path.read_text())) or None
