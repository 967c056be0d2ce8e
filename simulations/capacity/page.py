"""The page of `tollway simulate capacity`."""

from collections.abc import Sequence

import numpy as np

from tollway.simulations.capacity.plan import Plan
from tollway.simulations.report import page as report
from tollway.simulations.report.page import Axis, Bar, Mark, Series

SHOWN_H = 14 * 24  # of the past and of the future: more is not legible on a page
Rows = Sequence[Sequence[str]]


def page(plans: Sequence[Plan], tables: tuple[Rows, Rows], notes: Sequence[str]) -> str:
    """Return the page: the replicas needed, their bill, and each backend's traffic."""
    needed, billed = tables
    parts = [report.section("Replicas", _table(needed))]
    if len(billed) > 1:
        parts.append(report.section("Bills", _table(billed)))
    for one in plans:
        parts.append(report.section(one.traffic.backend, *_pictures(one)))
    parts.append(report.section("Notes", *(report.text(note) for note in notes)))
    lead = (
        "Replicas needed for the highest hour of the forecast, and their cost by each way to rent "
        "them."
    )
    return report.page("Capacity plan", *parts, lead=lead)


def _table(rows: Rows) -> str:
    head, *body = rows
    return report.table([name.capitalize() for name in head], body)


def _pictures(one: Plan) -> list[str]:
    parts = [
        report.plot(_rates(one), _DAYS, Axis("calls per second", low=0.0), _CAPTION, _marks(one))
    ]
    if one.bills:
        bars = [Bar(bill.plan, bill.usd_month, None, bill.usd_month_worst) for bill in one.bills]
        bars = [Bar(bar.name, bar.value, bar.value, bar.high) for bar in bars]
        caption = "Monthly bill of each plan: the mean, and the 95th percentile over the futures."
        parts.append(report.plot_bars(bars, Axis("dollars per month"), caption))
    return parts


_DAYS = Axis("days from now")
_CAPTION = (
    "Measured and expected traffic; the band contains 95 % of the simulated futures at each hour."
)


def _rates(one: Plan) -> list[Series]:
    past = one.traffic.rates[-SHOWN_H:]
    step_d = one.traffic.step_s / 86_400
    before = (np.arange(len(past)) - len(past)) * step_d
    ahead = one.forecast.expected[:SHOWN_H]
    low, high = np.quantile(one.forecast.futures[:, :SHOWN_H], [0.025, 0.975], axis=0)
    after = np.arange(len(ahead)) / 24
    return [
        Series("measured", before.tolist(), past.tolist(), style="line"),
        Series("expected", after.tolist(), ahead.tolist(), low.tolist(), high.tolist()),
    ]


def _marks(one: Plan) -> list[Mark]:
    return [Mark("worst case", y=one.forecast.worst(one.target.worst))]
