"""Turns a gateway's journal into a stream of logged feedback, one row per decision.

The rows of one request are adjacent; feedback comes later, in any segment. So one pass yields
decisions and feedback separately, one group at a time, and a caller that needs both joins them by
id.

Estimates may use only decisions whose draws are the policy's own. Redrawn decisions (a budget
refused an arm drawn before, so the propensity is conditional) and those that fell back or failed
are yielded with the reason for their exclusion. Labels from audits are marked as not `fair`,
because audits select decisions where the policy was in doubt.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from tollway.backends.money import to_usd
from tollway.gateway.storage.journal_format import Row
from tollway.gateway.storage.journal_reader import Damage, sound
from tollway.policies.types import ACCEPT


def stream(paths: Iterable[Path], damage: Damage) -> Iterator[tuple[str, Row]]:
    """Yield `decision`, `feedback` and `settlement` rows in the form of the tables.

    Memory holds one request's rows. A stream's attempt row has cost 0; its settlement has the cost
    to add to its decision, and the stream's total duration.
    """
    for path in paths:
        group: list[Row] = []
        for row in sound(path, damage):
            kind = row.get("kind")
            if kind == "feedback":
                yield from _feedback(row)
            elif kind == "settlement":
                yield "settlement", _settlement(row)
            elif kind == "decision" or (kind == "attempt" and not row.get("audit")):
                if group and group[0]["id"] != row["id"]:
                    yield "decision", _decision(group)
                    group = []
                if group or kind == "decision":  # else the file begins in the middle of a request
                    group.append(row)
        if group:
            yield "decision", _decision(group)


def _settlement(row: Row) -> Row:
    usd, first = to_usd(row["cost_nano"]), row["attempt"] == 0
    return {
        "id": row["id"],
        "settled_usd": usd,
        "first_usd": usd if first else 0.0,
        "whole_s": float(row["latency_s"]) if first else None,
        "broke": bool(first and row["error"]),
    }


def _feedback(row: Row) -> Iterator[tuple[str, Row]]:
    for backend, quality in (row.get("known") or {}).items():
        if backend and quality is not None:
            label = {"id": row["id"], "backend": backend, "quality": float(quality)}
            label["fair"] = row.get("probability", 1.0) == 1.0
            yield "feedback", {**label, "taught_s": float(row["time"])}


def _decision(group: list[Row]) -> Row:
    draws = [row for row in group if row["kind"] == "decision"]
    attempts = [row for row in group if row["kind"] == "attempt"]
    first = draws[0]
    good = [row for row in attempts if not row["error"]]
    was_kept, chance = _kept(draws)
    row = {
        "id": first["id"],
        "excluded": _excluded(draws, attempts),
        "time": float(first["time"]),
        "route": first["route"],
        "tenant": first["tenant"],
        "arms": first["arms"],
        "pmf": [float(p) for p in first["pmf"]],
        "cost_hat_usd": [float(usd) for usd in first["cost_hat_usd"]],
        "dense": [float(value) for value in first["dense"]],
        "sparse_index": [int(index) for index, _ in first["sparse"]],
        "sparse_value": [float(value) for _, value in first["sparse"]],
        "arm": first["arm"],
        "propensity": float(first["propensity"]),
        "answered": good[-1]["backend"] if good else "",
        "kept": was_kept,
        "kept_chance": chance,
        "cost_usd": 0.0,
        "latency_s": 0.0,
        "total_usd": to_usd(sum(row["cost_nano"] for row in attempts)),
    }
    if attempts:
        calls = _first(attempts)
        row["cost_usd"] = to_usd(sum(call["cost_nano"] for call in calls))
        row["latency_s"] = min(
            call.get("hedge_s", 0.0) + call["latency_s"]
            for call in [call for call in calls if not call["error"]] or calls
        )
    return row


def _first(attempts: list[Row]) -> list[Row]:
    """Return the calls of the first choice: one, or two if it was hedged."""
    return attempts[: 2 if len(attempts) > 1 and "hedge_s" in attempts[1] else 1]


def _excluded(draws: list[Row], attempts: list[Row]) -> str:
    if any(row["redrawn"] for row in draws):
        return "redrawn"
    if not attempts or attempts[0]["backend"] != draws[0]["arm"]:
        return "refused"
    if attempts[0]["fallback"] or all(call["error"] for call in _first(attempts)):
        return "failed"
    return ""


def _kept(draws: list[Row]) -> tuple[bool, float]:
    """Return whether the first reply was kept, and the probability of that, given the reply."""
    if len(draws) < 2:
        return True, 1.0
    then = draws[1]
    chance = dict(zip(then["arms"], then["pmf"], strict=True)).get(ACCEPT, 0.0)
    return then["arm"] == ACCEPT, float(chance)
