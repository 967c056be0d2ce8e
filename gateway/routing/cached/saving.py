"""What a kept answer has saved: what a fresh call of its backend was quoted for this request."""

from typing import Any

from tollway.gateway.routing.request_state import RequestState


def saved_nano(state: RequestState) -> int:
    """Return the saving of a request; 0 if it was not answered from the cache."""
    cached, held = state.inference.cached, state.held
    if cached is None or held is None or held.error or held.backend != cached.arm.name:
        return 0
    quoted = state.quotes.get(cached.backend)
    return cached.cost_nano if quoted is None else quoted.expected_nano


def fields(state: RequestState) -> dict[str, Any]:
    """Return the members of a decision's row that tell of the kept answer."""
    inference = state.inference
    if inference.cached is None:
        return {"refresh": True} if inference.cache_result == "refresh" else {}
    cached = inference.cached
    return {
        "cached": {
            "backend": cached.backend,
            "found": cached.found,
            "age_s": round(cached.age_s, 3),
            "saved_nano": saved_nano(state),
        }
    }
