"""Explains decisions and budgets: turns journal rows and budget states into readable documents."""

from typing import Any

from tollway.backends.money import to_usd
from tollway.gateway.budgets.model import BudgetStatus
from tollway.gateway.storage.journal_format import Row


def budget(status: BudgetStatus) -> dict[str, Any]:
    """Return a budget's state; `*_nano` are exact, `*_usd` are for reading."""
    amounts = {
        "limit": status.limit_nano,
        "spent": status.spent_nano,
        "held": status.held_nano,
        "free": status.free_nano,
        "overdraft": status.overdraft_nano,
        "unaccounted": status.unaccounted_nano,
        "carried": status.carried_nano,
        "credit": status.credit_nano,
    }
    return {
        "name": status.budget.name,
        "scope": _scope(status),
        "window": status.budget.window,
        "timezone": status.budget.timezone,
        "enforcement": status.budget.enforcement,
        "window_start": status.window_start_s,
        "resets_at": status.resets_at_s,
        **{f"{name}_nano": nano for name, nano in amounts.items()},
        **{f"{name}_usd": to_usd(nano) for name, nano in amounts.items()},
        "used": status.used_nano / status.limit_nano if status.limit_nano else 1.0,
    }


def _scope(status: BudgetStatus) -> dict[str, Any]:
    scope = status.budget.scope
    parts: dict[str, Any] = {"tenant": scope.tenant, "route": scope.route, "backend": scope.backend}
    if scope.tags:
        parts["tags"] = dict(scope.tags)
    return {name: part for name, part in parts.items() if part}


def decision(found: list[Row]) -> dict[str, Any]:
    """Return the explanation of a decision: the arms offered, the choice and its cost.

    If the rows include a stream's settlement, it replaces the row of its attempt.
    """
    draws = [row for row in found if row["kind"] == "decision"]
    ends = {row["attempt"]: row for row in found if row["kind"] == "settlement"}
    attempts = [ends.get(row["attempt"], row) for row in found if row["kind"] == "attempt"]
    feedback = [row for row in found if row["kind"] == "feedback"]
    first = found[0]
    return {
        "id": first["id"],
        "time": first["time"],
        "route": first["route"],
        "tenant": first["tenant"],
        "tags": first["tags"],
        "cost_nano": sum(row["cost_nano"] for row in attempts),
        "cost_usd": to_usd(sum(row["cost_nano"] for row in attempts)),
        "stages": [_stage(row) for row in draws],
        "attempts": [_attempt(row) for row in attempts],
        "feedback": feedback,
        "story": story(draws, attempts),
    }


def _stage(row: Row) -> dict[str, Any]:
    offered = zip(row["arms"], row["pmf"], row["quality_hat"], row["cost_hat_usd"], strict=True)
    return {
        "stage": row["stage"],
        "arm": row["arm"],
        "propensity": row["propensity"],
        "reason": row["reason"],
        "price_of_money": row["price_of_money"],
        "held": row["held"],
        "reply_features": row["reply"],
        "redrawn": row["redrawn"],
        "policy_version": row["policy_version"],
        "offered": [
            {"arm": arm, "probability": p, "quality_hat": quality, "cost_hat_usd": cost}
            for arm, p, quality, cost in offered
        ],
        **({"left_out": row["left_out"]} if "left_out" in row else {}),
        **({"cached": _cached(row)} if "cached_hat" in row else {}),
        **{name: row[name] for name in _CHANGED if name in row},
    }


def _cached(row: Row) -> dict[str, int]:
    """Return how many input tokens a backend was expected to have cached, by backend."""
    return {a: n for a, n in zip(row["arms"], row["cached_hat"], strict=True) if n}


def _attempt(row: Row) -> dict[str, Any]:
    skipped = {"kind", "id", "time", "route", "tenant", "tags"}
    told = {name: value for name, value in row.items() if name not in skipped and name != "crc"}
    return {**told, "cost_usd": to_usd(row["cost_nano"])}


def story(draws: list[Row], attempts: list[Row]) -> list[str]:
    """Return a decision as English sentences."""
    sentences = []
    for row in draws:
        offered = ", ".join(
            f"{arm} (quality {quality:.3f}, ${cost:.6f}, drawn with {p:.1%})"
            for arm, p, quality, cost in zip(
                row["arms"], row["pmf"], row["quality_hat"], row["cost_hat_usd"], strict=True
            )
        )
        held = f" With {row['held']}'s reply in hand" if row["held"] else "Of the request"
        sentences.append(
            f"{held.strip()}, offered {offered}; a dollar was worth "
            f"{row['price_of_money']:.4g} quality. Drawn: {row['arm']} ({row['reason']})."
        )
        if "left_out" in row:
            left_out = "; ".join(f"{arm} {why}" for arm, why in row["left_out"].items())
            sentences.append(f"Not offered, because the request asks for more: {left_out}.")
        sentences += _changed(row)
        if "cached_hat" in row:
            cached = [f"{tokens} of {arm}" for arm, tokens in _cached(row).items()]
            sentences.append(
                "The costs count on input tokens in prompt caches from before, which another "
                f"backend would have to read again: {' and '.join(cached)}."
            )
    for row in attempts:
        came = row["error"] or f"status {row['status']}, answer {row['answer']!r}"
        sentences.append(
            f"{_why(row)} {row['backend']}: {came} in "
            f"{row['latency_s'] * 1e3:.1f} ms; charged ${to_usd(row['cost_nano']):.9f} "
            f"({row['provenance']}; expected ${to_usd(row['expected_nano']):.9f}){_budgets(row)}."
            f"{_guessed(row)}"
        )
        if "output_limit" in row:
            sentences.append(
                f"A hard budget limited each of its answers to {row['output_limit']} tokens."
            )
    return sentences


_CHANGED = ("paced_by", "unpaced", "refused_by", "refused_for")


def _changed(row: Row) -> list[str]:
    """Return how a budget, or its pacing, changed a choice."""
    told = []
    if "unpaced" in row:
        names = " and ".join(row["paced_by"])
        told.append(f"The pace of {names} changed the choice: without it {row['unpaced']} is best.")
    if "refused_by" in row:
        why = {
            "exhausted": "too little of it is left",
            "unbounded": "nothing bounds what the call can cost",
            "held": "what is left of it was held by other calls",
        }.get(row["refused_for"], "its ledger could not be asked")
        told.append(f"Budget {row['refused_by']} did not pay for {row['arm']}: {why}.")
    return told


def _why(row: Row) -> str:
    if row.get("audit"):
        return f"Audited, with a chance of {row['audit']:.2%}, by"
    if "hedge_s" in row:
        return f"When {row['hedge_s'] * 1e3:.1f} ms had brought no answer, asked again"
    return "Fell back to" if row["fallback"] else "Asked"


def _guessed(row: Row) -> str:
    """Return which used units have no price at the backend, if any."""
    if not row.get("guessed"):
        return ""
    return f" Its price does not say what these cost: {', '.join(row['guessed'])}."


def _budgets(row: Row) -> str:
    """Return the budgets that an attempt was charged to, and any excess over its reservation."""
    told = []
    for name, held_nano in row["reserved_nano"].items():
        lacking_nano = row["cost_nano"] - held_nano
        lacking = f", ${to_usd(lacking_nano):.9f} too little" if lacking_nano > 0 else ""
        told.append(f"{name} (held ${to_usd(held_nano):.9f}{lacking})")
    return f", to {' and '.join(told)}" if told else ", to no budget"
