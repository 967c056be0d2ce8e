"""The files of the state folder: no route's name can make two of them one."""

import asyncio
from pathlib import Path

import pytest

from tests.support.configs import two_backends
from tollway.gateway import settings as config
from tollway.gateway.wiring import Gateway, build


@pytest.mark.parametrize("name", ["history", "gateway"])
def test_a_route_of_any_name_keeps_its_state_beside_the_gateways(tmp_path: Path, name: str) -> None:
    text = two_backends("http://a.example", "http://b.example").replace(
        'name = "m"', f'name = "{name}"'
    )

    def started() -> Gateway:
        return build(config.parse(text, {}, folder=tmp_path))

    gateway = started()
    asyncio.run(gateway.state.save())
    asyncio.run(gateway.history_file.save())
    again = started()
    assert list(again.state.restore()) == [name]
    again.history_file.restore()
    assert again.events.newest() == []
