"""What another user of the machine finds in the gateway's files: nothing, whatever the umask."""

import json
import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.http import ask
from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, inference, run, serving
from tests.support.process import Process, free_port
from tests.support.until import until
from tollway.gateway.storage.journal import Journal
from tollway.gateway.storage.snapshot_file import write

pytestmark = pytest.mark.integration

MORE = budget("cap", "5", more='window = "lifetime"') + "[state]\ninterval_s = 0.2\n"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the folder that temporary files go to; its path is short, as a socket's must be."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder)


def readable_by_others(*folders: Path) -> tuple[set[str], set[str]]:
    """Return the names of all files and folders, and of those that are not their owner's alone."""
    found: dict[str, int] = {}
    for folder in folders:
        for path in folder.rglob("*"):
            with_suffix = path.name if path.is_dir() else path.suffix or path.name
            found[with_suffix] = found.get(with_suffix, 0) | stat.S_IMODE(path.lstat().st_mode)
    return set(found), {name for name, mode in found.items() if mode & 0o077}


def test_every_file_of_a_gateway_is_its_users_alone(tmp_path: Path, temporary: Path) -> None:
    """Also those of SQLite, of dead workers, and of a gateway that was killed."""
    own = tmp_path / "own"

    async def main() -> None:
        async with serving(Upstream()) as url:
            port = free_port()
            server = f'listen = "127.0.0.1:{port}"\nallow_anonymous = true\nworkers = 2'
            toml = two_backends(url, url, server=server, more=MORE)
            toml = toml.replace("memory://", f"sqlite:///{own}/ledger/money.db")
            toml += f'[journal]\ndir = "{own}/a/journal"\n'
            toml = toml.replace("[state]", f'[state]\ndir = "{own}/b/state"')
            (tmp_path / "tollway.toml").write_text(toml)
            before = os.umask(0)
            try:
                process = Process(tmp_path / "tollway.toml")
            finally:
                os.umask(before)
            try:
                await process.ready(f"http://127.0.0.1:{port}")
                address = ("127.0.0.1", port)
                for _ in range(20):
                    reply = await ask(
                        address, "/v2/models/m/infer", json.dumps(inference()).encode(), JSON
                    )
                    decision = dict(
                        line.partition(b": ")[::2] for line in reply.head.split(b"\r\n")
                    )[b"x-tollway-decision"].decode()
                    told = json.dumps({"decision": decision, "quality": 1.0}).encode()
                    assert (await ask(address, "/_tollway/feedback", told, JSON)).status == 202
                os.kill(process.workers[0], signal.SIGKILL)

                async def learns_again() -> bool:
                    """Only the worker that learns, and saves snapshots, takes feedback."""
                    return (await ask(address, "/_tollway/feedback", told, JSON)).status == 200

                await until(learns_again)
                running, exposed = readable_by_others(own, temporary)
                assert exposed == set()
                assert {".jsonl", ".marks", ".key", ".db", ".db-wal", ".db-shm"} <= running
                assert {".recovery", ".sock", "ledger", "a", "b", "journal", "state"} <= running
                process.end(signal.SIGTERM)
            finally:
                process.stop()
        ended, exposed = readable_by_others(own, temporary)
        assert exposed == set()
        assert ".snapshot" in ended

    run(main)


def test_a_folder_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    """An operator who lets a group read the journal's folder has a reason."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o750)
    Journal(folder).close()
    write(folder / "x.snapshot", b"")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
