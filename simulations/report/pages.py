"""Pages about several runs: policies compared on the same requests, grids, all scenarios."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tollway.simulations.report import page as report
from tollway.simulations.report.page import Axis, Mark
from tollway.simulations.report.summary import (
    BAR,
    FIGURES,
    bars_of,
    interval,
    percent,
    points,
    seconds,
)
from tollway.simulations.world.grid import Cell, Mean, mean

Result = dict[str, Any]


def figure(result: Result, key: str) -> float:
    """Return a figure of a run; nan if it has none."""
    value = result["total"].get(key)
    return math.nan if value is None else float(value)


def grouped(
    wanted: Sequence[Cell], results: Sequence[Result]
) -> dict[tuple[str, ...], list[Result]]:
    """Return the results of each cell of a grid, in the order of the seeds."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    for cell, result in zip(wanted, results, strict=True):
        groups.setdefault(tuple(value for _, value in cell.labels), []).append(result)
    return groups


# -- compare


def compare_rows(by_policy: Mapping[str, Sequence[Result]]) -> list[list[str]]:
    """Return a table of policies: each figure's mean, and how it differs from the first policy's.

    Differences are paired: a seed has the same requests and the same random draws throughout.
    """
    head = ["POLICY"]
    for _, name, _ in FIGURES:
        head += [name.upper(), "DIFFERENCE"]
    first = next(iter(by_policy.values()))
    rows = [head]
    for policy, results in by_policy.items():
        row = [policy]
        for key, _, _ in FIGURES:
            values = [figure(result, key) for result in results]
            differences = [
                value - figure(other, key) for value, other in zip(values, first, strict=True)
            ]
            same = results is first
            row += [_shown(key, mean(values)), "" if same else _shown(key, mean(differences))]
        rows.append(row)
    return rows


def _shown(key: str, value: Mean) -> str:
    digits = {"quality": 4, "refused": 4, "cost_usd_per_1k": 4, "p99_s": 3}.get(key, 2)
    return interval(value, digits)


def compare_page(scenario: str, about: str, by_policy: Mapping[str, Sequence[Result]]) -> str:
    """Return the page of a comparison."""
    names = list(by_policy)
    first, seeds = names[0], len(by_policy[names[0]])
    parts = []
    for key, name, less in FIGURES[:4]:
        means = [mean([figure(result, key) for result in by_policy[policy]]) for policy in names]
        better = "Lower is better." if less else "Higher is better."
        caption = f"{name[0].upper()}{name[1:]} by policy, with 95 % intervals. {better}"
        parts.append(report.plot_bars(bars_of(names, means), Axis(name), caption))
    if len(names) > 1 and seeds > 1:
        differences = [
            mean(
                [
                    figure(a, "regret_points") - figure(b, "regret_points")
                    for a, b in zip(by_policy[policy], by_policy[first], strict=True)
                ]
            )
            for policy in names[1:]
        ]
        bars = bars_of(names[1:], differences)
        caption = f"Difference in regret from {first}, on the same requests. Lower is better."
        picture = report.plot_bars(bars, Axis("points"), caption, [Mark("", x=0.0)])
        parts.insert(0, report.section(f"Compared with {first}", picture))
    head, *body = compare_rows(by_policy)
    table = report.table([name.capitalize() for name in head], body)
    parts.append(report.section("All figures", table))
    parts.append(report.section("Recovery from changes", _recovery_table(by_policy)))
    lead = f"{about} {seeds} seeds; every policy gets the same requests."
    return report.page(f"{scenario}: policies compared", *parts, lead=lead, foot=BAR)


def _recovery_table(by_policy: Mapping[str, Sequence[Result]]) -> str:
    names = list(by_policy)
    changes = by_policy[names[0]][0]["changes"]
    if not changes:
        return report.text("Nothing changes in this scenario.")
    rows = [
        [change["says"], *(recovery(by_policy[policy], at) for policy in names)]
        for at, change in enumerate(changes)
    ]
    return report.table(["change", *names], rows, "Median time to recover.")


