"""The versions that a simulated rollout compares, and the scenarios that are included."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Version:
    """The true behaviour of a version.

    `quality`: share of right answers. `error_rate`: share of calls that fail. `latency_s`: median,
    with a log-normal spread. `cost_usd`: per call, varying by a fifth. `segment_quality` and
    `segment_errors`, if not None, hold for the users of one segment instead.
    """

    quality: float = 0.93
    error_rate: float = 0.002
    latency_s: float = 0.04
    spread: float = 0.35
    cost_usd: float = 0.0002
    segment_quality: float | None = None
    segment_errors: float | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """A stable version and a candidate; `good`: the candidate should be promoted."""

    name: str
    text: str
    candidate: Version
    good: bool = False
    stable: Version = Version()
    segment: float = 0.1  # share of the users


STABLE = Version()
SCENARIOS = {
    one.name: one
    for one in (
        Scenario("same", "a candidate that is no different", STABLE, good=True),
        Scenario(
            "better",
            "2 points better and 20 % cheaper",
            replace(STABLE, quality=0.95, cost_usd=0.00016),
            good=True,
        ),
        Scenario("worse", "quality falls by 5 points", replace(STABLE, quality=0.88)),
        Scenario("errors", "errors rise by 2 points", replace(STABLE, error_rate=0.022)),
        Scenario("cost", "cost rises by 20 %", replace(STABLE, cost_usd=0.00024)),
        Scenario("leak", "quality falls by 1 point", replace(STABLE, quality=0.92)),
        Scenario(
            "segment",
            "calls of one user in ten fail in one case of four",
            replace(STABLE, segment_errors=0.25),
        ),
    )
}
