"""Capabilities: which backends of a route cannot serve a request, and why.

The features that a backend lacks are declared, so a request that needs one is not sent there. The
token count of a request is an estimate on the low side, and it never leaves a request without a
backend. If it exceeds every context, the backends with the largest context are offered, and their
own refusal, which tells clients to shorten the conversation, is the reply.
"""

from collections.abc import Mapping

from tollway.backends.needs import Needs
from tollway.gateway.routing.plan import Target
from tollway.gateway.routing.request import InferenceRequest


def left_out(inference: InferenceRequest) -> dict[str, str]:
    """Return the backends of a request's route that cannot serve it, with the reason.

    If a backend declares limits, it takes some microseconds, depending on the length of the
    conversation.
    """
    route = inference.route
    if not route.is_limited:
        return {}
    call = inference.call
    needs = route.protocol.needs(call, call.payload, route.room)
    return unable(route.backends, needs)


def elsewhere(inference: InferenceRequest) -> dict[str, str]:
    """Return the backends that lack the object or the model that a request names, and why."""
    return {
        name: "does not have the object or the model that it names"
        for name in inference.route.backends
        if name not in inference.held_by
    }


def unable(backends: Mapping[str, Target], needs: Needs) -> dict[str, str]:
    """Return the reason by backend name, for the backends that cannot serve a request."""
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


def no_larger(backends: Mapping[str, Target], than: str) -> dict[str, str]:
    """Return the backends whose context is no larger than one that was too small, with the reason.

    An undeclared context may be of any size.
    """
    size = backends[than].context_tokens
    if size is None:
        return {}
    return {
        name: f"has a context of {backend.context_tokens} tokens, and {than}'s was too small"
        for name, backend in backends.items()
        if name != than and backend.context_tokens is not None and backend.context_tokens <= size
    }


def size_of(backend: Target) -> float:
    """Return the size of a backend's context in tokens; infinite if it is not declared."""
    return float("inf") if backend.context_tokens is None else float(backend.context_tokens)
