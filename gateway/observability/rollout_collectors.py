"""Metrics of rollouts, read from their owner at scrape time."""

from collections.abc import Iterator, Mapping

from tollway.gateway.observability.families import Metric, counter, gauge
from tollway.gateway.rollouts.controller import alarm_at
from tollway.gateway.rollouts.model import PHASES
from tollway.gateway.rollouts.rollout import Rollout
from tollway.gateway.rollouts.service import Rollouts


def rollouts(owner: Rollouts, mirrored: Mapping[tuple[str, str], int]) -> Iterator[Metric]:
    """Yield the state and the evidence of each rollout; `mirrored` counts requests by result."""
    yield gauge(
        "tollway_answer_psi",
        "Population stability index of a backend's answers since its first; above 0.25 they have "
        "drifted",
        ["route", "backend"],
        ((list(key), sample.psi) for key, sample in owner.drift.samples.items()),
    )
    if not owner.rollouts:
        return
    known = owner.rollouts
    yield gauge(
        "tollway_rollout_weight",
        "Share of the stable version's requests that a candidate gets",
        ["rollout"],
        (([name], one.state.weight if one.state else 0.0) for name, one in known.items()),
    )
    yield gauge(
        "tollway_rollout_phase",
        "Whether a rollout is in a phase",
        ["rollout", "phase"],
        (
            ([name, phase], float(phase == (one.state.phase if one.state else "idle")))
            for name, one in known.items()
            for phase in PHASES
        ),
    )
    yield gauge(
        "tollway_rollout_step",
        "Number of a rollout's step, from 1; 0 before it starts",
        ["rollout"],
        (([name], float(one.state.step + 1 if one.state else 0)) for name, one in known.items()),
    )
    yield gauge(
        "tollway_rollout_moved_timestamp_seconds",
        "Time at which a rollout's step began or it ended, in Unix time",
        ["rollout"],
        (
            ([name], one.state.ended_s or one.state.since_s)
            for name, one in known.items()
            if one.state
        ),
    )
    yield gauge(
        "tollway_rollout_waiting",
        "Number of conditions that a rollout's step still waits for",
        ["rollout"],
        (([name], float(len(one.waiting))) for name, one in known.items()),
    )
    yield from _evidence(known)
    yield counter(
        "tollway_rollout_moves",
        "Moves of rollouts by kind",
        ["rollout", "kind"],
        (([name, kind], float(count)) for (name, kind), count in owner.moves.items()),
    )
    yield counter(
        "tollway_rollout_mirrored",
        "Requests to be mirrored to a candidate in shadow, by result",
        ["rollout", "result"],
        (([name, result], float(count)) for (name, result), count in mirrored.items()),
    )
    yield gauge(
        "tollway_rollout_store_up",
        "Whether the store of rollouts answered last",
        [],
        [([], float(owner.answers))],
    )


def _evidence(known: Mapping[str, Rollout]) -> Iterator[Metric]:
    measured = [
        (name, one.plan, criterion, one.measures[criterion.metric])
        for name, one in known.items()
        for criterion in one.plan.criteria
        if criterion.metric in one.measures
    ]
    yield gauge(
        "tollway_rollout_evidence_ratio",
        "Evidence against a candidate, as a share of what rolls it back",
        ["rollout", "metric"],
        (
            (
                [name, one.metric],
                max(found.log_evidence, found.over_limit, 0.0) / alarm_at(plan, one),
            )
            for name, plan, one, found in measured
        ),
    )
    yield gauge(
        "tollway_rollout_difference",
        "Candidate minus stable version, in the unit of the criterion",
        ["rollout", "metric"],
        (([name, one.metric], found.difference) for name, _, one, found in measured),
    )
