"""Attributes a change in spend: the ratio of two spends as the product of four factors.

    spend = requests x cost per request;  cost per request = sum over backends of
            share x usage per request x price of usage

The factors are changed one after another from their usual to their current values. The ratio of two
consecutive steps is the factor's contribution, and the product of all is the total ratio.
(Laspeyres' chain, as in variance analysis.)
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(slots=True)
class Contribution:
    """One backend's requests, usage in its own unit (seconds or tokens), and dollars."""

    requests: float = 0.0
    usage: float = 0.0
    usd: float = 0.0

    def add(self, requests: float, usage: float, usd: float) -> None:
        """Add to the sums."""
        self.requests += requests
        self.usage += usage
        self.usd += usd

    def fade(self, by: float) -> None:
        """Decay the sums by a factor."""
        self.requests *= by
        self.usage *= by
        self.usd *= by


@dataclass(frozen=True, slots=True)
class Factors:
    """Multiplier of each factor; their product is the total ratio."""

    volume: float
    mix: float
    usage: float
    price: float

    @property
    def cause(self) -> str:
        """The factor with the largest contribution."""
        return max(("volume", "mix", "usage", "price"), key=lambda name: getattr(self, name))


def decompose(
    was: Mapping[str, Contribution], now: Mapping[str, Contribution], volume: float = math.nan
) -> Factors:
    """Return the factors between two compositions by backend over equally long periods.

    `volume`: the ratio of requests, if it is known more precisely than from the compositions. A
    backend without a past is valued at its current cost, so its use counts as a change of mix.
    """
    count_was, count = _requests(was), _requests(now)
    if not (count_was and count):
        return Factors(volume if math.isfinite(volume) else math.inf, 1.0, 1.0, 1.0)
    if not math.isfinite(volume):
        volume = count / count_was
    past = sum(part.usd for part in was.values()) / count_was
    mixed = used = priced = 0.0
    for name, part in now.items():
        if not part.requests:
            continue
        share = part.requests / count
        usage, price = _usage(part), _price(part)
        before = was.get(name)
        usage_was, price_was = (
            (_usage(before), _price(before)) if before and before.requests else (usage, price)
        )
        mixed += share * usage_was * price_was
        used += share * usage * price_was
        priced += share * usage * price
    return Factors(volume, _ratio(mixed, past), _ratio(used, mixed), _ratio(priced, used))


def _requests(parts: Mapping[str, Contribution]) -> float:
    return sum(part.requests for part in parts.values())


def _usage(part: Contribution) -> float:
    return part.usage / part.requests


def _price(part: Contribution) -> float:
    return part.usd / part.usage if part.usage else 0.0


def _ratio(above: float, below: float) -> float:
    return above / below if below else 1.0
