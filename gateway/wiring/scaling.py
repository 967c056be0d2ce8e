"""Builds the plans by which backends are scaled."""

from collections.abc import Callable

from tollway.gateway import settings as config
from tollway.gateway.observability.events import EventLog
from tollway.gateway.scaling.advisor import ScalingAdvisor, ScalingPlan
from tollway.gateway.scaling.calendar import Bounds, Calendar, Entry, Event
from tollway.gateway.scaling.recommendation import Target
from tollway.gateway.settings.scaling.calendar import DAYS, EventConfig, ScheduleConfig, minute_of
from tollway.gateway.storage.state_file import StateFile


def build_scaling(
    settings: config.Settings, events: EventLog, wall: Callable[[], float]
) -> tuple[ScalingAdvisor, StateFile]:
    """Return the advisor, and the file that keeps its forecasts."""
    advisor = ScalingAdvisor(scaling_plans(settings))
    path = settings.state.dir / "gateway" / "scaling.snapshot"
    return advisor, StateFile(path, {"scaling": advisor}, report=events.add, wall=wall)


def scaling_plans(settings: config.Settings) -> dict[str, ScalingPlan]:
    """Return the plans by backend."""
    return {one.name: _plan(one) for one in settings.scaling}


def _plan(one: config.ScalingConfig) -> ScalingPlan:
    target = Target(
        usual=Bounds(one.min, one.max),
        places=one.calls_per_replica,
        utilization=one.target_utilization,
        wait_s=one.target_wait_s,
        lead_s=one.lead_s,
        up_s=one.scale_up_after_s,
        down_s=one.scale_down_after_s,
    )
    schedule = tuple(map(_entry, one.schedule))
    return ScalingPlan(target, Calendar(one.timezone, schedule, tuple(map(_event, one.events))))


def _entry(one: ScheduleConfig) -> Entry:
    days = frozenset(DAYS.index(day) for day in one.days)
    return Entry(days, minute_of(one.start), minute_of(one.end), one.min, one.max)


def _event(one: EventConfig) -> Event:
    return Event(one.start.timestamp(), one.end.timestamp(), one.factor)
