"""Binds a rollout to the plan of a route: its weight, and which versions requests may reach.

A request takes the route's backends as they are when it begins. So replacing them, between two
turns of the event loop, is the whole switch: later requests cannot reach a version that is not
among them, and earlier ones finish on the versions with which they began.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tollway.gateway.rollouts.keys import StickyKey
from tollway.gateway.rollouts.model import RETIRED, SHADOW, RolloutPlan, RolloutState
from tollway.gateway.routing.plan import RoutePlan, Target, unpriced
from tollway.policies.split import Split


@dataclass(frozen=True, slots=True)
class Binding:
    """One rollout on one route; `split` divides the requests, `sticky` is None without a key."""

    plan: RolloutPlan
    split: Split
    sticky: StickyKey | None


class BoundRoute:
    """A route with its rollouts."""

    # The mutable state is all of the route's backends, and what is shown of them in its plan.

    def __init__(self, route: RoutePlan, bindings: Sequence[Binding]) -> None:
        self.route = route
        self.bindings = bindings
        self._known: dict[str, Target] = dict(route.backends)
        self._chain, self._reference = route.fallbacks.chain, route.reference
        keys = [one.sticky for one in bindings if one.sticky is not None]
        route.sticky = keys[0] if keys else None

    @property
    def backends(self) -> dict[str, Target]:
        """All backends of the route, shown or not, at their present prices."""
        return {**self._known, **self.route.hidden, **self.route.backends}

    def has(self, name: str) -> bool:
        """Whether the route has a backend, shown or not."""
        return name in self._known

    def apply(self, states: Iterable[tuple[RolloutPlan, RolloutState | None]]) -> None:
        """Put the states of the rollouts into effect; plans of other routes are ignored."""
        hidden: set[str] = set()
        renamed: dict[str, str] = {}
        for plan, state in states:
            for one in self.bindings:
                if one.plan.name == plan.name:
                    self._put(one, state, hidden, renamed)
        present = self.backends  # a price may have changed meanwhile
        shown = {name: one for name, one in present.items() if name not in hidden}
        route = self.route
        if shown.keys() != route.backends.keys():
            route.unpriced = {name: unpriced(one) for name, one in shown.items()}
        route.backends = shown
        route.hidden = {name: present[name] for name in hidden if name in present}
        chain = tuple([renamed.get(name, name) for name in self._chain])
        if chain != route.fallbacks.chain:
            route.fallbacks = replace(route.fallbacks, chain=chain)
        route.reference = renamed.get(self._reference, self._reference)

    def _put(
        self,
        one: Binding,
        state: RolloutState | None,
        hidden: set[str],
        renamed: dict[str, str],
    ) -> None:
        plan = one.plan
        weight = 0.0 if state is None else state.weight
        one.split.weight = weight
        if one.sticky is not None and state is not None:
            one.sticky.salt = state.salt.encode()
        if weight <= 0.0:
            hidden.add(plan.candidate)
        elif weight >= 1.0:
            renamed[plan.backend] = plan.candidate
            if state is not None and state.phase == RETIRED:
                hidden.add(plan.backend)


def mirrors(plan: RolloutPlan, state: RolloutState | None) -> bool:
    """Whether requests are mirrored at present."""
    return state is not None and plan.strategy == SHADOW and state.is_live
