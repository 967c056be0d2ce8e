"""How a serving process is set up."""

import asyncio
import gc
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tollway.gateway import settings as config
from tollway.gateway.cli import serve
from tollway.gateway.cli.serve import THRESHOLDS, collect_seldom, note_hangups
from tollway.gateway.listener import server as front
from tollway.gateway.storage import folder_lock

ROUTE = """
[[backends]]
name = "one"
kind = "cpu"
protocol = "plain"
url = "http://127.0.0.1:9"
price = { per_request_usd = 0.1 }

[[routes]]
name = "m"
path = "/m"
protocol = "plain"
backends = ["one"]
"""


@pytest.fixture
def collector() -> Iterator[None]:
    """Begin with nothing frozen, and leave the collector as tests/conftest.py has set it."""
    thresholds = gc.get_threshold()
    gc.unfreeze()
    yield
    gc.freeze()
    gc.set_threshold(*thresholds)


def test_objects_of_the_start_are_not_collected_again(collector: None) -> None:
    start = [[number] for number in range(1000)]
    collect_seldom()
    assert gc.get_freeze_count() >= len(start)
    assert not any(one is start for one in gc.get_objects())
    assert gc.get_threshold() == THRESHOLDS


@pytest.fixture
def hang_ups() -> Iterator[None]:
    """Restore the handler of SIGHUP."""
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hang_ups")
@pytest.mark.parametrize("sent", [0, 1])
def test_a_reload_that_is_asked_for_during_the_start_is_not_lost(
    sent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    gateway = SimpleNamespace(
        settings=config.parse("server.allow_anonymous = true\n" + ROUTE, {}),
        app=SimpleNamespace(shape=None, caller=None, begin=None),
        control=SimpleNamespace(),
        leave=None,
        drain=None,
    )
    reloader = SimpleNamespace(
        begin=lambda: begun.append("reload"), reload=None, ask_all=None, close=None, tls=None
    )

    def runs(app: object, **options: object) -> None:
        async def main() -> None:
            gateway.opened()

        asyncio.run(main())

    monkeypatch.setattr(front, "run", runs)
    monkeypatch.setattr(serve, "collect_seldom", lambda: None)
    missed = note_hangups()
    for _ in range(sent):
        signal.raise_signal(signal.SIGHUP)
    serve._run(gateway, None, reloader, lambda: begun.append("opened"), missed)  # type: ignore[arg-type]
    assert begun == ["reload"] * sent + ["opened"]


def test_a_journal_that_another_gateway_uses_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_lock, "WAIT_S", 0.0)
    text = ROUTE + f'[server]\nallow_anonymous = true\n[journal]\ndir = "{tmp_path}/journal"\n'
    text += f'[state]\ndir = "{tmp_path}/state"\n'

    with (
        folder_lock.held(tmp_path / "journal"),
        pytest.raises(config.ConfigError, match="give each gateway a folder of its own"),
    ):
        serve.serve(lambda: config.parse(text, {}))
