"""Summarises runs, as lines for a terminal and as pages."""

import math
from collections.abc import Sequence
from typing import Any

from tollway.gateway.cli.terminal import columns
from tollway.simulations.report import page as report
from tollway.simulations.report.page import Axis, Bar, Mark, Series
from tollway.simulations.world.grid import Mean

Result = dict[str, Any]

BAR = (
    "Regret is the mean loss of quality, in points, compared with the best result for the same "
    "money if the true quality and cost of every request were known. The hull is the best mix of "
    "fixed backends at the same cost."
)


def seconds(value: float | None) -> str:
    """Format a duration for people; None means never."""
    if value is None:
        return "never"
    if value >= 5400:
        return f"{value / 3600:.1f} h"
    return f"{value / 60:.0f} min" if value >= 120 else f"{value:.3g} s"


def percent(share: float | None) -> str:
    """Format a share in per cent; a dash if there is none."""
    return "-" if share is None else f"{100 * share:.1f} %"


def points(value: float | None) -> str:
    """Format a quality difference in points, that is, hundredths."""
    return "-" if value is None else f"{value:.2f}"


# -- one run


def run_lines(result: Result) -> list[str]:
    """Return the summary of a run as lines for a terminal."""
    total = result["total"]
    if not total["requests"]:
        return [f"{result['scenario']}: no requests"]
    lines = [
        f"{result['scenario']}: {total['requests']:,} requests in {result['hours']:g} hours, "
        f"policy {result['policy']}, seed {result['seed']}",
        f"  quality      {percent(total['quality'])}; best {percent(total['best_quality'])}; "
        f"best by class {percent(total['group_quality'])}",
        f"  regret       {points(total['regret_points'])} points; "
        f"{points(total['group_regret_points'])} compared with the best by class; "
        f"{total['over_hull_points']:+.2f} over the hull",
        f"  cost         ${total['cost_usd_per_1k']:.4g} per 1,000; "
        f"best ${total['best_cost_usd_per_1k']:.4g}",
        f"  latency      p50 {seconds(total['p50_s'])}, p99 {seconds(total['p99_s'])}",
        f"  unanswered   {percent(total['refused'])} refused by budgets, "
        f"{percent(total['failed'])} failed",
    ]
    if total["floor"] is not None:
        lines.append(
            f"  floor        {percent(total['floor'])}; "
            f"quality {total['over_floor_points']:+.2f} points above it"
        )
    lines += ["", *columns(_phase_rows(result)), ""]
    if result["changes"]:
        lines += [*columns(_change_rows(result)), ""]
    if result["budgets"]:
        lines += columns(_budget_rows(result))
    return lines


def _phase_rows(result: Result) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("PHASE", "FROM", "TO", "REQUESTS", "QUALITY", "BEST", "HULL", "REGRET", "$/1000", "P99")
    ]
    for phase in result["phases"]:
        rows.append(
            (
                phase["says"],
                f"{phase['start_h']:.1f} h",
                f"{phase['end_h']:.1f} h",
                f"{phase['requests']:,}",
                percent(phase["quality"]),
                percent(phase["best_quality"]),
                percent(phase["hull_quality"]),
                points(phase["regret_points"]),
                f"{phase['cost_usd_per_1k']:.4g}",
                seconds(phase["p99_s"]) if phase["p99_s"] is not None else "-",
            )
        )
    return rows


def _change_rows(result: Result) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("CHANGE", "AT", "RECOVERED AFTER", "REQUESTS", "REGRET BEFORE", "REGRET AFTER")
    ]
    for change in result["changes"]:
        requests = change["recovery_requests"]
        rows.append(
            (
                change["says"],
                f"{change['at_h']:.1f} h",
                seconds(change["recovery_s"]),
                "-" if requests is None else f"{requests:,}",
                points(change["regret_before_points"]),
                points(change["regret_after_points"]),
            )
        )
    return rows


def _budget_rows(result: Result) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("BUDGET", "WINDOW", "ENFORCED", "LIMIT", "SPENT", "USED", "OVERSPENT")
    ]
    shown = sorted(result["budgets"], key=lambda w: -(w["spent_share"] or 0.0))
    for window in shown[:8]:
        rows.append(
            (
                window["budget"],
                _day(window["window_start_s"]),
                window["enforcement"],
                f"${window['limit_usd']:,.4f}",
                f"${window['spent_usd']:,.4f}",
                percent(window["spent_share"]),
                f"${window['overspent_usd']:,.4f}",
            )
        )
    if len(shown) > 8:
        rows.append(("...", f"{len(shown) - 8} more", "", "", "", "", ""))
    return rows


def _day(start_s: int) -> str:
    from datetime import UTC, datetime  # noqa: PLC0415

    return (
        datetime.fromtimestamp(start_s, UTC).strftime("%Y-%m-%d %H:%M") if start_s else "lifetime"
    )


