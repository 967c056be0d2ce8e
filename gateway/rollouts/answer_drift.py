"""Answer drift: how far a backend's recent answers differ from its first ones.

The answers of a backend on a route are counted in groups (`collector.bin_of`: equal short answers
are in one, texts by their length). Each ANSWERS later answers are compared with the first ANSWERS
by the population stability index

    PSI = sum over groups of (p - q) ln(p / q)    p, q: shares of recent and first answers

Above 0.25 the backend's answers have drifted: its inputs, its model or what reads its replies has
changed. Without drift the index is about 2 (groups - 1) / ANSWERS, 0.03 here.
"""

import math
from collections.abc import Iterable, Mapping

from tollway.gateway.rollouts.collector import BINS, bin_of
from tollway.gateway.routing.observer import EventSink
from tollway.gateway.routing.request_state import RequestState

ANSWERS = 1000  # in each sample
DRIFTED, SETTLED = 0.25, 0.1
FLOOR = 0.5  # counted in every group, so that an empty one has a logarithm


class Sample:
    """The first answers of one backend on one route, and those since the last comparison."""

    # The mutable state is the counts of both, the last index, and whether it was reported.
    __slots__ = ("first", "is_drifted", "known", "psi", "recent", "seen")

    def __init__(self) -> None:
        self.first = [FLOOR] * BINS
        self.recent = [FLOOR] * BINS
        self.known = self.seen = 0
        self.psi = 0.0
        self.is_drifted = False

    def add(self, group: int) -> bool:
        """Count an answer; return whether both samples are complete."""
        if self.known < ANSWERS:
            self.first[group] += 1.0
            self.known += 1
            return False
        self.recent[group] += 1.0
        self.seen += 1
        return self.seen == ANSWERS

    def compare(self) -> float:
        """Compute the index, and begin another recent sample."""
        most = ANSWERS + FLOOR * BINS
        self.psi = sum(
            (p - q) / most * math.log(p / q) for p, q in zip(self.recent, self.first, strict=True)
        )
        self.recent, self.seen = [FLOOR] * BINS, 0
        return self.psi


class AnswerDrift:
    """The samples of all backends."""

    # The mutable state is the samples; there is one for each backend of each route.

    def __init__(self, events: EventSink) -> None:
        self._events = events
        self.samples: dict[tuple[str, str], Sample] = {}

    def ended(self, state: RequestState, now_s: float) -> None:
        """Count the answers of a finished request (0.6 us each)."""
        if state.repeated is not None:
            return  # the answer was counted when it was drawn; giving it again tells nothing new
        route = state.inference.route.name
        for attempt in state.attempts:
            answer = attempt.outcome.answer.value
            if answer is None or attempt.outcome.error:
                continue
            key = (route, attempt.backend)
            sample = self.samples.get(key)
            if sample is None:
                sample = self.samples[key] = Sample()
            if sample.add(bin_of(answer)):
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
