"""For language models, the time to the first event shows a queue; a reply's length does not."""

import asyncio
from random import Random

from tollway.backends.concurrency.first_event_limit import WELL_S, FirstEventLimiter
from tollway.backends.concurrency.queue import ConcurrencyQueue
from tollway.backends.concurrency.served import SPAN_S, Served


def test_replies_of_very_different_lengths_do_not_lower_the_limit() -> None:
    limiter, rng = FirstEventLimiter(64), Random(3)
    for number in range(20):  # health checks of one token
        limiter.observe(0.1 * number, 0.02, 1)
    for number in range(2000):
        limiter.observe(3.0 + 0.05 * number, rng.choice([0.05, 0.5, 3.0, 60.0]), 40)
        assert limiter.limit == 64


def test_late_first_events_lower_the_limit_but_not_below_what_was_served_well() -> None:
    limiter, now_s = FirstEventLimiter(64), 0.0
    for _ in range(200):
        now_s += 0.02
        limiter.begun(now_s, 0.2, 12)
    for _ in range(1000):
        now_s += 0.02
        limiter.begun(now_s, 3 * WELL_S, 64)
        assert limiter.limit >= 12
    assert limiter.limit < 40
    now_s += SPAN_S
    limiter.press(now_s)  # what worked a minute ago is forgotten
    for _ in range(1000):
        now_s += 0.02
        limiter.begun(now_s, 3 * WELL_S, 64)
    assert limiter.limit < 12


def test_first_events_that_are_late_by_the_models_measure_alone_lower_nothing() -> None:
    limiter, now_s = FirstEventLimiter(64), 0.0
    for _ in range(200):
        now_s += 0.02
        limiter.begun(now_s, 0.05, 40)
    for _ in range(2000):  # long prompts
        now_s += 0.02
        limiter.begun(now_s, 2.0, 40)
        assert limiter.limit >= 40


def test_a_burst_of_refusals_counts_once_and_replies_raise_the_limit_again() -> None:
    limiter = FirstEventLimiter(64)
    for number in range(50):
        limiter.refused(0.001 * number)
    lowered = limiter.limit
    assert 50 <= lowered < 64
    for number in range(2000):
        limiter.observe(1.0 + 0.01 * number, 0.5, limiter.limit)
    assert limiter.limit == 64


def test_what_was_served_is_forgotten_after_a_minute() -> None:
    served = Served()
    served.note(1000.0, 40)
    served.note(1030.0, 7)
    assert served.most == 40
    served.pass_on(1000.0 + SPAN_S + 1.0)
    assert served.most == 7
    served.pass_on(1e9)
    assert served.most == 0


def test_slots_report_a_streams_first_event_and_not_its_head() -> None:
    async def main() -> None:
        limiter = FirstEventLimiter(64)
        slots = ConcurrencyQueue(64, limiter=limiter)
        assert slots.awaits_events
        await slots.enter(1e9)
        now_s = asyncio.get_running_loop().time()
        slots.answered(0.1, 200, streamed=True)
        slots.answered(0.1, 404)
        limiter.refused(now_s)
        assert limiter.limit < 64
        before = limiter._served.most
        slots.begun(0.1)
        assert (before, limiter._served.most) == (0, 1)

    asyncio.run(main())
