"""Journals that tests write, row by row."""

from pathlib import Path
from typing import Any

from tollway.gateway.storage.journal import Journal

NOON = 1_795_435_200.0
"""2026-11-23 12:00 UTC."""


class Book:
    """Writes requests into a journal as the gateway would."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder)

    def request(
        self,
        backend: str = "cheap",
        cost_nano: int = 100_000,
        *,
        time_s: float = NOON,
        route: str = "m",
        tenant: str = "acme",
        tags: dict[str, str] | None = None,
        status: int = 200,
        reason: str = "best",
        quality: float | None = None,
        **attempt: Any,
    ) -> str:
        """Write one request with one attempt, and its feedback; return its id."""
        decision = self.journal.new_id()
        head = {"id": decision, "time": time_s, "route": route, "tenant": tenant}
        head["tags"] = tags or {}
        draw = {
            "arms": ["cheap", "dear"],
            "pmf": [0.9, 0.1],
            "cost_hat_usd": [0.0001, 0.001],
            "quality_hat": [0.8, 0.9],
            "arm": backend,
            "reason": reason,
            "policy_version": 7,
        }
        called = {"backend": backend, "cost_nano": cost_nano, "status": status, **attempt}
        self.journal.append(
            {"kind": "decision", **head, **draw},
            {"kind": "attempt", **head, "attempt": 0, **ATTEMPT, **called},
        )
        if quality is not None:
            self.feedback(decision, quality)
        return decision

    def feedback(self, decision: str, quality: float, probability: float = 1.0) -> None:
        """Write a feedback."""
        row = {"kind": "feedback", "id": decision, "time": NOON, "quality": quality}
        self.journal.append({**row, "probability": probability})

    def later(self, kind: str, decision: str, cost_nano: int, **more: Any) -> None:
        """Write a settlement, or an audit's attempt."""
        head = {"id": decision, "time": NOON + 1, "route": "m", "tenant": "acme", "tags": {}}
        told = {"backend": "cheap", "cost_nano": cost_nano, "attempt": 0}
        self.journal.append({"kind": kind, **head, **ATTEMPT, **told, **more})


ATTEMPT: dict[str, Any] = {
    "fallback": False,
    "status": 200,
    "error": "",
    "provenance": "usage",
    "expected_nano": 100_000,
    "reserved_nano": {},
}
