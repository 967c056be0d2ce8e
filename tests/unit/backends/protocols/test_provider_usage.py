"""Usage in the providers' documented formats, whole and streamed, and its charge."""

import math
from typing import Any

import orjson
import pytest

from tollway.backends.pricing import parse_price
from tollway.backends.protocols.openai import usage as openai_usage
from tollway.backends.protocols.openai.protocol import OpenAI, Stream
from tollway.backends.protocols.plain import Plain
from tollway.backends.types import Headers, HttpReply, Payload, Usage

PRICE = parse_price(
    {
        "input_usd_per_mtok": 1,
        "cached_input_usd_per_mtok": "0.1",
        "cache_write_5m_usd_per_mtok": "1.25",
        "cache_write_1h_usd_per_mtok": 2,
        "output_usd_per_mtok": 10,
        "audio_input_usd_per_mtok": 40,
        "audio_output_usd_per_mtok": 80,
        "per_search_usd": "0.01",
    }
)
READ, CACHED, WRITE, HOUR, MADE = 1000, 100, 1250, 2000, 10_000
HEARD, SAID, SEARCH = 40_000, 80_000, 10_000_000

# (name, usage as documented, nano-dollars)
CHAT: list[tuple[str, dict[str, Any], int]] = [
    (
        "openai chat",
        {
            "prompt_tokens": 100,
            "completion_tokens": 40,
            "total_tokens": 140,
            "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 0},
        },
        40 * READ + 60 * CACHED + 40 * MADE,
    ),
    (
        "openai chat with audio both ways",
        {
            "prompt_tokens": 100,
            "completion_tokens": 40,
            "total_tokens": 140,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 70},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 30},
        },
        30 * READ + 70 * HEARD + 10 * MADE + 30 * SAID,
    ),
    (
        "openai chat with cached audio",
        {
            "prompt_tokens": 100,
            "completion_tokens": 1,
            "prompt_tokens_details": {"cached_tokens": 80, "audio_tokens": 70},
        },
        30 * CACHED + 70 * HEARD + 1 * MADE,
    ),
    (
        "openai responses",
        {
            "input_tokens": 100,
            "input_tokens_details": {"cached_tokens": 60},
            "output_tokens": 40,
            "output_tokens_details": {"reasoning_tokens": 30},
            "total_tokens": 140,
        },
        40 * READ + 60 * CACHED + 40 * MADE,
    ),
    (
        "openai realtime, transcriptions",
        {
            "type": "tokens",
            "input_tokens": 14,
            "input_token_details": {"text_tokens": 4, "audio_tokens": 10},
            "output_tokens": 5,
            "total_tokens": 19,
        },
        4 * READ + 10 * HEARD + 5 * MADE,
    ),
    (
        "azure with cache writes",
        {
            "prompt_tokens": 100,
            "completion_tokens": 4,
            "total_tokens": 104,
            "prompt_tokens_details": {"cached_tokens": 10, "cache_write_tokens": 80},
        },
        10 * READ + 10 * CACHED + 80 * WRITE + 4 * MADE,
    ),
    (
        "anthropic",
        {
            "input_tokens": 10,
            "cache_creation_input_tokens": 50,
            "cache_read_input_tokens": 200,
            "cache_creation": {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 20},
            "output_tokens": 7,
            "server_tool_use": {"web_search_requests": 2},
            "service_tier": "standard",
        },
        10 * READ + 200 * CACHED + 30 * WRITE + 20 * HOUR + 7 * MADE + 2 * SEARCH,
    ),
    (
        "anthropic before durations",
        {
            "input_tokens": 10,
            "cache_creation_input_tokens": 50,
            "cache_read_input_tokens": 0,
            "output_tokens": 7,
        },
        10 * READ + 50 * WRITE + 7 * MADE,
    ),
    (
        "anthropic with thinking",
        {
            "input_tokens": 10,
            "output_tokens": 70,
            "output_tokens_details": {"thinking_tokens": 60},
        },
        10 * READ + 70 * MADE,
    ),
    (
        "gemini",
        {
            "promptTokenCount": 100,
            "cachedContentTokenCount": 20,
            "candidatesTokenCount": 10,
            "thoughtsTokenCount": 30,
            "toolUsePromptTokenCount": 5,
            "totalTokenCount": 145,
            "promptTokensDetails": [
                {"modality": "TEXT", "tokenCount": 70},
                {"modality": "AUDIO", "tokenCount": 30},
            ],
        },
        55 * READ + 20 * CACHED + 30 * HEARD + 40 * MADE,
    ),
    (
        "gemini by OpenAI's names: thoughts in the total alone",
        {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 140},
        100 * READ + 40 * MADE,
    ),
    (
        "bedrock converse",
        {
            "inputTokens": 10,
            "outputTokens": 7,
            "totalTokens": 267,
            "cacheReadInputTokens": 200,
            "cacheWriteInputTokens": 50,
            "cacheDetails": [{"ttl": "1h", "inputTokens": 50}],
        },
        10 * READ + 200 * CACHED + 50 * HOUR + 7 * MADE,
    ),
    (
        "deepseek",
        {
            "prompt_tokens": 100,
            "completion_tokens": 4,
            "total_tokens": 104,
            "prompt_cache_hit_tokens": 64,
            "prompt_cache_miss_tokens": 36,
            "prompt_tokens_details": {"cached_tokens": 64},
        },
        36 * READ + 64 * CACHED + 4 * MADE,
    ),
    (
        "moonshot",
        {"prompt_tokens": 100, "completion_tokens": 4, "total_tokens": 104, "cached_tokens": 64},
        36 * READ + 64 * CACHED + 4 * MADE,
    ),
    (
        "xai without its bill",
        {
            "prompt_tokens": 100,
            "completion_tokens": 4,
            "total_tokens": 304,
            "prompt_tokens_details": {"cached_tokens": 64, "text_tokens": 100},
            "completion_tokens_details": {"reasoning_tokens": 200},
            "num_sources_used": 0,
        },
        36 * READ + 64 * CACHED + 204 * MADE,
    ),
    (
        "xai",
        {
            "prompt_tokens": 100,
            "completion_tokens": 4,
            "total_tokens": 304,
            "cost_in_usd_ticks": 37_756_005,
        },
        3_775_601,
    ),
    (
        "mistral",
        {
            "prompt_tokens": 100,
            "completion_tokens": 4,
            "total_tokens": 104,
            "prompt_audio_seconds": {},
            "num_cached_tokens": 64,
        },
        36 * READ + 64 * CACHED + 4 * MADE,
    ),
    (
        "perplexity",
        {
            "prompt_tokens": 26,
            "completion_tokens": 832,
            "total_tokens": 858,
            "search_context_size": "low",
            "cost": {
                "input_tokens_cost": 2.6e-05,
                "output_tokens_cost": 0.000832,
                "request_cost": 0.005,
                "total_cost": 0.005858,
            },
        },
        5_858_000,
    ),
    (
        "perplexity deep research without its bill",
        {
            "prompt_tokens": 30,
            "completion_tokens": 100,
            "total_tokens": 130,
            "citation_tokens": 50,
            "num_search_queries": 3,
            "reasoning_tokens": 70,
        },
        30 * READ + 220 * MADE + 3 * SEARCH,
    ),
    (
        "openrouter",
        {
            "prompt_tokens": 194,
            "completion_tokens": 2,
            "total_tokens": 196,
            "cost": 0.00014,
            "is_byok": False,
            "cost_details": {"upstream_inference_cost": 0.00014},
        },
        140_000,
    ),
    (
        "openrouter with a key of one's own",
        {
            "prompt_tokens": 194,
            "completion_tokens": 2,
            "total_tokens": 196,
            "cost": 0.00001,
            "is_byok": True,
            "cost_details": {"upstream_inference_cost": 0.00019},
        },
        200_000,
    ),
    (
        "cohere",
        {
            "billed_units": {"input_tokens": 17, "output_tokens": 12},
            "tokens": {"input_tokens": 215, "output_tokens": 13},
        },
        17 * READ + 12 * MADE,
    ),
    (
        "vllm",
        {
            "prompt_tokens": 100,
            "total_tokens": 104,
            "completion_tokens": 4,
            "prompt_tokens_details": {"cached_tokens": 64},
        },
        36 * READ + 64 * CACHED + 4 * MADE,
    ),
    (
        "sglang",
        {
            "prompt_tokens": 100,
            "total_tokens": 104,
            "completion_tokens": 4,
            "prompt_tokens_details": None,
            "reasoning_tokens": 3,
        },
        100 * READ + 4 * MADE,
    ),
    (
        "tgi",
        {"prompt_tokens": 100, "completion_tokens": 4, "total_tokens": 104},
        100 * READ + 4 * MADE,
    ),
    (
        "portkey before anthropic",
        {
            "prompt_tokens": 22,
            "completion_tokens": 100,
            "total_tokens": 20_122,
            "cache_read_input_tokens": 20_000,
            "cache_creation_input_tokens": 0,
            "prompt_tokens_details": {"cached_tokens": 20_000},
        },
        22 * READ + 20_000 * CACHED + 100 * MADE,
    ),
    (
        "portkey, less cached than fresh",
        {
            "prompt_tokens": 1000,
            "completion_tokens": 100,
            "total_tokens": 1400,
            "cache_read_input_tokens": 200,
            "cache_creation_input_tokens": 100,
        },
        1000 * READ + 200 * CACHED + 100 * WRITE + 100 * MADE,
    ),
    (
        "litellm: OpenAI's sense, both names",
        {
            "prompt_tokens": 1000,
            "completion_tokens": 100,
            "total_tokens": 1100,
            "prompt_tokens_details": {"cached_tokens": 900, "cache_creation_tokens": 50},
            "cache_read_input_tokens": 900,
            "cache_creation_input_tokens": 50,
        },
        50 * READ + 900 * CACHED + 50 * WRITE + 100 * MADE,
    ),
]


