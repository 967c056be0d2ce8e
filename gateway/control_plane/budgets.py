"""Budget endpoints: operators read and change budgets over HTTP.

GET  /_tollway/budgets         every budget in its current window
GET  /_tollway/budgets/{name}  one budget, with its leases and its changes
POST /_tollway/budgets/{name}  {"action", "who", "why"} and the parameter of the action, all of them
                               printable: `who` has at most 100 characters, `why` 1000
    limit    limit_usd: the new limit, effective now
    credit   amount_usd: added to the limit of the current window only
    reset    none: frees the whole limit again; the spent amount remains visible
    release  lease: a lease of a dead process. Its money counts as not spent, except for the
             optional billed_usd, the amount on the provider's usage API or invoice

Every change is recorded in the ledger, in the journal and, with the values before and after it, in
the audit log. If the audit log cannot be written, nothing is changed.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from tollway.backends.json_members import quoted, repeated
from tollway.backends.money import parse_usd
from tollway.gateway.budgets.administration import BudgetAdmin, BudgetDetails
from tollway.gateway.budgets.protocol import LedgerUnavailable
from tollway.gateway.control_plane import explain
from tollway.gateway.data_plane.problems import HttpProblem
from tollway.gateway.observability.events import EventLog
from tollway.gateway.storage import audit_log
from tollway.gateway.storage.audit_log import Actor, AuditLog
from tollway.gateway.storage.journal import Journal

_USD_MAX = 10**9
_CHARS_MAX = {"who": 100, "why": 1000, "": 256}
"""The longest values of a change, by key; "" is any other."""
_TAKES: dict[str, str] = {
    "limit": "limit_usd",
    "credit": "amount_usd",
    "reset": "",
    "release": "lease",
}


@dataclass(frozen=True, slots=True)
class _Change:
    """A change that was asked for: of which budget, by whom, and the budget before it."""

    name: str
    asked: Mapping[str, str]
    actor: Actor
    before: BudgetDetails

    @property
    def parameters(self) -> dict[str, str]:
        """The amount or the lease that was given."""
        return {key: self.asked[key] for key in self.asked if key not in {"action", "who", "why"}}


class BudgetEndpoints:
    """Budget endpoints for operators, over the ledger's administration."""

    def __init__(
        self, admin: BudgetAdmin, journal: Journal, audit: AuditLog, events: EventLog
    ) -> None:
        self._admin = admin
        self._journal = journal
        self._audit = audit
        self._events = events

    async def show(self, name: str) -> dict[str, Any]:
        """Return one budget; raises HttpProblem if it does not exist."""
        return _document(await self._asked(name, lambda: self._admin.show(name)))

    async def change(self, name: str, body: bytes, actor: Actor) -> dict[str, Any]:
        """Apply a change and return the resulting budget; HttpProblem if it is incomplete."""
        asked = _read(body)
        before = await self._asked(name, lambda: self._admin.show(name))
        change = _Change(name, asked, actor.named(asked["who"]), before)
        begun = await self._begin(change)
        try:
            after = await self._changed(name, asked)
        except HttpProblem as exc:
            outcome = audit_log.UNKNOWN if exc.status == 503 else audit_log.REFUSED
            await self._end(change, begun, outcome, {"problem": exc.detail})
            raise
        await self._end(change, begun, audit_log.DONE, _values(after))
        row = {key: asked[key] for key in asked if key != "action"}
        self._journal.append(
            {
                "kind": "change",
                "time": time.time(),
                "budget": name,
                "action": asked["action"],
                **row,
            }
        )
        return _document(after)

    async def _begin(self, change: "_Change") -> int:
        """Write that a change begins; HttpProblem, before anything is changed, if it cannot be."""
        try:
            return await self._write(change, audit_log.BEGUN, after=change.parameters)
        except OSError as exc:
            why = f"the audit log cannot be written, so nothing was changed: {exc.strerror or exc}"
            raise HttpProblem(503, "Audit log not writable", why) from exc

    async def _end(
        self, change: "_Change", begun: int, outcome: str, after: Mapping[str, Any]
    ) -> None:
        """Write the outcome; the change stands even if that fails, and its beginning is written."""
        try:
            await self._write(change, outcome, after=after, begun=begun)
        except OSError as exc:
            self._events.add("audit_failed", change.name, f"entry {begun} has no outcome: {exc}")

    async def _write(self, change: "_Change", outcome: str, **more: Any) -> int:
        return await asyncio.to_thread(
            self._audit.write,
            f"budget {change.asked['action']}",
            change.actor,
            outcome,
            about=f"{change.name} {change.asked.get('lease', '')}".rstrip(),
            why=change.asked["why"],
            before=_values(change.before),
            **more,
        )

    async def _changed(self, name: str, asked: Mapping[str, str]) -> BudgetDetails:
        action, who, why = asked["action"], asked["who"], asked["why"]
        admin = self._admin

        def act() -> Awaitable[BudgetDetails]:
            if action == "limit":
                return admin.set_limit(name, _nano(asked, "limit_usd"), who, why)
            if action == "credit":
                return admin.credit(name, _nano(asked, "amount_usd"), who, why)
            if action == "release":
                billed_nano = _nano(asked, "billed_usd") if "billed_usd" in asked else 0
                return admin.release(name, asked["lease"], who, why, billed_nano)
            return admin.reset(name, who, why)

        return await self._asked(name, act)

    async def _asked(self, name: str, ask: Callable[[], Awaitable[BudgetDetails]]) -> BudgetDetails:
        try:
            return await ask()
        except KeyError as exc:
            known = ", ".join(status.budget.name for status in await self._admin.list())
            why = f"no budget is named {name!r}; the budgets are: {known or 'none'}"
            raise HttpProblem(404, "No budget", why) from exc
        except ValueError as exc:
            raise HttpProblem(422, "Bad change", str(exc)) from exc
        except LedgerUnavailable as exc:
            raise HttpProblem(
                503, "Ledger unreachable", "the ledger is not reachable; try again"
            ) from exc


