"""Faults of a backend and of the network to it: requests are answered, calls are charged."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contracts.wire_server import Wire, wire_server
from tests.faults.stand import CHEAP_NANO, DEAR_NANO, Stand, standing
from tests.support.harness import Upstream, run, serving
from tests.support.until import until
from tollway.gameday.faults import parse
from tollway.gameday.proxy import FaultProxy
from tollway.gateway.budgets.stores.registry import open_ledger
from tollway.gateway.routing.fallback import RETRIES_MAX

pytestmark = pytest.mark.integration

BODY = Upstream().answer(b"{}")
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


def whole(body: bytes) -> bytes:
    return HEAD % len(body) + body


# What is answered; after what ends too early the connection is closed.
LIES = {
    "NaN": whole(BODY.replace(b"[1]", b"[NaN]", 1)),
    "infinity": whole(BODY.replace(b"0.9", b"1e999")),
    "null": whole(b"null"),
    "nothing": whole(b""),
    "an error with status 200": whole(b'{"error": "out of memory"}'),
    "half of it": whole(BODY[: len(BODY) // 2]),
    "fewer bytes than it says": HEAD % (len(BODY) + 10) + BODY,
    "more bytes than it says": HEAD % (len(BODY) - 10) + BODY,
    "two lengths": whole(BODY).replace(b"content-length", b"content-length: 3\r\ncontent-length"),
    "garbage": b"\x16\x03\x01\x00\xa5" * 40,
    "another protocol": b"220 mail.example.com ESMTP\r\n",
    "an error": BUSY,
}
PASSED_ON = frozenset(
    (
        *("NaN", "infinity", "null", "nothing", "an error with status 200", "half of it"),
        "more bytes than it says",
    )
)
"""Whole replies without an answer: what they are worth is not for the gateway to say."""
FAULTS = [
    *("refuse", "hang", "drop", "reset", "cut=60", "reset=200", "corrupt=0.2", "rate=50"),
    *("cut,side=requests", "hang,side=requests", "swallow=3"),
]
HARMLESS = ["slice=1", "latency=30ms,jitter=30ms", "slice=20,side=both"]


class Liar:
    """A backend that gives scripted answers and counts its calls."""

    def __init__(self) -> None:
        self.says = whole(BODY)

    async def __call__(self, wire: Wire) -> None:
        while True:
            await wire.request()
            said = self.says
            await wire.say(said)
            if said not in (whole(BODY), BUSY):
                return


def test_whatever_a_backend_does_requests_are_answered_and_its_calls_are_charged(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        liar, dear = Liar(), Upstream(label=2)
        async with wire_server(liar) as cheap, serving(dear) as other:
            async with FaultProxy(("127.0.0.1", cheap.port), seed=3) as proxy:
                # Half a second is left for the first, half for the other.
                route = 'fallbacks = ["dear"]\ntimeout_s = 1'
                async with standing(tmp_path, proxy.url, other, route=route) as stand:
                    for name, lie in LIES.items():
                        liar.says = lie
                        if name in PASSED_ON:
                            for reply in await stand.ask(3):
                                assert reply.status_code == 200, name
                                assert lie.partition(b"\r\n\r\n")[2].startswith(reply.content)
                        else:
                            await others_answer(stand, name)
                        liar.says = whole(BODY)
                        await first_answers(stand, name)
                    for words in FAULTS:
                        async with proxy.struck(parse(words)):
                            await others_answer(stand, words)
                        await first_answers(stand, words)
                    for words in HARMLESS:
                        async with proxy.struck(parse(words)):
                            await first_answers(stand, words)
                    await stand.leaves_open(0)
                    await until(lambda: proxy.open == cheap.open == 0)
                    await stand.stop()
                    # It bills what it was asked, but not what it answered with 503.
                    billed_nano = (len(cheap.requests) - 3) * CHEAP_NANO + dear.calls * DEAR_NANO
                    # Requests that were cut on their way may have come, for all that is known.
                    may_have_nano = 3 * CHEAP_NANO
                    spent_nano = await spent(tmp_path)
                    assert spent_nano == billed_nano + may_have_nano == stand.journal_nano

    run(main)


async def others_answer(stand: Stand, fault: str) -> None:
    # Fewer than open a breaker: these are about each call, and the next is to be as good as any.
    for reply in await stand.ask(3):
        told = (reply.status_code, reply.headers.get("x-tollway-reason"))
        assert told == (200, "fallback"), f"{fault}: {told}"
        assert reply.json()["outputs"][0]["data"] == [2]


async def first_answers(stand: Stand, fault: str) -> None:
    # Twice as many, so that no breaker finds that half of the last fifty failed.
    for reply in await stand.ask(6):
        assert reply.json()["outputs"][0]["data"] == [1], f"after {fault}"


async def spent(folder: Path) -> int:
    ledger = open_ledger(f"sqlite:///{folder / 'tollway.db'}")
    await ledger.open()
    (account,) = await ledger.accounts([("cap", 0)])
    await ledger.close()
    assert account.position.leased_nano == 0
    return account.position.spent_nano


@pytest.mark.parametrize(
    ("fails", "share"), [(lambda n: True, 0.0), (lambda n: n % 3 == 0, 1.0)], ids=["all", "a third"]
)
def test_many_failures_cause_few_further_calls(
    fails: Callable[[int], bool], share: float, tmp_path: Path
) -> None:
    requests = 900

    async def main() -> None:
        asked = 0

        async def failing(wire: Wire) -> None:
            nonlocal asked
            while True:
                await wire.request()
                asked += 1
                await wire.say(BUSY if fails(asked) else whole(BODY))

        async with wire_server(failing) as one, wire_server(failing) as other:
            route = 'static_response = \'{"outputs": [{"name": "label", "shape": [1], '
            route += '"datatype": "INT64", "data": [-1]}]}\''
            async with standing(tmp_path, one.url, other.url, route=route) as stand:
                for _ in range(requests // 30):
                    replies = await stand.ask(30)
                    assert {reply.status_code for reply in replies} == {200}
        retries = asked - requests
        assert retries <= RETRIES_MAX + 0.2 * requests
        assert asked >= share * requests  # a breaker is open where all fail, and only there

    run(main)
