"""Explains decisions and budgets: turns journal rows and budget states into readable documents."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from tollway.backends.money import format_usd, to_usd
from tollway.gateway.budgets.model import BudgetStatus
from tollway.gateway.caching.plan import PREFIX
from tollway.gateway.routing.metering import PENDING
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


Devices = Callable[[Collection[str]], Mapping[str, Mapping[str, Any]]]
"""Returns how those of some backends that run on a device are priced at present."""


def no_devices(backends: Collection[str]) -> Mapping[str, Mapping[str, Any]]:
    """Return nothing: no backend runs on a device."""
    return {}


def decision(rows: list[Row], devices: Devices = no_devices) -> dict[str, Any]:
    """Return the explanation of a decision: the arms offered, the choice and its cost.

    If the rows include a stream's settlement, it replaces the row of its attempt.
    """
    draws = [row for row in rows if row["kind"] == "decision"]
    ends = {row["attempt"]: row for row in rows if row["kind"] == "settlement"}
    attempts = [ends.get(row["attempt"], row) for row in rows if row["kind"] == "attempt"]
    feedback = [row for row in rows if row["kind"] == "feedback"]
    signals = [row for row in rows if row["kind"] == "signal"]
    first = rows[0]
    used = devices({row["backend"] for row in attempts})
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
        **({"features": first["features"]} if "features" in first else {}),
        **({"signals": [_signal(row) for row in signals]} if signals else {}),
        **({"devices": used} if used else {}),
        "story": [
            *[_joined(name, part) for name, part in first.get("features", {}).items()],
            *story(draws, attempts),
            *[sentence for row in signals for sentence in _scored(row)],
            *[_device(name, one) for name, one in used.items()],
        ],
    }


def _joined(name: str, part: dict[str, Any]) -> str:
    """Return what a request got from outside, as a sentence."""
    values = ", ".join(f"{key} {value}" for key, value in part.get("values", {}).items())
    age = f", {part['age_s']:.3g} s old" if "age_s" in part else ""
    told = f": {values}" if values else ""
    return f"Features of {name}, version {part['version']}, {part['mark']}{age}{told}."


def _signal(row: Row) -> dict[str, Any]:
    """Return the scores of a decision's replies, and the (quality, belief) learned of each."""
    return {name: row[name] for name in ("time", "scores", "estimates")}


def _scored(row: Row) -> list[str]:
    """Return what signals said of each reply, and what was learned of it, as sentences."""
    sentences = []
    for backend, scores in row["scores"].items():
        said = ", ".join(f"{name} {score:.2f}" for name, score in scores.items())
        learned = "nothing was learned from it"
        if backend in row["estimates"]:
            quality, belief = row["estimates"][backend]
            learned = f"learned as quality {quality:.2f} with {belief:.0%} of a label's weight"
        sentences.append(f"Signals scored {backend}'s reply: {said}; {learned}.")
    return sentences


def _device(backend: str, one: Mapping[str, Any]) -> str:
    """Return how a backend's calls are priced on its device, as a sentence."""
    if not one["price_known"]:
        price = "whose price cannot be read at present"
    else:
        price = f"${one['usd_per_hour']:.4g} an hour"
    counted = ""
    if one["busy_share"] < 1.0:
        counted = f", for {one['busy_share']:.0%} of which the device works, as its server counts"
    return (
        f"{backend} runs on device {one['device']} ({price}), which is now used for "
        f"{one['utilization']:.0%} of its time: a second of a call costs "
        f"${one['second_usd']:.4g}{counted}; {one['idle_share']:.0%} of that pays for idle time "
        f"({one['idle']})."
    )


_OWN = frozenset(
    (
        *("attempt", "backend", "fallback", "status", "error", "latency_s", "provenance"),
        *("input_tokens", "cached_input_tokens", "output_tokens", "device_s", "service_tier"),
        *("abandoned", "charged_by", "output_limit"),
    )
)
_AMOUNTS = frozenset(("cost_nano", "cost_usd", "provenance", "charged_by"))


def own(rows: list[Row], *, amounts: bool) -> dict[str, Any]:
    """Return what a tenant may know of its own decision: what was called, used and charged.

    Nothing of budgets, of other backends and of the policy. `amounts`: with the cost.
    """
    whole = decision(rows)
    shown = ("id", "time", "route", "tenant", "tags", "cost_nano", "cost_usd")
    members = {name: whole[name] for name in shown if amounts or name not in _AMOUNTS}
    wanted = _OWN | _AMOUNTS if amounts else _OWN - _AMOUNTS
    attempts = [
        {name: value for name, value in attempt.items() if name in wanted}
        for attempt in whole["attempts"]
    ]
    return {**members, "attempts": attempts, "is_final": not is_open(rows)}


def is_open(rows: list[Row]) -> bool:
    """Return whether an attempt has ended in rows that are not among these, or not yet."""
    ended = {row["attempt"] for row in rows if row["kind"] == "settlement"}
    return any(
        row["provenance"] == PENDING and row["attempt"] not in ended
        for row in rows
        if row["kind"] == "attempt"
    )


