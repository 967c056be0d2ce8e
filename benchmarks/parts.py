"""Measures each part of a request alone: microseconds and calls of functions, by case.

    python benchmarks/parts.py                      # oip, chat and floor beside each other
    python benchmarks/parts.py --only oip --rounds 40
    python benchmarks/parts.py --json parts.json    # and compare two files with --beside
    python benchmarks/parts.py --beside parts.json  # ratios to an earlier run on the same machine

The parts are those of the objects that `gateway.toml` builds, with what the cases bind: the same
as behind the listener, but for sockets. Requests go through a part in batches of 32, as many as an
iteration of the event loop has under load, so that no timer is inside the part. Parts run warm
here; among others, and behind sockets, they take up to half as much again. Labels are fed before:
policies choose by what they learned. Times are CPU times, the best of the rounds; `calls` counts
functions of Python and of C.
"""

import argparse
import asyncio
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import path
from benchmarks.throughput import cases
from tollway.backends.money import NANO_PER_USD
from tollway.backends.types import HttpReply
from tollway.gateway.budgets.model import Reservation
from tollway.gateway.learning.feedback import Feedback
from tollway.gateway.listener.known_heads import KnownHead
from tollway.gateway.routing.metering import evaluate_reply
from tollway.gateway.routing.router import Ask
from tollway.gateway.routing.sinks.records import rows
from tollway.gateway.storage.journal_format import seal
from tollway.gateway.wiring import Gateway

BATCH = 32
LABELS = 600  # of each route
ROUNDS = 60
ROOM_NANO = 2 * BATCH * NANO_PER_USD  # a call without a limit of its output reserves $1.6
EMPTY = "(an empty call)"


@dataclass
class Table:
    """What was measured: by part, the microseconds of each round and the calls of one."""

    us: dict[str, list[float]] = field(default_factory=dict)
    calls: dict[str, float] = field(default_factory=dict)

    def best(self, part: str) -> float:
        """Return the microseconds of a part, without those of calling it."""
        least = min(self.us[part])
        return least if part == EMPTY else max(0.0, least - min(self.us[EMPTY]))

    def count(self, part: str) -> float:
        """Return the calls of functions of a part, without those of counting."""
        count = self.calls.get(part, 0.0)
        return count if part == EMPTY else max(0.0, count - self.calls.get(EMPTY, 0.0))


class Meter:
    """Times what each part does with a batch."""

    def __init__(self, table: Table, *, counts: bool) -> None:
        """`counts`: count calls instead of taking the time."""
        self._table = table
        self._counts = counts

    def __call__(
        self, part: str, work: Callable[..., Any], batch: Iterable[Sequence[Any]]
    ) -> list[Any]:
        """Do the work of a part with each of a batch; return the results."""
        given = list(batch)
        if self._counts:
            return self._counted(part, work, given)
        clock = time.process_time_ns
        started = clock()
        found = [work(*one) for one in given]
        elapsed = clock() - started
        self._table.us.setdefault(part, []).append(elapsed / len(given) / 1000)
        return found

    def _counted(
        self, part: str, work: Callable[..., Any], given: list[Sequence[Any]]
    ) -> list[Any]:
        count = 0

        def profile(frame: object, event: str, arg: object) -> None:
            nonlocal count
            count += event in {"call", "c_call"}

        found = []
        for one in given:
            sys.setprofile(profile)
            found.append(work(*one))
            sys.setprofile(None)
        self._table.calls[part] = count / len(given) - 1  # less setprofile's own
        return found


