"""Keeps a version's files for the tests of later ones: journal, snapshots, ledgers, recovery file.

stopped/    a folder after a gateway with a SQLite ledger was stopped
killed/     the same after one was killed, so that its recovery file is there
redis.json  the keys of a Redis ledger, by name: their type and content
facts.json  what the files hold: spend, labels learned, decisions without a label
"""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

from redis import Redis

from tests.support.redis_server import redis_server
from upgrade.load import Models
from upgrade.steps import CONFIG, config, settled
from upgrade.trees import Gateway, Tree

LABELLED, OPEN = 10, 2


async def write(tree: Tree, folder: Path, target: Path) -> None:
    """Write a version's files into an empty folder."""
    facts: dict[str, Any] = {"version": tree.name}
    with Models().serving() as models:
        for name, how in (("stopped", signal.SIGTERM), ("killed", signal.SIGKILL)):
            gateway = Gateway(tree, folder / name, config(models, "sqlite:///tollway.db"))
            facts[name] = await _served(gateway, how)
            _copy(folder / name, target / name)
        with redis_server(folder / "golden-redis") as redis:
            gateway = Gateway(tree, folder / "on-redis", config(models, redis.url))
            facts["redis"] = await _served(gateway, signal.SIGTERM)
            keys = _keys(redis.port)
    (target / "tollway.toml").write_text(CONFIG.lstrip())
    (target / "redis.json").write_text(json.dumps(keys, indent=1, sort_keys=True) + "\n")
    (target / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


async def _served(gateway: Gateway, how: signal.Signals) -> dict[str, Any]:
    """Serve some requests, end the gateway, and return what it had done."""
    try:
        await gateway.start()
        decisions = await gateway.send(LABELLED + OPEN)
        learned = await gateway.label(decisions[:LABELLED])
        spent = await settled(gateway)
        await gateway.end(how)
    finally:
        gateway.kill()
    return {"spent_nano": spent, "learned": learned, "unlabelled": decisions[LABELLED:]}


def _copy(folder: Path, target: Path) -> None:
    """Copy a gateway's folder, without its configuration, log and audit log."""
    leave = shutil.ignore_patterns("tollway.toml", "log", "*.lock", "audit*", "*.key", "*-shm")
    shutil.copytree(folder, target, ignore=leave)


def _keys(port: int) -> dict[str, Any]:
    """Return all keys; none of them is to expire, or their tests would."""
    found: dict[str, Any] = {}
    with Redis(port=port, decode_responses=True) as client:
        for key in sorted(client.keys("*")):
            match client.type(key):
                case "hash":
                    found[key] = {"hash": client.hgetall(key)}
                case "list":
                    found[key] = {"list": client.lrange(key, 0, -1)}
                case "string":
                    found[key] = {"string": client.get(key)}
                case kind:
                    raise ValueError(f"{key} is a {kind}")
    return found