def _stage(row: Row) -> dict[str, Any]:
    offered = zip(row["arms"], row["pmf"], row["quality_hat"], row["cost_hat_usd"], strict=True)
    return {
        "stage": row["stage"],
        "arm": row["arm"],
        "propensity": row["propensity"],
        "reason": row["reason"],
        "shadow_price": row["shadow_price"],
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
        **({"from_cache": row["cached"]} if "cached" in row else {}),
        **({"refresh": True} if row.get("refresh") else {}),
        **{name: row[name] for name in _CHANGED if name in row},
    }


def _cached(row: Row) -> dict[str, int]:
    """Return how many input tokens a backend was expected to have cached, by backend."""
    return {a: n for a, n in zip(row["arms"], row["cached_hat"], strict=True) if n}


def _attempt(row: Row) -> dict[str, Any]:
    skipped = {"kind", "id", "time", "route", "tenant", "tags", "v", "crc"}
    members = {name: value for name, value in row.items() if name not in skipped}
    return {**members, "cost_usd": to_usd(row["cost_nano"])}


def story(draws: list[Row], attempts: list[Row]) -> list[str]:
    """Return a decision as English sentences."""
    sentences = []
    for row in draws:
        offered = ", ".join(
            f"{arm} (quality {quality:.3f}, ${cost:.6f}, probability {p:.1%})"
            for arm, p, quality, cost in zip(
                row["arms"], row["pmf"], row["quality_hat"], row["cost_hat_usd"], strict=True
            )
        )
        subject = f"After {row['held']}'s reply, the arms" if row["held"] else "The arms"
        sentences.append(
            f"{subject} offered were {offered}; the shadow price was "
            f"{row['shadow_price']:.4g} quality per dollar. "
            f"Drawn: {row['arm']} ({row['reason']})."
        )
        if "left_out" in row:
            left_out = "; ".join(f"{arm} {why}" for arm, why in row["left_out"].items())
            sentences.append(f"Not offered, because they cannot serve the request: {left_out}.")
        sentences += _changed(row) + _kept(row)
        if "cached_hat" in row:
            cached = [f"{tokens} at {arm}" for arm, tokens in _cached(row).items()]
            sentences.append(
                "The expected costs assume that prompt caches still hold some of the input "
                f"tokens: {' and '.join(cached)}."
            )
    for row in attempts:
        answer = f"answer {row['answer']!r}" if "answer" in row else "answer erased"
        came = row["error"] or f"status {row['status']}, {answer}"
        sentences.append(
            f"{_why(row)} {row['backend']}: {came} in "
            f"{row['latency_s'] * 1e3:.1f} ms; charged {format_usd(row['cost_nano'])} "
            f"({row['provenance']}; expected {format_usd(row['expected_nano'])}){_budgets(row)}."
            f"{_guessed(row)}"
        )
        if "output_limit" in row:
            sentences.append(
                f"A hard budget limited each of its answers to {row['output_limit']} tokens."
            )
    return sentences


def _kept(row: Row) -> list[str]:
    """Return what the cache had to do with a request."""
    if row.get("refresh"):
        return ["The gateway made this request itself, to refresh a cached answer."]
    kept = row.get("cached")
    if kept is None:
        return []
    found = {
        "joined": "the same request was under way, and this one waited for its answer",
        "stale": f"an answer to the same request was kept for {kept['age_s']:.0f} s, and is stale",
    }.get(kept["found"], f"an answer to the same request was kept for {kept['age_s']:.0f} s")
    saved = kept["saved_nano"]
    told = f", which saved {format_usd(saved)}, the quote of a fresh call" if saved else ""
    return [f"From {kept['backend']} {found}{told}."]


_CHANGED = ("paced_by", "unpaced", "refused_by", "refused_for")


def _changed(row: Row) -> list[str]:
    """Return how budgets and their pacing changed a choice."""
    sentences = []
    if "unpaced" in row:
        names = " and ".join(row["paced_by"])
        sentences.append(f"Without the pacing of {names}, the best arm would be {row['unpaced']}.")
    if "refused_by" in row:
        why = {
            "exhausted": "not enough of it is left",
            "unbounded": "the cost of the call has no upper bound",
            "held": "other calls had reserved what is left of it",
        }.get(row["refused_for"], "its ledger was unreachable")
        sentences.append(f"Budget {row['refused_by']} refused {row['arm']}: {why}.")
    return sentences


def _why(row: Row) -> str:
    if row.get("signal"):
        return f"For signal {row['signal']} (probability {row['audit']:.2%}), asked"
    if row.get("audit"):
        return f"Audited (probability {row['audit']:.2%}) by"
    if "hedge_s" in row:
        return f"No reply after {row['hedge_s'] * 1e3:.1f} ms, so hedged with"
    if row["backend"].startswith(PREFIX):
        return "Answered by"
    return "Fell back to" if row["fallback"] else "Called"


def _guessed(row: Row) -> str:
    """Return which used units have no price at the backend, if any."""
    if not row.get("guessed"):
        return ""
    return f" The backend has no price for {', '.join(row['guessed'])}; the cost is an estimate."


def _budgets(row: Row) -> str:
    """Return the budgets that an attempt was charged to, and any excess over its reservation."""
    holds = []
    for name, held_nano in row["reserved_nano"].items():
        lacking_nano = row["cost_nano"] - held_nano
        excess = f", exceeded by {format_usd(lacking_nano)}" if lacking_nano > 0 else ""
        holds.append(f"{name} (reserved {format_usd(held_nano)}{excess})")
    return f", to {' and '.join(holds)}" if holds else ", to no budget"
