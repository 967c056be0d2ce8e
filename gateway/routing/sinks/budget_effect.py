"""Whether a budget or its pacing changed a choice, for the journal and the metrics."""

from typing import TYPE_CHECKING, Literal

from tollway.gateway.routing.plan import RoutePlan
from tollway.policies.types import ACCEPT, Choice

if TYPE_CHECKING:
    from tollway.gateway.routing.request_state import Decision, RequestState

By = Literal["pace", "budget"]
CHANGES: tuple[By, ...] = ("pace", "budget")


def pacers(route: RoutePlan, choice: Choice) -> tuple[str, ...]:
    """Return the budgets whose pacing raised the shadow price of a choice (0.2 us if none)."""
    paced_by = route.paced_by
    if not paced_by or route.objective.kind == "min_cost" or not choice.shadow_price:
        return ()
    names = [paced_by[scope] for scope in ("", *choice.scopes) if scope in paced_by]
    return tuple(dict.fromkeys(names))


def unpaced(route: RoutePlan, choice: Choice) -> str:
    """Return the arm that would have been best without pacing, if it is another one, else ""."""
    if not pacers(route, choice):
        return ""
    worth = route.objective.value_per_correct_usd
    free = _best(choice, 1.0 / worth if worth else 0.0)
    return "" if free == _best(choice, choice.shadow_price) else free


def _best(choice: Choice, price: float) -> str:
    """Return the best arm at a shadow price; among equals, the cheapest."""
    scored = zip(choice.quality_hat, choice.cost_hat_usd, choice.arms, strict=True)
    _, _, arm = max([(quality - price * cost, -cost, arm) for quality, cost, arm in scored])
    return "" if arm == ACCEPT else arm


def by(state: "RequestState") -> list[By]:
    """Return what changed the choice of a request that got an answer."""
    if state.held is None:
        return []
    changes: list[By] = []
    route = state.inference.route
    if route.paced_by and any(unpaced(route, draw.choice) for draw in state.draws):
        changes.append("pace")
    if state.refusals:
        changes.append("budget")
    return changes


def fields(state: "RequestState", draw: "Decision") -> dict[str, object]:
    """Return the journal fields about budget effects on a draw."""
    row: dict[str, object] = {}
    route, choice = state.inference.route, draw.choice
    if names := pacers(route, choice):
        row["paced_by"] = names
        if arm := unpaced(route, choice):
            row["unpaced"] = arm
    if (refusal := state.refusals.get(choice.arm)) is not None:
        row["refused_by"] = refusal.budget
        row["refused_for"] = refusal.reason
    return row
