"""A really full disk: the gateway goes on serving, and what was written stays valid."""

import asyncio
import contextlib
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.stand import CHEAP_NANO, Stand, standing
from tests.support.harness import Upstream, run, serving
from tests.support.until import until
from tollway.gateway.budgets.model import Budget, LeaseKey, Scope
from tollway.gateway.budgets.protocol import LedgerUnavailable
from tollway.gateway.budgets.recovery_file import CHUNK_CELLS, SETTLED, RecoveryFile, orphaned_files
from tollway.gateway.budgets.stores.sqlite import SqliteLedger
from tollway.gateway.storage import snapshot_file
from tollway.gateway.storage.journal import Journal, segments
from tollway.gateway.storage.journal_format import rows

pytestmark = pytest.mark.integration

KIB = 2048
BURST = 40  # connections to the backend, kept


class Limited:
    """A folder to which the kernel refuses the process' writes for a while (EFBIG)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, stand: Stand) -> None:
        self._set(stand, 1)

    def free(self, stand: Stand) -> None:
        self._set(stand, resource.RLIM_INFINITY)

    @staticmethod
    def _set(stand: Stand, most: int) -> None:
        pid = stand.process.pid
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


class Small(Limited):
    """A disk of two megabytes (ENOSPC when it is full)."""

    def fill(self, stand: Stand) -> None:
        with (self.folder / "filler").open("wb", buffering=0) as file:
            with contextlib.suppress(OSError):
                while file.write(b"x" * 1024):
                    pass

    def free(self, stand: Stand) -> None:
        (self.folder / "filler").unlink()


@pytest.fixture(params=[Limited, Small])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Limited]:
    """A folder of either kind; where no disk can be mounted both are of the first."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={KIB}k", "tmpfs", str(folder)]
    if request.param is Limited or subprocess.run(mount, check=False).returncode:
        yield Limited(folder)
        return
    try:
        yield Small(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def told(stand: Stand, count: int) -> set[int]:
    """Send requests and feedback; return the results of the feedback."""
    came = set()
    for reply in await stand.ask(count):
        assert reply.status_code == 200
        document = {"decision": reply.headers["x-tollway-decision"], "quality": 1.0}
        came.add(
            (await stand.http.post(f"{stand.url}/_tollway/feedback", json=document)).status_code
        )
    return came


async def figure(stand: Stand, name: str) -> float:
    text = (await stand.http.get(f"{stand.url}/metrics")).text
    (line,) = [line for line in text.splitlines() if line.startswith(name + " ")]
    return float(line.split()[1])


async def becomes(stand: Stand, name: str, empty: bool) -> None:
    async def is_so() -> bool:
        return (await figure(stand, name) == 0) is empty

    await until(is_so)


def snapshot(disk: Limited) -> tuple[dict[str, bytes], float]:
    """Return the route's snapshot; fail if it is damaged."""
    return snapshot_file.unpack((disk.folder / ".tollway" / "state" / "m.snapshot").read_bytes())


def test_with_the_disk_full_requests_are_served_and_nothing_is_lost_once_there_is_room(
    disk: Limited,
) -> None:
    async def main() -> None:
        upstream = Upstream()
        async with serving(upstream) as a:
            more = "[state]\ninterval_s = 0.1\n"
            async with standing(disk.folder, a, a, ledger="memory://", more=more) as stand:
                assert await told(stand, 20) == {202}
                await until((disk.folder / ".tollway" / "state" / "m.snapshot").exists)
                await asyncio.to_thread(disk.fill, stand)
                fed: set[int] = set()
                for _ in range(10):
                    fed |= await told(stand, 40)
                assert fed <= {202, 404, 503}
                await becomes(stand, "tollway_journal_waiting_bytes", empty=False)

                async def is_told() -> bool:
                    return "snapshot_failed" in await events(stand)

                await until(is_told)
                assert snapshot(disk)
                await asyncio.to_thread(disk.free, stand)
                assert await told(stand, 1) <= {202, 404}
                await becomes(stand, "tollway_journal_waiting_bytes", empty=True)
                assert await figure(stand, "tollway_journal_dropped_rows") == 0
                assert await told(stand, 1) == {202}
                await stand.leaves_open(BURST)
                await stand.stop()
                assert stand.journal_nano == upstream.calls * CHEAP_NANO == 422 * CHEAP_NANO
                assert snapshot(disk)
                assert not list(disk.folder.rglob("*.tmp"))

    run(main)


async def events(stand: Stand) -> str:
    return (await stand.http.get(f"{stand.url}/_tollway/events")).text


def test_a_ledger_whose_disk_is_full_refuses_and_goes_on_to_the_nano_dollar(
    disk: Limited,
) -> None:
    async def main() -> None:
        upstream = Upstream()
        async with serving(upstream) as a:
            async with standing(disk.folder, a, a, limit_usd="2.0") as stand:
                await told(stand, 20)
                await asyncio.to_thread(disk.fill, stand)
                async with stand.load(8):
                    await stand.sees(503, 20)  # leases are spent, and no more can be had
                    await asyncio.to_thread(disk.free, stand)
                    await stand.sees(200, 50)
                assert {*stand.statuses} <= {200, 503}
                (cap,) = await budgets(stand)
                assert cap["spent_nano"] == upstream.calls * CHEAP_NANO
                await stand.leaves_open(BURST)
                await stand.stop()
                assert stand.journal_nano == upstream.calls * CHEAP_NANO

    run(main)


async def budgets(stand: Stand) -> list[dict[str, Any]]:
    return (await stand.http.get(f"{stand.url}/_tollway/budgets")).json()["budgets"]


@pytest.mark.parametrize("most", [1, 4096, 8192, 16384, 32768, 65536])
def test_a_ledger_that_could_not_be_made_is_made_once_there_is_room(
    tmp_path: Path, most: int
) -> None:
    async def main() -> None:
        ledger = SqliteLedger(tmp_path / "new.db", time.time)
        cap = Budget("cap", Scope(), 1_000_000, window="lifetime")
        with at_most(most), contextlib.suppress(LedgerUnavailable):
            await ledger.open()
            await ledger.register([cap])
        await ledger.open()
        await ledger.register([cap])
        (account,) = await ledger.accounts([("cap", 0)])
        assert account.position.free_nano == 1_000_000
        await ledger.close()

    run(main)


@contextlib.contextmanager
def at_most(size: int) -> Iterator[None]:
    """Have the kernel refuse to let files of this process grow beyond a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_recovery_file_that_cannot_grow_goes_on_in_memory_and_does_not_end_the_process(
    tmp_path: Path,
) -> None:
    """A page of a mapping that finds no block on the disk is SIGBUS."""
    recovery_file = RecoveryFile(tmp_path / "a.recovery", "ledger")
    with at_most(CHUNK_CELLS * 8):
        leases = [recovery_file.claim(LeaseKey("cap", 0, 1, f"a.{n}")) for n in range(200)]
        for cells in leases:
            cells[SETTLED] += 1
    proved = [cells for cells in leases if isinstance(cells, memoryview)]
    assert 0 < len(proved) < len(leases)
    for cells in leases:
        recovery_file.release(cells)
    recovery_file.abandon()
    assert [dead.claims("ledger") for dead in orphaned_files(tmp_path)] == [[]]


def test_a_journal_that_can_have_no_new_segment_goes_on_in_the_old_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", segment_bytes_max=1000)
    journal.append({"kind": "decision", "id": journal.new_id(), "text": "x" * 900})
    folder = tmp_path / "journal"
    away = folder.rename(tmp_path / "away")  # a folder that is gone has no room either
    for _ in range(5):
        journal.append({"kind": "decision", "id": journal.new_id(), "text": "x" * 900})
    away.rename(folder)
    journal.append({"kind": "decision", "id": journal.new_id(), "text": "x" * (1 << 20)})
    journal.append({"kind": "decision", "id": (last := journal.new_id()), "text": "last"})
    assert len(segments(folder)) == 2
    assert [row["text"] for row in journal.find(last)] == ["last"]
    journal.close()
    assert sum(len(list(rows(path))) for path in segments(folder)) == 8
