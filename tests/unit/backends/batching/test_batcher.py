"""The batcher, in virtual time: who is joined, who waits, who fails, and what each is charged."""

import asyncio
from collections import Counter
from typing import Any

import orjson
import pytest

from tests.support.batches import OIP as WIRE
from tests.support.batches import Body, Model, call, echoed, failing, refusing, rows_of, tensor
from tests.support.virtual import run
from tollway.backends.batching.batcher import Batcher, BatchStats
from tollway.backends.batching.oip import OipJoiner
from tollway.backends.batching.size import BatchSize
from tollway.backends.concurrency.queue import ConcurrencyQueue
from tollway.backends.errors import (
    BackendError,
    BadReply,
    ConnectFailed,
    DeadlineExceeded,
    Overloaded,
    SharedFailure,
    is_unsent,
)
from tollway.backends.price import Price
from tollway.backends.types import Call, HttpReply, Usage

RATE = Price(per_device_s_nano=694_444.0)


class Seen:
    """Values that were counted."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def observe(self, value: float) -> None:
        self.values.append(value)


def batcher(
    model: Any,
    *,
    most: int = 4,
    wait_s: float = 0.003,
    slots: ConcurrencyQueue | None = None,
    target_s: float | None = None,
) -> Batcher:
    made = Batcher(
        model,
        WIRE,
        OipJoiner(),
        size=BatchSize(most, target_s),
        max_wait_s=wait_s,
        reply_bytes_max=1 << 20,
        stats=BatchStats(Seen(), Seen()),
        slots=slots,
    )
    made.priced(RATE)
    return made


class Slotted:
    """A model behind a queue of slots, as a pool of connections is."""

    def __init__(self, model: Model, slots: ConcurrencyQueue) -> None:
        self.model, self.slots = model, slots

    async def send(self, request: Call, deadline_s: float) -> HttpReply:
        await self.slots.enter(deadline_s, request.tenant)
        began_s = asyncio.get_running_loop().time()
        try:
            return await self.model.send(request, deadline_s)
        finally:
            self.slots.leave(asyncio.get_running_loop().time() - began_s, request.tenant)

    async def aclose(self) -> None:
        await self.model.aclose()


def number(value: float, **more: Any) -> Call:
    tenant = more.pop("tenant", "")
    return call(tensor([[value]], **more), tenant=tenant)


async def value_of(reply: HttpReply) -> float:
    document = orjson.loads(await reply.read(1 << 20))
    return float(document["outputs"][0]["data"][0])


async def ended(joined: Batcher, request: Call, found: list[BaseException]) -> None:
    """Send a call, and note how it was cancelled."""
    try:
        await joined.send(request, 10.0)
    except asyncio.CancelledError as exc:
        found.append(exc)


def charged(reply: HttpReply) -> int:
    """Return what a reply costs, as the gateway reckons it."""
    told = WIRE.usage(call(tensor([[1.0]])).payload, reply, reply.whole or b"") or reply.usage
    assert told is not None
    return RATE.cost_nano(Usage(calls=0.0, device_s=told.device_s))


def test_calls_at_once_are_one_call_and_each_gets_its_own_row() -> None:
    async def main() -> None:
        model = Model()
        joined = batcher(model)
        replies = await asyncio.gather(*(joined.send(number(n), 10.0) for n in range(4)))
        assert [await value_of(reply) for reply in replies] == [0.0, 1.0, 2.0, 3.0]
        assert model.sizes == [4]
        assert joined.stats.ends == Counter(joined=4)
        assert joined.waiting == 0

    run(main())


def test_a_call_waits_for_others_no_longer_than_it_should() -> None:
    async def main() -> None:
        model = Model()
        joined = batcher(model)
        loop = asyncio.get_running_loop()
        await joined.send(number(1), 10.0)
        assert loop.time() == pytest.approx(0.003 + 0.011, abs=0.001)
        assert model.sizes == [1]
        assert model.calls[0].body == number(1).body  # its own bytes

    run(main())


def test_a_full_batch_does_not_wait() -> None:
    async def main() -> None:
        joined = batcher(Model(), wait_s=1.0)
        await asyncio.gather(*(joined.send(number(n), 10.0) for n in range(8)))
        assert asyncio.get_running_loop().time() == pytest.approx(0.014, abs=0.001)

    run(main())


@pytest.mark.parametrize("tells", [True, False])
def test_shares_sum_to_the_cost_of_the_batch_to_the_nano_dollar(tells: bool) -> None:
    async def main() -> None:
        model = Model(tells=tells, fixed_s=0.0101, row_s=0.00037)
        joined = batcher(model, most=64)
        calls = [call(tensor([[1.0]] * rows)) for rows in (1, 2, 3, 7, 11)]
        replies = await asyncio.gather(*(joined.send(one, 10.0) for one in calls))
        took_s = 0.0101 + 0.00037 * 24
        whole = RATE.cost_nano(Usage(calls=0.0, device_s=took_s))
        assert abs(sum(map(charged, replies)) - whole) <= (0 if tells else 1)
        assert charged(replies[4]) == pytest.approx(11 / 24 * whole, rel=0.001)
        assert all(reply.usage is not None and not reply.usage.exact for reply in replies)

    run(main())


def test_a_client_that_leaves_takes_only_its_row_along() -> None:
    async def main() -> None:
        model = Model()
        joined = batcher(model)
        found: list[BaseException] = []
        tasks = [asyncio.create_task(joined.send(number(n), 10.0)) for n in (0, 2, 3)]
        leaving = asyncio.create_task(ended(joined, number(1), found))
        await asyncio.sleep(0.005)  # under way
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        assert len(found) == 1 and not is_unsent(found[0])
        replies = await asyncio.gather(*tasks, return_exceptions=True)
        kept = [reply for reply in replies if isinstance(reply, HttpReply)]
        assert [await value_of(reply) for reply in kept] == [0.0, 2.0, 3.0]
        assert model.cancelled == 0

    run(main())


def test_a_client_that_leaves_the_line_was_not_sent() -> None:
    async def main() -> None:
        model = Model()
        joined = batcher(model)
        found: list[BaseException] = []
        tasks = [asyncio.create_task(ended(joined, number(n), found)) for n in range(2)]
        await asyncio.sleep(0.001)
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert len(found) == 1 and is_unsent(found[0])
        assert model.sizes == [1]
        assert joined.waiting == 0 and not joined._lines

    run(main())


def test_a_batch_without_clients_is_cancelled() -> None:
    async def main() -> None:
        model = Model()
        joined = batcher(model)
        tasks = [asyncio.create_task(joined.send(number(n), 10.0)) for n in range(4)]
        await asyncio.sleep(0.005)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)
        assert model.cancelled == 1
        assert joined._flying == 0 and not joined._tasks

    run(main())


def test_each_call_keeps_its_own_deadline() -> None:
    async def main() -> None:
        model = Model(fixed_s=1.0)
        joined = batcher(model)
        replies = await asyncio.gather(
            joined.send(number(1), 0.5), joined.send(number(2), 5.0), return_exceptions=True
        )
        assert isinstance(replies[0], DeadlineExceeded) and replies[0].ran
        assert isinstance(replies[1], HttpReply)

    run(main())


def poisoned(request: Call) -> HttpReply:
    """Refuse what holds a 13."""
    if [13.0] in rows_of(request):
        return HttpReply(500, [], Body(b"unlucky"))
    return echoed(request)


def test_a_bad_request_fails_alone_and_its_tenant_is_not_joined_for_a_while() -> None:
    async def main() -> None:
        model = Model(poisoned)
        joined = batcher(model)
        calls = [number(1), number(13, tenant="bad"), number(2), number(3)]
        replies = await asyncio.gather(*(joined.send(one, 10.0) for one in calls))
        assert [reply.status for reply in replies] == [200, 500, 200, 200]
        assert not any(reply.is_echo for reply in replies)
        assert model.sizes == [4, 1, 1, 1, 1]
        assert joined.stats.ends["retried"] == 4
        model.sizes.clear()
        again = [number(1), number(4, tenant="bad"), number(2), number(3)]
        await asyncio.gather(*(joined.send(one, 10.0) for one in again))
        assert sorted(model.sizes) == [1, 3]

    run(main())


def test_the_time_of_a_failed_batch_is_charged_to_its_calls() -> None:
    async def main() -> None:
        joined = batcher(Model(poisoned))
        calls = [number(13), number(2), number(3), number(4)]
        replies = await asyncio.gather(*(joined.send(one, 10.0) for one in calls))
        lost = RATE.cost_nano(Usage(calls=0.0, device_s=0.014))
        alone = RATE.cost_nano(Usage(calls=0.0, device_s=0.011))
        assert sum(map(charged, replies)) == pytest.approx(lost + 4 * alone, abs=8)

    run(main())


def test_a_model_that_takes_no_batches_gets_single_calls() -> None:
    def single(request: Call) -> HttpReply:
        return echoed(request) if len(rows_of(request)) == 1 else refusing(400)(request)

    async def main() -> None:
        model = Model(single)
        joined = batcher(model)
        for _ in range(2):
            replies = await asyncio.gather(*(joined.send(number(n), 10.0) for n in range(4)))
            assert [reply.status for reply in replies] == [200] * 4
        assert model.sizes == [4] + [1] * 8

    run(main())


@pytest.mark.parametrize("status", [429, 503, 404, 302])
def test_a_refusal_that_is_about_the_server_is_for_all_and_counts_once(status: int) -> None:
    async def main() -> None:
        model = Model(refusing(status, b'{"error":"full"}'))
        joined = batcher(model)
        replies = await asyncio.gather(*(joined.send(number(n), 10.0) for n in range(4)))
        assert [reply.status for reply in replies] == [status] * 4
        assert [reply.is_echo for reply in replies] == [False, True, True, True]
        assert all((b"retry-after", b"7") in reply.headers for reply in replies)
        assert all(reply.whole == b'{"error":"full"}' for reply in replies)
        assert model.sizes == [4]

    run(main())


def test_no_connection_fails_all_and_counts_once() -> None:
    async def main() -> None:
        joined = batcher(Model(failing(ConnectFailed("nobody listens"))))
        calls = (joined.send(number(n), 10.0) for n in range(4))
        failures = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(failures[0], ConnectFailed)
        for failure in failures[1:]:
            assert isinstance(failure, SharedFailure) and not failure.ran

    run(main())


def test_an_overloaded_backend_is_told_as_such_to_each() -> None:
    async def main() -> None:
        joined = batcher(Model(failing(Overloaded("full"))))
        calls = (joined.send(number(n), 10.0) for n in range(4))
        failures = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(failure, Overloaded) for failure in failures)

    run(main())


def test_a_reply_that_broke_off_is_asked_for_again_once_by_each() -> None:
    async def main() -> None:
        model = Model(failing(BadReply("cut")))
        joined = batcher(model)
        calls = (joined.send(number(n), 10.0) for n in range(4))
        failures = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(failure, BadReply) for failure in failures)
        assert model.sizes == [4, 1, 1, 1, 1]

    run(main())


def test_while_slots_are_taken_batches_grow_and_tenants_take_turns() -> None:
    async def main() -> None:
        slots = ConcurrencyQueue(1, patience_s=10.0)
        model = Model()
        joined = batcher(Slotted(model, slots), slots=slots)
        flood = [asyncio.create_task(joined.send(number(n, tenant="a"), 60.0)) for n in range(100)]
        await asyncio.sleep(0.004)
        single = asyncio.create_task(joined.send(number(7.5, tenant="b"), 60.0))
        await single
        ended = sum(task.done() for task in flood)
        # The batch under way, at most one of its own turn, and its own.
        assert ended <= 3 * 4
        await asyncio.gather(*flood)
        assert model.most == 1
        assert all(size == 4 for size in model.sizes[:-1])

    run(main())


def test_calls_of_many_kinds_delay_another_tenant_by_a_batch_or_two() -> None:
    async def main() -> None:
        slots = ConcurrencyQueue(1, patience_s=60.0)
        model = Model()
        joined = batcher(Slotted(model, slots), slots=slots)
        odd = [call(tensor([[1.0] * width]), tenant="a") for width in range(2, 52)]
        flood = [asyncio.create_task(joined.send(one, 600.0)) for one in odd]
        await asyncio.sleep(0.004)
        await joined.send(number(1, tenant="b"), 600.0)
        assert sum(task.done() for task in flood) <= 3
        await asyncio.gather(*flood)

    run(main())


def test_a_call_that_would_wait_too_long_is_refused_at_once() -> None:
    async def main() -> None:
        slots = ConcurrencyQueue(1, patience_s=0.1)
        model = Model(fixed_s=0.05)
        joined = batcher(Slotted(model, slots), slots=slots)
        await joined.send(number(0), 60.0)
        calls = (joined.send(number(n), 60.0) for n in range(100))
        replies = await asyncio.gather(*calls, return_exceptions=True)
        refused = [one for one in replies if isinstance(one, Overloaded)]
        answered = [one for one in replies if isinstance(one, HttpReply)]
        assert refused and answered and len(refused) + len(answered) == 100
        assert slots.refused == len(refused)
        assert joined.waiting == 0 and joined._flying == 0

    run(main())


def test_more_rows_than_a_batch_may_have_go_alone() -> None:
    async def main() -> None:
        model = Model()
        joined = batcher(model)
        big = call(tensor([[1.0]] * 9))
        await asyncio.gather(joined.send(big, 10.0), joined.send(number(1), 10.0))
        assert sorted(model.sizes) == [1, 9]

    run(main())


def test_rows_never_exceed_the_size() -> None:
    async def main() -> None:
        model = Model()
        joined = batcher(model, most=5)
        calls = [call(tensor([[1.0]] * rows)) for rows in (3, 3, 2, 1, 4, 1, 5, 2, 2)]
        replies = await asyncio.gather(*(joined.send(one, 10.0) for one in calls))
        for one, reply in zip(calls, replies, strict=True):
            told = orjson.loads(await reply.read(1 << 20))["outputs"][0]
            assert told["shape"] == orjson.loads(one.body)["inputs"][0]["shape"]
        assert max(model.sizes) <= 5 and sum(model.sizes) == 23

    run(main())


def test_closing_fails_what_waits_and_what_is_under_way() -> None:
    async def main() -> None:
        model = Model(fixed_s=1.0)
        joined = batcher(model)
        under_way = [asyncio.create_task(joined.send(number(n), 10.0)) for n in range(4)]
        await asyncio.sleep(0.01)
        waiting = asyncio.create_task(joined.send(number(9), 10.0))
        await asyncio.sleep(0.001)
        await joined.aclose()
        ended = await asyncio.gather(*under_way, waiting, return_exceptions=True)
        assert all(isinstance(one, BackendError) for one in ended)
        assert model.closed
        with pytest.raises(ConnectFailed):
            await joined.send(number(1), 10.0)

    run(main())


def test_a_bug_in_a_joiner_reaches_every_call_and_leaves_nothing_behind() -> None:
    def broken(request: Call) -> HttpReply:
        raise RuntimeError("a bug")

    async def main() -> None:
        joined = batcher(Model(broken))
        calls = (joined.send(number(n), 10.0) for n in range(4))
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(one, RuntimeError) for one in ended)
        assert joined._flying == 0 and not joined._tasks and not joined._lines

    run(main())


def test_the_size_is_found_below_the_target_and_uses_fewer_device_seconds() -> None:
    async def main() -> None:
        spent = {}
        for target_s in (0.013, 0.030):
            model = Model()  # 10 ms and 1 ms a row: 3 rows in 13 ms, 20 in 30 ms
            joined = batcher(model, most=64, target_s=target_s)

            async def client(joined: Batcher = joined) -> None:
                for n in range(50):
                    await joined.send(number(n), 1e9)

            await asyncio.gather(*(client() for _ in range(40)))
            spent[target_s] = sum(model.fixed_s + model.row_s * rows for rows in model.sizes) / 2000
            late = [rows for rows in model.sizes if 0.010 + 0.001 * rows > target_s + 1e-9]
            assert len(late) <= 0.05 * len(model.sizes)
        assert spent[0.030] < 0.5 * spent[0.013]

    run(main())
