"""The words of money: scopes, budgets, windows, reservations, refusals, and the ledger's port.

All amounts are integer nano-dollars.
"""

from dataclasses import dataclass
from typing import Literal

NANO = 1_000_000_000
"""Nano-dollars in a dollar."""

MAX_LIMIT_NANO = 2**53 - 1
"""The largest limit of a budget: Lua's numbers are doubles, exact up to 2^53 ($9.007 million)."""

Enforcement = Literal["hard", "expected", "soft"]
Window = Literal["hour", "day", "week", "month", "ever"]


@dataclass(frozen=True, slots=True)
class Scope:
    """Whom a budget binds: a call that matches every part given (none given: every call)."""

    tenant: str | None = None
    route: str | None = None
    backend: str | None = None
    tags: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit in nano-dollars for a scope and a window."""

    name: str
    scope: Scope
    limit_nano: int
    window: Window = "ever"
    timezone: str = "UTC"
    enforcement: Enforcement = "hard"
    alert_at: tuple[float, ...] = (0.8, 0.9, 1.0)
    downgrade_at: float | None = None
    downgrade_max_usd: float | None = None
    then: Literal["reject", "cheapest", "rules"] = "reject"
