"""The start reads the newest segments that have rows."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tollway.gateway.learning.feedback import CATCH_UP_SEGMENTS_MAX, FeedbackLearner
from tollway.gateway.storage.journal import Journal


def test_segments_without_a_row_do_not_push_out_others(tmp_path: Path) -> None:
    """A gateway that fails to start again and again makes one each time."""
    first = Journal(tmp_path)
    first.append_lines(b'{"kind":"feedback"}\n', 1)  # counted as skipped once it is read
    first.close()
    for _ in range(CATCH_UP_SEGMENTS_MAX):
        Journal(tmp_path).close()
    metrics: Any = SimpleNamespace(rows_skipped=0)
    journal = Journal(tmp_path)
    learner = FeedbackLearner(journal, {}, metrics, lambda: 0.0)
    done = learner.catch_up(tmp_path, {})
    journal.close()
    assert (done.learned, done.skipped, metrics.rows_skipped) == (0, 1, 1)
