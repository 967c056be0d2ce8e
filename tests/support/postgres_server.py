"""A private PostgreSQL: Debian's, in a folder and on a port of its own."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg

from tests.support.ports import free_port
from tests.support.until import until_now

USER = "tollway"
PLACES = Path("/usr/lib/postgresql")  # Debian's; its programs are not on the PATH


def program(name: str) -> str:
    """Return the path of one of PostgreSQL's programs."""
    versions = sorted(PLACES.glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]))
    found = str(versions[-1]) if versions else shutil.which(name)
    assert found is not None, "apt install postgresql"
    return found


class PostgresServer:
    """A server with one database, to which anybody on this machine may connect."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        # It refuses to run as root; then it runs as the user of the package.
        self._as = "postgres" if os.geteuid() == 0 else None
        if self._as is not None:
            owner = pwd.getpwnam(self._as)
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        command = [program("initdb"), "-D", str(folder / "data"), "-U", USER, "-A", "trust"]
        subprocess.run(
            [*command, "--no-sync", "--locale", "C", "-E", "UTF8"],
            user=self._as,
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": "60",
            "shared_buffers": "16MB",
        }
        given = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [program("postgres"), "-D", str(self.folder / "data"), *given],
                user=self._as,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        ready = [program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        until_now(lambda: self._answers(ready), within_s=90, every_s=0.05)

    def _answers(self, ready: list[str]) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
        return subprocess.run(ready, check=False).returncode == 0

    def stop(self) -> None:
        """End it at once, and its connections."""
        assert self.process is not None
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait()

    def pause(self) -> None:
        """Let it and all of its connections hang."""
        assert self.process is not None
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):  # a connection that has ended
                os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):  # a connection that has ended
                os.kill(pid, signal.SIGCONT)

    def _processes(self) -> list[int]:
        """Return the server's process and its children."""
        assert self.process is not None
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    async def execute(self, *statements: str) -> None:
        connection = await asyncpg.connect(self.url, timeout=30)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()


@contextlib.contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    # Not in pytest's folder, which only the user of the tests may enter.
    folder = Path(tempfile.mkdtemp(prefix="tollway-postgres-"))
    try:
        server = PostgresServer(folder)
        try:
            yield server
        finally:
            with contextlib.suppress(ProcessLookupError):
                server.resume()
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
