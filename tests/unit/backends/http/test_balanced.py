"""Several addresses of one backend: which is asked, which is left out, and for how long."""

import asyncio
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest

from tollway.backends.errors import BadReply, ConnectFailed, DeadlineExceeded, Overloaded
from tollway.backends.http import load_balancer
from tollway.backends.http.load_balancer import FAILURES_IN_A_ROW, Endpoint, LoadBalancer
from tollway.backends.types import Call, HttpReply

CALL = Call(b"POST", b"/x", [(b"host", b"first")], b"{}")


class Body:
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"{}"

    async def aclose(self) -> None:
        pass


class Fake:
    """A server that answers or fails by script, and counts."""

    def __init__(self) -> None:
        self.does: BaseException | int = 200
        self.calls: list[Call] = []

    async def send(self, call: Call, deadline_s: float) -> HttpReply:
        self.calls.append(call)
        if isinstance(self.does, BaseException):
            raise self.does
        return HttpReply(self.does, [], Body())

    async def aclose(self) -> None:
        pass


def pool(count: int, health: bytes | None = None) -> tuple[LoadBalancer, list[Fake]]:
    fakes = [Fake() for _ in range(count)]
    ends = [Endpoint(b"host-%d" % n, fake) for n, fake in enumerate(fakes)]
    return LoadBalancer(ends, rng=Random(0), health=health), fakes


async def ask(transport: LoadBalancer, times: int = 1) -> None:
    for _ in range(times):
        reply = await transport.send(CALL, 1e9)
        await reply.read(100)


def run(main: Any) -> None:
    asyncio.run(main())


def test_calls_are_spread_and_each_goes_under_the_host_of_its_address() -> None:
    async def main() -> None:
        transport, fakes = pool(3)
        await ask(transport, 300)
        assert all(len(fake.calls) > 50 for fake in fakes)
        assert [dict(fake.calls[0].headers)[b"host"] for fake in fakes] == [
            b"host-0",
            b"host-1",
            b"host-2",
        ]
        assert [end.busy for end in transport.endpoints] == [0, 0, 0]

    run(main)


def test_of_two_the_less_loaded_is_asked() -> None:
    async def main() -> None:
        transport, _ = pool(2)
        replies = [await transport.send(CALL, 1e9) for _ in range(10)]
        assert [end.busy for end in transport.endpoints] == [5, 5]
        for reply in replies:
            await reply.read(100)
        assert [end.busy for end in transport.endpoints] == [0, 0]

    run(main)


def test_a_call_that_was_not_sent_goes_to_another_address_at_once() -> None:
    async def main() -> None:
        transport, fakes = pool(2)
        fakes[0].does = ConnectFailed("refused")
        await ask(transport, 40)
        assert len(fakes[1].calls) == 40
        assert len(fakes[0].calls) == FAILURES_IN_A_ROW  # then it is ejected

    run(main)


@pytest.mark.parametrize(
    "failure", [BadReply("cut"), DeadlineExceeded("late", ran=True), Overloaded("full")]
)
def test_what_may_have_run_or_was_ours_to_refuse_is_not_sent_again(failure: BaseException) -> None:
    async def main() -> None:
        transport, fakes = pool(2)
        for fake in fakes:
            fake.does = failure
        with pytest.raises(type(failure)):
            await ask(transport)
        assert len(fakes[0].calls) + len(fakes[1].calls) == 1

    run(main)


def test_a_call_finds_the_only_address_of_several_that_listens() -> None:
    async def main() -> None:
        for listening in range(6):
            transport, fakes = pool(6)
            for number, fake in enumerate(fakes):
                if number != listening:
                    fake.does = ConnectFailed("refused")
            await ask(transport)
            assert [len(fake.calls) for fake in fakes][listening] == 1
            assert all(len(fake.calls) <= 1 for fake in fakes)
        for fake in fakes:
            fake.does = ConnectFailed("refused")
        with pytest.raises(ConnectFailed):
            await ask(transport)
        transport, fakes = pool(30)
        for fake in fakes:
            fake.does = ConnectFailed("refused")
        with pytest.raises(ConnectFailed):
            await ask(transport)
        assert sum(len(fake.calls) for fake in fakes) == load_balancer.TRIED_MAX

    run(main)


