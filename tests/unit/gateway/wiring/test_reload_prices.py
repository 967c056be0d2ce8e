"""A reload during a cheap hour: the price in force stays, and policies learn of no change."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tollway.backends.types import Usage
from tollway.gateway import settings as config
from tollway.gateway.wiring import build
from tollway.gateway.wiring.reload import Reloader

NOON = 20_000 * 86_400 + 43_200.0
TEXT = """
[server]
allow_anonymous = true

[ledger]
url = "memory://"

[[backends]]
name = "a"
kind = "cpu"
protocol = "oip"
url = "http://127.0.0.1:9"
price = { per_request_usd = 0.001, hours = [{ from = "12:00", to = "13:00", factor = 0.5 }] }

[[routes]]
name = "r"
path = "/v2/models/m/infer"
protocol = "oip"
backends = ["a"]
objective = "max_quality"
"""


@pytest.mark.parametrize(
    ("after", "cost_nano", "ratios"),
    [
        (TEXT, 500_000, []),
        (TEXT.replace("0.001", "0.002"), 1_000_000, [("a", 2.0)]),
        (TEXT.replace("factor = 0.5", "factor = 0.25"), 250_000, [("a", 0.5)]),
    ],
    ids=["the same file", "another base price", "another factor"],
)
def test_a_reload_applies_the_price_of_the_hour_at_once(
    tmp_path: Path, after: str, cost_nano: int, ratios: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        gateway = build(
            config.parse(TEXT, {}, folder=tmp_path),
            clock=asyncio.get_running_loop().time,
            wall=lambda: NOON,
        )
        await gateway.open()
        reloader = Reloader(gateway, lambda: config.parse(after, {}, folder=tmp_path))
        reported: list[tuple[str, float]] = []
        policy = gateway.routes["r"].policy
        monkeypatch.setattr(policy, "reprice", lambda arm, ratio: reported.append((arm, ratio)))
        try:
            await reloader.reload()
            target = gateway.routes["r"].backends["a"]
            assert gateway.routes["r"].policy is policy
            assert target.price.cost_nano(Usage()) == cost_nano
            assert target.fixed is not None
            assert target.fixed.expected_nano == cost_nano
            assert reported == ratios
        finally:
            await reloader.close()
            await gateway.close()

    asyncio.run(main())


def test_a_restart_in_a_cheap_hour_keeps_the_costs_that_were_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were saved in this hour: scaled once more, they would be halved at each start."""

    async def main() -> None:
        gateway = build(
            config.parse(TEXT, {}, folder=tmp_path),
            clock=asyncio.get_running_loop().time,
            wall=lambda: NOON,
        )
        reported: list[tuple[str, float]] = []
        policy = gateway.routes["r"].policy
        monkeypatch.setattr(policy, "reprice", lambda arm, ratio: reported.append((arm, ratio)))
        await gateway.open()
        try:
            assert gateway.routes["r"].backends["a"].price.cost_nano(Usage()) == 500_000
            assert reported == []
        finally:
            await gateway.close()

    asyncio.run(main())


def test_a_backends_url_may_end_with_a_slash(tmp_path: Path) -> None:
    text = TEXT.replace("http://127.0.0.1:9", "http://127.0.0.1:9/base/")
    gateway = build(config.parse(text, {}, folder=tmp_path))
    assert gateway.routes["r"].backends["a"].path == b"/base"


def test_a_route_replaces_a_backend_only_for_another_price(tmp_path: Path) -> None:
    """What helpers call is told the price in force before each call."""
    route = build(config.parse(TEXT, {}, folder=tmp_path)).routes["r"]
    before, price = route.backends["a"], route.backends["a"].price
    route.reprice("a", replace(price))
    assert route.backends["a"] is before
    route.reprice("a", replace(price, per_request_nano=7))
    assert route.backends["a"].price.cost_nano(Usage()) == 7
    assert before.price is price
