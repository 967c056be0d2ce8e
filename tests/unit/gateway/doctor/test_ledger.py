"""What is found of a ledger in a file, and of one that does not answer."""

import asyncio
import time
from pathlib import Path

from tollway.gateway.budgets.stores.sqlite import SqliteLedger
from tollway.gateway.doctor.finding import Finding
from tollway.gateway.doctor.ledger import examine


def found(url: str) -> tuple[Finding, ...]:
    return asyncio.run(examine(url, None, {}))


def test_a_ledger_that_is_not_there_is_not_created(tmp_path: Path) -> None:
    path = tmp_path / "tollway.db"
    [finding] = found(f"sqlite:///{path}")
    assert (finding.state, finding.seen) == ("ok", f"{path} will be created")
    assert not path.exists()


def test_a_sound_ledger_is_ok_and_a_damaged_one_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "tollway.db"

    async def make() -> None:
        ledger = SqliteLedger(str(path), time.time)
        await ledger.open()
        await ledger.register([])
        await ledger.close()

    asyncio.run(make())
    [finding] = found(f"sqlite:///{path}")
    assert (finding.state, "sound" in finding.seen) == ("ok", True)
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 8192)
    [finding] = found(f"sqlite:///{path}")
    assert finding.state == "failure"


def test_a_ledger_in_memory_is_a_warning() -> None:
    [finding] = found("memory://")
    assert (finding.state, "forgotten" in finding.seen) == ("warning", True)


def test_a_server_that_does_not_answer_is_a_failure() -> None:
    [finding] = found("redis://127.0.0.1:1/0")
    assert finding.state == "failure"
