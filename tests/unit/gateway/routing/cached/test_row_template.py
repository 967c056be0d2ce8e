"""Rows from a template are those of the code that builds all rows."""

from typing import Any

import pytest

from tollway.gateway.routing.cached.row_template import RowTemplate
from tollway.gateway.storage.journal_format import seal, unseal

DECISION = {
    "kind": "decision",
    "id": "x.0.ab12",
    "time": 1.5,
    "route": 'r"\u00e9',
    "arms": ("a", "cache:a"),
    "pmf": (0.01, 0.99),
    "cached": {"backend": "a", "found": "hit", "age_s": 0.25, "saved_nano": 12},
}
ATTEMPT = {"kind": "attempt", "id": "x.0.ab12", "time": 1.5, "backend": "cache:a", "latency_s": 0.0}


@pytest.mark.parametrize("more", [{}, {"paced_by": ["b"], "cached_hat": (1, 0)}])
@pytest.mark.parametrize("age_s", [0.0, 0.001, 12.5, 86400.125])
def test_lines_are_those_of_the_rows(more: dict[str, Any], age_s: float) -> None:
    template = RowTemplate({**DECISION, **more}, ATTEMPT)
    changed = {"id": "y.1z.cd34", "time": 1796076000.123456}
    cached = {**DECISION["cached"], "age_s": age_s}  # type: ignore[dict-item]
    expected = [{**DECISION, **more, **changed, "cached": cached}, {**ATTEMPT, **changed}]
    lines = template.lines("y.1z.cd34", 1796076000.123456, age_s)
    assert lines == b"".join(map(seal, expected))
    assert all(unseal(line) for line in lines.splitlines(keepends=True))
