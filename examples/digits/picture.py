"""Draws what happened: accuracy against dollars, and how routing was learned."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from .client import Answer
from .tally import Row, compare, hull, interval

GREEN, GREY, BLUE, ORANGE = "#12805c", "#59636e", "#2a6fb0", "#c4680a"
WINDOW = 300  # requests that a point of the curves is the mean of: one in three of an epoch


def draw(
    path: Path, tollway: Row, fixed: Sequence[Row], split: Row, answers: Sequence[Answer]
) -> None:
    """Write a PNG with both panels. `answers` are Tollway's, in the order they came."""
    mpl.use("Agg")
    figure = Figure(figsize=(13, 5.2), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _trade(left, tollway, fixed, split)
    _learning(right, fixed, answers)
    figure.savefig(path)


def _trade(axes: Axes, tollway: Row, fixed: Sequence[Row], split: Row) -> None:
    """Accuracy against dollars, with the hull that any router must beat."""
    best = max(fixed, key=lambda row: row.accuracy)
    costs = np.geomspace(
        min(row.usd_per_request for row in fixed), max(row.usd_per_request for row in fixed), 300
    )
    axes.plot(
        costs * 1000,
        [hull(fixed, cost) for cost in costs],
        color=GREY,
        linestyle="--",
        linewidth=1.4,
        label="best mix of fixed backends (hull)",
        zorder=1,
    )
    for row in fixed:
        _point(axes, row, GREY, "o", row.name)
    _point(axes, split, ORANGE, "s", "90/10 split")
    _point(axes, tollway, GREEN, "*", "Tollway")
    against = compare(tollway, best)
    axes.set_title(
        f"Tollway: {against.saving:.0%} saved against always {best.name}, "
        f"{against.points_lost:.2f} points of accuracy lost",
        loc="left",
        fontsize=11,
        fontweight="bold",
    )
    axes.set_xscale("log")
    axes.set_xlabel("dollars per 1000 requests")
    axes.set_ylabel("right answers")
    axes.set_xlim(costs[0] * 1000 / 1.6, costs[-1] * 1000 * 2.2)
    bottom = min(row.accuracy for row in fixed)
    axes.set_ylim(bottom - (1 - bottom) * 0.15, 1.0 + (1 - bottom) * 0.06)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda usd, _: f"${usd:g}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.legend(loc="lower right", frameon=False)
    _clean(axes)


def _point(axes: Axes, row: Row, color: str, marker: str, name: str) -> None:
    low, high = interval(row.accuracy, row.requests)
    usd = row.usd_per_request * 1000
    size = 330 if marker == "*" else 70
    axes.vlines(usd, low, high, color=color, linewidth=1.2, zorder=2)
    axes.scatter([usd], [row.accuracy], s=size, marker=marker, color=color, zorder=3)
    text = f"{name}\n{row.accuracy:.1%}, ${usd:.3g}"
    above = name == "Tollway"
    axes.annotate(
        text,
        (usd, row.accuracy),
        xytext=(-10, 10) if above else (10, -6),
        textcoords="offset points",
        ha="right" if above else "left",
        va="bottom" if above else "top",
        color=color,
        fontsize=9,
        fontweight="bold" if above else None,
    )


def _learning(axes: Axes, fixed: Sequence[Row], answers: Sequence[Answer]) -> None:
    """Who answered, as shares over time, and what a request cost beneath it."""
    window = min(WINDOW, len(answers))
    kernel = np.ones(window) / window
    at = np.arange(window, len(answers) + 1)
    shares = [
        np.convolve([answer.backend == row.name for answer in answers], kernel, mode="valid")
        for row in fixed
    ]
    colors = ["#cfe8dd", "#8dc6ac", GREEN]
    axes.stackplot(at, shares, labels=[row.name for row in fixed], colors=colors)
    axes.set_ylim(0, 1)
    axes.set_xlim(at[0], max(at[-1], at[0] + 1))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylabel(f"answered by (mean of {window})")
    axes.set_xlabel("requests so far")
    cost = axes.twinx()
    usd = np.convolve([answer.cost_usd * 1000 for answer in answers], kernel, mode="valid")
    cost.plot(at, usd, color=BLUE, linewidth=2, label="dollars per 1000 (right)")
    cost.set_ylim(0, max(float(usd.max()) * 1.15, 1e-6))
    cost.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"${value:.2f}"))
    cost.tick_params(axis="y", colors=BLUE)
    cost.spines["top"].set_visible(False)
    handles = [*axes.get_legend_handles_labels()[0], *cost.get_legend_handles_labels()[0]]
    labels = [*axes.get_legend_handles_labels()[1], *cost.get_legend_handles_labels()[1]]
    axes.legend(
        handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncol=4, frameon=False
    )
    axes.set_title(
        "Learned on the way, from a cold start", loc="left", fontsize=11, fontweight="bold"
    )
    _clean(axes)


def _clean(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(color="#d8dee4", linewidth=0.6)
    axes.set_axisbelow(True)