def recovery(results: Sequence[Result], change: int) -> str:
    """Return how long runs took to recover from a change: the median, and how many never did."""
    times = [result["changes"][change]["recovery_s"] for result in results]
    never = sum(time is None for time in times)
    ordered = sorted(math.inf if time is None else time for time in times)
    middle = ordered[len(ordered) // 2]
    text = seconds(None if math.isinf(middle) else middle)
    return f"{text} ({never} of {len(times)} never)" if never and middle < math.inf else text


# -- sweep


def sweep_rows(axes: Sequence[str], groups: Mapping[tuple[str, ...], Sequence[Result]]) -> Any:
    """Return a table of a grid: its axes, then the figures."""
    rows = [[*(axis.upper() for axis in axes), *(name.upper() for _, name, _ in FIGURES)]]
    for place, results in groups.items():
        means = [(key, mean([figure(result, key) for result in results])) for key, _, _ in FIGURES]
        rows.append([*place, *(_shown(key, value) for key, value in means)])
    return rows


def sweep_page(
    scenario: str, axes: Sequence[str], groups: Mapping[tuple[str, ...], Sequence[Result]]
) -> str:
    """Return the page of a grid."""
    names = [", ".join(place) for place in groups]
    parts = []
    for key, name, less in FIGURES[:4]:
        means = [mean([figure(result, key) for result in results]) for results in groups.values()]
        better = "Lower is better." if less else "Higher is better."
        caption = f"{name[0].upper()}{name[1:]}, with 95 % intervals. {better}"
        parts.append(report.plot_bars(bars_of(names, means), Axis(name), caption))
    head, *body = sweep_rows(axes, groups)
    parts.append(report.table([name.capitalize() for name in head], body))
    return report.page(f"{scenario}: {len(names)} combinations", *parts, foot=BAR)


# -- all scenarios


def overview_rows(by_scenario: Mapping[str, Sequence[Result]]) -> list[list[str]]:
    """Return a table of scenarios: regret, recovery and budgets."""
    rows = [
        [
            "SCENARIO",
            "REGRET, POINTS",
            "OVER THE HULL",
            "RECOVERY (SLOWEST CHANGE)",
            "BUDGET USED",
            "OVERSPENT",
            "REFUSED",
            "FAILED",
            "P99",
        ]
    ]
    for name, results in by_scenario.items():
        slowest = _slowest(results)
        used = [r["total"]["spent_share"] for r in results if r["total"]["spent_share"] is not None]
        rows.append(
            [
                name,
                interval(mean([figure(result, "regret_points") for result in results])),
                interval(mean([figure(result, "over_hull_points") for result in results])),
                slowest,
                percent(max(used)) if used else "-",
                f"${max(result['total']['overspent_usd'] for result in results):.4f}",
                percent(mean([figure(result, "refused") for result in results]).value),
                percent(mean([figure(result, "failed") for result in results]).value),
                seconds(mean([figure(result, "p99_s") for result in results]).value),
            ]
        )
    return rows


def _slowest(results: Sequence[Result]) -> str:
    changes = range(len(results[0]["changes"]))
    if not changes:
        return "-"

    def middle(change: int) -> float:
        times = [result["changes"][change]["recovery_s"] for result in results]
        return sorted(math.inf if time is None else time for time in times)[len(times) // 2]

    return recovery(results, max(changes, key=middle))


def overview_page(by_scenario: Mapping[str, Sequence[Result]]) -> str:
    """Return the page of several scenarios."""
    names = list(by_scenario)
    means = [mean([figure(r, "regret_points") for r in by_scenario[name]]) for name in names]
    head, *body = overview_rows(by_scenario)
    return report.page(
        "Scenarios",
        report.plot_bars(bars_of(names, means), Axis("regret, points"), "Regret by scenario."),
        report.table([name.capitalize() for name in head], body),
        lead=f"{len(by_scenario[names[0]])} seeds each.",
        foot=BAR,
    )


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table as Markdown."""
    head, *body = rows
    lines = [f"| {' | '.join(name.lower() for name in head)} |", "|---" * len(head) + "|"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in body)]


__all__ = [
    "compare_page",
    "compare_rows",
    "grouped",
    "markdown",
    "overview_page",
    "overview_rows",
    "points",
    "sweep_page",
    "sweep_rows",
]
