"""Versions of the repository as folders, and gateways that run from them."""

import asyncio
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.http_client import http_client
from tests.support.ports import free_port

KEY = "the-admin-key-of-this-check"
PATH = "/v2/models/m/infer"
START_S = 60.0

READ = """
import json, sys
from pathlib import Path
from tollway.gateway.storage.journal import segments
from tollway.gateway.storage.journal_format import rows
damaged = []
found = [row for folder in sys.argv[1:] for path in segments(Path(folder))
         for row in rows(path, lambda: damaged.append(path))]
print(json.dumps({
    "cost_nano": sum(row["cost_nano"] for row in found if row["kind"] in ("attempt", "settlement")),
    "damaged": len(damaged),
}))
"""


@dataclass(frozen=True, slots=True)
class Tree:
    """A version: the name to show and the folder with its code."""

    name: str
    folder: Path

    def run(self, *arguments: str) -> str:
        """Return what Python prints, with this version's `tollway`."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{self.name}: {done.stderr[-2000:]}")
        return done.stdout

    def journal(self, *folders: Path) -> dict[str, Any]:
        """Return the cost that this version reads in journals, and how many rows are damaged."""
        paths = [str(folder / ".tollway" / "journal") for folder in folders]
        found: dict[str, Any] = json.loads(self.run("-c", READ, *paths))
        return found


def environment() -> dict[str, str]:
    """Return the environment without settings of a gateway and paths of Python."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TOLLWAY_", "PYTHONPATH"))}
    return kept | {"PYTHONDONTWRITEBYTECODE": "1"}


def checked_out(project: Path, ref: str, folder: Path) -> Tree:
    """Return the version of a commit, written into a folder."""
    short = ["git", "-C", str(project), "rev-parse", "--short", f"{ref}^{{commit}}"]
    name = subprocess.run(short, check=True, capture_output=True, text=True).stdout.strip()
    archive = ["git", "-C", str(project), "archive", "--format=tar", name]
    data = subprocess.run(archive, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        tar.extractall(folder, filter="tar")
    tree = Tree(name, folder)
    where = tree.run("-c", "import tollway; print(tollway.__path__[0])").strip()
    if not Path(where).resolve().is_relative_to(folder.resolve()):
        raise RuntimeError(f"{name} would run the code of {where}")
    return tree


class Gateway:
    """A gateway of one version, with its own folder for journal and state."""

    # The mutable state is its process.

    def __init__(self, tree: Tree, folder: Path, config: str) -> None:
        self.tree = tree
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        folder.mkdir(parents=True, exist_ok=True)
        self._config = folder / "tollway.toml"
        self._config.write_text(config.replace("PORT", str(self.port)))
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it, and wait until it is ready."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - a fork takes a millisecond
                [sys.executable, "-m", "tollway", "serve", str(self._config)],
                cwd=self.tree.folder,
                env=environment(),
                stdout=log,
                stderr=log,
            )
        async with http_client() as http, asyncio.timeout(START_S):
            while True:
                if self._process.poll() is not None:
                    text = (self.folder / "log").read_text()[-3000:]
                    raise RuntimeError(f"{self.tree.name} did not start:\n{text}")
                try:
                    if (await http.get(f"{self.url}/readyz")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)

    async def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it with a signal; an exit code that is not expected is an error."""
        assert self._process is not None
        self._process.send_signal(how)
        code = await asyncio.to_thread(self._process.wait, 60)
        expected = 0 if how == signal.SIGTERM else -how
        if code != expected:
            raise RuntimeError(f"{self.tree.name} ended with {code}, not with {expected}")

    def kill(self) -> None:
        """Kill it if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    async def get(self, path: str) -> Any:
        """Return a document of the control plane."""
        async with http_client(headers={"authorization": f"Bearer {KEY}"}) as http:
            reply = await http.get(f"{self.url}/_tollway/{path}")
            return reply.raise_for_status().json()

    async def spent(self) -> int:
        """Return what the budget says is spent, in nano-dollars."""
        [cap] = (await self.get("budgets"))["budgets"]
        return int(cap["spent_nano"])

    async def learned(self) -> int:
        """Return how many labels the policy has learned from."""
        async with http_client() as http:
            text = (await http.get(f"{self.url}/metrics")).text
        [found] = re.findall(r'^tollway_policy_version\{route="m"\} (\S+)$', text, re.MULTILINE)
        return int(float(found))

    async def send(self, count: int) -> list[str]:
        """Send requests that nobody labels; return the decisions' ids."""
        body = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [0.5]}]}
        async with http_client() as http:
            replies = [await http.post(self.url + PATH, json=body) for _ in range(count)]
        return [reply.raise_for_status().headers["x-tollway-decision"] for reply in replies]

    async def label(self, decisions: list[str]) -> int:
        """Send labels of decisions; return how many were learned from."""
        documents = [{"decision": decision, "label": 2} for decision in decisions]
        async with http_client() as http:
            reply = await http.post(f"{self.url}/_tollway/feedback", json=documents)
        return sum(one["result"] == "learned" for one in reply.json()["results"])
