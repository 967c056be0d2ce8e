"""What decides on simulated rollouts: Tollway's controller, or fixed thresholds as Argo's.

Argo Rollouts' analysis measures the candidate alone, over a window, every interval, and compares
with thresholds that somebody wrote down; more than `failureLimit` failed measurements abort the
rollout (argo-rollouts.readthedocs.io/en/stable/features/analysis). A step ends when its pause is
over. The thresholds here are those that an operator would set who knows the stable version well.
"""

from collections import deque
from dataclasses import dataclass

from tollway.gateway.rollouts import controller
from tollway.gateway.rollouts.collector import Collector
from tollway.gateway.rollouts.model import (
    PROMOTED,
    ROLLED_BACK,
    Criterion,
    Evidence,
    RolloutPlan,
    RolloutState,
    Step,
)
from tollway.gateway.wiring.rollouts.plans import CRITERIA
from tollway.simulations.rollouts.play import Reply
from tollway.simulations.rollouts.scenarios import Version

STEPS = (Step(0.1, 60.0), Step(0.5, 60.0), Step(1.0, 60.0))
HELD = (Step(0.1, None),)
"""One step of 10 % that nobody ends: how long a rollback takes, and how often it errs."""
ALPHA = 0.05


class Tollway:
    """The production controller, on one process' evidence."""

    # The mutable state is the collector's, and the rollout's state.

    def __init__(
        self,
        steps: tuple[Step, ...] = STEPS,
        criteria: tuple[Criterion, ...] = CRITERIA,
    ) -> None:
        self._plan = RolloutPlan(
            "simulated", "stable", "candidate", steps=steps, criteria=criteria, alpha=ALPHA
        )
        self._collector = Collector(self._plan)
        move = controller.start(self._plan, None, run="run", now_s=0.0, by="simulation", why="")
        self._state: RolloutState = move.state
        self.why = ""

    @property
    def weight(self) -> float:
        """The candidate's share at present."""
        return self._state.weight

    @property
    def outcome(self) -> str:
        """`promoted`, `rolled_back`, or "" as long as it goes on."""
        return self._state.phase if self._state.phase in {PROMOTED, ROLLED_BACK} else ""

    def saw(self, candidate: bool, group: int, reply: Reply) -> None:
        """Take a version's reply, and its label."""
        self._collector.request(
            candidate,
            group,
            failed=reply.failed,
            invalid=False,
            latency_s=reply.latency_s,
            cost_nano=reply.cost_nano,
            answer=None,
        )
        if not reply.failed:
            self._collector.label(candidate, group, float(reply.right))

    def look(self, now_s: float) -> None:
        """Make the move that is due."""
        evidence = Evidence(self._collector.total({}))
        move = controller.next(self._plan, self._state, evidence, now_s)
        if move is not None:
            self._state, self.why = move.state, move.why
            if move.kind == "analysis_failed":
                self._collector = Collector(self._plan)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What a window of the candidate's requests must show."""

    error_rate: float
    quality: float
    p95_s: float
    cost_nano: float

    @classmethod
    def of(cls, stable: Version) -> "Thresholds":
        """Return thresholds beside what the stable version does.

        1 % of errors, 2 points of quality less, half as much latency and a tenth of the cost more.
        """
        p95_s = stable.latency_s * 2.718281828 ** (stable.spread * 1.645)
        return cls(0.01, stable.quality - 0.02, 1.5 * p95_s, 1.1e9 * stable.cost_usd)


class Argo:
    """Fixed thresholds on the candidate's metrics."""

    # The mutable state is the window, the step, and how many measurements have failed.

    def __init__(
        self,
        thresholds: Thresholds,
        steps: tuple[Step, ...] = STEPS,
        *,
        window_s: float = 60.0,
        interval_s: float = 10.0,
        failure_limit: int = 2,
    ) -> None:
        self._outcome = ""
        self._thresholds = thresholds
        self._steps = steps
        self._window: deque[tuple[float, Reply]] = deque()
        self._window_s = window_s
        self._interval_s = interval_s
        self._limit = failure_limit
        self._failed = 0
        self._step = 0
        self._since_s = self._now_s = 0.0
        self._measured_s = 0.0

    @property
    def weight(self) -> float:
        """The candidate's share at present."""
        return self._steps[self._step].weight

    @property
    def outcome(self) -> str:
        """`promoted`, `rolled_back`, or "" as long as it goes on."""
        return self._outcome

    def saw(self, candidate: bool, group: int, reply: Reply) -> None:
        """Take a reply; only the candidate's count."""
        if candidate:
            self._window.append((self._now_s, reply))

    def look(self, now_s: float) -> None:
        """Measure if it is time, and go on when the pause of the step is over."""
        self._now_s = now_s
        while self._window and self._window[0][0] < now_s - self._window_s:
            self._window.popleft()
        if now_s - self._measured_s >= self._interval_s:
            self._measured_s = now_s
            self._failed += self._fails()
            if self._failed > self._limit:
                self._outcome = ROLLED_BACK
                return
        pause_s = self._steps[self._step].pause_s
        if pause_s is not None and now_s - self._since_s >= pause_s:
            self._since_s = now_s
            if self._step + 1 == len(self._steps):
                self._outcome = PROMOTED
            else:
                self._step += 1

    def _fails(self) -> bool:
        """Return whether a measurement breaks a threshold."""
        replies = [reply for _, reply in self._window]
        answered = sorted(reply.latency_s for reply in replies if not reply.failed)
        if not answered:
            return bool(replies)
        most = self._thresholds
        return (
            1.0 - len(answered) / len(replies) > most.error_rate
            or sum(reply.right for reply in replies) / len(answered) < most.quality
            or answered[int(0.95 * len(answered))] > most.p95_s
            or sum(reply.cost_nano for reply in replies) / len(replies) > most.cost_nano
        )