def cost(usage: Usage | None) -> int:
    assert usage is not None
    assert PRICE.is_told_by(usage)
    assert not PRICE.guesses(usage)
    return PRICE.cost_nano(usage)


@pytest.mark.parametrize(("member", "nano"), [case[1:] for case in CHAT], ids=[c[0] for c in CHAT])
def test_a_reply_is_charged_by_what_its_provider_counts(member: dict[str, Any], nano: int) -> None:
    choices = [{"message": {"content": "hi"}, "finish_reason": "stop"}]
    where = "usageMetadata" if "promptTokenCount" in member else "usage"
    body = orjson.dumps({"choices": choices, where: member})

    usage = OpenAI().usage(Payload({}), reply(), body)

    assert cost(usage) == nano
    assert cost(Plain().usage(Payload({}), reply(), body)) == nano


@pytest.mark.parametrize(("member", "nano"), [case[1:] for case in CHAT], ids=[c[0] for c in CHAT])
def test_counts_in_quotes_and_nulls_beside_them_change_nothing(
    member: dict[str, Any], nano: int
) -> None:
    def quoted(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: quoted(inner) for key, inner in value.items()} | {"other": None}
        if isinstance(value, list):
            return [quoted(inner) for inner in value]
        return str(value) if type(value) in (int, float) else value

    assert cost(openai_usage.read(quoted(member) | {"total": None})) == nano


