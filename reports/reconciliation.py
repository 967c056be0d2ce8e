"""Compares a provider's bill with what was charged, line by line, and names likely causes of drift.

Drift is the difference between the two. The amount that each possible cause would explain is
computed: a factor on every line (a tax, a discount), days that begin at another time, billed calls
that the journal lacks, tokens or seconds counted differently, another price, cached tokens billed
at the full price, and calls assumed not to have run (a 4xx, 429 or 503 costs nothing here). The
cause that explains the drift best is named if it explains at least four fifths of it; otherwise the
drift is unexplained. A cause is a lead, not a proof.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from tollway.backends.money import format_usd
from tollway.backends.pricing import Price
from tollway.reports.provider_bill import QUANTITIES, BillLine
from tollway.reports.totals import Totals

SAME = 0.005  # smaller relative differences are ignored: calls in flight at midnight
EXPLAINS = 0.8  # the share of the drift that a cause must explain to be named
ROUNDING_NANO = 10_000_000  # a cent: bills are rounded to cents

AGREES, ABSENT, UNBILLED, UNEXPLAINED = "agrees", "not in journal", "not billed", "unexplained"


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """One line of the comparison; `note` quantifies the cause."""

    day: str
    backend: str
    billed_nano: int
    charged_nano: int
    cause: str = ""
    note: str = ""

    @property
    def nano(self) -> int:
        """The amount billed beyond the amount charged."""
        return self.billed_nano - self.charged_nano

    @property
    def share(self) -> float | None:
        """The drift as a share of the amount charged."""
        return self.nano / self.charged_nano if self.charged_nano else None


@dataclass(frozen=True, slots=True)
class _Cause:
    name: str
    nano: float
    note: str


def compare(
    bill: Sequence[BillLine],
    charged: Mapping[tuple[str, str], Totals],
    prices: Mapping[str, Price],
    tolerance: float,
) -> list[Reconciliation]:
    """Compare a bill with what was charged, by (day, backend); within `tolerance` they agree.

    `prices` are the known prices of backends; with them more causes of drift can be distinguished.
    """
    billed = {(line.day, line.item): line for line in bill}
    differences = []
    factor = _factor(billed, charged)
    shifts = _shifts(billed, charged)
    for key in sorted({*billed, *charged}):
        line, totals = billed.get(key), charged.get(key)
        if totals is None or not totals.calls:
            if line is not None and line.amount_nano:
                differences.append(
                    Reconciliation(*key, line.amount_nano, 0, ABSENT, _absent(key[1], charged))
                )
            continue
        if line is None:
            if totals.cost_nano:
                why = "not on the bill: not billed yet, or billed under another name (--item)"
                differences.append(Reconciliation(*key, 0, totals.cost_nano, UNBILLED, why))
            continue
        drift = Reconciliation(*key, line.amount_nano, totals.cost_nano)
        if abs(drift.nano) <= max(tolerance * drift.charged_nano, ROUNDING_NANO // 2):
            differences.append(replace(drift, cause=AGREES))
            continue
        own = _causes(drift, line, totals, prices.get(key[1]))
        differences.append(_judged(drift, line, totals, [*factor(totals), *shifts(key), *own]))
    return differences


def _judged(
    drift: Reconciliation, line: BillLine, totals: Totals, causes: list[_Cause]
) -> Reconciliation:
    """Name the cause that explains a drift best; the first one wins a tie."""
    best = min(causes, key=lambda cause: abs(drift.nano - cause.nano), default=None)
    if best is not None and abs(drift.nano - best.nano) <= (1 - EXPLAINS) * abs(drift.nano):
        return replace(drift, cause=best.name, note=best.note)
    if abs(drift.nano) <= totals.estimated_nano:
        share = totals.estimated_nano / totals.cost_nano
        note = f"{share:.0%} of the charged amount is estimated from quotes"
        return replace(drift, cause="estimates", note=note)
    part = best is not None and abs(drift.nano - best.nano) < abs(drift.nano)
    note = f"partly: {best.note}" if part and best else _ask(line)
    return replace(drift, cause=UNEXPLAINED, note=note)


def _causes(
    drift: Reconciliation, line: BillLine, totals: Totals, price: Price | None
) -> Iterator[_Cause]:
    """Yield the causes that a single line may have, with the amount each would explain."""
    ours = dict(
        zip(
            QUANTITIES,
            (float(totals.calls), totals.input_tokens, totals.output_tokens, totals.device_s),
            strict=True,
        )
    )
    ratios = {name: billed / ours[name] for name, billed in line.quantities.items() if ours[name]}
    apart = {name: ratio for name, ratio in ratios.items() if abs(ratio - 1) > SAME}
    if "requests" in apart:
        count = line.quantities["requests"] - ours["requests"]
        note = f"{abs(count):,.0f} {'more' if count > 0 else 'fewer'} calls than in the journal: "
        note += "not made through this gateway" if count > 0 else "not billed, or billed elsewhere"
        yield _Cause("calls", (ratios["requests"] - 1) * totals.cost_nano, note)
    elif apart:
        counted = ", ".join(f"{name.replace('_', ' ')} x{r:.3f}" for name, r in apart.items())
        nano = _of_usage(line, ours, ratios, totals, price)
        yield _Cause("usage", nano, f"counted differently: {counted}")
    elif ratios:
        names = ", ".join(ratios).replace("_", " ")
        ratio = drift.billed_nano / drift.charged_nano if drift.charged_nano else 0.0
        yield _Cause(
            "price", drift.nano, f"the same {names} at {ratio:.4g} times the configured price"
        )
    if price is not None and totals.cached_input_tokens:
        each = price.input_token_nano - price.cached_input_token_nano
        note = f"{totals.cached_input_tokens:,.0f} cached tokens were billed at the full price"
        yield _Cause("cached tokens", each * totals.cached_input_tokens, note)
    if 0 < totals.refused_calls < totals.calls:
        each = totals.cost_nano / (totals.calls - totals.refused_calls)
        note = f"{totals.refused_calls:,} calls assumed not to have run (4xx, 429, 503) were billed"
        yield _Cause("failed calls", each * totals.refused_calls, note)


def _of_usage(
    line: BillLine,
    ours: Mapping[str, float],
    ratios: Mapping[str, float],
    totals: Totals,
    price: Price | None,
) -> float:
    """Return the extra cost of the billed usage at the configured price.

    Without a price, cost is assumed to grow like the quantity that grew most.
    """
    if price is None:
        return (max(ratios.values(), key=lambda r: abs(r - 1)) - 1) * totals.cost_nano
    each = (
        price.per_request_nano,
        price.input_token_nano,
        price.output_token_nano,
        price.per_device_s_nano,
    )
    return sum(
        nano * (line.quantities[name] - ours[name])
        for name, nano in zip(QUANTITIES, each, strict=True)
        if name in ratios
    )


def _factor(
    billed: Mapping[tuple[str, str], BillLine], charged: Mapping[tuple[str, str], Totals]
) -> "_Factor":
    """Find a ratio common to all lines, if there are at least three lines."""
    ratios = [
        line.amount_nano / totals.cost_nano
        for key, line in billed.items()
        if (totals := charged.get(key)) is not None and totals.cost_nano
    ]
    items = {item for _, item in billed}
    middle = median(ratios) if ratios else 1.0
    one = len(ratios) > 2 and len(items) > 1 and all(abs(r - middle) < SAME for r in ratios)
    return _Factor(middle if one else 1.0)


@dataclass(frozen=True, slots=True)
class _Factor:
    ratio: float

    def __call__(self, totals: Totals) -> Iterator[_Cause]:
        if abs(self.ratio - 1) > SAME:
            note = (
                f"every line is {self.ratio:.4g} times the charged amount: tax, discount, currency"
            )
            yield _Cause("factor", (self.ratio - 1) * totals.cost_nano, note)


def _shifts(
    billed: Mapping[tuple[str, str], BillLine], charged: Mapping[tuple[str, str], Totals]
) -> "_Shifts":
    """Find the backends whose daily amounts differ while their sums agree."""
    drifts: dict[str, list[int]] = {}
    sums: dict[str, int] = {}
    for day, item in {*billed, *charged}:
        line, totals = billed.get((day, item)), charged.get((day, item))
        ours = totals.cost_nano if totals else 0
        drifts.setdefault(item, []).append((line.amount_nano if line else 0) - ours)
        sums[item] = sums.get(item, 0) + ours
    return _Shifts(
        frozenset(
            item
            for item, shifts in drifts.items()
            if len(shifts) > 1
            and abs(sum(shifts)) <= max(SAME * sums[item], ROUNDING_NANO)
            and sum(map(abs, shifts)) > 2 * abs(sum(shifts))
        ),
        {
            key: line.amount_nano - charged[key].cost_nano
            for key, line in billed.items()
            if key in charged
        },
    )


@dataclass(frozen=True, slots=True)
class _Shifts:
    items: frozenset[str]
    drifts: Mapping[tuple[str, str], int]

    def __call__(self, key: tuple[str, str]) -> Iterator[_Cause]:
        if key[1] in self.items and key in self.drifts:
            note = "the sum over all days agrees: the bill uses another time zone (--timezone)"
            yield _Cause("days", self.drifts[key], note)


def _absent(item: str, charged: Mapping[tuple[str, str], Totals]) -> str:
    known = {backend for _, backend in charged}
    if item in known:
        return "the journal has no call on this day: made elsewhere, or on another day"
    return f"no backend has this name; to map it to one: --item {item!r}=BACKEND"


def _ask(line: BillLine) -> str:
    if not line.quantities:
        return "the bill has no quantities; with tokens or requests the cause may be found"
    amounts = ", ".join(f"{q:,.0f} {name.replace('_', ' ')}" for name, q in line.quantities.items())
    return f"billed for {amounts}"


def describe(drifts: Sequence[Reconciliation]) -> str:
    """Summarise all lines in one sentence."""
    billed, charged = (sum(getattr(d, n) for d in drifts) for n in ("billed_nano", "charged_nano"))
    share = f" ({billed / charged - 1:+.2%})" if charged else ""
    return f"Billed {format_usd(billed)}, charged {format_usd(charged)}{share}."
