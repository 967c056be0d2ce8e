"""An operator's service is waited for within limits, also where all its calls are in use."""

import asyncio
from typing import Any, cast

import pytest

from tests.support.until import until
from tollway.backends.ports import Transport
from tollway.gateway.signals.ports import HookFailed
from tollway.gateway.signals.service import Service


class Stuck:
    """A transport that never gets a reply."""

    async def send(self, call: Any, until_s: float) -> Any:
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        pass


def test_waiting_for_a_call_ends_and_other_tenants_have_one_left() -> None:
    async def main() -> None:
        transport = cast(Transport, Stuck())
        service = Service("http://x/", transport, timeout_s=1e6, most=2, wait_s=0.001)
        first = asyncio.create_task(service.ask({}, "mallory"))
        await until(lambda: service._slots.used == 1)
        with pytest.raises(HookFailed, match="busy"):
            await service.ask({}, "mallory")
        other = asyncio.create_task(service.ask({}, "honest"))
        await until(lambda: service._slots.used == 2)
        for task in (first, other):
            task.cancel()
        await asyncio.gather(first, other, return_exceptions=True)
        assert service._slots.used == 0

    asyncio.run(main())
