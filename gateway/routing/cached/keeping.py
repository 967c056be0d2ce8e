"""Which answers may be kept: whole ones of present backends, and of a cascade those by choice."""

from tollway.gateway.routing.request_state import Attempt, RequestState
from tollway.policies.types import ACCEPT

OK = 200


def may_keep(state: RequestState, held: Attempt, *, ended: bool = False) -> bool:
    """Return whether an answer may be kept. `ended`: its usage is known if it ever will be."""
    outcome = held.outcome
    if state.inference.route.cascade:
        if held.relay is not None:
            return False  # parts of other replies may have gone before
        if not is_accepted(state, held):
            return False  # it was given for want of a better one
    is_answer = held.status == OK and not outcome.error and not outcome.no_answer
    if held.output_limit and (ended or held.relay is None):  # a budget's, which others lack
        usage = outcome.usage
        is_answer &= usage is not None and usage.output_tokens < held.output_limit
    return is_answer and held.backend in state.inference.route.backends


def is_accepted(state: RequestState, held: Attempt) -> bool:
    """Return whether a cascade ended with a reply by choice: its last draw stands for the reply.

    If an escalation failed, the last draw is that of the backend that gave no reply.
    """
    if not state.draws or state.reason == "escalation_failed":
        return False
    return state.draws[-1].choice.arm in (ACCEPT, held.backend)


def accepted_quality(state: RequestState) -> float | None:
    """Return the quality that a cascade expected of the reply that it accepted; else None."""
    held = state.held
    if not state.inference.route.cascade or held is None or not is_accepted(state, held):
        return None
    choice = state.draws[-1].choice
    return choice.quality_hat[choice.index]
