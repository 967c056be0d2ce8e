"""Flights: those that wait get the end of the one that is under way."""

import asyncio

from tests.support.kept_answers import entry
from tollway.gateway.caching.flights import LEFT, NOTHING, Flights


def test_all_that_wait_get_the_answer() -> None:
    async def main() -> None:
        flights, answer = Flights(), entry()
        flight = flights.begin(b"k")
        waiting = [asyncio.create_task(flight.wait(60.0)) for _ in range(3)]
        await asyncio.sleep(0)
        assert flights.waiting == 3
        flights.end(b"k", flight, answer)
        assert await asyncio.gather(*waiting) == [answer] * 3
        assert (len(flights), flights.get(b"k")) == (0, None)

    asyncio.run(main())


def test_a_wait_that_is_cancelled_does_not_end_the_others() -> None:
    async def main() -> None:
        flights = Flights()
        flight = flights.begin(b"k")
        one, two = (asyncio.create_task(flight.wait(60.0)) for _ in range(2))
        await asyncio.sleep(0)
        one.cancel()
        await asyncio.wait([one])
        flights.end(b"k", flight, LEFT)
        assert await two == LEFT

    asyncio.run(main())


def test_a_wait_ends_with_its_time() -> None:
    async def main() -> None:
        assert await Flights().begin(b"k").wait(0.0) == NOTHING

    asyncio.run(main())


def test_the_end_of_an_earlier_flight_does_not_end_a_later_one() -> None:
    flights = Flights()
    first = flights.begin(b"k")
    flights.end(b"k", first, LEFT)
    second = flights.begin(b"k")
    flights.end(b"k", first, NOTHING)
    assert flights.get(b"k") is second
