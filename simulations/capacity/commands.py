"""The implementation of `tollway simulate capacity`; its options are in journal_commands.py."""

import argparse
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, fields, replace

import numpy as np
import orjson

from tollway.gateway.cli import terminal
from tollway.simulations.capacity import page as capacity_page
from tollway.simulations.capacity.capacity import Replica, Sizing, Target, bills, need
from tollway.simulations.capacity.forecast import MIN_WEEK_H, forecast, held_out
from tollway.simulations.capacity.plan import Plan
from tollway.simulations.capacity.traffic import HOUR_S, Traffic, read
from tollway.simulations.replay.columns import Columns
from tollway.simulations.replay.journal_rows import Damage
from tollway.simulations.replay.logs import BadLog, Scratch
from tollway.simulations.report import page as report

SLACK = 2.0  # the default target, as a multiple of what calls take without waiting
DAYS_MAX = 400  # of a forecast; growth cannot be predicted for longer


def run(arguments: argparse.Namespace) -> int:
    """Plan capacity for the traffic of a journal, and print the plan."""
    scratch = Scratch()  # the calls are read from there until the end
    columns = Columns(arm=arguments.arm, time=arguments.time, latency=arguments.latency)
    try:
        _check(arguments)
        replicas = dict(_replica(text) for text in arguments.replica)
        damage = Damage()
        traffic = read(arguments.journal, scratch, columns, damage)
        unknown = replicas.keys() - {one.backend for one in traffic}
        if unknown:
            there = ", ".join(one.backend for one in traffic)
            raise BadLog(f"no call to {', '.join(sorted(unknown))}; there are: {there}")
        plans = [plan(one, replicas.get(one.backend, Replica()), arguments) for one in traffic]
    except BadLog as exc:
        return terminal.fail(terminal.FAILED, str(exc))
    said = notes(plans, arguments)
    if damage.bad:
        said.append(f"{damage.bad} of {damage.lines} lines were cut or damaged and left out")
    told = [*terminal.columns(rows(plans)), "", *terminal.columns(bill_rows(plans))]
    if not any(one.bills for one in plans):
        told = terminal.columns(rows(plans))
    terminal.say(*told, *(f"note: {note}" for note in said))
    if arguments.json is not None:
        arguments.json.write_bytes(document(plans, said))
    if arguments.html is not None:
        tables = rows(plans), bill_rows(plans)
        report.write(arguments.html, capacity_page.page(plans, tables, said))
    return terminal.OK


def _check(arguments: argparse.Namespace) -> None:
    for name in ("share", "availability", "worst"):
        if not 0.0 < getattr(arguments, name) < 1.0:
            raise BadLog(f"--{name} must lie between 0 and 1, as 0.95 does")
    for name in ("headroom", "peak"):
        if getattr(arguments, name) < 0.0:
            raise BadLog(f"--{name} must not be below 0")
    if not 0 < arguments.days <= DAYS_MAX:
        raise BadLog(f"--days must be from 1 to {DAYS_MAX}")
    if arguments.growth is not None and not -1.0 < arguments.growth <= 1.0:
        raise BadLog("--growth must lie above -1 and at most at 1, the doubling of a week")


def _replica(text: str) -> tuple[str, Replica]:
    """Read `BACKEND:OPTION=VALUE,...`."""
    name, _, options = text.partition(":")
    known = [field.name for field in fields(Replica)]
    found: dict[str, float] = {}
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        if key not in known:
            raise BadLog(f"--replica {text!r}: {key!r} is unknown; there are: {', '.join(known)}")
        try:
            found[key] = tomllib.loads(f"value = {value}")["value"]
            sound = 0.0 < found[key] <= (1.0 if key in {"up", "spot_up"} else 1e6)
        except (tomllib.TOMLDecodeError, TypeError):
            sound = False
        if not sound or (key == "places" and not isinstance(found[key], int)):
            raise BadLog(f"--replica {text!r}: {key}={value} is no number that can be; above 0")
    return name, Replica(**found)  # type: ignore[arg-type]


