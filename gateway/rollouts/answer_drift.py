"""Answer drift: how far a backend's recent answers differ from its first ones.

The answers of a backend on a route are counted in groups (`collector.bin_of`: equal short answers
are in one, texts by their length). Each ANSWERS later answers are compared with the first ANSWERS
by the population stability index

    PSI = sum over groups of (p - q) ln(p / q)    p, q: shares of recent and first answers

Above 0.25 the backend's answers have drifted: its inputs, its model or what reads its replies has
changed. Without drift the index is about 2 (groups - 1) / ANSWERS, 0.03 here.

What one tenant asks can look like drift. So where the answers of a group of tenants can be left out
of both samples, and OTHERS_MIN of them remain, the index without them must be above as well: it is
the least of these. A tenant that sends nearly all of the requests is what the backend answers.
"""

import math
import secrets
from collections.abc import Iterable, Mapping

from tollway.gateway.rollouts.collector import bin_of
from tollway.gateway.rollouts.keys import tenant_group
from tollway.gateway.rollouts.measures import BINS
from tollway.gateway.routing.observer import EventSink
from tollway.gateway.routing.request_state import RequestState

ANSWERS = 1000  # in each sample
OTHERS_MIN = 0.25 * ANSWERS  # of either sample, for an index of its own
DRIFTED, SETTLED = 0.25, 0.1
FLOOR = 0.5  # counted in every group, so that an empty one has a logarithm

Counts = dict[int, list[float]]
"""Answers by group of tenants, and of answers."""


class Sample:
    """The first answers of one backend on one route, and those since the last comparison."""

    # The mutable state is the counts of both, the last index, and whether it was reported.
    __slots__ = ("first", "is_drifted", "known", "psi", "recent", "seen")

    def __init__(self) -> None:
        self.first: Counts = {}
        self.recent: Counts = {}
        self.known = self.seen = 0
        self.psi = 0.0
        self.is_drifted = False

    def add(self, group: int, tenants: int = 0) -> bool:
        """Count an answer of a group of tenants; return whether both samples are complete."""
        if self.known < ANSWERS:
            _count(self.first, group, tenants)
            self.known += 1
            return False
        _count(self.recent, group, tenants)
        self.seen += 1
        return self.seen == ANSWERS

    def compare(self) -> float:
        """Compute the index, and begin another recent sample."""
        first, recent = _total(self.first), _total(self.recent)
        self.psi = index(first, recent)
        for tenants in self.recent.keys() | self.first.keys():
            others, now = (
                _without(first, self.first, tenants),
                _without(recent, self.recent, tenants),
            )
            if min(sum(others), sum(now)) >= OTHERS_MIN:
                self.psi = min(self.psi, index(others, now))
        self.recent, self.seen = {}, 0
        return self.psi


def _count(counts: Counts, group: int, tenants: int) -> None:
    among = counts.get(tenants)
    if among is None:
        among = counts[tenants] = [0.0] * BINS
    among[group] += 1.0


def _total(counts: Counts) -> list[float]:
    return [sum(values) for values in zip(*counts.values(), strict=True)]


def _without(total: list[float], counts: Counts, tenants: int) -> list[float]:
    """Return the answers of all other groups of tenants."""
    left_out = counts.get(tenants)
    if left_out is None:
        return total
    return [a - b for a, b in zip(total, left_out, strict=True)]


def index(first: list[float], recent: list[float]) -> float:
    """Return the population stability index of two samples, given as counts by group of answers."""
    most = sum(first) + FLOOR * BINS, sum(recent) + FLOOR * BINS
    shares = [
        ((p + FLOOR) / most[1], (q + FLOOR) / most[0]) for p, q in zip(recent, first, strict=True)
    ]
    return sum((p - q) * math.log(p / q) for p, q in shares)


class AnswerDrift:
    """The samples of all backends."""

    # The mutable state is the samples; there is one for each backend of each route.

    def __init__(self, events: EventSink, salt: str = "") -> None:
        """`salt` decides which tenants are in one group; a random one if it is empty."""
        self._events = events
        self._salt = salt or secrets.token_hex(8)
        self.samples: dict[tuple[str, str], Sample] = {}

    def ended(self, state: RequestState, now_s: float) -> None:
        """Count the answers of a finished request (0.6 us each)."""
        if state.repeated is not None:
            return  # the answer was counted when it was drawn; giving it again tells nothing new
        route = state.inference.route.name
        tenants = tenant_group(self._salt, state.inference.tenant)
        for attempt in state.attempts:
            answer = attempt.outcome.answer.value
            if answer is None or attempt.outcome.error:
                continue
            key = (route, attempt.backend)
            sample = self.samples.get(key)
            if sample is None:
                sample = self.samples[key] = Sample()
            if sample.add(bin_of(answer), tenants):
                self._compare(key, sample)

    def _compare(self, key: tuple[str, str], sample: Sample) -> None:
        psi = sample.compare()
        if psi > DRIFTED and not sample.is_drifted:
            sample.is_drifted = True
            text = f"the last {ANSWERS} answers of {key[1]} differ from its first; PSI {psi:.2f}"
            self._events.add("answers_drifted", key[0], text, backend=key[1], psi=psi)
        elif psi < SETTLED:
            sample.is_drifted = False

    def keep(self, routes: Mapping[str, Iterable[str]]) -> None:
        """Drop the samples of all routes but these, and begin those of their backends."""
        for key in [key for key in self.samples if key[0] not in routes]:
            del self.samples[key]
        for route, backends in routes.items():
            for backend in backends:
                self.samples.setdefault((route, backend), Sample())
