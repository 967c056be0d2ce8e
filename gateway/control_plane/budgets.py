"""Budget endpoints: operators read and change budgets over HTTP.

GET /_tollway/budgets         every budget in its current window
GET /_tollway/budgets/{name}  one budget, with its leases and its changes
POST the same                 {"action", "who", "why"} and what the action takes:
    limit    limit_usd: a new limit, from now on
    credit   amount_usd: added to the current window alone
    reset    the whole limit is free again, what was spent stands beside it
    release  lease: of a process that is gone; its money was not spent, but for `billed_usd`, which
             may be left out: what the provider's usage API or invoice says of it

Every change is kept in the ledger, and written into the journal.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

import orjson

from tollway.backends.money import parse_usd
from tollway.gateway.budgets.administration import BudgetAdmin, BudgetDetails
from tollway.gateway.budgets.protocol import LedgerUnavailable
from tollway.gateway.control_plane import explain
from tollway.gateway.data_plane.problems import HttpProblem
from tollway.gateway.storage.journal import Journal

_USD_MAX = 10**9
_TAKES: dict[str, str] = {
    "limit": "limit_usd",
    "credit": "amount_usd",
    "reset": "",
    "release": "lease",
}


class BudgetEndpoints:
    """Budget endpoints for operators, over the ledger's administration."""

    def __init__(self, admin: BudgetAdmin, journal: Journal) -> None:
        self._admin = admin
        self._journal = journal

    async def show(self, name: str) -> dict[str, Any]:
        """Return one budget; raises HttpProblem if it does not exist."""
        return _told(await self._asked(name, lambda: self._admin.show(name)))

    async def change(self, name: str, body: bytes) -> dict[str, Any]:
        """Apply a change and return the resulting budget; HttpProblem if it is incomplete."""
        asked = _read(body)
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

        details = await self._asked(name, act)
        row = {key: asked[key] for key in asked if key != "action"}
        self._journal.append(
            {"kind": "change", "time": time.time(), "budget": name, "action": action, **row}
        )
        return _told(details)

    async def _asked(self, name: str, ask: Callable[[], Awaitable[BudgetDetails]]) -> BudgetDetails:
        try:
            return await ask()
        except KeyError as exc:
            known = ", ".join(status.budget.name for status in await self._admin.list())
            why = f"no budget is named {name!r}; there are: {known or 'none'}"
            raise HttpProblem(404, "No budget", why) from exc
        except ValueError as exc:
            raise HttpProblem(422, "Bad change", str(exc)) from exc
        except LedgerUnavailable as exc:
            raise HttpProblem(503, "Ledger unreachable", "the ledger does not answer") from exc


def _read(body: bytes) -> Mapping[str, str]:
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise HttpProblem(400, "Bad change", f"the body is not JSON: {exc}") from exc
    asked = asked if isinstance(asked, dict) else {}
    action = asked.get("action")
    if not isinstance(action, str) or action not in _TAKES:
        raise HttpProblem(422, "Bad change", f"action must be one of {', '.join(_TAKES)}")
    wanted = {"action", "who", "why", _TAKES[action]} - {""}
    if action == "release" and "billed_usd" in asked:
        wanted.add("billed_usd")
    for key in sorted(wanted | asked.keys()):
        if key not in wanted:
            raise HttpProblem(422, "Bad change", f"{asked['action']} takes no {key!r}")
        if not isinstance(asked.get(key), str) or not asked[key].strip():
            raise HttpProblem(422, "Bad change", f"{key} is missing; it must be a text")
    return asked


def _nano(asked: Mapping[str, str], key: str) -> int:
    try:
        return parse_usd(asked[key], _USD_MAX)
    except ValueError as exc:
        why = f"{key} = {asked[key][:40]!r}: must be dollars with at most nine decimals"
        raise HttpProblem(422, "Bad change", why) from exc


def _told(details: BudgetDetails) -> dict[str, Any]:
    return {
        **explain.budget(details.status),
        "holders": [asdict(lease) for lease in details.holders],
        "changes": [asdict(change) for change in details.changes],
    }
