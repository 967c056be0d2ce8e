"""The fast run does not import what it will not run; the ledgers are fixtures for all.

What collection makes lives to the end: garbage collections pass over it, else they take a tenth
of the fast run.
"""

import gc
import os
import re
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["tests.support.ledger_fixtures"]
# No absolute times: a busy machine exceeds the 0.2 s that an example may take by default.
settings.register_profile("tollway", deadline=None)
settings.load_profile("tollway")
SLOW_ONLY = re.compile(r"^pytestmark = (\[)?pytest\.mark\.integration\b", re.MULTILINE)
SOME_SLOW = re.compile(r"pytest\.mark\.integration\b")
SOME_ALONE = re.compile(r"pytest\.mark\.alone\b")


# A gateway that a test starts refuses variables that are not settings: it gets the setting.
if shell := os.environ.pop("TOLLWAY_TEST_SHELL", None):
    os.environ["TEST_SHELL"] = shell
COROUTINES = os.environ.get("TEST_SHELL") == "coroutines"
if COROUTINES:
    os.environ["TOLLWAY_SERVER__CALLBACKS"] = "false"


@pytest.fixture(autouse=COROUTINES)
def _coroutine_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """With TEST_SHELL=coroutines, answer no request in callbacks (docs/decisions/0337)."""
    from tollway.gateway.data_plane.callback_shell import CallbackShell

    monkeypatch.setattr(CallbackShell, "begin", lambda *_: False)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not collect files with only such tests as the runs of scripts/test deselect anyway.

    Some import the OpenAI client, scikit-learn or matplotlib: seconds of the minute that the fast
    tests may take.
    """
    if collection_path.suffix != ".py":
        return None
    match config.option.markexpr:
        case "not integration":
            return bool(SLOW_ONLY.search(collection_path.read_text())) or None
        case "integration and not alone":
            return not SOME_SLOW.search(collection_path.read_text()) or None
        case "integration and alone":
            return not SOME_ALONE.search(collection_path.read_text()) or None
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection() -> None:
    """Do not collect garbage while tests are collected, because all objects are kept."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Collect garbage from now on, but only of objects made by tests."""
    gc.enable()
    gc.collect()
    gc.freeze()
