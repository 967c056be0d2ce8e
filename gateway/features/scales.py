"""Scales: turn the numbers of one route's requests into the order of 1.

Theory of operation. Each number has a running mean and standard deviation over all requests. Two
things keep them useful for every tenant, whatever another one sends:

    clipping  a value is included as if it were at most FAR deviations from the mean. A single
              outlier widens the deviation by some percent; when all values have moved, the scale
              has followed after some hundred of them.
    tenants   where several tenants call, each has moments of its own too. A tenant whose numbers
              lie elsewhere (its mean beyond APART deviations from the common one), or spread
              much less or more (beyond NARROW), gets its own scale, and its values no longer
              count for the others.

So whoever came first keeps the common scale, and nobody is left with a wrong one: a tenant's
numbers are at most 1 / NARROW times as small as by its own scale. Where tenants are alike, and
where there is only one, all use the common scale.
"""

import math
from collections.abc import Sequence

KNOWN_AT = 32  # values, before which a mean and a deviation say little
FAR = 8.0  # deviations; of 48,000 normal values none is as far
APART = 2.5  # deviations: features end at 4
NARROW = 1 / 8
SETTLED = 1000.0  # values that the moments reflect
CLIP = 4.0  # deviations: an outlier must not dominate the other numbers
LOOK_EVERY = 8  # requests of a tenant that is known: its own moments cost as much as the common
MOMENTS_MAX = 65_536  # of all tenants of a route; 8 MB. Beyond, the tenant unseen for longest goes
ABSURD = 1e100  # is not a measurement, and its square would be infinite

Saved = tuple[float, float, float]


class Scales:
    """The scales of a route's numbers."""

    # The mutable state is the moments of all requests, and those of each tenant once there are two.
    # Only the former are saved: a tenant's are known again after KNOWN_AT requests.
    def __init__(self, common: "list[Moments]") -> None:
        self._common = common
        self._tenants: dict[str, _Tenant] = {}
        self._only: str | None = None  # the tenant, while there is one
        self.size = len(common)
        """How many numbers a request has."""

    def resize(self, size: int) -> None:
        """Change the count of numbers; those that remain keep their common scales."""
        self._common = [*self._common[:size], *[Moments() for _ in range(size - self.size)]]
        self.size = size
        self._tenants.clear()

    def scaled(self, numbers: Sequence[float], tenant: str) -> list[float]:
        """Return a request's numbers in deviations from the mean, and learn from them."""
        if self._only is None:
            self._only = tenant
        if tenant == self._only and not self._tenants:  # nearly always
            return [one.scaled(value) for one, value in zip(self._common, numbers, strict=True)]
        own = self._tenant(tenant)
        own.see(numbers, self._common)
        if not own.apart:
            return [one.scaled(value) for one, value in zip(self._common, numbers, strict=True)]
        dense = []
        for at, value in enumerate(numbers):
            if at in own.apart:
                dense.append(own.moments[at].standing(value))
            else:
                dense.append(self._common[at].scaled(value))
        return dense

    def _tenant(self, name: str) -> "_Tenant":
        own = self._tenants.pop(name, None)
        if own is None:
            own = _Tenant(len(self._common))
            if (len(self._tenants) + 1) * len(self._common) > MOMENTS_MAX and self._tenants:
                del self._tenants[next(iter(self._tenants))]
        self._tenants[name] = own  # last, as the one seen last
        return own

    def save(self) -> list[Saved]:
        """Return the common moments."""
        return [one.save() for one in self._common]


class _Tenant:
    """The numbers of one tenant."""

    # The mutable state is its moments, the number of its requests, and the numbers that need its
    # own scale.
    __slots__ = ("_count", "apart", "moments")

    def __init__(self, size: int) -> None:
        self.moments = [Moments() for _ in range(size)]
        self.apart: frozenset[int] = frozenset()
        self._count = 0

    def see(self, numbers: Sequence[float], common: "Sequence[Moments]") -> None:
        """Include a request in the moments; see which numbers need a scale of their own."""
        self._count += 1
        if self._count > KNOWN_AT and self._count % LOOK_EVERY:
            return
        for one, value in zip(self.moments, numbers, strict=True):
            one.scaled(value)
        if self._count >= KNOWN_AT:
            pairs = enumerate(zip(self.moments, common, strict=True))
            self.apart = frozenset([at for at, (own, all_) in pairs if own.is_apart(all_)])


class Moments:
    """Running mean and variance of one number (Welford), over about the last SETTLED values."""

    __slots__ = ("_count", "_far", "_mean", "_variance")

    def __init__(self, count: float = 0.0, mean: float = 0.0, variance: float = 0.0) -> None:
        self._count, self._mean, self._variance = count, mean, variance
        self._far = FAR * math.sqrt(variance) if count >= KNOWN_AT else 0.0

    def scaled(self, number: float) -> float:
        """Return the number in deviations from the mean, and include it in the moments (0.3 us)."""
        if not abs(number) < ABSURD:
            return 0.0
        value, mean, far = number, self._mean, self._far
        if far and not -far <= value - mean <= far:
            value = mean + far if value > mean else mean - far
        count = self._count = min(self._count + 1.0, SETTLED)
        before = value - mean
        mean += before / count
        self._mean = mean
        variance = self._variance
        variance += (before * (value - mean) - variance) / count
        self._variance = variance
        deviation = math.sqrt(variance)
        if not deviation > 0.0:
            return 0.0
        if count >= KNOWN_AT:
            self._far = FAR * deviation
        scaled = (number - mean) / deviation
        return scaled if -CLIP <= scaled <= CLIP else clipped(scaled)

    def standing(self, number: float) -> float:
        """Return the number in deviations from the mean."""
        deviation = math.sqrt(self._variance)
        if not (deviation > 0.0 and abs(number) < ABSURD):
            return 0.0
        return clipped((number - self._mean) / deviation)

    def is_apart(self, common: "Moments") -> bool:
        """Return whether numbers with these moments cannot be told apart on a common scale."""
        own, all_ = self._variance, common._variance
        if not all_ > 0.0:
            return False
        if own > 0.0 and not NARROW * NARROW < own / all_ < 1 / (NARROW * NARROW):
            return True
        away = self._mean - common._mean
        return away * away > APART * APART * all_

    def save(self) -> Saved:
        """Return the state."""
        return self._count, self._mean, self._variance


def clipped(number: float) -> float:
    """Return a number between -CLIP and CLIP; NaN counts as average."""
    # NaN compares false with everything and therefore becomes the average.
    return (
        number
        if -CLIP <= number <= CLIP
        else CLIP
        if number > CLIP
        else -CLIP
        if number < -CLIP
        else 0.0
    )
