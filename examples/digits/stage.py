"""The processes of the demo: three model servers, and the gateway in front of them."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import config, processes
from .client import connect
from .data import Half, Images, traffic
from .processes import Running
from .screen import Screen

CONFIG = Path(__file__).with_name("tollway.toml")
MODELS = {"digits-rules": "rules", "digits-cpu": "cpu", "digits-large": "large"}


@dataclass(slots=True)
class Stage:
    """The traffic and its targets. Its mutable state is the processes started so far."""

    screen: Screen
    folder: Path
    models: Path
    held_out: Half
    requests: int
    concurrency: int
    seed: int
    servers: dict[str, Running] = field(default_factory=dict)
    gateway: Running | None = None
    prices: dict[str, float] = field(default_factory=dict)

    @property
    def running(self) -> list[Running]:
        """Everything that was started."""
        return [*self.servers.values(), *([self.gateway] if self.gateway else [])]

    @property
    def url(self) -> str:
        """The gateway's address."""
        assert self.gateway is not None
        return self.gateway.url

    def traffic(self) -> Iterator[tuple[Images, int]]:
        """Return the requests: the same ones, in the same order, for every way to route."""
        return traffic(self.held_out, self.requests, self.seed)

    async def start(self) -> None:
        """Start the servers side by side, then the gateway on top of them."""
        self.screen.say("[bold]Three model servers[/bold] (the first start trains them: seconds)")
        async with asyncio.TaskGroup() as group:
            for name in MODELS:
                group.create_task(self._serve(name))
        urls = {name: self.servers[name].url for name in MODELS}
        settings = config.write(CONFIG, self.folder, urls)
        self.prices = config.prices(settings)
        for name, url in urls.items():
            async with connect(url) as client:
                device = (await client.get("/stats"))["device"]
            price = f"${self.prices[name]:.5f} a request"
            self.screen.literal(f"  {name:<13} {url}  {price}  {device}")
        arguments = ["-m", "tollway", "serve", str(settings)]
        self.gateway = await processes.start("gateway", arguments, self.folder / "gateway.log")
        self.screen.literal(f"  {'the gateway':<13} {self.url}\n")

    async def calls(self) -> dict[str, int]:
        """Return how many inferences each server has run."""
        calls = {}
        for name, server in self.servers.items():
            async with connect(server.url) as client:
                calls[name] = int((await client.get("/stats"))["calls"])
        return calls

    def stop(self) -> None:
        """Stop everything, the gateway first."""
        for one in reversed(self.running):
            one.stop()

    async def _serve(self, name: str) -> None:
        arguments = ["-m", "examples.digits.serve", "--model", MODELS[name]]
        self.servers[name] = await processes.start(
            name, [*arguments, "--dir", str(self.models)], self.folder / f"{name}.log"
        )
