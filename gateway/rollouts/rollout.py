"""One rollout in this process: its plan, its state as applied, and the evidence."""

import asyncio
from dataclasses import dataclass, field

from tollway.gateway.rollouts.collector import Collector
from tollway.gateway.rollouts.model import Measure, RolloutPlan, RolloutState


@dataclass(slots=True)
class Rollout:
    """A rollout; `measures`, `agreement` and `waiting` are of the last look of the leader."""

    # The mutable state is all of it but the plan.

    plan: RolloutPlan
    collector: Collector
    state: RolloutState | None = None
    smoke: str | None = None
    smoking: asyncio.Task[None] | None = None
    measures: dict[str, Measure] = field(default_factory=dict)
    agreement: tuple[float, float] = (0.0, 0.0)
    waiting: tuple[str, ...] = ()

    @property
    def is_watched(self) -> bool:
        """Whether evidence on the candidate counts at present."""
        return self.state is not None and self.state.is_watched

    def take(self, state: RolloutState | None) -> bool:
        """Take a state, and drop the evidence of another run; return whether it is another."""
        old = self.state
        if state == old:
            return False
        if _run_of(state) != _run_of(old):
            self.collector = Collector(self.plan)
            self.measures = {}
        if state is None or old is None or state.run != old.run:
            self.smoke = None
            self.stop_smoking()
        self.state = state
        return True

    def stop_smoking(self) -> None:
        """Give up smoke requests under way."""
        if self.smoking is not None:
            self.smoking.cancel()
            self.smoking = None

    def successor(self, plan: RolloutPlan) -> "Rollout":
        """Return the rollout after a reload: of the same versions, it goes on where it is."""
        new = Rollout(plan, Collector(plan))
        if self.plan.identity == plan.identity:
            new.state, new.smoke = self.state, self.smoke
            if self.plan.criteria == plan.criteria:
                self.collector.plan = plan
                new.collector = self.collector
        return new


def _run_of(state: RolloutState | None) -> tuple[str, int] | None:
    """Return what evidence belongs to: the run and the restarts in it."""
    return None if state is None else (state.run, state.epoch)
