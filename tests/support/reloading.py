"""A configuration that tests change while a gateway serves it."""

from pathlib import Path

import httpx

from tests.support.harness import Running
from tollway.gateway import settings as config
from tollway.gateway.wiring.reload import Reloader


class File:
    """A configuration that is changed while a gateway serves it."""

    def __init__(self, tollway: Running, folder: Path) -> None:
        self.text = ""
        self.tollway = tollway
        self.folder = folder
        self.reloader = Reloader(tollway.gateway, self.read)
        tollway.gateway.control.reload = self.reloader.reload
        tollway.gateway.closed = self.reloader.close

    def read(self) -> config.Settings:
        return config.parse(self.text, {}, folder=self.folder)

    async def reload(self, text: str) -> httpx.Response:
        self.text = text
        post = self.tollway.client.post(self.tollway.url + "/_tollway/reload")
        reply: httpx.Response = await post
        return reply
