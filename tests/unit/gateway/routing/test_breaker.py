"""The breaker's table of states."""

from tollway.gateway.routing.circuit_breaker import (
    FAILURES_IN_A_ROW,
    FAILURES_IN_WINDOW,
    PAUSE_MAX_S,
    PAUSE_S,
    WINDOW,
    CircuitBreaker,
)


def opened(now_s: float = 0.0) -> CircuitBreaker:
    breaker = CircuitBreaker()
    for _ in range(FAILURES_IN_A_ROW):
        breaker.failed(now_s)
    return breaker


def test_it_opens_at_the_fifth_failure_in_a_row_and_not_before() -> None:
    breaker = CircuitBreaker()
    for _ in range(FAILURES_IN_A_ROW - 1):
        breaker.failed(0.0)
    assert breaker.allows(0.0) and not breaker.is_open
    breaker.failed(0.0)
    assert breaker.is_open and not breaker.allows(0.0)


def test_a_success_resets_the_count_of_failures_in_a_row() -> None:
    breaker = CircuitBreaker()
    for _ in range(FAILURES_IN_A_ROW - 1):
        breaker.failed(0.0)
    breaker.succeeded()
    for _ in range(FAILURES_IN_A_ROW - 1):
        breaker.failed(0.0)
    assert not breaker.is_open


def test_it_opens_where_half_of_the_last_calls_failed_though_never_many_in_a_row() -> None:
    breaker = CircuitBreaker()
    for _ in range(FAILURES_IN_WINDOW - 1):
        breaker.failed(0.0)
        breaker.succeeded()
    assert not breaker.is_open
    breaker.failed(0.0)
    assert breaker.is_open


def test_failures_that_are_long_past_do_not_count() -> None:
    breaker = CircuitBreaker()
    for n in range(10 * WINDOW):
        if n % 3:
            breaker.succeeded()
        else:
            breaker.failed(0.0)
    assert not breaker.is_open


def test_it_reports_its_state() -> None:
    breaker = CircuitBreaker()
    assert breaker.state(0.0) == "closed"
    breaker = opened()
    assert breaker.state(0.0) == "open"
    assert breaker.state(PAUSE_S) == "half_open"
    breaker.probe(PAUSE_S)
    assert breaker.state(PAUSE_S) == "open"  # its one probe is under way


def test_one_probe_at_a_time_once_the_pause_is_over() -> None:
    breaker = opened()
    assert breaker.allows(PAUSE_S)
    breaker.probe(PAUSE_S)
    assert not breaker.allows(PAUSE_S)
    assert breaker.allows(2 * PAUSE_S)  # the probe was never answered


def test_failed_probes_double_the_pause_up_to_its_limit() -> None:
    breaker, now_s = opened(), 0.0
    for n in range(10):
        pause_s = min(PAUSE_MAX_S, PAUSE_S * 2**n)
        assert not breaker.allows(now_s + pause_s - 0.01)
        now_s += pause_s
        assert breaker.allows(now_s)
        breaker.probe(now_s)
        breaker.failed(now_s)


def test_calls_that_were_under_way_when_it_opened_do_not_make_the_pause_longer() -> None:
    breaker = opened()
    for _ in range(50):
        breaker.failed(PAUSE_S / 2)
    assert breaker.allows(PAUSE_S)
    breaker.probe(PAUSE_S)
    for _ in range(50):
        breaker.failed(PAUSE_S)
    assert not breaker.allows(3 * PAUSE_S - 0.01)
    assert breaker.allows(3 * PAUSE_S)


def test_a_good_probe_closes_it() -> None:
    breaker = opened()
    breaker.probe(PAUSE_S)
    breaker.succeeded()
    assert not breaker.is_open and breaker.allows(PAUSE_S)
