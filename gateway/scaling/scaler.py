"""The scaler: shares the load with other gateways, and has the recommended replicas set.

Each gateway writes its counters into the control store and reads those of the others, so all
recommend the same for all calls. The process that holds the lease acts: it has an actuator set what
is recommended, one change of a backend at a time, and writes down what replicas are used. If the
store does not answer, nobody acts, and recommendations do not fall: calls of other gateways may be
missing.
"""

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from tollway.backends.money import to_usd
from tollway.gateway.control_store.protocol import ControlStore, StoreUnavailable
from tollway.gateway.routing.observer import EventSink
from tollway.gateway.scaling import changes, fleet
from tollway.gateway.scaling.actuators.port import Actuator, Change, Outcome
from tollway.gateway.scaling.advisor import ScalingAdvisor
from tollway.gateway.scaling.changes import Applied, Rates
from tollway.gateway.scaling.fleet import FleetTotals
from tollway.gateway.scaling.load_meter import Totals
from tollway.gateway.scaling.surcharge import surcharge_usd
from tollway.gateway.scaling.usage import ReplicaUsage, UsedReplicas
from tollway.gateway.storage import audit_log
from tollway.gateway.storage.audit_log import Actor, AuditLog

log = logging.getLogger(__name__)

TICK_S = 5.0
LEASE_S = 20.0  # four ticks: the next process takes over soon after a crash
TOLLWAY = Actor("tollway", "recommendation")
OUTPUT_CHARS_MAX = 1000  # of what an actuator said, in an event
LEASE = "scaling"
START_TIMES = 2.0  # lead times after which a backend that does not answer is not starting any more


@dataclass(frozen=True, slots=True)
class Action:
    """How a backend's replicas are set; with `dry_run` it is only said what would be.

    Two actions with the same `identity` are made by the same actuator.
    """

    actuator: Actuator
    rates: Rates
    dry_run: bool = False
    identity: object = None


@dataclass(slots=True)
class Acting:
    """What is known of the replicas that were set of a backend."""

    # The mutable state is all of it.
    applied: Applied = field(default_factory=Applied)
    held: str = ""
    task: asyncio.Task[None] | None = None
    is_making: bool = False  # the task's actuator has not returned yet


