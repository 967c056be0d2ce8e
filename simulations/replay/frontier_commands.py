"""The implementation of `tollway simulate frontier`; its options are in journal_commands.py."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict

import orjson

from tollway.gateway.cli import terminal
from tollway.simulations.replay.commands import interval, parsed, per_thousand, read, stated
from tollway.simulations.replay.estimators import Refused
from tollway.simulations.replay.frontier import Point, frontier, hull
from tollway.simulations.replay.logs import BadLog
from tollway.simulations.replay.replay import Options, Replay
from tollway.simulations.replay.scratch import Scratch
from tollway.simulations.report import page as report
from tollway.simulations.report.page import Axis, Series

LINES = {
    "arm": "single backends",
    "mix": "mixes",
    "learned": "learned router",
    "hindsight": "hindsight",
    "logged": "logged policy",
    "asked": "other policies",
}


def run(arguments: argparse.Namespace) -> int:
    """Estimate the frontier of a log, and print it."""
    scratch = Scratch()  # the log is read from there until the end
    try:
        log = read(arguments, scratch)
        options = Options(p_min=arguments.p_min, cost_max_usd=arguments.cost_max_usd)
        replay = Replay(log, options)
        asked = [replay.ask(parsed(arguments, log, text)) for text in arguments.policy]
        points = frontier(replay, asked)
    except BadLog as exc:
        return terminal.fail(terminal.FAILED, str(exc))
    notes = replay.notes()
    if (log.total_usd > log.cost_usd).any():
        notes.append(
            "the logged policy called two backends for some requests (cascade); the lines call one"
        )
    refused = refusals(points)
    terminal.say(*terminal.columns(rows(points)), *refused, *(f"note: {note}" for note in notes))
    if arguments.json is not None:
        document = {"notes": notes, "points": [asdict(point) for point in points]}
        flags = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY
        arguments.json.write_bytes(orjson.dumps(document, option=flags))
    if arguments.html is not None:
        report.write(arguments.html, page(points, [*refused, *notes]))
    return terminal.OK


def refusals(points: Sequence[Point]) -> list[str]:
    """Return the points that could not be estimated, once for each line drawn as one."""
    lines: list[str] = []
    for kind, name in LINES.items():
        line = [point.outcome for point in points if point.kind == kind]
        refused = [(one.label, one.quality) for one in line if isinstance(one.quality, Refused)]
        if refused and kind in {"learned", "hindsight"}:
            text = f"{name}: no estimate at {len(refused)} of {len(line)} shadow prices"
            lines.append(f"{text}, such as {refused[0][0]}: {refused[0][1]}")
        else:
            lines += [f"{label}: {stated(quality)}" for label, quality in refused]
    return lines


def rows(points: Sequence[Point]) -> list[tuple[str, ...]]:
    """Return the table of points, without the points of a line that have no estimate."""
    table: list[tuple[str, ...]] = [
        ("LINE", "POINT", "QUALITY", "$ PER 1000", "$ PER 1000 PER POINT")
    ]
    for point in points:
        one = point.outcome
        if point.place is None and point.kind in {"learned", "hindsight"}:
            continue
        table.append(
            (
                LINES[point.kind],
                one.label,
                interval(one.quality, 4),
                interval(per_thousand(one.cost_usd), 4),
                "" if point.usd_per_point is None else f"{point.usd_per_point:.4g}",
            )
        )
    return table


def page(points: Sequence[Point], notes: Sequence[str]) -> str:
    """Return the page: the lines, and the table."""
    lines = [
        _series(kind, [point for point in points if point.kind == kind and point.place])
        for kind in LINES
    ]
    shown = [_bar(points), *(line for line in lines if line.x)]
    caption = (
        "Quality over cost, with 95 % intervals. A router that lies above the hull gains by "
        "choosing per request. Hindsight is the best that this model could have achieved."
    )
    x = Axis("dollars per 1,000 requests")
    parts = [report.plot(shown, x, Axis("quality", percent=True), caption)]
    head, *body = rows(points)
    parts.append(report.section("Points", report.table([name.lower() for name in head], body)))
    if notes:
        parts.append(report.section("Notes", *(report.text(note) for note in notes)))
    return report.page("Cost of accuracy", *parts)


def _bar(points: Sequence[Point]) -> Series:
    """Return the line of the best mixes of backends."""
    known = [point for point in points if point.kind == "arm" and point.place is not None]
    places = [point.place for point in hull(known) if point.place is not None]
    return Series(
        "hull of the backends", [1000.0 * cost for cost, _ in places], [q for _, q in places]
    )


def _series(kind: str, points: Sequence[Point]) -> Series:
    answers = [(point.outcome.cost_usd, point.outcome.quality) for point in points]
    sound = [
        (c, q) for c, q in answers if not isinstance(c, Refused) and not isinstance(q, Refused)
    ]
    by_cost = sorted(sound, key=lambda pair: pair[0].value)
    return Series(
        LINES[kind],
        [cost.value * 1000.0 for cost, _ in by_cost],
        [quality.value for _, quality in by_cost],
        [quality.low for _, quality in by_cost],
        [quality.high for _, quality in by_cost],
        style="line" if kind in {"learned", "hindsight"} else "dots",
        dashed=kind == "hindsight",
    )
