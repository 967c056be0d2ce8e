"""Chat requests of unknown cost on one hard budget: `budgets.py --chat`.

The model server writes 1000 tokens, or as many as its limit allows, and bills by the token: $0.001
a call. Requests have no limit of their own, or one of 32,000 tokens, which would cost $0.032.
"""

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from benchmarks.budgets_backend import PRICE_NANO, Backend
from benchmarks.budgets_http import TOLLWAY, HttpCell, Tollway, Upstream
from tollway.backends.money import to_usd

TOKENS = 1000
TOKEN_NANO = PRICE_NANO // TOKENS
LIMITS: dict[str, int | None] = {"none": None, "32,000 tokens": 32_000}
EDIT_AT_S = 1.0
FAULTS = ("nothing", "replica killed", "budget edited")
QUIET_S = 5.0  # longer than a killed gateway takes to come back
CELL_S = 60.0  # maximum duration of a cell
PACE_S = {100: 0.25, 400: 0.5}  # seconds a call takes, by clients of a replica


class ChatTollway(Tollway):
    """`tollway serve` before a model that is paid by the token."""

    template = TOLLWAY.replace(
        "price = {{ per_request_usd = 0.001 }}",
        "price = {{ input_usd_per_mtok = 0, output_usd_per_mtok = 1.0 }}",
    )
    limit_share = 1.0
    """The share of the budget that it starts with."""

    def configured(self, limit_usd: float) -> float:
        """Return the limit that stands in its configuration."""
        return limit_usd * self.limit_share


class HalvedTollway(ChatTollway):
    """A gateway that has half of the budget until its configuration is edited."""

    limit_share = 0.5


class Writer(Upstream):
    """The model server; it respects the output limit of a request."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer after a delay; a started call is billed even if its client has left."""
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body")
        tokens = min(TOKENS, orjson.loads(body).get("max_tokens") or TOKENS)
        answered = asyncio.Event()
        self.backend.begin(answered.set, tokens * TOKEN_NANO)
        await answered.wait()
        message = {"role": "assistant", "content": "4"}
        usage = {"prompt_tokens": 9, "completion_tokens": tokens}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        reply = orjson.dumps({"id": "x", "model": "m", "choices": [choice], "usage": usage})
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": reply})


def asked(limit: int | None) -> dict[str, Any]:
    """Return a request with a limit of its output."""
    said = {"model": "m", "messages": [{"role": "user", "content": "2+2?"}]}
    return said if limit is None else {**said, "max_tokens": limit}


async def edit(cell: HttpCell) -> None:
    """Double the budget of running gateways one by one, as an operator would."""
    await asyncio.sleep(EDIT_AT_S)
    for replica, given in cell.pairs:
        config = given.folder / "tollway.toml"
        text = config.read_text()
        halved = f"limit_usd = {given.limit_usd * HalvedTollway.limit_share}"
        assert halved in text
        config.write_text(text.replace(halved, f"limit_usd = {given.limit_usd}"))
        assert replica.process is not None
        os.kill(replica.process.pid, signal.SIGHUP)


@dataclass
class ChatRow:
    """One cell of the table of chat requests."""

    limit: str
    fault: str
    c: int
    replicas: int
    worth: int
    answered: int
    refused: int
    refused_falsely: int
    refused_ledger_down: int
    failed: int
    used_pct: float
    overshoot_usd: float
    stranded_pct: float
    ledger_minus_billed_usd: float
    spending_s: float
    load: float


async def rows(
    limit: str | None,
    fault: str | None,
    c: int | None,
    replicas: int | None,
    requests: int | None,
) -> AsyncIterator[ChatRow]:
    """Measure all cells, or the selected ones."""
    for name in [limit] if limit else LIMITS:
        for what in [fault] if fault else FAULTS:
            for clients in [c] if c else PACE_S:
                yield await _row(name, what, clients, replicas or 2, requests or 1000)


async def _row(name: str, fault: str, c: int, replicas: int, worth: int) -> ChatRow:
    backend = Backend(worth * PRICE_NANO, PACE_S[c])
    edited = fault == "budget edited"
    with tempfile.TemporaryDirectory() as folder:
        cell = HttpCell(
            Path(folder),
            HalvedTollway if edited else ChatTollway,
            Writer(backend),
            asked(LIMITS[name]),
            edit if edited else None,
        )
        own_usd = await cell.run(c, replicas, fault == "replica killed", QUIET_S, CELL_S)
    over_nano = max(0, backend.billed_nano - backend.limit_nano)
    return ChatRow(
        name,
        fault,
        c,
        replicas,
        worth=worth,
        answered=backend.calls,
        refused=backend.refused,
        refused_falsely=backend.refused_falsely,
        refused_ledger_down=backend.refused_down,
        failed=cell.failed,
        used_pct=100 * backend.billed_nano / backend.limit_nano,
        overshoot_usd=to_usd(over_nano),
        # Refusals before the budget is doubled are not false.
        stranded_pct=0.0 if edited else 100 * backend.stranded_nano / backend.limit_nano,
        ledger_minus_billed_usd=own_usd - to_usd(backend.billed_nano),
        spending_s=backend.last_s - backend.first_s,
        load=os.getloadavg()[0],
    )
