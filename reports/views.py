"""Views: turns totals into the tables of each report."""

from collections.abc import Callable, Iterator, Mapping

from tollway.backends.money import NANO_PER_USD
from tollway.backends.units import BY_NAME, MORE
from tollway.reports.reconciliation import Reconciliation, describe
from tollway.reports.returns import Terms, best_fixed, fixed, points, reference, value_nano
from tollway.reports.tables import Column, Kind, Table, Value
from tollway.reports.totals import Grouping, Key, Totals

ALL = "all"
Read = Callable[[Totals], Value]

_REQUESTS: tuple[tuple[Column, Read], ...] = (
    (Column("requests", "requests", Kind.COUNT), lambda t: t.requests),
    (Column("answered", "answered", Kind.COUNT), lambda t: t.answered),
    (Column("calls", "calls", Kind.COUNT), lambda t: t.calls),
    (Column("cost", "cost", Kind.MONEY), lambda t: t.cost_nano),
    (Column("cost_per_answer", "per answer", Kind.MONEY), lambda t: t.per(t.answered)),
    (Column("cost_per_1000", "per 1,000", Kind.MONEY), lambda t: t.per_thousand),
    (
        Column("estimated_share", "estimated", Kind.SHARE),
        lambda t: t.estimated_nano / t.cost_nano if t.cost_nano else None,
    ),
    (Column("learning", "learning", Kind.MONEY), lambda t: t.learning_nano),
    (Column("labels", "labels", Kind.COUNT), lambda t: t.labels),
    (Column("accuracy", "accuracy", Kind.SHARE), lambda t: t.accuracy),
    (Column("accuracy_low", "from", Kind.SHARE), lambda t: t.accuracy_bounds[0]),
    (Column("accuracy_high", "to", Kind.SHARE), lambda t: t.accuracy_bounds[1]),
    (Column("cost_per_correct", "per correct", Kind.MONEY), lambda t: t.per(t.correct)),
)
_CHARGES: tuple[tuple[Column, Read], ...] = (
    (Column("calls", "calls", Kind.COUNT), lambda t: t.calls),
    (Column("failed_calls", "failed", Kind.COUNT), lambda t: t.failed_calls),
    (Column("audits", "audits", Kind.COUNT), lambda t: t.audits),
    (Column("cost", "cost", Kind.MONEY), lambda t: t.cost_nano),
    (Column("cost_per_call", "per call", Kind.MONEY), lambda t: t.per(t.calls)),
    (Column("input_tokens", "tokens in", Kind.COUNT), lambda t: t.input_tokens),
    (Column("output_tokens", "tokens out", Kind.COUNT), lambda t: t.output_tokens),
    (Column("device_s", "device-seconds", Kind.NUMBER), lambda t: t.device_s),
)


def spend(title: str, grouping: Grouping, note: str = "") -> Table:
    """Return the cost of each group, and of all groups together."""
    figures = (*_CHARGES, *_further(grouping)) if grouping.of_charges else _REQUESTS
    rows = [
        (*key, *(read(totals) for _, read in figures)) for key, totals in grouping.groups.items()
    ]
    total = None
    if len(rows) > 1:
        whole = together(grouping.groups)
        blank = [""] * (len(grouping.by) - 1)
        total = (ALL, *blank, *(read(whole) for _, read in figures))
    named = tuple(Column(name, name.replace("_", " ")) for name in grouping.by)
    columns = (*named, *(column for column, _ in figures))
    return Table(title, columns, tuple(rows), note, total)


def _further(grouping: Grouping) -> Iterator[tuple[Column, Read]]:
    """Yield a column for each further unit that was used."""
    for unit in ("cached_input_tokens", *[unit.name for unit in MORE]):
        if any(totals.used(unit) for totals in grouping.groups.values()):
            kind = Kind.NUMBER if unit.endswith("_s") else Kind.COUNT
            yield Column(unit, BY_NAME[unit].text, kind), _reader(unit)


def _reader(unit: str) -> Read:
    return lambda totals: totals.used(unit)


def together(groups: Mapping[Key, Totals]) -> Totals:
    """Return the sum of groups, without their offers, which belong to one route."""
    whole = Totals()
    for totals in groups.values():
        for name in _SUMMED:
            setattr(whole, name, getattr(whole, name) + getattr(totals, name))
    return whole


_SUMMED = [name for name in Totals.__slots__ if name not in {"offers", "version"}]

_FIXED = Column("fixed_cost", "fixed cost", Kind.MONEY)
_RETURNS = (
    Column("answered", "answered", Kind.COUNT),
    Column("accuracy", "accuracy", Kind.SHARE),
    Column("accuracy_low", "from", Kind.SHARE),
    Column("accuracy_high", "to", Kind.SHARE),
    Column("cost", "cost", Kind.MONEY),
    _FIXED,
    Column("cost_per_1000", "per 1,000", Kind.MONEY),
    Column("cost_per_correct", "per correct", Kind.MONEY),
    Column("value", "value", Kind.MONEY),
    Column("net", "net", Kind.MONEY),
    Column("roi", "ROI", Kind.SHARE),
    Column("cost_per_value_dollar", "cost per $", Kind.MONEY),
    Column("audits", "audits", Kind.MONEY),
    Column("exploration", "exploration", Kind.MONEY),
    Column("from_cache", "from cache", Kind.COUNT),
    Column("cache_saved", "cache saved", Kind.MONEY),
)


