"""Two tenants of one gateway, each with a key."""

import asyncio
from typing import Any

from tests.support.configs import two_backends
from tests.support.harness import Running
from tollway.gateway.security import keys

KEYS = {name: keys.new_key() for name in ("honest", "mallory", "admin")}
ADMIN_KEY = {"authorization": f"Bearer {KEYS['admin']}"}


def tenants(**more: str) -> str:
    """Return the tables of two tenants, with further keys of each."""
    return "".join(
        f'[[tenants]]\nname = "{name}"\nkey_hash = "{keys.hash_key(KEYS[name])}"\n'
        f"{more.get(name, '')}\n"
        for name in ("honest", "mallory")
    )


def two_tenants(a: str, b: str, *, route: str = "", policy: str = "lagrangian", **more: str) -> str:
    """Return a gateway of both tenants, and of an admin."""
    server = f'admin_key_hash = "{keys.hash_key(KEYS["admin"])}"'
    return two_backends(a, b, policy=policy, route=route, server=server, more=tenants(**more))


class As:
    """A gateway as one key's holder uses it."""

    def __init__(self, tollway: Running, name: str) -> None:
        self._tollway = tollway
        self._headers = {"authorization": f"Bearer {KEYS[name]}"}

    async def ask(self) -> str:
        reply = await self._tollway.infer(1.0, **self._headers)
        assert reply.status_code == 200, reply.text
        return str(reply.headers["x-tollway-decision"])

    async def tell(self, document: Any) -> Any:
        return await self._tollway.feedback(document, **self._headers)


def quality_hat(tollway: Running, arm: str = "cheap") -> float:
    """Return the quality that the route's policy expects of an arm."""
    known = tollway.gateway.routes["m"].policy._quality._arms[arm]  # type: ignore[attr-defined]
    return float(known.prior + known.mean)


async def traffic(tollway: Running, name: str, count: int, label: int) -> list[Any]:
    """Send requests as a tenant, and give `label` as each one's label."""
    holder = As(tollway, name)
    told = []
    for _ in range(count // 20):
        ids = await asyncio.gather(*(holder.ask() for _ in range(20)))
        reply = await holder.tell([{"decision": one, "label": label} for one in ids])
        told += reply.json()["results"]
    return told