@pytest.mark.parametrize(("member", "nano"), [case[1:] for case in CHAT], ids=[c[0] for c in CHAT])
def test_a_stream_is_charged_by_its_last_report(member: dict[str, Any], nano: int) -> None:
    last = [
        {"choices": [], "usage": member},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": member},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": member}]},
        {"choices": [], "x_groq": {"id": "r", "usage": member}},
    ]
    for chunk in last:
        assert streamed(TEXT, chunk) == nano


TEXT = {"choices": [{"index": 0, "delta": {"content": "hi"}}], "usage": None}


def follow(*chunks: Any) -> Stream:
    stream = Stream()
    for chunk in chunks:
        stream.feed(b"data: " + orjson.dumps(chunk) + b"\n\n")
    return stream


def streamed(*chunks: Any) -> int:
    usage = follow(*chunks).reported_usage([])
    assert usage is not None
    assert usage.exact
    return cost(usage)


def reply(headers: Headers | None = None) -> HttpReply:
    return HttpReply(200, headers or [], None)  # type: ignore[arg-type] # its body has been read


def test_an_anthropic_stream_adds_what_was_read_to_what_was_written() -> None:
    start = {
        "type": "message_start",
        "message": {
            "usage": {
                "input_tokens": 10,
                "cache_read_input_tokens": 200,
                "cache_creation_input_tokens": 0,
                "output_tokens": 1,
            }
        },
    }
    end = {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"output_tokens": 15},
    }

    assert streamed(start, end, {"type": "message_stop"}) == 10 * READ + 200 * CACHED + 15 * MADE
    cut = follow(start).reported_usage([])
    assert cut is not None
    assert not cut.exact  # it wrote more than the one token of its first event


