"""FOCUS 1.4: spend as the FinOps Foundation's cost and usage dataset.

A row is the cost of one tenant's calls on one route to one backend in a UTC day (or hour), by
provenance and tags. The account is the gateway, a sub-account is a tenant, the service is a route,
the resource is a backend. The four cost columns are equal: prices are as negotiated, and a device's
price includes its idle share.

https://focus.finops.org/focus-specification/v1-4/
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tollway.backends.units import MORE, UNITS
from tollway.reports.tables import Column, Kind, Table, Value
from tollway.reports.totals import Key, Totals

PERIODS = ("day", "hour")
DIMENSIONS = ("route", "backend", "tenant", "provenance", "tags")
"""The dimensions that identify a row, besides its period."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """The issuer of the charges: the names of the provider and of the account."""

    name: str = "Tollway"
    account: str = "tollway"


def table(groups: dict[Key, Totals], period: str, issuer: Issuer) -> Table:
    """Return the dataset; each group's key is the period followed by DIMENSIONS."""
    rows = []
    for key, totals in groups.items():
        line = _Line(key, totals, period, issuer)
        rows.append(tuple(read(line) for _, _, read in _COLUMNS))
    columns = tuple(Column(name, name, kind, standard=True) for name, kind, _ in _COLUMNS)
    return Table("Cost and Usage", columns, tuple(rows))


@dataclass(frozen=True, slots=True)
class _Line:
    key: Key
    totals: Totals
    period: str
    issuer: Issuer

    @property
    def start(self) -> datetime:
        """When the charge period begins."""
        return datetime.fromisoformat(self.key[0]).replace(tzinfo=UTC)

    @property
    def end(self) -> datetime:
        """When it ends."""
        return self.start + (timedelta(days=1) if self.period == "day" else timedelta(hours=1))

    @property
    def month(self) -> datetime:
        """When the billing period begins."""
        return self.start.replace(day=1, hour=0)

    @property
    def next_month(self) -> datetime:
        """When it ends."""
        return (self.month + timedelta(days=32)).replace(day=1)

    @property
    def consumed(self) -> tuple[float, str]:
        """The consumed quantity and its unit: tokens, device-seconds, another unit, or calls."""
        tokens = self.totals.input_tokens + self.totals.output_tokens
        if tokens:
            return tokens, "Tokens"
        if self.totals.device_s:
            return self.totals.device_s, "Seconds"
        for unit in MORE:
            if self.totals.units[unit.name]:
                return self.totals.used(unit.name), unit.column
        return self.totals.calls, "Requests"

    @property
    def subcategory(self) -> str:
        """The service subcategory."""
        return "Generative AI" if self.totals.output_tokens else "Machine Learning"


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _part(at: int) -> Callable[[_Line], Value]:
    return lambda line: line.key[at]


def _used(unit: str) -> Callable[[_Line], Value]:
    return lambda line: line.totals.used(unit)


_MONEY = Kind.MONEY
_ROUTE, _BACKEND, _TENANT, _PROVENANCE, _TAGS = map(_part, range(1, 6))
_COLUMNS: tuple[tuple[str, Kind, Callable[[_Line], Value]], ...] = (
    ("BilledCost", _MONEY, lambda line: line.totals.cost_nano),
    ("BillingAccountId", Kind.TEXT, lambda line: line.issuer.account),
    ("BillingAccountName", Kind.TEXT, lambda line: line.issuer.account),
    ("BillingCurrency", Kind.TEXT, lambda line: "USD"),
    ("BillingPeriodEnd", Kind.TEXT, lambda line: _time(line.next_month)),
    ("BillingPeriodStart", Kind.TEXT, lambda line: _time(line.month)),
    ("ChargeCategory", Kind.TEXT, lambda line: "Usage"),
    ("ChargeClass", Kind.TEXT, lambda line: None),
    ("ChargeDescription", Kind.TEXT, lambda line: f"calls of {line.key[1]} to {line.key[2]}"),
    ("ChargeFrequency", Kind.TEXT, lambda line: "Usage-Based"),
    ("ChargePeriodEnd", Kind.TEXT, lambda line: _time(line.end)),
    ("ChargePeriodStart", Kind.TEXT, lambda line: _time(line.start)),
    ("ConsumedQuantity", Kind.NUMBER, lambda line: line.consumed[0]),
    ("ConsumedUnit", Kind.TEXT, lambda line: line.consumed[1]),
    ("ContractedCost", _MONEY, lambda line: line.totals.cost_nano),
    ("EffectiveCost", _MONEY, lambda line: line.totals.cost_nano),
    ("HostProviderName", Kind.TEXT, lambda line: None),
    ("InvoiceIssuerName", Kind.TEXT, lambda line: line.issuer.name),
    ("ListCost", _MONEY, lambda line: line.totals.cost_nano),
    ("PricingQuantity", Kind.COUNT, lambda line: line.totals.calls),
    ("PricingUnit", Kind.TEXT, lambda line: "Requests"),
    ("ResourceId", Kind.TEXT, _BACKEND),
    ("ResourceName", Kind.TEXT, _BACKEND),
    ("ResourceType", Kind.TEXT, lambda line: "Model server"),
    ("ServiceCategory", Kind.TEXT, lambda line: "AI and Machine Learning"),
    ("ServiceName", Kind.TEXT, _ROUTE),
    ("ServiceProviderName", Kind.TEXT, lambda line: line.issuer.name),
    ("ServiceSubcategory", Kind.TEXT, lambda line: line.subcategory),
    ("SubAccountId", Kind.TEXT, _TENANT),
    ("SubAccountName", Kind.TEXT, _TENANT),
    ("Tags", Kind.TEXT, _TAGS),
    *[(f"x_{unit.column}", Kind.NUMBER, _used(unit.name)) for unit in UNITS],
    ("x_AuditCost", _MONEY, lambda line: line.totals.audit_nano),
    ("x_Provenance", Kind.TEXT, _PROVENANCE),
)