def _read(body: bytes) -> Mapping[str, str]:
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise HttpProblem(400, "Bad change", f"the body is not JSON: {exc}") from exc
    asked = asked if isinstance(asked, dict) else {}
    if key := repeated(body, asked, quoted(asked)):
        raise HttpProblem(400, "Bad change", f"{key!r} is there more than once")
    action = asked.get("action")
    if not isinstance(action, str) or action not in _TAKES:
        raise HttpProblem(422, "Bad change", f"action must be one of {', '.join(_TAKES)}")
    wanted = {"action", "who", "why", _TAKES[action]} - {""}
    if action == "release" and "billed_usd" in asked:
        wanted.add("billed_usd")
    for key in sorted(wanted | asked.keys()):
        if key not in wanted:
            raise HttpProblem(
                422, "Bad change", f"{asked['action']} does not take {key!r}; remove it"
            )
        if not isinstance(asked.get(key), str) or not asked[key].strip():
            raise HttpProblem(422, "Bad change", f"{key} is missing; it must be a non-empty string")
        _check_text(key, asked[key])
    return asked


def _check_text(key: str, text: str) -> None:
    """Refuse what would break a log line or a terminal that shows it, or fill the ledger."""
    most = _CHARS_MAX.get(key, _CHARS_MAX[""])
    if len(text) > most:
        raise HttpProblem(422, "Bad change", f"{key} has {len(text)} characters; {most} at most")
    if not text.isprintable():
        raise HttpProblem(422, "Bad change", f"{key} contains a character that cannot be printed")


def _nano(asked: Mapping[str, str], key: str) -> int:
    try:
        return parse_usd(asked[key], _USD_MAX)
    except ValueError as exc:
        why = f"{key} = {asked[key][:40]!r}: must be dollars, with at most nine decimals"
        raise HttpProblem(422, "Bad change", why) from exc


_VALUES = ("limit_nano", "credit_nano", "spent_nano", "held_nano", "free_nano", "unaccounted_nano")


def _values(details: BudgetDetails) -> dict[str, int]:
    """Return what a change may change, in nano-dollars, and the spend for comparison."""
    return {name: getattr(details.status, name) for name in _VALUES}


def _document(details: BudgetDetails) -> dict[str, Any]:
    return {
        **explain.budget(details.status),
        "holders": [asdict(lease) for lease in details.holders],
        "changes": [asdict(change) for change in details.changes],
    }
