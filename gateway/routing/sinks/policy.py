"""Reports to policies what their choices have cost."""

from tollway.backends.money import to_usd
from tollway.gateway.routing.request_state import RequestState


def charge_policy(state: RequestState, now_s: float) -> None:
    """Report to the policy what its draws have cost; accepting a reply costs nothing more."""
    policy = state.inference.route.policy
    for draw in state.draws:
        arm, cost_nano = draw.choice.arm, 0
        for attempt in state.attempts:
            if attempt.backend == arm:
                cost_nano += attempt.outcome.cost_nano
        policy.charge(draw.choice, to_usd(cost_nano))
