"""The implementation of `tollway simulate capacity`; its options are in journal_commands.py."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, fields, replace

import numpy as np
import orjson

from tollway.gateway.cli import terminal
from tollway.gateway.storage.journal_reader import Damage
from tollway.simulations import options
from tollway.simulations.capacity import page as capacity_page
from tollway.simulations.capacity import tiers_commands
from tollway.simulations.capacity.capacity import Replica, Sizing, Target, bills, need
from tollway.simulations.capacity.forecast import MIN_WEEK_H, forecast, held_out
from tollway.simulations.capacity.plan import Plan
from tollway.simulations.capacity.traffic import HOUR_S, Traffic, read
from tollway.simulations.replay.columns import Columns
from tollway.simulations.replay.logs import BadLog
from tollway.simulations.replay.scratch import Scratch
from tollway.simulations.report import page as report

SLACK = 2.0  # the default target, as a multiple of what calls take without waiting
_SHARE = "a share above 0 and up to 1"
DAYS_MAX = 400  # of a forecast; growth cannot be predicted for longer


def run(arguments: argparse.Namespace) -> int:
    """Plan capacity for the traffic of a journal, or for a chain of tiers; print the plan."""
    if arguments.tiers is not None:
        return tiers_commands.run(arguments)
    if arguments.journal is None:
        return terminal.fail(terminal.USAGE, "name a journal, or a chain of tiers with --tiers")
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
            raise BadLog(
                f"--replica: no calls to {', '.join(sorted(unknown))}; the backends are: {there}"
            )
        plans = [plan(one, replicas.get(one.backend, Replica()), arguments) for one in traffic]
    except BadLog as exc:
        return terminal.fail(terminal.FAILED, str(exc))
    remarks = notes(plans, arguments)
    if damage.bad:
        remarks.append(
            f"{damage.bad} of {damage.lines} rows are left out: cut, damaged, or without backend "
            "or time"
        )
    lines = [*terminal.columns(rows(plans)), "", *terminal.columns(bill_rows(plans))]
    if not any(one.bills for one in plans):
        lines = terminal.columns(rows(plans))
    terminal.say(*lines, *(f"note: {note}" for note in remarks))
    if arguments.json is not None:
        arguments.json.write_bytes(document(plans, remarks))
    if arguments.html is not None:
        tables = rows(plans), bill_rows(plans)
        report.write(arguments.html, capacity_page.page(plans, tables, remarks))
    return terminal.OK


def _check(arguments: argparse.Namespace) -> None:
    for name in ("share", "availability", "worst"):
        if not 0.0 < getattr(arguments, name) < 1.0:
            raise BadLog(f"--{name} must be between 0 and 1, such as 0.95")
    for name in ("headroom", "peak"):
        if getattr(arguments, name) < 0.0:
            raise BadLog(f"--{name} must not be below 0")
    if not 0 < arguments.days <= DAYS_MAX:
        raise BadLog(f"--days must be from 1 to {DAYS_MAX}")
    if arguments.growth is not None and not -1.0 < arguments.growth <= 1.0:
        raise BadLog("--growth must be above -1 and at most 1 (doubling every week)")


def _replica(text: str) -> tuple[str, Replica]:
    """Read `BACKEND:OPTION=VALUE,...`."""
    name, _, listed = text.partition(":")
    known = [field.name for field in fields(Replica)]
    values: dict[str, float] = {}
    for option in filter(None, listed.split(",")):
        key, _, value = option.partition("=")
        if key not in known:
            raise BadLog(
                f"--replica {text!r}: unknown option {key!r}; the options are: {', '.join(known)}"
            )
        try:
            values[key] = options.value(value)
            sound = 0.0 < values[key] <= (1.0 if key in {"up", "spot_up"} else 1e6)
        except TypeError:
            sound = False
        if not sound or (key == "places" and not isinstance(values[key], int)):
            what = {"places": "a whole number above 0", "up": _SHARE, "spot_up": _SHARE}
            kind = what.get(key, "a number above 0")
            raise BadLog(f"--replica {text!r}: {key}={value} is not {kind}")
    return name, Replica(**values)  # type: ignore[arg-type]


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
    result = Plan(traffic, replica, target, ahead, tested, None, ())
    try:
        most = max(float(ahead.futures.max()), float(ahead.expected.max()))
        sizing = Sizing(traffic.service, replica, target, traffic.bursts, most)
        needed = need(sizing, ahead, replica, target)
        billed = tuple(bills(sizing, ahead, replica, target, needed.top))
    except ValueError as exc:
        return replace(result, refused=str(exc))
    return replace(result, need=needed, bills=billed)


# -- output


def rows(plans: Sequence[Plan]) -> list[tuple[str, ...]]:
    """Return the table of needed replicas, one row per backend."""
    head = ("BACKEND", "RULE", "REPLICAS", "CALLS/S", "PEAK", "WORST CASE", "GROWTH/WEEK")
    table: list[tuple[str, ...]] = [(*head, "LATENCY", "TARGET", "LATE", "HELD-OUT ERROR")]
    for one in plans:
        share, service = one.target.share, one.traffic.service
        needed = one.need
        table.append(
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
    return table


def bill_rows(plans: Sequence[Plan]) -> list[tuple[str, ...]]:
    """Return the table of bills."""
    head = ("BACKEND", "PLAN", "CONSTANT", "MAXIMUM", "$/MONTH", "$/MONTH, P95", "SAVING")
    table: list[tuple[str, ...]] = [head]
    for one in plans:
        for bill in one.bills:
            saving = 1.0 - bill.usd_month / one.bills[0].usd_month
            table.append(
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
    return table


def notes(plans: Sequence[Plan], arguments: argparse.Namespace) -> list[str]:
    """Return notes on how to read the figures."""
    remarks = [f"{one.traffic.backend}: {one.refused}" for one in plans if one.refused]
    first = plans[0]
    span_h = len(first.traffic.calls) * first.traffic.step_s / HOUR_S
    if span_h < MIN_WEEK_H:
        known = ", ".join(first.forecast.known) or "a constant rate"
        remarks.append(
            f"the journal covers {span_h:.3g} hours, enough to fit {known} only; growth and days "
            "of the week need two weeks"
        )
    for one in plans:
        tested, name = one.held_out, one.traffic.backend
        if tested is not None and tested.peak > tested.worst_peak:
            remarks.append(
                f"{name}: the last day's peak of {tested.peak:.4g} calls/s exceeded the worst case "
                f"predicted from the days before ({tested.worst_peak:.4g}); future peaks may, too"
            )
        if one.traffic.bursts > 1.5:
            remarks.append(
                f"{name}: calls come in bursts (per minute, {one.traffic.bursts:.3g} times the "
                "variance of Poisson arrivals); waiting times account for this"
            )
    if arguments.within is None:
        remarks.append("no target was given (--within): it is twice the latency without waiting")
    remarks.append(
        "latencies are measured in the quietest hours; a server that slows down under load needs "
        "more replicas"
    )
    return remarks


def document(plans: Sequence[Plan], remarks: Sequence[str]) -> bytes:
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
    return orjson.dumps({"notes": list(remarks), "backends": backends}, option=flags)