class Parts:
    """The request path of a gateway, taken apart."""

    def __init__(self, gateway: Gateway, case: cases.Case) -> None:
        self._gateway = gateway
        self._bodies = [body.encode() for body in case.bodies]
        self._reply = path.CASES[case.name][1]
        self._scope = path.scope_of(case)
        self._admission: Any = gateway.app._proxy._admission
        self._judged: Any = None
        self._sinks: Any = gateway.driver.sinks
        self._number = 0

    def _whole(self) -> None:
        """Judge a head, as the first request that has it does."""
        proxy: Any = self._gateway.app._proxy
        known = KnownHead(self._scope)
        listener = path.Listener(known, {})
        listener.body = self._bodies[0]
        if not self._gateway.app.begin(listener.client, listener):
            raise SystemExit("the callback shell did not begin the request")
        self._judged = known.judgement
        assert known.judge is proxy

    def batch(self, meter: Meter) -> list[Any]:
        """Take a batch of requests through every part; return their states."""
        gateway, driver = self._gateway, self._gateway.driver
        if self._judged is None:
            self._whole()
        judged, admission = self._judged, self._admission
        router, attempts = driver.router, driver.attempts
        settlement = attempts.settlement
        reservations = gateway.reservations
        route = judged.match.route
        now_s = time.monotonic()
        meter(EMPTY, lambda _: None, [(n,) for n in range(BATCH)])

        at = self._number
        self._number += BATCH
        bodies = [self._bodies[(at + n) % len(self._bodies)] for n in range(BATCH)]
        inferences = meter(
            "admit: JSON, checks, options",
            admission.parsed,
            [(self._scope, judged, body, now_s) for body in bodies],
        )
        meter("  of that features", route.features, [(one.call, one.joined) for one in inferences])
        states = meter("begin: features, drift, state", router.begin, [(i,) for i in inferences])
        offers = meter("offers: quotes, health", router._offers, [(one, now_s) for one in states])
        for state in states:
            state.quotes.clear()
            state.known.clear()
        steps = meter("draw: offers, choose", router.next, [(one, now_s) for one in states])
        assert all(type(step) is Ask for step in steps), steps
        meter(
            "  of that choose",
            route.policy.choose,
            [
                (s.context, arms, router.rng, s.inference.floor)
                for s, arms in zip(states, offers, strict=True)
            ],
        )
        holds = meter(
            "reserve",
            driver.reserving.reserve_now,
            [(one, step.backend) for one, step in zip(states, steps, strict=True)],
        )
        assert all(holds), "the leases are too small for a batch"
        begun = meter(
            "begin an attempt",
            attempts.begin,
            [(s, step.backend, h) for s, step, h in zip(states, steps, holds, strict=True)],
        )
        meter("address and send", attempts.send_now, [(one,) for one in begun])
        replies = [self._answer() for _ in begun]
        outcomes = meter(
            "reply: JSON, checks, usage, price",
            lambda one, reply: evaluate_reply(
                one.backend, one.call, reply, reply.whole, quote=one.quote, latency_s=0.001
            ),
            zip(begun, replies, strict=True),
        )
        ended = meter(
            "the attempt's record",
            lambda one, outcome, reply: one.attempt(
                outcome, one.started_s + 0.001, 200, (reply.headers, reply.whole)
            ),
            zip(begun, outcomes, replies, strict=True),
        )
        for state, attempt in zip(states, ended, strict=True):
            state.attempts.append(attempt)
        meter(
            "settle: money, health, usage, metrics",
            lambda state, one, hold, attempt: settlement.settle(
                state, one.backend, hold, attempt, None, now_s=now_s
            ),
            zip(states, begun, holds, ended, strict=True),
        )
        again = [
            reservations.reserve_now(
                reservations.matching(
                    s.inference.tenant, route.name, one.backend.name, s.inference.tags
                ),
                one.quote.ceiling_nano,
                one.quote.maximum_nano,
            )
            for s, one in zip(states, begun, strict=True)
        ]
        meter(
            "  of that money",
            reservations.settle,
            [(hold, one.outcome.cost_nano) for hold, one in zip(again, ended, strict=True)],
        )
        meter("learn usage, off the request", lambda _: route.estimator.flush(), self._once())
        meter(
            "answered",
            router.answered,
            [(s, step, a) for s, step, a in zip(states, steps, ended, strict=True)],
        )
        for moment in (self._sinks.at_answer, self._sinks.at_end):
            for sink in moment:
                meter(_named(sink), sink, [(one, now_s) for one in states])
        written = meter("  of that the rows", rows, [(one, now_s) for one in states])
        meter("  of that their JSON, checksum", lambda made: [seal(r) for r in made],
              [(made,) for made in written])  # fmt: skip
        meter("write the journal, off the request", lambda _: gateway.journal.flush(), self._once())
        known = path.KNOWN
        shell: Any = gateway.app._proxy._shell
        meter("the reply's bytes", shell.replies.encoded,
              [(one, known, shell.stamp) for one in states])  # fmt: skip
        return states

    async def rest(self) -> None:
        """Let jobs run, and have leases of a batch of the most expensive calls."""
        self._gateway.journal.flush()
        await asyncio.sleep(0.001)
        reservations = self._gateway.reservations
        accounts = tuple(reservations._sync.accounts.values())
        hold = await reservations.reserve(accounts, ROOM_NANO, ROOM_NANO)
        assert isinstance(hold, Reservation), hold
        reservations.void(hold)

    def _answer(self) -> HttpReply:
        return HttpReply(200, list(path.FIELDS), path.Once(self._reply), self._reply)

    @staticmethod
    def _once() -> list[tuple[int]]:
        """Return what has a part do all of its batch in its first call."""
        return [(n,) for n in range(BATCH)]


