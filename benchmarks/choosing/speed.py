"""Microseconds of a decision and an update on one core, and memory over a million decisions."""

import gc
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

from choosing.figures import Effort, Row
from choosing.stream import median_us
from tollway.gateway.features.encoder import FeatureEncoder
from tollway.policies.registry import build
from tollway.policies.types import Arm, Context, Objective, Policy

CASES = (
    ("20 numbers", 3, 0),
    ("20 numbers", 10, 0),
    ("20 numbers", 50, 0),
    ("200 words", 3, 200),
)
COUNT, FRESH = 500, 2500  # requests learned from first; requests decided afterwards


def speed(effort: Effort) -> Iterator[Row]:
    """Yield median microseconds, by head and kind of context."""
    for head in ("ridge", "vowpal"):
        for label, arms, size in CASES:
            effort.tell(f"{head}: {label}, {arms} arms")
            yield {"head": head, "context": label, "arms": arms, **_timed(head, arms, size)}


def _timed(head: str, arms: int, size: int) -> Row:
    rng = Random(0)
    words = ["".join(rng.choices("abcdefgh", k=5)) for _ in range(2000)]
    offered = [Arm(f"arm{at}", 1e-4 * (at + 1)) for at in range(arms)]
    requests: list[tuple[list[float], list[str]]] = [
        ([], [" ".join(rng.choices(words, k=size))])
        if size
        else ([rng.random() for _ in range(20)], [])
        for _ in range(COUNT + FRESH)
    ]
    encoder = FeatureEncoder((0.0, 1.0))
    policy = build("lagrangian", Objective(), options={"head": head}, seed=0)
    policy.pace(2e-4)
    for at in range(COUNT):
        _serve(policy, encoder.encode(*requests[at]), offered, rng)
    policy.resolve()
    # As in the gateway: a request is decided right after it was read, ...
    reading, deciding, learning = [], [], []
    for request in requests[COUNT:]:
        started = time.perf_counter_ns()
        context = encoder.encode(*request)
        read = time.perf_counter_ns()
        policy.choose(context, offered, rng)
        deciding.append(time.perf_counter_ns() - read)
        reading.append(read - started)
    # ... and its label is learned right after its features were read from the journal.
    for request in requests[:COUNT]:
        context = encoder.encode(*request)
        choice = policy.choose(context, offered, rng)
        again = Context(context.dense, tuple([(index, value) for index, value in context.sparse]))
        started = time.perf_counter_ns()
        policy.learn(again, choice, choice.arm, 0.5)
        learning.append(time.perf_counter_ns() - started)
    solving = []
    for _ in range(50):
        started = time.perf_counter_ns()
        policy.resolve()
        solving.append(time.perf_counter_ns() - started)
    timed = {"encode": reading, "decide": deciding, "update": learning, "resolve": solving}
    return {f"{name}_us": median_us(taken) for name, taken in timed.items()}


def _serve(policy: Policy, context: Context, offered: list[Arm], rng: Random) -> None:
    choice = policy.choose(context, offered, rng)
    policy.charge(choice, offered[choice.index].cost_usd)
    policy.learn(context, choice, choice.arm, rng.random())
    policy.drain()
    if policy.resolve_due():
        policy.resolve()


def memory(effort: Effort, decisions: int) -> Iterator[Row]:
    """Yield resident memory along a stream of requests, each with ten words that are all new."""
    rng = Random(0)
    encoder = FeatureEncoder()
    policy = build("lagrangian", Objective(), options={}, seed=0)
    policy.pace(2e-4)
    offered = [Arm(f"arm{at}", 1e-4 * (at + 1)) for at in range(3)]
    marks = {decisions * tenths // 10 for tenths in (1, 2, 5, 10)}
    for done in range(1, decisions + 1):
        words = " ".join([f"{rng.getrandbits(40):x}" for _ in range(10)])
        _serve(policy, encoder.encode((rng.random(),), (words,)), offered, rng)
        if done % 20_000 == 0:
            effort.tell(f"memory: {done} of {decisions} decisions")
        if done in marks:
            gc.collect()
            yield {"decisions": done, "resident_mb": _resident_mb()}


def _resident_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024
