"""Budget lists, metrics and the dashboard show what others did to a shared ledger."""

import asyncio
from pathlib import Path

import pytest

from tests.support.configs import budget, two_backends
from tests.support.harness import Running, Upstream, run, running, serving
from tollway.gateway.workers.group import FRESH_S

pytestmark = pytest.mark.integration


async def figures(tollway: Running) -> list[tuple[float, float]]:
    """Return limit and spent amount as each page shows them."""
    await asyncio.sleep(FRESH_S)
    (listed,) = (await tollway.get("/_tollway/budgets"))["budgets"]
    await asyncio.sleep(FRESH_S)
    text = (await tollway.client.get(tollway.url + "/metrics")).text
    counted = {
        name: float(line.rpartition(" ")[2])
        for name in ("limit", "spent")
        for line in text.splitlines()
        if line.startswith(f"tollway_budget_{name}_usd{{")
    }
    await asyncio.sleep(FRESH_S)
    (drawn,) = (await tollway.get("/_tollway/overview"))["budgets"]
    return [
        (listed["limit_usd"], listed["spent_usd"]),
        (counted["limit"], counted["spent"]),
        (drawn["limit_usd"], drawn["spent_usd"]),
    ]


def test_one_gateway_shows_what_another_spent_and_what_an_operator_changed(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as url:
            more = budget("cap", "5", more='window = "lifetime"')
            toml = two_backends(url, url, ledger=f"sqlite:///{tmp_path}/l.db", more=more)
            async with (
                running(toml, tmp_path / "a") as here,
                running(toml, tmp_path / "b") as there,
            ):
                for _ in range(10):
                    assert (await there.infer()).status_code == 200
                await there.gateway.reservations.sync_now()
                assert await figures(here) == [(5, 0.001)] * 3
                change = {"action": "limit", "limit_usd": "7", "who": "me", "why": "more"}
                at = "/_tollway/budgets/cap"
                assert (await there.client.post(there.url + at, json=change)).status_code == 200
                (now,) = (await there.get("/_tollway/budgets"))["budgets"]
                assert now["limit_usd"] == 7
                assert await figures(here) == [(7, 0.001)] * 3

    run(main)