def test_a_gemini_stream_is_final_where_a_candidate_ends() -> None:
    def chunk(made: int, **more: Any) -> dict[str, Any]:
        usage = {"promptTokenCount": 9, "candidatesTokenCount": made, "totalTokenCount": 9 + made}
        return {"candidates": [{"content": {}, **more}], "usageMetadata": usage}

    early = follow(chunk(1)).reported_usage([])
    assert early is not None
    assert not early.exact
    assert streamed(chunk(1), chunk(5, finishReason="STOP")) == 9 * READ + 5 * MADE


def test_usage_in_every_chunk_is_a_lower_bound_until_the_end() -> None:
    chunk = {**TEXT, "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}}
    usage = follow(chunk, TEXT, TEXT).reported_usage([])

    assert usage == Usage(input_tokens=9, output_tokens=3, exact=False)


def test_a_bedrock_stream_reports_in_its_metadata_or_its_metrics() -> None:
    metadata = {"metadata": {"usage": {"inputTokens": 9, "outputTokens": 2, "totalTokens": 11}}}
    metrics = {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 9, "outputTokenCount": 2}}

    assert streamed(metadata) == streamed(metrics) == 9 * READ + 2 * MADE


def test_a_cohere_stream_reports_in_its_last_delta() -> None:
    usage = {"billed_units": {"input_tokens": 9, "output_tokens": 2}}
    end = {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": usage}}

    assert streamed({"type": "message-start"}, end) == 9 * READ + 2 * MADE


VECTOR = [{"object": "embedding", "index": 0, "embedding": [0.5]}]


@pytest.mark.parametrize(
    ("document", "nano"),
    [
        ({"data": VECTOR, "usage": {"prompt_tokens": 8, "total_tokens": 8}}, 8 * READ),
        ({"data": VECTOR, "usage": {"prompt_tokens": 8}}, 8 * READ),
        ({"data": VECTOR, "usage": {"total_tokens": 8}}, 8 * READ),  # Voyage
        ({"results": [], "usage": {"total_tokens": 8}}, 8 * READ),  # Voyage's and Jina's rankings
        ({"embeddings": [[1]], "meta": {"billed_units": {"input_tokens": 8}}}, 8 * READ),  # Cohere
        ({"results": [], "meta": {"billed_units": {"search_units": 3}}}, 3 * SEARCH),
    ],
)
def test_what_writes_nothing_is_charged_for_what_it_read(
    document: dict[str, Any], nano: int
) -> None:
    assert cost(OpenAI().usage(Payload({}), reply(), orjson.dumps(document))) == nano


@pytest.mark.parametrize(
    ("document", "table", "nano"),
    [
        ({"usage_info": {"pages_processed": 4}, "pages": []}, {"per_page_usd": "0.001"}, 4_000_000),
        ({"data": [{"url": "u"}, {"b64_json": "x"}]}, {"per_image_usd": "0.04"}, 80_000_000),
        (
            {"text": "hi", "usage": {"type": "duration", "seconds": 90}},
            {"audio_usd_per_hour": "0.36"},
            9_000_000,
        ),
    ],
)
def test_pages_images_and_hours_are_units_of_their_own(
    document: Any, table: dict[str, Any], nano: int
) -> None:
    usage = OpenAI().usage(Payload({}), reply(), orjson.dumps(document))
    price = parse_price(table)

    assert usage is not None
    assert price.is_told_by(usage)
    assert price.cost_nano(usage) == nano


def test_speech_is_charged_by_the_characters_that_were_asked_for() -> None:
    request = Payload({"model": "tts-1", "input": "ten chars!", "voice": "alloy"})
    usage = OpenAI().usage(request, reply([(b"content-type", b"audio/mpeg")]), b"\xff\xf3")
    price = parse_price({"per_mchar_usd": 15})

    assert usage is not None
    assert price.cost_nano(usage) == 10 * 15_000


@pytest.mark.parametrize(
    "zero",
    [
        {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        {"input_tokens": 0, "output_tokens": 0},
        {"promptTokenCount": 0, "candidatesTokenCount": 0, "totalTokenCount": 0},
        {"prompt_tokens": "0", "completion_tokens": "0", "cost": 0},
    ],
)
def test_a_usage_of_nothing_costs_nothing(zero: dict[str, Any]) -> None:
    usage = openai_usage.read(zero)

    assert cost(usage) == 0
    assert usage is not None
    assert usage.more is not None
    assert usage.more.is_zero


def test_a_reported_cost_of_zero_for_priced_tokens_is_not_accepted() -> None:
    member = {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11, "cost": 0}

    assert cost(openai_usage.read(member)) == 10 * READ + MADE


@pytest.mark.parametrize("bad", [-1, "-1", "NaN", "inf", math.inf, 1e300, True, [1], "1_0", "0x1"])
@pytest.mark.parametrize(
    "member",
    [
        {"prompt_tokens": 5, "completion_tokens": 5, "cost": ...},
        {"prompt_tokens": 5, "completion_tokens": 5, "cost": {"total_cost": ...}},
        {"prompt_tokens": 5, "completion_tokens": 5, "cost_in_usd_ticks": ...},
        {"prompt_tokens": ..., "completion_tokens": 5},
        {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": ...},
        {"prompt_tokens": 5, "completion_tokens": 5, "cached_tokens": ...},
        {
            "prompt_tokens": 5,
            "completion_tokens": 5,
            "prompt_tokens_details": {"audio_tokens": ...},
        },
        {"inputTokens": 5, "outputTokens": 5, "cacheDetails": [{"ttl": "5m", "inputTokens": ...}]},
    ],
)
def test_a_count_that_cannot_be_is_an_error_wherever_it_stands(
    member: dict[str, Any], bad: Any
) -> None:
    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [filled(inner) for inner in value]
        return bad if value is ... else value

    with pytest.raises(ValueError, match=r"below 0|not a number|beyond belief|not an amount"):
        openai_usage.read(filled(member))


@pytest.mark.parametrize(
    "member",
    [
        {"prompt_tokens": 10, "completion_tokens": 1, "cached_tokens": 11, "total_tokens": 11},
        {
            "prompt_tokens": 10,
            "completion_tokens": 1,
            "prompt_tokens_details": {"audio_tokens": 20},
        },
        {
            "prompt_tokens": 10,
            "completion_tokens": 1,
            "completion_tokens_details": {"audio_tokens": 2},
        },
    ],
)
def test_a_part_that_is_more_than_its_whole_has_no_price(member: dict[str, Any]) -> None:
    usage = openai_usage.read(member)

    assert usage is not None
    with pytest.raises(ValueError, match="not a usage"):
        PRICE.cost_nano(usage)


def test_a_total_below_its_parts_is_charged_by_its_parts_and_doubted() -> None:
    usage = openai_usage.read({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 7})

    assert cost(usage) == 10 * READ + 5 * MADE
    assert usage is not None
    assert usage.more is not None
    assert usage.more.is_doubtful


@pytest.mark.parametrize(
    ("document", "tier"),
    [
        ({"service_tier": "default"}, ""),
        ({"service_tier": "auto"}, ""),
        ({"service_tier": None}, ""),
        ({"service_tier": "on_demand"}, ""),  # Groq
        ({"service_tier": "priority"}, "priority"),
        ({"service_tier": "FLEX"}, "flex"),
        ({"service_tier": 7}, ""),
        ({"service_tier": "x" * 100}, "x" * 32),
    ],
)
def test_the_service_tier_stands_beside_the_usage_or_in_it(
    document: dict[str, Any], tier: str
) -> None:
    tokens = {"prompt_tokens": 1, "completion_tokens": 1}
    beside = openai_usage.of({**document, "usage": tokens})
    within = openai_usage.of({"usage": {**tokens, **document}})

    for usage in (beside, within):
        assert usage is not None
        assert (usage.more.service_tier if usage.more else "") == tier
