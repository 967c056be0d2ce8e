"""Plays one rollout in virtual time, with the production collector and controller.

Requests come as a Poisson process. Each has a user, who stays on one version (the hash of the key
against the weight, as in production), and luck that is fixed by the seed: on the same stream two
controllers see the same requests, and a request that is answered by the same version ends the same.
Labels come at once. The controller looks once a second.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tollway.gateway.rollouts.keys import cluster
from tollway.simulations.rollouts.scenarios import Scenario, Version

USERS = 20_000
LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class Reply:
    """How a version answers one request."""

    failed: bool
    right: bool
    latency_s: float
    cost_nano: int


class Judge(Protocol):
    """What decides on a rollout: it sees each reply, and gives the weight and the outcome."""

    @property
    def weight(self) -> float:
        """The candidate's share at present."""

    @property
    def outcome(self) -> str:
        """`promoted`, `rolled_back`, or "" as long as it goes on."""

    def saw(self, candidate: bool, group: int, reply: Reply) -> None:
        """Take a version's reply to a user of a group."""

    def look(self, now_s: float) -> None:
        """Decide what to do."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a rollout.

    `outcome`: `promoted`, `rolled_back` or `undecided`. `seconds`: until then. `candidate`:
    requests that the candidate answered. `harmed`: those of them that failed or were wrong where
    the stable version would have been right.
    """

    outcome: str
    seconds: float
    candidate: int
    harmed: int


def play(scenario: Scenario, judge: Judge, *, seed: int, rate: float, most_s: float) -> Outcome:
    """Play a rollout until it is decided, or for `most_s` seconds, at `rate` requests a second."""
    asked = harmed = 0
    for second, arrivals in enumerate(_seconds(scenario, seed, rate)):
        if second >= most_s:
            break
        for unit, in_segment, lucks in arrivals:
            candidate = unit < judge.weight
            version = scenario.candidate if candidate else scenario.stable
            reply = answer(version, in_segment, lucks)
            judge.saw(candidate, cluster(unit, ""), reply)
            if candidate:
                asked += 1
                before = answer(scenario.stable, in_segment, lucks)
                harmed += before.right and not reply.right
        judge.look(second + LOOK_S)
        if judge.outcome:
            return Outcome(judge.outcome, second + LOOK_S, asked, harmed)
    return Outcome("undecided", most_s, asked, harmed)


Arrival = tuple[float, bool, tuple[float, float, float, float]]
"""The point of the user's key, whether the user is in the segment, and luck in [0, 1) and N(0, 1):
of failing, of being right, of the latency and of the cost."""


def _seconds(scenario: Scenario, seed: int, rate: float) -> Iterator[list[Arrival]]:
    """Yield the requests of each second."""
    rng = np.random.default_rng(seed)
    units = rng.random(USERS)
    segment = rng.random(USERS) < scenario.segment
    while True:
        count = int(rng.poisson(rate))
        users = rng.integers(USERS, size=count)
        luck = rng.random((count, 2))
        normal = rng.standard_normal((count, 2))
        yield list(
            zip(
                units[users].tolist(),
                segment[users].tolist(),
                map(tuple, np.hstack([luck, normal]).tolist()),
                strict=True,
            )
        )


def answer(version: Version, in_segment: bool, lucks: tuple[float, float, float, float]) -> Reply:
    """Return how a version answers a request with this luck."""
    fails, right, slow, much = lucks
    errors, quality = version.error_rate, version.quality
    if in_segment:
        errors = errors if version.segment_errors is None else version.segment_errors
        quality = quality if version.segment_quality is None else version.segment_quality
    failed = fails < errors
    return Reply(
        failed=failed,
        right=not failed and right < quality,
        latency_s=version.latency_s * math.exp(version.spread * slow),
        cost_nano=int(version.cost_usd * 1e9 * max(1.0 + 0.2 * much, 0.1)),
    )


def seeds(first: int, count: int) -> list[int]:
    """Return well separated seeds."""
    rng = random.Random(first)
    return [rng.getrandbits(48) for _ in range(count)]
