"""The load of a fleet: adds up what several gateways have counted of the same backends.

Each gateway writes its counters into the control store, and reads those of the others. Counters of
a gateway that appears begin at what they are then, and those of one that is gone stay as they were:
only what is counted in between is load, wherever it was counted.
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, fields
from typing import Any

from tollway.gateway.scaling.load_meter import Totals

ALIVE_S = 60.0  # a gateway whose counters are older has no calls waiting any more
COUNTERS = len(fields(Totals))
KEPT_S = 3600.0  # after which the document of a gateway that is gone is deleted


@dataclass(slots=True)
class FleetTotals:
    """The sum of the counters of all gateways but this one."""

    # The mutable state is the sum of the others' differences, and what each of them said last.
    counted: dict[str, Totals] = field(default_factory=dict)
    waiting: dict[str, tuple[float, float]] = field(default_factory=dict)
    known: dict[str, dict[str, Totals]] = field(default_factory=dict)
    seen_s: dict[str, float] = field(default_factory=dict)

    def take(self, others: Mapping[str, Any], now_s: float) -> None:
        """Take the documents of the other gateways, by name, at `now_s` (seconds since 1970)."""
        self.waiting = {}
        for member, document in others.items():
            found = _read(document)
            if found is None:
                continue
            at_s, present = found
            is_alive = now_s - at_s < ALIVE_S
            self.seen_s[member] = at_s
            last = self.known.get(member)
            self.known[member] = present
            for backend, now in present.items():
                if is_alive:
                    waiting, cold = self.waiting.get(backend, (0.0, 0.0))
                    self.waiting[backend] = waiting + now.waiting, cold + now.cold
                # A backend that a reload added has counted since then; a new gateway since ever.
                before = now if last is None else last.get(backend, Totals())
                self._add(backend, before, now)
        for gone in self.known.keys() - others.keys():
            del self.known[gone], self.seen_s[gone]

    def gone(self, now_s: float) -> list[str]:
        """Return the gateways that have written nothing for KEPT_S."""
        return [member for member, at_s in self.seen_s.items() if now_s - at_s > KEPT_S]

    def _add(self, backend: str, before: Totals, now: Totals) -> None:
        one = self.counted.setdefault(backend, Totals())
        one.calls += max(0.0, now.calls - before.calls)
        one.seconds += max(0.0, now.seconds - before.seconds)
        one.refused += max(0.0, now.refused - before.refused)
        one.failed += max(0.0, now.failed - before.failed)

    def with_own(self, own: Mapping[str, Totals]) -> dict[str, Totals]:
        """Return the totals of all gateways, with those of this one."""
        found = {}
        for backend in own.keys() | self.counted.keys():
            mine, theirs = own.get(backend, Totals()), self.counted.get(backend, Totals())
            waiting, cold = self.waiting.get(backend, (0.0, 0.0))
            found[backend] = Totals(
                mine.calls + theirs.calls,
                mine.seconds + theirs.seconds,
                mine.refused + theirs.refused,
                mine.failed + theirs.failed,
                mine.waiting + waiting,
                mine.cold + cold,
            )
        return found


def _read(document: Any) -> tuple[float, dict[str, Totals]] | None:
    """Return the time and the totals of a document; None if another version wrote it otherwise."""
    try:
        totals = {
            str(name): Totals(*map(float, values[:COUNTERS]))
            for name, values in document["totals"].items()
        }
        return float(document["time"]), totals
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def document(own: Mapping[str, Totals], now_s: float) -> dict[str, Any]:
    """Return what a gateway tells the others."""
    return {"time": now_s, "totals": {name: list(astuple(one)) for name, one in own.items()}}
