"""Draws cost-quality curves: the policies, their bounds, and the fixed arms."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from choosing.figures import Row

BOUNDS = ("hull", "group", "clairvoyant")


def draw(rows: Sequence[Row], path: Path) -> None:
    """Write a picture with a panel per table, as PNG or SVG."""
    import matplotlib  # noqa: PLC0415 - only needed for a picture

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    tables = list(dict.fromkeys(str(row["table"]) for row in rows))
    figure, panels = pyplot.subplots(
        1, len(tables), figsize=(8 * len(tables), 5.5), squeeze=False, layout="constrained"
    )
    for axes, table in zip(panels[0], tables, strict=True):
        _panel(axes, [row for row in rows if row["table"] == table])
        axes.set_title(table)
    figure.savefig(path, dpi=120)


def _panel(axes: Any, rows: Sequence[Row]) -> None:
    paced = [row for row in rows if "budget_usd" in row]
    policies = list(dict.fromkeys(str(row["policy"]) for row in paced))
    for policy in policies:
        mine = [row for row in paced if row["policy"] == policy]
        ours = policy == policies[0]
        axes.errorbar(
            [row["budget_usd"] for row in mine],
            [row["quality"] for row in mine],
            yerr=[row["plus_minus"] for row in mine],
            fmt="o-",
            markersize=4,
            linewidth=2.2 if ours else 1.0,
            zorder=3 if ours else 2,
            label=policy,
        )
    first = [row for row in paced if row["policy"] == policies[0]]
    budgets = [row["budget_usd"] for row in first]
    for bound, style in zip(BOUNDS, ("k--", "k-.", "k:"), strict=True):
        axes.plot(budgets, [row[bound] for row in first], style, lw=1, label=bound)
    if "paretobandit_published" in first[0]:
        published = [row["paretobandit_published"] for row in first]
        axes.plot(budgets, published, "x", color="tab:red", label="ParetoBandit, published")
    fixed = [row for row in rows if "cost_usd" in row]
    axes.plot([r["cost_usd"] for r in fixed], [r["quality"] for r in fixed], "k^", label="one arm")
    axes.set_xscale("log")
    axes.set_xlabel("budget, dollars per request")
    axes.set_ylabel("mean quality")
    axes.legend(fontsize=8)
