"""Which requests a model answers the same way each time, and which of their members do not matter.

A predictor is a function of its input. A language model is one only if it does not sample: its
temperature is 0, or it may take only the likeliest token.
"""

from typing import Any

from tollway.backends.types import Payload

GENERATES = frozenset({"", "chat", "completions", "responses", "unknown", "generate"})
"""Endpoints of language models that sample; the others compute numbers, such as embeddings."""

SAMPLES = frozenset({"speech", "images", "declared"})
"""Endpoints whose replies differ each time, whatever the request says."""

IGNORED: dict[str, frozenset[str]] = {
    "anthropic": frozenset({"metadata"}),
    "gemini": frozenset({"labels"}),
    "oip": frozenset({"id"}),
    "openai": frozenset({"metadata", "prompt_cache_key", "safety_identifier", "user"}),
}
"""Members of a document, by protocol, that say who asks and not what."""


def is_deterministic(protocol: str, payload: Payload) -> bool:
    """Return whether the same request has the same answer, as far as the request says."""
    document = payload.data
    name = payload.endpoint.name
    if name in SAMPLES:
        return False
    if not isinstance(document, dict):
        return protocol not in IGNORED or protocol == "oip"
    if protocol == "gemini":
        if "contents" not in document:
            return True  # numbers
        settings = document.get("generationConfig")
        return isinstance(settings, dict) and _takes_the_likeliest(settings, "topK")
    if protocol in {"openai", "anthropic"}:
        return name not in GENERATES or _takes_the_likeliest(document, "top_k")
    parameters = document.get("parameters")
    sampled = [document, parameters] if isinstance(parameters, dict) else [document]
    return not any(one.get("temperature") or one.get("do_sample") for one in sampled)


def _takes_the_likeliest(settings: dict[str, Any], top_k: str) -> bool:
    temperature = settings.get("temperature")
    is_zero = isinstance(temperature, int | float) and temperature == 0
    return is_zero or settings.get(top_k) == 1
