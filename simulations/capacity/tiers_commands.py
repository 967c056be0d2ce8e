"""The implementation of `tollway simulate capacity --tiers`."""

import argparse
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import orjson

from tollway.gateway.cli import terminal
from tollway.simulations import options
from tollway.simulations.capacity.tiers import (
    BadTiers,
    Planned,
    Tier,
    Workload,
    planned,
    read,
)

SHIPPED = Path(__file__).parent


def run(arguments: argparse.Namespace) -> int:
    """Plan a chain of tiers, and print what each needs and which limits the whole."""
    try:
        workload, tiers = read(tomllib.loads(described(arguments.tiers).read_text()))
        workload, tiers = changed(workload, tiers, arguments.set)
        found = planned(workload, tiers, seed=arguments.seed)
    except (BadTiers, OSError, tomllib.TOMLDecodeError, ValueError) as exc:
        return terminal.fail(terminal.FAILED, f"{arguments.tiers}: {exc}")
    terminal.say(*terminal.columns(rows(found)), "", *told(found))
    if arguments.json is not None:
        arguments.json.write_bytes(document(found))
    return terminal.OK


def described(name: str) -> Path:
    """Return the file of a description: one that is shipped, by its name, or a path."""
    shipped = SHIPPED / f"{name}.toml"
    return shipped if name.isidentifier() and shipped.exists() else Path(name)


def changed(
    workload: Workload, tiers: Sequence[Tier], settings: Sequence[str]
) -> tuple[Workload, list[Tier]]:
    """Return a description with values set: `workload.rate=5e5`, or `TIER.busy_max=0.4`."""
    by_name = {tier.name: tier for tier in tiers}
    for text in settings:
        place, equals, said = text.partition("=")
        name, dot, key = place.rpartition(".")
        if not (equals and dot):
            raise BadTiers(f"--set {text!r}: write it like workload.rate=500000")
        value = options.value(said)
        if name == "workload":
            workload = _with(workload, key, value, text)
        elif name in by_name:
            by_name[name] = _with(by_name[name], key, value, text)
        else:
            known = ", ".join(["workload", *by_name])
            raise BadTiers(f"--set {text!r}: there is no {name!r}; there are {known}")
    return workload, list(by_name.values())


T = TypeVar("T", Workload, Tier)


def _with(table: T, key: str, value: Any, text: str) -> T:
    present = getattr(table, key, None)
    if present is None or isinstance(present, str) != isinstance(value, str):
        raise BadTiers(f"--set {text!r}: there is no such key, or the value is of another type")
    if isinstance(present, int) and not isinstance(present, bool) and not isinstance(value, int):
        raise BadTiers(f"--set {text!r}: must be a whole number")
    return replace(table, **{key: value})


def rows(found: Planned) -> list[tuple[str, ...]]:
    """Return the table of the tiers."""
    head = ("TIER", "REQUESTS/S", "ANSWERED", "REPLICAS", "BUSY", "P50", "P99", "$/MONTH")
    table: list[tuple[str, ...]] = [head]
    for one in found.tiers:
        table.append(
            (
                one.tier.name,
                f"{one.arriving:,.0f}",
                f"{one.ends:.1%}",
                f"{one.replicas:,}",
                f"{one.busy:.0%}",
                f"{one.p50_ms:.2f} ms",
                f"{one.p99_ms:.2f} ms",
                f"{one.usd_month:,.0f}",
            )
        )
    return table


def told(found: Planned) -> list[str]:
    """Return what the whole chain does, and which tier limits it."""
    workload = found.workload
    met = "met" if found.within >= workload.share else "missed"
    return [
        f"{found.within:.2%} of the requests take at most {workload.within_ms:g} ms; the target of "
        f"{workload.share:.2%} is {met}.",
        f"All requests: p50 {found.p50_ms:.2f} ms, p99 {found.p99_ms:.2f} ms.",
        f"${found.usd_month:,.0f} a month, ${found.usd_per_million:.4f} a million requests.",
        f"Most of the money: {found.costliest.tier.name} "
        f"({found.costliest.usd_month / found.usd_month:.0%}).",
        f"Most of the time of the slowest hundredth: {found.slowest} "
        f"({found.late_by[found.slowest]:.2f} ms).",
        f"First to be overloaded: {found.fullest.tier.name} ({found.fullest.busy:.0%} busy).",
    ]


def document(found: Planned) -> bytes:
    """Return a plan as JSON."""
    whole = {
        **asdict(found),
        "usd_month": found.usd_month,
        "usd_per_million": found.usd_per_million,
        "most_money": found.costliest.tier.name,
        "most_time": found.slowest,
        "first_overloaded": found.fullest.tier.name,
    }
    return orjson.dumps(whole, option=orjson.OPT_INDENT_2)
