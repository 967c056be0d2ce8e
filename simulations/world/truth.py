"""The true behaviour of each backend at each time, which a policy has to learn.

A scenario's changes divide its time into stretches in which nothing changes. In each, the quality,
price, speed and faults of every backend are constant. The outcome and cost of a request there
follow from these and from the request's own random draws.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tollway.backends.money import NANO_PER_USD
from tollway.backends.pricing import Price, parse_price
from tollway.backends.types import Usage
from tollway.simulations.world.scenario import Backend, Scenario
from tollway.simulations.world.workload import Requests, quality_of

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Condition:
    """One backend's behaviour in one stretch; `quality` by class, None if a table has it."""

    quality: Floats | None
    price: Price
    latency_times: float = 1.0
    up: bool = True
    errors: float = 0.0
    there: bool = True


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time in which nothing changes; `says` describes the change that it begins with."""

    start_s: float
    end_s: float
    says: str
    conditions: tuple[Condition, ...]


def stretches(scenario: Scenario, requests: Requests) -> list[Stretch]:
    """Return a scenario's stretches, in order."""
    now = [
        Condition(
            None if requests.table is not None else quality_of(backend.quality, requests.kinds),
            parse_price(backend.price),
            there=backend.from_h == 0,
        )
        for backend in scenario.backends
    ]
    names = [backend.name for backend in scenario.backends]
    marks = sorted(
        {0.0}
        | {change.at_h * 3600.0 for change in scenario.changes}
        | {b.from_h * 3600.0 for b in scenario.backends if b.from_h < scenario.hours}
    )
    result = []
    for start_s, end_s in zip(marks, [*marks[1:], scenario.seconds], strict=True):
        descriptions = []
        for at, backend in enumerate(scenario.backends):
            if start_s and backend.from_h * 3600.0 == start_s:
                now[at] = replace(now[at], there=True)
                descriptions.append(f"{backend.name} added")
        for change in scenario.changes:
            if change.at_h * 3600.0 != start_s:
                continue
            descriptions.append(change.says or _description(change))
            if change.backend is None:
                continue
            at = names.index(change.backend)
            new: dict[str, object] = {
                key: value
                for key, value in (
                    ("latency_times", change.latency_times),
                    ("up", change.up),
                    ("errors", change.errors),
                )
                if value is not None
            }
            if change.price is not None:
                new["price"] = parse_price(change.price)
            if change.quality is not None and requests.table is None:
                new["quality"] = quality_of(change.quality, requests.kinds)
            now[at] = replace(now[at], **new)  # type: ignore[arg-type]
        result.append(Stretch(start_s, end_s, "; ".join(descriptions) or "start", tuple(now)))
    return result


def _description(change: object) -> str:
    keys = ("price", "quality", "latency_times", "up", "errors", "limit_usd", "cut")
    what = [key for key in keys if getattr(change, key) is not None]
    name = getattr(change, "backend", None) or getattr(change, "budget", None) or ""
    return f"{name} {', '.join(what)}".strip()


@dataclass(frozen=True, slots=True)
class Truth:
    """The outcome of every request at every backend: requests x backends.

    quality: the probability of a right answer. cost_usd: the cost of a whole call. service_s: its
    service time. offered: whether the backend existed and was reachable. stretch: the index of each
    request's stretch.
    """

    quality: Floats
    cost_usd: Floats
    service_s: Floats
    output_tokens: Floats
    offered: NDArray[np.bool_]
    stretch: NDArray[np.int64]
    stretches: tuple[Stretch, ...]


def reveal(scenario: Scenario, requests: Requests) -> Truth:
    """Compute the truth for every request."""
    parts = stretches(scenario, requests)
    starts = np.array([part.start_s for part in parts])
    stretch = np.searchsorted(starts, requests.at_s, side="right") - 1
    shape = (len(requests), len(scenario.backends))
    quality, cost, service = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    output, offered = np.zeros(shape), np.zeros(shape, bool)
    for at, backend in enumerate(scenario.backends):
        usual = _usual_s(backend, requests.tokens, requests.slow[:, at])
        output[:, at] = _output(scenario, requests, at)
        for number, part in enumerate(parts):
            here, condition = stretch == number, part.conditions[at]
            service[here, at] = usual[here] * condition.latency_times
            quality[here, at] = _quality(condition, requests, at, here, backend.slope)
            cost[here, at] = _cost_usd(
                condition.price, service[here, at], requests.tokens[here], output[here, at]
            )
            offered[here, at] = condition.there and condition.up
    return Truth(quality, cost, service, output, offered, stretch, tuple(parts))


def _usual_s(backend: Backend, tokens: Floats, slow: Floats) -> Floats:
    """Return the service times of calls (n) that are `slow` by so many standard deviations."""
    longer = backend.latency_per_1k_tokens_s * tokens / 1000.0
    if not backend.latency_quantiles_s:
        usual: Floats = (backend.latency_s + longer) * np.exp(backend.latency_spread * slow)
        return usual
    quantiles = backend.latency_quantiles_s
    chance = [0.5 * math.erfc(-z / math.sqrt(2.0)) for z in slow.tolist()]
    drawn: Floats = np.interp(chance, np.linspace(0.0, 1.0, len(quantiles)), quantiles)
    return drawn + longer


def _output(scenario: Scenario, requests: Requests, at: int) -> Floats:
    backend = scenario.backends[at]
    if requests.table is not None:
        # The table has a call's cost at the first price; return as many tokens as cost that much.
        price = parse_price(backend.price)
        cost: Floats = requests.table.cost_usd[requests.row, at]
        if price.output_token_nano:
            return cost * NANO_PER_USD / price.output_token_nano
        return np.zeros(len(requests))
    tokens: Floats = backend.output_tokens * np.exp(backend.output_spread * requests.wordy[:, at])
    return np.ceil(tokens)


def _quality(
    condition: Condition, requests: Requests, at: int, here: NDArray[np.bool_], slope: float
) -> Floats:
    if condition.quality is None:
        assert requests.table is not None
        qualities: Floats = requests.table.quality[requests.row[here], at]
        return qualities
    harder = slope * requests.hard[here]
    return np.clip(condition.quality[requests.kind[here]] - harder, 0.0, 1.0)


def _cost_usd(price: Price, service_s: Floats, tokens: Floats, output: Floats) -> Floats:
    """Return the cost of calls as `Price.cost_nano` computes it, unrounded."""
    nano: Floats = (
        float(price.per_request_nano)
        + price.per_device_s_nano * service_s
        + price.input_token_nano * tokens
        + price.output_token_nano * output
    )
    return nano / NANO_PER_USD


def usage(service_s: float, tokens: float, output_tokens: float) -> Usage:
    """Return the usage that a backend reports of a call."""
    return Usage(device_s=service_s, input_tokens=tokens, output_tokens=output_tokens)