def _named(sink: Any) -> str:
    owner = getattr(sink, "__self__", None)
    name = sink.__qualname__ if owner is None else f"{type(owner).__name__}.{sink.__name__}"
    return f"sink {name}"


def teach(gateway: Gateway, states: Iterable[Any], route: str, rng: Random) -> int:
    """Label answers; return how many were taken. The more expensive, the better they are."""
    names = list(gateway.routes[route].backends)
    taken = 0
    for state in states:
        quality = float(rng.random() < 0.7 + 0.1 * names.index(state.held.backend))
        gateway.journal.flush()
        gateway.learner.take(Feedback(state.id, quality=quality), None)
        taken += 1
    return taken


async def measured(case: cases.Case, rounds: int) -> Table:
    """Return what the parts of a case's requests take."""
    table, rng = Table(), Random(1)
    with tempfile.TemporaryDirectory() as folder:
        async with path.opened(folder, case=case) as gateway:
            parts, unread = Parts(gateway, case), Meter(Table(), counts=False)
            await parts.rest()
            route = {"oip": "x"}.get(case.name, case.name)
            labels = 0
            while labels < LABELS:
                labels += teach(gateway, parts.batch(unread), route, rng)
                await parts.rest()
            gc.collect()
            gc.freeze()
            for _ in range(rounds):
                parts.batch(Meter(table, counts=False))
                await parts.rest()
            parts.batch(Meter(table, counts=True))
    return table


def show(tables: dict[str, Table], before: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print the tables beside each other, with the ratios to an earlier run's."""
    width = 9 if not before else 15
    print(f"{'':38}" + "".join(f"{name:>{width + 7}}" for name in tables))
    print(f"{'part':38}" + "".join(f"{'us':>{width}}{'calls':>7}" for _ in tables))
    parts: dict[str, None] = {}
    for table in tables.values():
        parts |= dict.fromkeys(table.us)
    for part in parts:
        line = f"{part:38}"
        for name, table in tables.items():
            if part not in table.us:
                line += " " * (width + 7)
                continue
            figure = f"{table.best(part):.2f}"
            was = before.get(name, {}).get(part)
            if was and was["us"] >= 0.05:
                figure += f" x{table.best(part) / was['us']:.2f}"
            line += f"{figure:>{width}}{table.count(part):7.1f}"
        print(line)
    line = f"{'all, the parts of parts left out':38}"
    for table in tables.values():
        own = [
            part for part in table.us if part[0] not in " (" and part != "offers: quotes, health"
        ]
        us, calls = sum(map(table.best, own)), sum(map(table.count, own))
        line += f"{us:{width}.1f}{calls:7.0f}"
    print(line)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=path.CASES, default=list(path.CASES))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="batches of each part")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--beside", type=Path, metavar="FILE", help="an earlier run's --json")
    args = parser.parse_args()
    before = json.loads(args.beside.read_text()) if args.beside else {}
    tables = {name: asyncio.run(measured(path.CASES[name][0], args.rounds)) for name in args.only}
    show(tables, before)
    if args.json:
        document = {
            name: {part: {"us": table.best(part), "calls": table.count(part)} for part in table.us}
            for name, table in tables.items()
        }
        args.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
