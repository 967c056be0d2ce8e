"""Which backends of a route cannot do what a request asks for, and why.

What a backend lacks is declared, so a request that needs it is not sent there. How many tokens a
request has is an estimate on the low side, and it never leaves a request without a backend: where
it exceeds every context, those with the largest are offered, and their own refusal, by which
clients know to shorten a conversation, is the answer.
"""

from collections.abc import Mapping

from tollway.backends.needs import Needs
from tollway.gateway.routing.backend import NO_PAYLOAD, Backend
from tollway.gateway.routing.request import InferenceRequest


def left_out(inference: InferenceRequest) -> dict[str, str]:
    """Return which backends of a request's route cannot do it, and why.

    It takes some microseconds, by the length of the conversation, where a backend declares limits.
    """
    route = inference.route
    if not route.is_limited:
        return {}
    call = inference.call
    needs = route.protocol.needs(call, call.payload or NO_PAYLOAD, route.room)
    return unable(route.backends, needs)


def unable(backends: Mapping[str, Backend], needs: Needs) -> dict[str, str]:
    """Return why backends cannot do a request, by name; those that can are not in it."""
    lacking = {
        name: f"lacks {', '.join(sorted(missing))}"
        for name, backend in backends.items()
        if (missing := backend.lacks & needs.features)
    }
    sizes = {name: size_of(one) for name, one in backends.items() if name not in lacking}
    most = min(needs.tokens, max(sizes.values(), default=0.0))
    small = {
        name: f"has a context of {size:.0f} tokens for about {needs.tokens:.0f}"
        for name, size in sizes.items()
        if size < most
    }
    return lacking | small


def no_larger(backends: Mapping[str, Backend], than: str) -> dict[str, str]:
    """Return the backends whose context is not larger than one's that was too small, with why.

    A context that is not declared may be of any size.
    """
    size = backends[than].context_tokens
    if size is None:
        return {}
    return {
        name: f"has a context of {backend.context_tokens} tokens, and {than}'s was too small"
        for name, backend in backends.items()
        if name != than and backend.context_tokens is not None and backend.context_tokens <= size
    }


def size_of(backend: Backend) -> float:
    """Return how many tokens fit into a backend's context; infinite where it is not declared."""
    return float("inf") if backend.context_tokens is None else float(backend.context_tokens)
