"""Facts: journal rows read as a stream of requests and charges.

A charge is the cost of one call to a backend: an attempt, an audit, or a stream. A stream's cost is
in its `settlement` row, written when it ends (its attempt's row is `pending` and is not a charge).
A request is what a client asked for, and whether it was answered. Money is in integer nano-dollars
from the journal row on, so sums are exact.

Feedback arrives later than its request and from any worker, so it is read first, into one float per
id. Labels from audits do not count towards accuracy, because audits select doubtful answers; the
gateway's own figures leave them out too.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tollway.backends.money import NANO_PER_USD
from tollway.backends.units import MORE_NAMES
from tollway.gateway.caching.plan import PREFIX
from tollway.gateway.routing.metering import GIVEN_UP, PENDING, VOID
from tollway.gateway.storage import journal_reader
from tollway.gateway.storage.journal_format import Row, starts

_OTHERS = starts("feedback", "device", "replicas")


@dataclass(frozen=True, slots=True)
class Charge:
    """The cost of one call to a backend.

    `refused`: the reply's status is taken to mean that nothing ran (4xx, 429, 503).
    """

    time_s: float
    route: str
    tenant: str
    tags: dict[str, str]
    backend: str
    provenance: str
    cost_nano: int
    failed: bool
    refused: bool
    fallback: bool
    audit: bool
    input_tokens: float
    cached_input_tokens: float
    output_tokens: float
    device_s: float
    units: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """A request for which a policy made a decision.

    `quality`: the quality of its answer, None without feedback. `offered`: per backend, the
    expected cost and quality there, (dollars, quality). `explored_nano`: the expected extra cost of
    exploration over the best arm. `version`: how many labels the policy had learned from.
    `cached_nano`: what a fresh call was quoted, if the answer came from the cache.
    """

    time_s: float
    route: str
    tenant: str
    tags: dict[str, str]
    answered: bool
    quality: float | None
    offered: dict[str, tuple[float, float]]
    explored_nano: int
    version: int
    cached_nano: int = 0


@dataclass(slots=True)
class Damage(journal_reader.Damage):
    """The lines read, those cut or damaged, and the streams without an end."""

    open: set[tuple[str, int]] = field(default_factory=set)


Fact = Charge | Request


def read(paths: list[Path], damage: Damage) -> Iterator[Fact]:
    """Yield the facts of segments; memory holds one request's rows and a float per feedback."""
    known = qualities(paths)
    for path in paths:
        group: list[Row] = []
        for row in journal_reader.sound(path, damage, _is_fact):
            kind = row["kind"]
            if kind == "settlement":
                damage.open.discard((row["id"], row["attempt"]))
                yield _charge(row)
            elif kind == "attempt":
                if row["provenance"] == PENDING:
                    damage.open.add((row["id"], row["attempt"]))
                else:
                    yield _charge(row)
            if kind == "decision" or (kind == "attempt" and not row.get("audit")):
                if group and group[0]["id"] != row["id"]:
                    yield from _request(group, known)
                    group = []
                group.append(row)
        yield from _request(group, known)


@dataclass(frozen=True, slots=True)
class DeviceCost:
    """What a device has cost from `since_s` to `time_s`, and how long it worked."""

    since_s: float
    time_s: float
    device: str
    backends: tuple[str, ...]
    bill_nano: int
    busy_s: float
    concurrency: float


def devices(paths: Iterable[Path], damage: journal_reader.Damage) -> Iterator[DeviceCost]:
    """Yield the costs of devices; other rows are not read."""
    for path in paths:
        for row in journal_reader.sound(path, damage, journal_reader.of_kinds("device")):
            yield DeviceCost(
                since_s=row["since"],
                time_s=row["time"],
                device=row["device"],
                backends=tuple(row["backends"]),
                bill_nano=row["bill_nano"],
                busy_s=row["busy_s"],
                concurrency=row["concurrency"],
            )


@dataclass(frozen=True, slots=True)
class ReplicaTime:
    """The time of a backend's replicas in the minute before `time_s`, and what it cost."""

    time_s: float
    backend: str
    replica_s: float
    busy_s: float
    cost_nano: int


def replicas(paths: Iterable[Path], damage: journal_reader.Damage) -> Iterator[ReplicaTime]:
    """Yield the time of replicas; other rows are not read."""
    for path in paths:
        for row in journal_reader.sound(path, damage, journal_reader.of_kinds("replicas")):
            yield ReplicaTime(
                time_s=row["time"],
                backend=row["backend"],
                replica_s=row["replica_s"],
                busy_s=row["busy_s"],
                cost_nano=row["cost_nano"],
            )


def qualities(paths: Iterable[Path]) -> dict[str, float]:
    """Return the quality of answers by decision, without labels selected by audits."""
    uncounted = journal_reader.Damage()
    return {
        row["id"]: float(row["quality"])
        for path in paths
        for row in journal_reader.sound(path, uncounted, journal_reader.of_kinds("feedback"))
        if row["quality"] is not None and row.get("probability", 1.0) == 1.0
    }


def _is_fact(line: bytes) -> bool:
    return not line.startswith(_OTHERS)


def _charge(row: Row) -> Charge:
    return Charge(
        time_s=row["time"],
        route=row["route"],
        tenant=row["tenant"],
        tags=row["tags"],
        backend=row["backend"],
        provenance=row["provenance"],
        cost_nano=row["cost_nano"],
        failed=row["error"] not in ("", *GIVEN_UP),
        refused=row["provenance"] == VOID and row["status"] > 0,
        fallback=row["fallback"],
        audit=bool(row.get("audit")),
        input_tokens=row.get("input_tokens", 0.0),
        cached_input_tokens=row.get("cached_input_tokens", 0.0),
        output_tokens=row.get("output_tokens", 0.0),
        device_s=row.get("device_s", 0.0),
        units=tuple([(unit, row[unit]) for unit in sorted(MORE_NAMES & row.keys())]),
    )


def _request(group: list[Row], qualities: dict[str, float]) -> Iterator[Request]:
    draws = [row for row in group if row["kind"] == "decision"]
    if not draws:  # no rows, or a file that begins in the middle of a request
        return
    first = draws[0]
    held = [row for row in group if row["kind"] == "attempt" and not row["error"]]
    yield Request(
        time_s=first["time"],
        route=first["route"],
        tenant=first["tenant"],
        tags=first["tags"],
        answered=bool(held) and held[-1]["status"] < 400,
        quality=qualities.get(first["id"]),
        offered={
            arm: (cost_usd, quality)
            for arm, cost_usd, quality in zip(
                first["arms"], first["cost_hat_usd"], first["quality_hat"], strict=True
            )
            if not arm.startswith(PREFIX)  # nobody could have sent every request there
        },
        explored_nano=sum(map(_explored_nano, draws)),
        version=first["policy_version"],
        cached_nano=first.get("cached", {}).get("saved_nano", 0),
    )


def _explored_nano(draw: Row) -> int:
    """Return the extra cost of an exploring draw over the most likely arm."""
    if draw["reason"] != "explore":
        return 0
    costs: list[float] = draw["cost_hat_usd"]
    best: int = draw["pmf"].index(max(draw["pmf"]))
    drawn: int = draw["arms"].index(draw["arm"])
    return round(max(0.0, costs[drawn] - costs[best]) * NANO_PER_USD)
