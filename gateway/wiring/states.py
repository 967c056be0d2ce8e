"""States: what a gateway has learned and counted, by what it is about.

Plans (backends, routes) come from the configuration, and a reload replaces them. State stands
here, under a key, with an identity: the settings that it depends on. A plan asks for its state when
it is built. It gets what is there if the identity is the same, and new state otherwise. So a reload
copies nothing and can forget nothing: state that no plan asks for is dropped, all other goes on.

    key                          identity                        what it is
    (backend, NAME, health)      the server                      breaker, rests
    (backend, NAME, refusals)    the server, limit_field         fields that it refuses
    (backend, NAME, slots)       the server                      queue, learned concurrency
    (backend, NAME, cache)       the server                      prompts that it has cached
    (backend, NAME, start)       nothing                         calls that wait for a replica
    (backend, NAME, credential)  the server, auth                a key and its standing
    (backend, NAME, key)         the server, the key             its turns and its rest
    (backend, NAME, transport)   how it is reached               connections; addresses hand over
    (backend, NAME, trial)       how it is reached               the health check in progress
    (backend, NAME, batcher)     how it is reached, batch        waiting calls, the size of batches
    (backend, NAME, batches)     nothing                         what was counted of them
    (device, NAME)               where its price is read         its load, its bill
    (route, NAME, counts)        nothing                         retries, hedging, shares, estimates
    (route, NAME, features)      context, protocol               scales, input drift
    (route, NAME, policy)        the policy, context, protocol   what it has learned
    (route, NAME, auditor)       the reference                   what audits may spend
    (features, NAME)             the source, values, version     what memory has of entities
    (route, NAME, cache)         nothing                         what was counted of its cache

State is shared with requests in flight, whose later reports still count. Building a stage changes
nothing that runs: what has to be revised is revised by `commit`, when nothing can fail any more.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

T = TypeVar("T")
Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """Some state and the settings that it depends on."""

    identity: object
    state: Any


class States:
    """The state of one gateway."""

    # The mutable state is the table, which each commit replaces.

    def __init__(self) -> None:
        self.entries: dict[Key, Entry] = {}

    def stage(self) -> "Stage":
        """Return a stage on which the next plans are built."""
        return Stage(self)


class Stage:
    """The state that the next plans will use."""

    # The mutable state is the entries asked for so far, and what to do when they come into use.

    def __init__(self, states: States) -> None:
        self._states = states
        self._entries: dict[Key, Entry] = {}
        self._due: list[Callable[[], None]] = []

    def get(
        self,
        key: Key,
        identity: object,
        make: Callable[[], T],
        *,
        revise: Callable[[T], None] | None = None,
        succeed: Callable[[T, T], None] | None = None,
    ) -> T:
        """Return the state under a key: the present one if its identity is the same, else new.

        At the commit, `revise(state)` applies new settings to state that is kept, and
        `succeed(new, old)` hands over what new state can use of that which it replaces.
        """
        staged = self._entries.get(key)
        if staged is not None:
            return cast("T", staged.state)
        present = self._states.entries.get(key)
        if present is not None and present.identity == identity:
            self._entries[key] = present
            kept = cast("T", present.state)
            if revise is not None:
                self._due.append(lambda: revise(kept))
            return kept
        new = make()
        self._entries[key] = Entry(identity, new)
        if present is not None and succeed is not None:
            old = cast("T", present.state)
            self._due.append(lambda: succeed(new, old))
        return new

    def is_kept(self, key: Key) -> bool:
        """Return whether the state under a key is the present one."""
        return key in self._entries and self._entries[key] is self._states.entries.get(key)

    def at_commit(self, due: Callable[[], None]) -> None:
        """Have something done at the commit, in the order of these calls and of `get`."""
        self._due.append(due)

    def commit(self) -> None:
        """Put this state into use; what was not asked for is dropped."""
        for due in self._due:
            due()
        self._states.entries = self._entries
