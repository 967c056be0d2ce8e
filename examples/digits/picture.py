"""Draws the results: accuracy against dollars, and how routing was learned."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter
from numpy.typing import NDArray

from .client import Answer
from .tally import Row, compare, hull, interval

GREEN, GREY, BLUE, ORANGE = "#12805c", "#59636e", "#2a6fb0", "#c4680a"
SHARES = ("#d3eae0", "#8dc6ac", GREEN)
WINDOW = 300  # requests that a point of the curves is the mean of: a third of an epoch
FIRST = 20  # requests before the curves begin: a mean of fewer is too noisy
# Where a name stands beside its point: right and below, left and above, above the star.
BELOW, ABOVE, OVER = (
    (11, -7, "left", "top"),
    (-10, 7, "right", "bottom"),
    (0, 12, "center", "bottom"),
)


def draw(
    path: Path, tollway: Row, fixed: Sequence[Row], split: Row, answers: Sequence[Answer]
) -> None:
    """Write a PNG. `fixed` are cheapest first; `answers` are Tollway's, in the order they came."""
    figure = Figure(figsize=(13, 5.6), dpi=110, layout="constrained")
    axes = figure.subplot_mosaic(
        [["trade", "cost"], ["trade", "shares"]], width_ratios=(1.2, 1), height_ratios=(1, 1.6)
    )
    best = max(fixed, key=lambda row: row.accuracy)
    against = compare(tollway, best)
    figure.suptitle(
        f"Tollway: {against.saving:.0%} saved compared with always {best.name}, "
        f"{against.points_lost:.2f} points of accuracy lost",
        fontsize=14,
        fontweight="bold",
    )
    _trade(axes["trade"], tollway, fixed, split)
    _cost(axes["cost"], answers)
    _shares(axes["shares"], fixed, answers)
    axes["cost"].sharex(axes["shares"])
    axes["cost"].tick_params(labelbottom=False)
    for one in axes.values():
        _clean(one)
    figure.savefig(path)


def _trade(axes: Axes, tollway: Row, fixed: Sequence[Row], split: Row) -> None:
    """Draw accuracy against dollars, with the hull that any router must beat."""
    costs = np.geomspace(fixed[0].usd_per_request, fixed[-1].usd_per_request, 300)
    axes.plot(
        costs * 1000,
        [hull(fixed, cost) for cost in costs],
        color=GREY,
        linestyle="--",
        linewidth=1.4,
        label="best mix of fixed backends (hull)",
        zorder=1,
    )
    for row, place in zip(fixed, (BELOW, *[ABOVE] * (len(fixed) - 2), BELOW), strict=True):
        _point(axes, row, GREY, "o", place)
    _point(axes, split, ORANGE, "s", BELOW)
    _point(axes, tollway, GREEN, "*", OVER)
    axes.set_xscale("log")
    axes.set_xlabel("dollars per 1000 requests")
    axes.set_ylabel("accuracy")
    axes.set_xlim(costs[0] * 1000 / 1.6, costs[-1] * 1000 * 2.4)
    bottom = min(row.accuracy for row in fixed)
    axes.set_ylim(bottom - (1 - bottom) * 0.15, 1.0 + (1 - bottom) * 0.04)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda usd, _: f"${usd:g}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.legend(loc="lower right", frameon=False)


def _point(axes: Axes, row: Row, color: str, marker: str, place: tuple[int, int, str, str]) -> None:
    """Draw a row with the 95 % interval of its accuracy, and its name beside it."""
    low, high = interval(row.accuracy, row.requests)
    usd = row.usd_per_request * 1000
    right, up, horizontal, vertical = place
    star = marker == "*"
    axes.vlines(usd, low, high, color=color, linewidth=1.2, zorder=2)
    axes.scatter([usd], [row.accuracy], s=330 if star else 70, marker=marker, color=color, zorder=3)
    axes.annotate(
        f"{row.name}\n{row.accuracy:.1%}, ${usd:.3g}",
        (usd, row.accuracy),
        xytext=(right, up),
        textcoords="offset points",
        ha=horizontal,
        va=vertical,
        color=color,
        fontsize=11 if star else 9,
        fontweight="bold" if star else None,
    )


def _cost(axes: Axes, answers: Sequence[Answer]) -> None:
    """Draw the cost of a request over time."""
    at, (usd,) = _means([[answer.cost_usd * 1000 for answer in answers]])
    axes.plot(at, usd, color=BLUE, linewidth=2)
    axes.set_ylim(0, max(float(usd.max()) * 1.15, 1e-6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"${value:.2f}"))
    axes.set_ylabel("per 1000")
    axes.set_title(
        f"Learning from a cold start (mean of the last {min(WINDOW, len(answers))} requests)",
        loc="left",
        fontsize=11,
    )


def _shares(axes: Axes, fixed: Sequence[Row], answers: Sequence[Answer]) -> None:
    """Draw each backend's share of the answers over time."""
    at, shares = _means([[answer.backend == row.name for answer in answers] for row in fixed])
    axes.stackplot(at, shares, labels=[row.name for row in fixed], colors=SHARES)
    axes.set_ylim(0, 1)
    axes.set_xlim(at[0], max(at[-1], at[0] + 1))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylabel("answered by")
    axes.set_xlabel("requests so far")
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.2), ncol=len(fixed), frameon=False, fontsize=9
    )


def _means(
    series: Sequence[Sequence[float]],
) -> tuple[NDArray[np.int64], list[NDArray[np.float64]]]:
    """Return the requests so far, and each series' means over the last WINDOW (fewer at first)."""
    count = len(series[0])
    at = np.arange(min(FIRST, count), count + 1)
    since = np.maximum(at - WINDOW, 0)
    sums = [np.concatenate([[0.0], np.cumsum(np.asarray(one, float))]) for one in series]
    return at, [(total[at] - total[since]) / (at - since) for total in sums]


def _clean(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(color="#d8dee4", linewidth=0.6)
    axes.set_axisbelow(True)