def plan(traffic: Traffic, replica: Replica, arguments: argparse.Namespace) -> Plan:
    """Return the plan for one backend."""
    rng = np.random.default_rng(arguments.seed)
    within = arguments.within or SLACK * traffic.service.quantile(arguments.share)
    target = Target(
        within_s=within,
        share=arguments.share,
        availability=arguments.availability,
        headroom=arguments.headroom,
        peak=arguments.peak,
        worst=arguments.worst,
    )
    first_h = int(traffic.start_s // HOUR_S)
    ahead = forecast(
        traffic.rates,
        first_h,
        arguments.days * 24,
        rng,
        step_s=traffic.step_s,
        growth_week=arguments.growth,
    )
    tested = held_out(traffic.rates, first_h, rng, arguments.worst)
    found = Plan(traffic, replica, target, ahead, tested, None, ())
    try:
        most = max(float(ahead.futures.max()), float(ahead.expected.max()))
        sizing = Sizing(traffic.service, replica, target, traffic.bursts, most)
        needed = need(sizing, ahead, replica, target)
        billed = tuple(bills(sizing, ahead, replica, target, needed.top))
    except ValueError as exc:
        return replace(found, refused=str(exc))
    return replace(found, need=needed, bills=billed)


# -- output


def rows(plans: Sequence[Plan]) -> list[tuple[str, ...]]:
    """Return the table of needed replicas, one row per backend."""
    head = ("BACKEND", "BECAUSE OF", "REPLICAS", "CALLS/S", "PEAK", "WORST", "GROWTH A WEEK")
    found: list[tuple[str, ...]] = [(*head, "TIME", "TARGET", "LATE", "HELD-OUT ERROR")]
    for one in plans:
        share, service = one.target.share, one.traffic.service
        needed = one.need
        found.append(
            (
                one.traffic.backend,
                needed.rule if needed else "-",
                str(needed.top) if needed else "-",
                f"{float(np.median(one.forecast.expected)):.4g}",
                f"{float(one.forecast.expected.max()):.4g}",
                f"{one.forecast.worst(one.target.worst):.4g}",
                f"{one.forecast.growth_week:+.1%}",
                f"{service.quantile(share):.3g} s",
                f"{one.target.within_s:.3g} s",
                f"{needed.late:.2%}" if needed else "-",
                f"{one.held_out.error:.1%}" if one.held_out else "-",
            )
        )
    return found


def bill_rows(plans: Sequence[Plan]) -> list[tuple[str, ...]]:
    """Return the table of bills."""
    head = ("BACKEND", "PLAN", "ALWAYS", "AT MOST", "$ A MONTH", "IN A BAD CASE", "SAVING")
    found: list[tuple[str, ...]] = [head]
    for one in plans:
        for bill in one.bills:
            saving = 1.0 - bill.usd_month / one.bills[0].usd_month
            found.append(
                (
                    one.traffic.backend,
                    bill.plan,
                    str(bill.always),
                    str(bill.most),
                    f"{bill.usd_month:,.0f}",
                    f"{bill.usd_month_worst:,.0f}",
                    f"{saving:.0%}" if bill is not one.bills[0] else "",
                )
            )
    return found


def notes(plans: Sequence[Plan], arguments: argparse.Namespace) -> list[str]:
    """Return notes on how to read the figures."""
    found = [f"{one.traffic.backend}: {one.refused}" for one in plans if one.refused]
    first = plans[0]
    span_h = len(first.traffic.calls) * first.traffic.step_s / HOUR_S
    if span_h < MIN_WEEK_H:
        known = ", ".join(first.forecast.known) or "a level"
        found.append(
            f"the journal holds {span_h:.3g} hours, so no more than {known} can be told from it; "
            "growth and days of the week need two weeks"
        )
    for one in plans:
        tested, name = one.held_out, one.traffic.backend
        if tested is not None and tested.peak > tested.worst_peak:
            found.append(
                f"{name}: the last day's peak of {tested.peak:.4g} calls/s was above the worst "
                f"case foretold without it, {tested.worst_peak:.4g}: what comes may be worse too"
            )
        if one.traffic.bursts > 1.5:
            found.append(
                f"{name}: calls come in bursts ({one.traffic.bursts:.3g} times the variance of "
                "chance, by the minute), which is in the waiting"
            )
    if arguments.within is None:
        found.append("no target was given (--within): twice what calls take by themselves is taken")
    found.append(
        "how long a call takes is measured in the calmest hours; a server that slows down with "
        "its load needs more than this"
    )
    return found


def document(plans: Sequence[Plan], said: Sequence[str]) -> bytes:
    """Return the plans as JSON."""
    backends = [
        {
            "backend": one.traffic.backend,
            "calls": float(np.nansum(one.traffic.calls)),
            "bursts": one.traffic.bursts,
            "mean_s": one.traffic.service.mean_s,
            "scv": one.traffic.service.scv,
            "target": asdict(one.target),
            "replica": asdict(one.replica),
            "expected": one.forecast.expected,
            "worst_rate": one.forecast.worst(one.target.worst),
            "growth_week": one.forecast.growth_week,
            "fitted": one.forecast.known,
            "held_out": asdict(one.held_out) if one.held_out else None,
            "need": {**asdict(one.need), "rule": one.need.rule} if one.need else None,
            "refused": one.refused,
            "bills": [asdict(bill) for bill in one.bills],
        }
        for one in plans
    ]
    flags = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY
    return orjson.dumps({"notes": list(said), "backends": backends}, option=flags)
