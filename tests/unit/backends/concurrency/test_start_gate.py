"""Calls wait for a server that is starting, within limits."""

import asyncio

import pytest

from tollway.backends.concurrency import start_gate
from tollway.backends.concurrency.start_gate import StartGate, StartState
from tollway.backends.errors import ConnectFailed, DeadlineExceeded, Overloaded, is_unsent
from tollway.backends.types import Call, HttpReply

CALL = Call(b"POST", b"/", [])
LONG_S = 100.0


class Server:
    """A transport that refuses connections until it is up."""

    def __init__(self) -> None:
        self.up = False
        self.tried = 0

    async def send(self, call: Call, deadline_s: float) -> HttpReply:
        self.tried += 1
        if not self.up:
            raise ConnectFailed("refused")
        return HttpReply(200, [], b"")

    async def aclose(self) -> None:
        pass


def gate(most: int = 10, wait_s: float = LONG_S) -> tuple[StartGate, Server]:
    server = Server()
    return StartGate(server, StartState(wait_s, most, is_cold=True)), server


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_gate, "KNOCK_S", 0.001)


def sent(one: StartGate, left_s: float = LONG_S) -> "asyncio.Task[HttpReply]":
    deadline_s = asyncio.get_running_loop().time() + left_s
    return asyncio.create_task(one.send(CALL, deadline_s))


def test_calls_wait_until_the_server_answers_and_are_counted() -> None:
    async def main() -> None:
        one, server = gate()
        woken: list[int] = []
        one.state.on_wait = lambda: woken.append(one.state.waiting)
        calls = [sent(one) for _ in range(3)]
        while server.tried < 6:
            await asyncio.sleep(0)
        assert one.state.waiting == 3 and woken == [1]
        server.up = True
        replies = await asyncio.gather(*calls)
        assert [reply.status for reply in replies] == [200] * 3
        assert one.state.waiting == 0 and one.state.waited_s > 0.0 and not one.state.is_cold

    asyncio.run(main())


def test_a_backend_that_is_not_starting_fails_at_once() -> None:
    async def main() -> None:
        one, server = gate()
        one.state.is_cold = False
        with pytest.raises(ConnectFailed):
            await sent(one)
        assert server.tried == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    ("wait_s", "left_s", "kind"),
    [(0.01, LONG_S, ConnectFailed), (LONG_S, 0.06, DeadlineExceeded)],
)
def test_a_call_waits_no_longer_than_it_may(
    wait_s: float, left_s: float, kind: type[Exception]
) -> None:
    async def main() -> None:
        one, _ = gate(wait_s=wait_s)
        with pytest.raises(kind) as failure:
            await sent(one, left_s)
        assert not failure.value.ran  # type: ignore[attr-defined]
        assert one.state.waiting == 0

    asyncio.run(main())


def test_only_so_many_calls_wait() -> None:
    async def main() -> None:
        one, server = gate(most=1)
        first = sent(one)
        while not one.state.waiting:
            await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await sent(one)
        assert one.state.refused == 1
        first.cancel()
        with pytest.raises(asyncio.CancelledError) as left:
            await first
        assert is_unsent(left.value)  # whoever leaves while waiting pays nothing
        assert one.state.waiting == 0 and server.tried >= 2

    asyncio.run(main())
