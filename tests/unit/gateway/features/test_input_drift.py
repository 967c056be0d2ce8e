"""Drift of inputs is reported if there is some, and only then."""

import asyncio
from random import Random
from types import SimpleNamespace

from tollway.gateway.features.drift import DRIFTED, REQUESTS, SKIPPED, InputDrift, stability
from tollway.gateway.observability.events import EventLog
from tollway.gateway.wiring.routes import look_at_inputs


def seen(shift: float, count: int = 2 * REQUESTS) -> InputDrift:
    """Return a monitor that saw a shifting, a steady, a categorical and a constant feature."""
    rng, inputs = Random(0), InputDrift()
    for _ in range(SKIPPED):
        inputs.see((100.0, 100.0, 100.0, 100.0))
    for n in range(count):
        late = shift if n >= REQUESTS else 0.0
        kind = float(rng.randrange(3)) if not late else 2.0
        inputs.see((rng.gauss(late, 1.0), rng.gauss(0.0, 1.0), kind, 1.0 + late))
    return inputs


def psi_of(inputs: InputDrift) -> list[float]:
    sample = inputs.sample()
    assert sample is not None
    return stability(*sample)


def test_an_unchanged_distribution_has_not_drifted() -> None:
    inputs = seen(0.0)
    assert max(psi_of(inputs)) < 0.1
    assert inputs.found(psi_of(inputs)) == []


def test_shifts_new_categories_and_changed_constants_are_found_and_nothing_else() -> None:
    inputs = seen(1.0)
    psi = psi_of(inputs)
    assert min(psi[0], psi[2], psi[3]) > DRIFTED
    assert psi[1] < 0.1
    assert inputs.found(psi) == [0, 2, 3]


def test_drift_is_reported_once_until_it_has_ended() -> None:
    inputs = InputDrift()
    assert inputs.found([0.3]) == [0]
    assert inputs.found([0.2]) == []
    assert inputs.found([0.3]) == []
    assert inputs.found([0.05]) == []
    assert inputs.found([0.3]) == [0]


def test_too_few_requests_say_nothing() -> None:
    assert seen(1.0, 2 * REQUESTS - 1).sample() is None
    inputs = InputDrift()
    for _ in range(SKIPPED + 2 * REQUESTS):
        inputs.see(())
    assert inputs.sample() is None


def test_an_event_names_the_features() -> None:
    events = EventLog(lambda: 0.0)
    route = SimpleNamespace(inputs=seen(1.0))
    asyncio.run(look_at_inputs({"m": route}, events))  # type: ignore[dict-item]
    (event,) = events.newest()
    assert (event["kind"], event["about"]) == ("inputs_drifted", "m")
    assert event["details"]["features"] == [0, 2, 3]
