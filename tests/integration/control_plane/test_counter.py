"""Operators read and change budgets, over HTTP and from a terminal; changes are recorded."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.configs import budget, two_backends
from tests.support.harness import Running, Upstream, run, running, serving
from tests.support.until import until
from tollway.gateway.cli import main as cli
from tollway.gateway.cli import terminal
from tollway.gateway.storage.journal import segments
from tollway.gateway.storage.journal_format import rows

pytestmark = pytest.mark.integration


async def command(tollway: Running, *words: str) -> int:
    """Run `tollway WORDS` against a gateway, as from another process."""
    return await asyncio.to_thread(cli.main, list(words), {"TOLLWAY_URL": tollway.url})


async def answered(tollway: Running) -> None:
    """Send requests until there is money again: a refusal is cached for at most 0.8 s."""

    async def is_answered() -> bool:
        return bool((await tollway.infer()).status_code == 200)

    await until(is_answered, every_s=0.05)


async def settled(tollway: Running) -> None:
    """Wait until the ledger has every call."""

    async def is_settled() -> bool:
        return not (await tollway.get("/_tollway/budgets/cap"))["held_nano"]

    await until(is_settled, every_s=0.05)


async def changed(tollway: Running, **document: Any) -> Any:
    return await tollway.client.post(tollway.url + "/_tollway/budgets/cap", json=document)


def test_a_raised_limit_and_a_reset_let_calls_through_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a:
            config = two_backends(a, a, more=budget("cap", "0.0002"))
            async with running(config, tmp_path) as tollway:

                async def statuses(count: int) -> list[int]:
                    return [(await tollway.infer()).status_code for _ in range(count)]

                assert await statuses(3) == [200, 200, 402]
                words = ("budgets", "set", "cap", "0.0003", "--who", "ann", "--why", "launch")
                assert await command(tollway, *words) == terminal.OK
                await answered(tollway)
                assert await statuses(1) == [402]
                await settled(tollway)  # what is under way is not reset
                words = ("budgets", "reset", "cap", "--who", "bob", "--why", "a test ran wild")
                assert await command(tollway, *words) == terminal.OK
                await answered(tollway)
                assert await statuses(3) == [200, 200, 402]
                await settled(tollway)
                capsys.readouterr()
                assert await command(tollway, "budgets", "changes", "cap", "--json") == terminal.OK
                told = json.loads(capsys.readouterr().out)
                assert [(c["kind"], c["who"], c["why"]) for c in told] == [
                    ("limit", "ann", "launch"),
                    ("credit", "bob", "a test ran wild"),
                ]
                assert await command(tollway, "budgets", "show", "cap", "--json") == terminal.OK
                shown = json.loads(capsys.readouterr().out)
                assert shown["spent_nano"] == 6 * 100_000  # nothing is ever taken off it
                tollway.gateway.journal.flush()
                (segment,) = segments(tollway.gateway.settings.journal.dir)
                written = [row for row in rows(segment) if row["kind"] == "change"]
                assert [(row["action"], row["who"]) for row in written] == [
                    ("limit", "ann"),
                    ("reset", "bob"),
                ]

    run(main)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({}, "action must be one of"),
        ({"action": "spend"}, "action must be one of"),
        ({"action": "limit", "who": "ann", "why": "x"}, "limit_usd is missing"),
        ({"action": "limit", "who": "ann", "why": " ", "limit_usd": "1"}, "why is missing"),
        ({"action": "reset", "who": "ann", "why": "x", "limit_usd": "1"}, "not take 'limit_usd'"),
        ({"action": "limit", "who": "a", "why": "x", "limit_usd": "NaN"}, "nine decimals"),
        ({"action": "limit", "who": "a", "why": "x", "limit_usd": "0.0000000001"}, "nine decimals"),
        ({"action": "limit", "who": "a", "why": "x", "limit_usd": "-1"}, "the limit must be 0 to"),
        (
            {"action": "credit", "who": "a", "why": "x", "amount_usd": "0"},
            "the credit must be 1 to",
        ),
    ],
)
def test_an_incomplete_change_is_refused_with_what_is_missing(
    tmp_path: Path, document: dict[str, str], said: str
) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a:
            config = two_backends(a, a, more=budget("cap", "1"))
            async with running(config, tmp_path) as tollway:
                reply = await changed(tollway, **document)
                assert reply.status_code == 422
                assert said in reply.json()["detail"]

    run(main)


def test_an_unknown_budget_is_a_404_that_lists_the_known_ones(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a:
            config = two_backends(a, a, more=budget("cap", "1"))
            async with running(config, tmp_path) as tollway:
                reply = await tollway.client.get(tollway.url + "/_tollway/budgets/cup")
                assert reply.status_code == 404
                assert "the budgets are: cap" in reply.json()["detail"]

    run(main)


def test_who_holds_money_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        hold = asyncio.Event()
        async with serving(Upstream(hold=hold)) as a:
            config = two_backends(a, a, more=budget("cap", "1"))
            async with running(config, tmp_path) as tollway:
                under_way = asyncio.create_task(tollway.infer())

                async def held() -> list[dict[str, Any]]:
                    shown = await tollway.get("/_tollway/budgets/cap")
                    return [one for one in shown["holders"] if one["open_nano"] == 100_000]

                (lease,) = await until(held, every_s=0.05)
                assert await command(tollway, "budgets", "holders", "cap") == terminal.OK
                assert lease["lease"] in capsys.readouterr().out
                hold.set()
                assert (await under_way).status_code == 200

    run(main)