class Scaler:
    """Acts on the recommendations of an advisor."""

    # The mutable state is what was set, the fleet's counters, whether this process leads, and what
    # was counted of changes.

    def __init__(
        self,
        advisor: ScalingAdvisor,
        store: ControlStore,
        *,
        events: EventSink,
        audit: AuditLog,
        wall: Callable[[], float],
        member: str,
        acts: bool = True,
        record: Callable[[dict[str, Any]], None] = lambda row: None,
    ) -> None:
        """`member` names this gateway, all its workers, among all; `acts`: whether this worker is
        the one that leads. `record` takes the rows of used replicas for the journal.
        """
        self.advisor = advisor
        self.actions: dict[str, Action] = {}
        self.acting: dict[str, Acting] = {}
        self.counts: Counter[tuple[str, str]] = Counter()
        self.leads = False
        self.usage = ReplicaUsage(record)
        self._fleet = FleetTotals()
        self._own: dict[str, Totals] = {}
        self._store = store
        self._events = events
        self._audit = audit
        self._wall = wall
        self._member = member
        self._acts = acts
        self._answers = True
        self._open = False

    def revise(self, actions: Mapping[str, Action]) -> list[Actuator]:
        """Take the actions of another configuration; return the actuators that are left.

        What was set is kept by the backend's name, and so is the actuator of an action that is
        the same.
        """
        before, self.actions = self.actions, {}
        for name, action in actions.items():
            old = before.get(name)
            same = old is not None and old.identity is not None and old.identity == action.identity
            self.actions[name] = replace(action, actuator=old.actuator) if same and old else action
            self.acting.setdefault(name, Acting())
        for name in self.acting.keys() - actions.keys():
            task = self.acting.pop(name).task
            if task is not None:
                task.cancel()
        used = {id(one.actuator) for one in self.actions.values()}
        every = [one.actuator for one in (*before.values(), *actions.values())]
        return [one for one in every if id(one) not in used]

    def observe(self, counted: Mapping[str, Totals], now_s: float, paid: Mapping[str, int]) -> None:
        """Take this gateway's totals, and recommend for all gateways.

        `paid`: the replicas that budgets pay for, of the backends that have one.
        """
        self._own = {name: counted.get(name, Totals()) for name in self.advisor.backends}
        self.advisor.observe(
            self._fleet.with_own(self._own), now_s, is_whole=self._answers, paid=paid
        )

    async def tick(self) -> None:
        """Exchange counters with the other gateways; lead, if this process holds the lease."""
        if not self.advisor.backends:
            self.leads = False
            return
        try:
            if not self._open:
                await self._store.open()
                self._open = True
            await self._exchange()
            self.leads = self._acts and await self._store.lease(LEASE, self._member, LEASE_S)
            for name, action in list(self.actions.items()):
                acting = self.acting.get(name)
                if acting is not None and self.actions.get(name) is action:
                    await self._look(name, action, acting)
        except StoreUnavailable as exc:
            self.leads = False
            if self._answers:
                why = f"the control store does not answer, so no replicas are set: {exc}"
                self._events.add("scaling_store_down", "scaling", why)
            self._answers = False
        else:
            self._answers = True
        if self.leads:
            now_s = self._wall()
            for name, used in self.used().items():
                self.usage.add(name, used, now_s)
        else:
            self.usage.forget()
            self._stop_acting()

    def _stop_acting(self) -> None:
        """Cancel the changes under way: another gateway may make them, or set something else.

        They stay pending in the store, so whoever leads next makes them again, with the same id.
        """
        for acting in self.acting.values():
            if acting.task is not None and acting.is_making:
                acting.task.cancel()  # afterwards it only tells how it ended, which is safe

    def used(self) -> dict[str, UsedReplicas]:
        """Return the replicas that run, as far as is known: those set, else the recommended."""
        found = {}
        for name, one in self.advisor.backends.items():
            if one.current is None:
                continue
            running = self.running(name)
            busy = min(float(running), one.meter.load / one.plan.target.places)
            found[name] = UsedReplicas(running, busy, one.plan.replica_nano_per_hour)
        return found

    def running(self, name: str) -> int:
        """Return the replicas of a backend that run, as far as is known."""
        action, acting = self.actions.get(name), self.acting.get(name)
        if action is not None and not action.dry_run and acting is not None:
            replicas = acting.applied.replicas
            if replicas is not None:
                return replicas
        current = self.advisor.backends[name].current
        return 0 if current is None else current.replicas

    def is_cold(self, name: str, now_s: float) -> bool:
        """Return whether a backend has no replica, or had none until its first was to start."""
        one = self.advisor.backends.get(name)
        if one is None or one.current is None:
            return False
        recent_s = START_TIMES * one.plan.target.lead_s + TICK_S
        return self.running(name) == 0 or now_s - one.zero_s < recent_s

    def surcharge_usd(self, name: str) -> float:
        """Return by how much more a call to a backend is offered, for replicas that it adds."""
        one = self.advisor.backends.get(name)
        if one is None or one.current is None:
            return 0.0
        plan, meter = one.plan, one.meter
        target = plan.target
        return surcharge_usd(
            running=self.running(name),
            needed=meter.load / (target.utilization * target.places),
            rate_per_s=meter.rate_per_s,
            usd_per_hour=to_usd(plan.replica_nano_per_hour or 0),
            lead_s=target.lead_s,
            kept_s=target.down_s,
            wait_usd_per_hour=plan.wait_usd_per_hour,
        )

    async def close(self) -> None:
        """End what is under way, and disconnect. What has not ended is made again later."""
        tasks = [one.task for one in self.acting.values() if one.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for action in self.actions.values():
            await action.actuator.aclose()
        self.usage.flush(self._wall())
        if self._open:
            if self._acts:
                with suppress(StoreUnavailable):
                    await self._store.remove(f"scaling/members/{self._member}")
            await self._store.close()
            self._open = False

    # -- the fleet

    async def _exchange(self) -> None:
        now_s = self._wall()
        own = f"scaling/members/{self._member}"
        if self._acts:
            await self._store.write(own, fleet.document(self._own, now_s))
        others = await self._store.list("scaling/members")
        # All workers of a gateway count together, so its document is about this process too.
        others.pop(own, None)
        self._fleet.take(others, now_s)
        if self.leads:
            for key in self._fleet.gone(now_s):
                await self._store.remove(key)

    # -- changes

    async def _look(self, name: str, action: Action, acting: Acting) -> None:
        """Read what was set of a backend; set what is recommended, if that is due."""
        if acting.task is not None and not acting.task.done():
            return
        key = _key(name, action)
        found = await self._store.get(key)
        revision = 0 if found is None else found[1]
        acting.applied = _applied(found)
        one = self.advisor.backends.get(name)
        current = None if one is None else one.current
        if not self.leads or current is None:
            return
        now_s = self._wall()
        wanted = Change(
            id=f"{int(now_s)}-{secrets.token_hex(6)}",
            backend=name,
            before=acting.applied.replicas,
            replicas=current.replicas,
            reason=current.reason,
            why=f"decided by {current.reason}, within {current.bounds.least} to "
            f"{current.bounds.most}",
        )
        change = changes.due(action.rates, acting.applied, wanted, now_s)
        if isinstance(change, str):
            self._hold(name, acting, current.replicas, change)
            return
        acting.held = ""
        state = changes.begun(acting.applied, change, now_s)
        if action.dry_run:
            state = changes.ended(state, change, made=True, now_s=now_s)
        if not await self._store.put(key, state.document(), revision):
            return  # another process was faster
        if self.acting.get(name) is not acting:
            return  # a reload has removed the action; the change was not begun
        acting.applied = state
        if action.dry_run:
            self._tell(change, Outcome(), "dry_run")
        else:
            acting.is_making = True
            acting.task = asyncio.create_task(self._apply(name, action, acting, change))

    def _hold(self, name: str, acting: Acting, replicas: int, why: str) -> None:
        if why and not acting.held and not acting.applied.failures:
            self.counts[name, "held"] += 1
            text = f"{replicas} replicas are not set yet: {why}"
            self._events.add("replicas_held", name, text, replicas=replicas)
        acting.held = why

    async def _apply(self, name: str, action: Action, acting: Acting, change: Change) -> None:
        """Have a change made, and write down how it ended."""
        try:
            outcome = await action.actuator.apply(change)
        except Exception as exc:
            log.exception("the actuator of %s failed", name)
            outcome = Outcome(type(exc).__name__)
        finally:
            acting.is_making = False
        now_s = self._wall()
        acting.applied = changes.ended(
            acting.applied, change, made=not outcome.problem, now_s=now_s
        )
        try:
            key = _key(name, action)
            found = await self._store.get(key)
            if found is not None and _applied(found).pending == change:
                await self._store.put(key, acting.applied.document(), found[1])
        except StoreUnavailable as exc:
            log.warning("what was set of %s was not saved, and is set again: %s", name, exc)
        self._tell(change, outcome, "failed" if outcome.problem else "made")
        await self._audited(change, outcome)

    def _tell(self, change: Change, outcome: Outcome, result: str) -> None:
        self.counts[change.backend, result] += 1
        before = "unknown" if change.before is None else str(change.before)
        text = f"{before} -> {change.replicas} replicas, {change.why}"
        if result == "dry_run":
            text = f"would be changed: {text}"
        elif outcome.problem:
            text = f"{text}: {outcome.problem}"
        self._events.add(
            f"replicas_{result}" if result != "made" else "replicas_changed",
            change.backend,
            text,
            change=change.id,
            replicas=change.replicas,
            before=change.before,
            reason=change.reason,
            output=outcome.output[-OUTPUT_CHARS_MAX:],
        )

    async def _audited(self, change: Change, outcome: Outcome) -> None:
        try:
            await asyncio.to_thread(
                self._audit.write,
                "scale",
                TOLLWAY,
                audit_log.UNKNOWN if outcome.problem else audit_log.DONE,
                about=change.backend,
                why=outcome.problem or change.why,
                before={"replicas": change.before},
                after={"replicas": change.replicas, "change": change.id},
            )
        except OSError as exc:
            log.warning("the audit log could not be written: %s", exc)

    def described(self, name: str) -> dict[str, Any] | None:
        """Return what is known of the replicas that were set; None if none are."""
        action, acting = self.actions.get(name), self.acting.get(name)
        if action is None or acting is None:
            return None
        state = acting.applied
        return {
            "replicas": state.replicas,
            "dry_run": action.dry_run,
            "pending": None if state.pending is None else state.pending.replicas,
            "failures": state.failures,
            "changes_last_hour": len(
                [at for at in state.changed if self._wall() - at < changes.HOUR_S]
            ),
            "held": acting.held,
        }


def _applied(found: tuple[Any, int] | None) -> Applied:
    """Return the state in a document; nothing is known if another version wrote it otherwise."""
    if found is None:
        return Applied()
    try:
        return Applied.of(found[0])
    except (KeyError, TypeError, ValueError):
        log.warning("what was set of replicas cannot be read, and is set again")
        return Applied()


def _key(name: str, action: Action) -> str:
    """Return where the state of a backend stands; what was only said was not set."""
    return f"scaling/{'said' if action.dry_run else 'applied'}/{name}"
