"""Requests of any shape to the protocols of language models: read, or refused, never a crash."""

from contextlib import suppress
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from tollway.backends.dialect import limited
from tollway.backends.errors import BadRequest
from tollway.backends.json_members import edited
from tollway.backends.output import limit
from tollway.backends.protocols.registry import LANGUAGE_MODELS, protocol
from tollway.backends.types import Call

KEYS = st.sampled_from(
    [
        *("model", "messages", "max_tokens", "system", "tools", "thinking", "budget_tokens"),
        *("content", "type", "text", "source", "tool_use_id", "cache_control", "max_uses"),
        *("output_config", "format", "stream", "speed", "container", "mcp_servers"),
        *("contents", "parts", "generationConfig", "generation_config", "maxOutputTokens"),
        *("max_output_tokens", "thinkingConfig", "thinkingBudget", "candidateCount"),
        *("systemInstruction", "inlineData", "mimeType", "functionDeclarations", "googleSearch"),
        *("cachedContent", "requests", "responseModalities", "serviceTier", "functionResponse"),
    ]
)
LEAVES = st.none() | st.booleans() | st.integers(-3, 3000) | st.floats(allow_nan=False)
LEAVES |= st.sampled_from(["", "text", "image", "document", "web_search_20250305", "AUDIO", "1h"])
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)
REQUIRED: dict[str, Any] = {
    "anthropic": {"model": "m", "max_tokens": 9, "messages": [1]},
    "gemini": {"contents": [1]},
    "openai": {"model": "m", "messages": [1]},
}
TARGETS = {
    "anthropic": [b"/v1/messages", b"/v1/messages/count_tokens"],
    "gemini": [
        *(b"/v1/models/m:generateContent", b"/v1/models/m:streamGenerateContent?alt=sse"),
        *(b"/v1/models/m:batchEmbedContents", b"/v1/models/m:countTokens", b"/x", b""),
    ],
    "openai": [b"/v1/chat/completions", b"/openai/deployments/d/chat/completions", b"/v1/files"],
}


@given(document=st.dictionaries(KEYS, VALUES, max_size=6), whole=st.booleans())
def test_any_request_is_bounded_and_addressed_or_refused(
    document: dict[str, Any], whole: bool
) -> None:
    for name in LANGUAGE_MODELS:
        wire = protocol(name)
        sent = orjson.dumps({**REQUIRED[name], **document} if whole else document)
        for target in TARGETS[name]:
            call = Call(b"POST", target, [], sent)
            with suppress(BadRequest):
                call.payload = wire.parse(call)
                bound, output = wire.bound(call, call.payload), wire.output(call, call.payload)
                assert bound.input_tokens >= 0
                assert bound.output_tokens >= 0
                if output is not None:
                    assert all(most >= 0 for most in output.limits.values())
                    assert output.samples >= 1
                needs = wire.needs(call, call.payload, 0.0)
                assert needs.tokens >= 0
                hash(tuple(wire.prompt(call.payload)))
                assert isinstance(wire.model(call, call.payload), str)
                wire.follow(call.payload)
                _, edits = wire.readdress(call, b"/v1", "other", call.payload)
                if output is not None and output.field and not output.unbounded:
                    edits = {**edits, **limited(limit(output, 64, output.field, ()))}
                if edits:
                    orjson.loads(edited(call.body, edits))