def returns(
    grouping: Grouping, terms: Mapping[str, Terms], fixed_nano: Mapping[Key, int] | None = None
) -> Table:
    """Return each group's return on spend; the grouping's first dimension is the route.

    `fixed_nano`: what each group bears of fixed costs; None if none are configured.
    """
    groups = grouping.groups
    borne = fixed_nano or {}
    values = {key: value_nano(totals, terms.get(key[0], Terms())) for key, totals in groups.items()}
    rows = [
        (*key, *_returned(totals, values[key], borne.get(key, 0))) for key, totals in groups.items()
    ]
    total = None
    if len(rows) > 1:
        known = [value for value in values.values() if value is not None]
        value = sum(known) if len(known) == len(rows) else None
        blank = [""] * (len(grouping.by) - 1)
        whole = _returned(together(groups), value, sum(borne.values()))
        total = (ALL, *blank, *whole)
    columns: tuple[Column, ...] = _RETURNS
    at = len(grouping.by) + columns.index(_FIXED)
    if fixed_nano is None:
        columns = tuple(column for column in _RETURNS if column is not _FIXED)
        rows = [(*row[:at], *row[at + 1 :]) for row in rows]
        total = total and (*total[:at], *total[at + 1 :])
    named = tuple(Column(name, name.replace("_", " ")) for name in grouping.by)
    note = (
        "The number of right answers is extrapolated from the labelled ones. Exploration is the "
        "expected extra cost of draws of arms other than the best. The cost includes audits and "
        "exploration. The cache saved what fresh calls were quoted for the answers that it gave."
    )
    if fixed_nano is not None:
        note += " Net, ROI and cost per $ include fixed costs; per 1,000 and per correct do not."
    return Table("Returns", (*named, *columns), tuple(rows), note, total)


def _returned(totals: Totals, value: int | None, fixed_nano: int) -> tuple[Value, ...]:
    low, high = totals.accuracy_bounds
    cost = totals.cost_nano + fixed_nano
    net = None if value is None else value - cost
    return (
        totals.answered,
        totals.accuracy,
        low,
        high,
        totals.cost_nano,
        fixed_nano,
        totals.per_thousand,
        totals.per(totals.correct),
        value,
        net,
        None if net is None or not cost else net / cost,
        None if not value else round(cost * NANO_PER_USD / value),
        totals.audit_nano,
        totals.explored_nano,
        totals.cached,
        totals.cached_nano,
    )


_DRIFT = (
    Column("day", "day"),
    Column("backend", "backend"),
    Column("billed", "billed", Kind.MONEY),
    Column("charged", "charged", Kind.MONEY),
    Column("drift", "drift", Kind.MONEY),
    Column("drift_share", "share", Kind.SHARE),
    Column("cause", "likely cause"),
    Column("note", "details"),
)


def drifts(reconciliations: list[Reconciliation]) -> Table:
    """Return the differences between a bill and what was charged."""
    rows = [
        (d.day, d.backend, d.billed_nano, d.charged_nano, d.nano, d.share, d.cause, d.note)
        for d in reconciliations
    ]
    return Table("Bill and journal", _DRIFT, tuple(rows), describe(reconciliations))


_SAVINGS = (
    Column("backend", "backend"),
    Column("bar", "baseline"),
    Column("declared_accuracy", "declared accuracy", Kind.SHARE),
    Column("would_have_cost", "would have cost", Kind.MONEY),
    Column("cost", "cost", Kind.MONEY),
    Column("saved", "saved", Kind.MONEY),
    Column("saved_share", "share", Kind.SHARE),
    Column("accuracy_gained", "accuracy gained", Kind.SHARE),
    Column("accuracy_gained_low", "from", Kind.SHARE),
    Column("accuracy_gained_high", "to", Kind.SHARE),
)


def savings(grouping: Grouping, terms: Mapping[str, Terms]) -> Table:
    """Return what each group would have cost if one backend had answered every request."""
    rows: list[tuple[Value, ...]] = []
    for key, totals in grouping.groups.items():
        own = terms.get(key[0], Terms())
        backends = fixed(totals, own)
        bars = {
            "reference": reference(backends, own),
            "best fixed": best_fixed(backends, totals, own),
        }
        for one in backends:
            is_bar = ", ".join(name for name, bar in bars.items() if bar is one)
            if is_bar and not one.declared:
                is_bar += " (predicted)"
            rows.append(
                (
                    *key,
                    one.backend,
                    is_bar,
                    one.accuracy if one.declared else None,
                    one.would_nano,
                    totals.cost_nano,
                    one.saved_nano(totals),
                    one.saved_share(totals),
                    *(points(one, totals) or (None, None, None)),
                )
            )
    named = tuple(Column(name, name.replace("_", " ")) for name in grouping.by)
    note = (
        "A backend would have cost what the requests were expected to cost there when they were "
        "routed. Reference: the highest declared accuracy. Accuracy gained: the route's, less the "
        "declared one, in points; negative is lost. Best fixed: the cheapest backend that is as "
        "accurate as the route was, or that holds its floor. Predicted: no accuracy is declared, "
        "so the policy's prediction, which has no interval, chose the baseline; tollway simulate "
        "replay estimates accuracies with intervals."
    )
    return Table("Savings against fixed backends", (*named, *_SAVINGS), tuple(rows), note)
