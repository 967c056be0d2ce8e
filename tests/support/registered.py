"""A gateway that follows a registry, with a configuration that is read again for each move."""

from pathlib import Path
from typing import Any

from tests.support.harness import Running
from tollway.gateway import settings as config
from tollway.gateway.registry.keeper import Keeper
from tollway.gateway.wiring.lifecycle.registry import served
from tollway.gateway.wiring.reload import Reloader


class Registered:
    """What a test asks of a gateway with a registry; `look` returns when all moves are made."""

    def __init__(self, tollway: Running, text: str, folder: Path) -> None:
        self.text = text
        self.tollway = tollway
        self.folder = folder
        self.reloader = Reloader(tollway.gateway, self.read)
        tollway.gateway.control.reload = self.reloader.reload
        tollway.gateway.closed = self.reloader.close

    def read(self) -> config.Settings:
        plain = config.parse(self.text, {}, folder=self.folder)
        return config.parse(self.text, {}, folder=self.folder, versions=served(plain))

    @property
    def keeper(self) -> Keeper:
        keeper = self.tollway.gateway.keeper
        assert keeper is not None
        return keeper

    async def look(self, times: int = 1) -> None:
        for _ in range(times):
            await self.keeper.look()
            await self.keeper.settled()

    async def model(self, name: str = "m") -> dict[str, Any]:
        found: dict[str, Any] = await self.tollway.get(f"/_tollway/models/{name}")
        return found

    async def audited(self) -> list[tuple[str, str, str]]:
        """Return (act, about, why) of the acts on models, oldest first."""
        found = (await self.tollway.get("/_tollway/audit"))["acts"]
        return [
            (one["act"], one["about"], one["why"])
            for one in found[::-1]
            if one["act"].startswith("model")
        ]