def run_page(result: Result) -> str:
    """Return a run as a page."""
    total, times = result["total"], result["over_time"]
    if not total["requests"]:
        return report.page(result["scenario"], report.text("There were no requests."))
    hours = times["at_h"]
    marks = [Mark(change["says"], x=change["at_h"]) for change in result["changes"]]
    across = Axis("hours since the start", 0.0, result["hours"])
    parts = [
        report.tiles(_tiles(result)),
        report.section(
            "Over time",
            report.plot(
                _bars_over_time(result),
                across,
                Axis("probability of a right answer", percent=True),
                "Quality, and two references for each phase: the best possible within the budgets, "
                "and the hull, which is the best mix of fixed backends at the same cost.",
                marks,
            ),
            report.plot(
                [Series("regret", hours, _gaps(times["regret_points"]))],
                across,
                Axis("points"),
                "Regret: mean loss compared with the best possible.",
                marks,
            ),
            report.plot(
                [Series(name, hours, _gaps(shares)) for name, shares in times["arms"].items()],
                across,
                Axis("share of requests", 0.0, 1.0, percent=True),
                "Share of requests that each backend answered.",
                marks,
            ),
            report.plot(
                _costs_over_time(result),
                across,
                Axis("dollars per 1,000 requests", 0.0),
                "Cost of requests, and the allowance of the budgets at the start of each phase.",
                marks,
            ),
            report.plot(
                [
                    Series("p50", hours, _gaps(times["p50_s"])),
                    Series("p99", hours, _gaps(times["p99_s"])),
                ],
                across,
                Axis("seconds", log=True),
                "Latency of answers.",
                marks,
            ),
        ),
        report.section("Phases", _table(_phase_rows(result))),
    ]
    if result["changes"]:
        parts.append(report.section("Changes", _table(_change_rows(result))))
    if result["budgets"]:
        parts.append(report.section("Budgets", _table(_budget_rows(result))))
    if result["events"]:
        rows = [
            (f"{event['at_h']:.2f} h", event["kind"], event["about"], event["text"])
            for event in result["events"][:40]
        ]
        parts.append(
            report.section("Events", report.table(["at", "kind", "subject", "event"], rows))
        )
    foot = f"Scenario {result['scenario']}, policy {result['policy']}, seed {result['seed']}. {BAR}"
    return report.page(result["scenario"], *parts, lead=result["about"], foot=foot)


def _tiles(result: Result) -> list[tuple[str, str, str]]:
    total = result["total"]
    tiles = [
        ("regret", points(total["regret_points"]), "points of quality"),
        ("quality", percent(total["quality"]), f"best {percent(total['best_quality'])}"),
        ("over the hull", f"{total['over_hull_points']:+.2f}", "points at the same cost"),
        ("cost", f"${total['cost_usd_per_1k']:.4g}", "per 1,000 requests"),
        ("overspent", f"${total['overspent_usd']:.4g}", f"{percent(total['spent_share'])} used"),
        ("p99", seconds(total["p99_s"]), f"p50 {seconds(total['p50_s'])}"),
    ]
    slowest = [change["recovery_s"] for change in result["changes"]]
    if slowest:
        worst = None if None in slowest else max(slowest)
        tiles.insert(1, ("recovery", seconds(worst), "slowest change"))
    return tiles


def _gaps(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _steps(result: Result, key: str) -> tuple[list[float], list[float]]:
    x, y = [], []
    for phase in result["phases"]:
        value = phase[key]
        x += [phase["start_h"], phase["end_h"]]
        y += [math.nan if value is None else value] * 2
    return x, y


def _bars_over_time(result: Result) -> list[Series]:
    times = result["over_time"]
    best_x, best_y = _steps(result, "best_quality")
    hull_x, hull_y = _steps(result, "hull_quality")
    return [
        Series(result["policy"], times["at_h"], _gaps(times["quality"])),
        Series("best", best_x, best_y, dashed=True),
        Series("hull", hull_x, hull_y, dashed=True),
    ]


def _costs_over_time(result: Result) -> list[Series]:
    times = result["over_time"]
    series = [Series("cost", times["at_h"], _gaps(times["cost_usd_per_1k"]))]
    x, y = _steps(result, "allowance_usd_per_1k")
    if any(map(math.isfinite, y)):
        series.append(Series("allowance", x, y, dashed=True))
    return series


def _table(rows: list[tuple[str, ...]]) -> str:
    head, *body = rows
    return report.table([name.capitalize() for name in head], body)


# -- several runs


Figure = tuple[str, str, bool]
FIGURES: tuple[Figure, ...] = (
    ("regret_points", "regret, points", True),
    ("over_hull_points", "over the hull, points", False),
    ("quality", "quality", False),
    ("cost_usd_per_1k", "dollars per 1,000", True),
    ("refused", "refused", True),
    ("p99_s", "p99, seconds", True),
)
"""Keys of a result's totals, their labels, and whether less is better."""


def interval(mean: Mean, digits: int = 2) -> str:
    """Return a mean with half the width of its interval."""
    if math.isnan(mean.low):
        return f"{mean.value:.{digits}f}"
    return f"{mean.value:.{digits}f} ± {(mean.high - mean.low) / 2:.{digits}f}"


def bars_of(names: Sequence[str], means: Sequence[Mean]) -> list[Bar]:
    """Return bars of means with their intervals."""
    return [
        Bar(
            name,
            mean.value,
            None if math.isnan(mean.low) else mean.low,
            None if math.isnan(mean.high) else mean.high,
        )
        for name, mean in zip(names, means, strict=True)
    ]