def test_an_address_that_keeps_failing_is_left_out_and_tried_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load_balancer, "EJECTED_S", 0.0)

    async def main() -> None:
        transport, fakes = pool(2)
        fakes[0].does = 503
        await ask(transport, 100)
        assert transport.endpoints[0].ejections > 1  # it came back at once, and failed again
        monkeypatch.setattr(load_balancer, "EJECTED_S", 30.0)
        await ask(transport, 100)
        calls = len(fakes[0].calls)
        await ask(transport, 100)
        assert len(fakes[0].calls) == calls

    run(main)


def test_calls_that_were_under_way_when_an_address_was_ejected_do_not_keep_it_out_longer() -> None:
    async def main() -> None:
        transport, _ = pool(4)  # of two, half are ejected by the first
        for _ in range(20 * FAILURES_IN_A_ROW):
            transport.failed(transport.endpoints[0])
        assert transport.endpoints[0].ejections == 1

    run(main)


def test_an_address_without_failures_for_long_starts_over() -> None:
    async def main() -> None:
        transport, _ = pool(4)
        endpoint, now_s = transport.endpoints[0], asyncio.get_running_loop().time()
        endpoint.ejections = 9
        for ended_s, ejections in ((now_s - 301.0, 1), (now_s - 299.0, 2)):
            endpoint.ejected_until_s = ended_s
            for _ in range(FAILURES_IN_A_ROW):
                transport.failed(endpoint)
            assert endpoint.ejections == ejections

    run(main)


def test_never_more_than_half_are_ejected() -> None:
    async def main() -> None:
        transport, fakes = pool(3)
        for fake in fakes:
            fake.does = 503
        await ask(transport, 200)
        assert sum(end.ejections > 0 for end in transport.endpoints) == 1

    run(main)


def test_an_unhealthy_address_gets_no_calls_until_it_is_well_unless_all_are() -> None:
    async def main() -> None:
        transport, fakes = pool(2, b"/ready")
        fakes[0].does = 503
        await transport.check()
        fakes[0].does = 200
        asked = len(fakes[0].calls)
        await ask(transport, 20)
        assert len(fakes[0].calls) == asked
        for fake in fakes:
            fake.does = ConnectFailed("gone")
        await transport.check()
        fakes[1].does = 200
        await ask(transport, 20)  # all are left out, so all are asked
        await transport.check()
        assert [end.healthy for end in transport.endpoints] == [False, True]

    run(main)


def by(caller: str) -> Call:
    return Call(b"POST", b"/x", [(b"host", b"first")], b"{}", caller=caller)


async def ask_as(transport: LoadBalancer, callers: str) -> None:
    for caller in callers:
        await (await transport.send(by(caller), 1e9)).read(100)


def ejected(transport: LoadBalancer) -> list[int]:
    now_s = asyncio.get_running_loop().time()
    return [n for n, one in enumerate(transport.endpoints) if not one.serves(now_s)]


def test_an_address_that_answers_only_500_to_several_callers_is_left_out() -> None:
    async def main() -> None:
        transport, fakes = pool(3)
        fakes[1].does = 500
        await ask_as(transport, "abcdef" * 10)
        assert ejected(transport) == [1]
        assert len(fakes[1].calls) == FAILURES_IN_A_ROW

    run(main)


@pytest.mark.parametrize("callers", ["a", "ab", "abcdefgh"])
def test_requests_that_fail_everywhere_leave_no_address_out(callers: str) -> None:
    async def main() -> None:
        transport, fakes = pool(3)
        for fake in fakes:
            fake.does = 500
        await ask_as(transport, callers * 40)
        assert ejected(transport) == []

    run(main)


def test_one_callers_500s_leave_no_address_out_where_others_are_answered() -> None:
    async def main() -> None:
        transport, fakes = pool(2)
        for _ in range(100):
            for fake in fakes:
                fake.does = 500
            await ask_as(transport, "aaa")
            for fake in fakes:
                fake.does = 200
            await ask_as(transport, "b")
        assert ejected(transport) == []

    run(main)
