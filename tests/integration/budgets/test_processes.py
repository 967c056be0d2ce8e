"""Real processes on one budget."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.redis_server import redis_server
from tests.support.spender import BUDGET
from tollway.gateway.budgets.protocol import WindowStatement
from tollway.gateway.budgets.reservations import Reservations
from tollway.gateway.budgets.stores.registry import open_ledger

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'ledger.db'}"
        return
    with redis_server(tmp_path / "redis") as server:
        yield server.url + "?timeout_ms=1000"  # patient: a busy machine is no fault here


def spender(url: str, folder: Path, calls: int) -> "subprocess.Popen[str]":
    command = [
        sys.executable,
        "-m",
        "tests.support.spender",
        url,
        str(folder / "recovery"),
        str(calls),
    ]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert line(process) == "ready"
    return process


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


async def account(url: str) -> WindowStatement:
    ledger = open_ledger(url)
    await ledger.open()
    try:
        return (await ledger.accounts([("b", 0)]))[0]
    finally:
        await ledger.close()


@pytest.mark.parametrize("processes", [1, 4])
def test_a_hundred_calls_on_a_budget_for_forty_are_answered_forty_times(
    url: str, tmp_path: Path, processes: int
) -> None:
    spenders = [spender(url, tmp_path, 100 // processes) for _ in range(processes)]
    for process in spenders:
        go(process)
    answered = [int(line(process)) for process in spenders]
    for process in spenders:
        process.communicate("\n")
    assert sum(answered) == 40, answered
    position = asyncio.run(account(url)).position
    assert (position.spent_nano, position.leased_nano) == (1000, 0)
    assert list((tmp_path / "recovery").glob("*.recovery")) == []


def test_a_killed_process_loses_no_spending_and_its_rest_is_back_at_once(
    url: str, tmp_path: Path
) -> None:
    process = spender(url, tmp_path, 0)
    go(process)
    assert line(process) == "spent"
    process.kill()
    process.communicate()

    async def next_process() -> None:
        reservations = Reservations(
            open_ledger(url),
            [BUDGET],
            holder="next",
            clock=time.monotonic,
            recovery_dir=tmp_path / "recovery",
        )
        await reservations.open()
        accounts = reservations.matching("t", "r", "b", {})
        hold = await reservations.reserve(accounts, 875, 875)
        reservations.settle(hold, 875)  # type: ignore[arg-type]
        await reservations.close()

    asyncio.run(next_process())
    position = asyncio.run(account(url)).position
    assert (position.spent_nano, position.unaccounted_nano) == (1000, 75)
