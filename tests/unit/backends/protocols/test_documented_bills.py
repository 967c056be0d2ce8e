"""The usage that providers' documentation shows, charged by their public prices.

Each amount is the sum that a reader of the price list would write: tokens times nano-dollars.
A dollar for a million tokens is 1,000 nano-dollars for one.
"""

from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from tollway.backends.pricing import parse_price
from tollway.backends.protocols.anthropic.protocol import Anthropic
from tollway.backends.protocols.gemini.protocol import Gemini
from tollway.backends.protocols.openai.protocol import OpenAI
from tollway.backends.types import Call, Headers, HttpReply, Payload, Usage

Table = dict[str, Any]
JSON: Headers = [(b"content-type", b"application/json")]
SSE: Headers = [(b"content-type", b"text/event-stream")]
SOUND: Headers = [(b"content-type", b"audio/mpeg")]


def tokens(given: str, made: str, **more: str) -> Table:
    """Return a price table: dollars for a million tokens read, and written."""
    return {"input_usd_per_mtok": given, "output_usd_per_mtok": made, **more}


def mtok(**prices: str) -> dict[str, str]:
    return {f"{kind}_usd_per_mtok": price for kind, price in prices.items()}


# https://developers.openai.com/api/docs/pricing
GPT_41 = tokens("2", "8", **mtok(cached_input="0.50"), per_search_usd="0.01") | {
    "per_file_search_usd": "0.0025"
}
TRANSCRIBE = tokens("2.50", "10", **mtok(audio_input="6"))
IMAGE = tokens("5", "40", **mtok(image_input="10", cached_image_input="2.50", image_output="40"))
AUDIO = tokens("2.50", "10", **mtok(audio_input="32", audio_output="64", cached_audio_input="0.40"))
# https://platform.claude.com/docs/en/about-claude/pricing
SONNET = tokens(
    "3", "15", **mtok(cached_input="0.30", cache_write_5m="3.75", cache_write_1h="6")
) | {"per_search_usd": "0.01", "service_tiers": {"batch": "0.5"}}
# https://ai.google.dev/gemini-api/docs/pricing
FLASH = tokens(
    "0.30", "2.50", **mtok(cached_input="0.03", audio_input="1", cached_audio_input="0.10")
) | {"uniform": True, "per_search_usd": "0.035"}
FLASH_IMAGE = tokens("0.30", "2.50", **mtok(image_output="30"))
# https://mistral.ai/pricing
SMALL = tokens("0.10", "0.30")
VOXTRAL = tokens("0.10", "0.40", audio_usd_per_hour="0.24")
# https://api-docs.deepseek.com/quick_start/pricing-details-usd
DEEPSEEK = tokens("0.27", "1.10", **mtok(cached_input="0.07"))
# https://groq.com/pricing
GROQ = tokens("0.075", "0.30", **mtok(cached_input="0.0375"))
# https://docs.x.ai/developers/models
GROK = tokens("3", "15", **mtok(cached_input="0.75"))
# https://cohere.com/pricing
COMMAND = tokens("2.50", "10")
EMBED = tokens("0.12", "0", **mtok(image_input="0.47"))


@dataclass(frozen=True)
class Case:
    """A documented reply and its amount; `sent`: the request, where the charge depends on it."""

    name: str
    price: Table
    nano: int
    reply: Any
    sent: Any = None
    path: str = "/v1/chat/completions"
    headers: Headers = field(default_factory=lambda: JSON)
    is_stream: bool = False

    @property
    def body(self) -> bytes:
        if isinstance(self.reply, bytes):
            return self.reply
        document = orjson.dumps(self.reply)
        return b"data: %b\n\n" % document if self.is_stream else document


CHAT = {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}


def chat(name: str, price: Table, nano: int, **usage: Any) -> Case:
    return Case(name, price, nano, {**CHAT, "usage": usage})


def response(name: str, price: Table, nano: int, *ran: Table, **usage: Any) -> Case:
    said = {"type": "message", "content": [{"type": "output_text", "text": "hi"}]}
    document = {"object": "response", "output": [*ran, said], "usage": usage}
    return Case(name, price, nano, document, path="/v1/responses")


def heard(name: str, price: Table, nano: int, **usage: Any) -> Case:
    document = {"text": "hi", "usage": usage}
    return Case(name, price, nano, document, path="/v1/audio/transcriptions")


def event(name: str, price: Table, nano: int, path: str, **document: Any) -> Case:
    return Case(name, price, nano, document, path=path, headers=SSE, is_stream=True)


NO_DETAILS = {"cached_tokens": 0, "audio_tokens": 0}

# https://platform.openai.com/docs/api-reference (the examples of openai/openai-openapi)
OPENAI = [
    chat(
        "chat",
        GPT_41,
        19 * 2000 + 10 * 8000,
        prompt_tokens=19,
        completion_tokens=10,
        total_tokens=29,
        prompt_tokens_details=NO_DETAILS,
        completion_tokens_details={"reasoning_tokens": 0, "rejected_prediction_tokens": 0},
    ),
    chat(
        "chat about an image",
        GPT_41,
        1117 * 2000 + 46 * 8000,
        prompt_tokens=1117,
        completion_tokens=46,
        total_tokens=1163,
        prompt_tokens_details=NO_DETAILS,
    ),
    chat(
        "chat with functions",
        GPT_41,
        82 * 2000 + 17 * 8000,
        prompt_tokens=82,
        completion_tokens=17,
        total_tokens=99,
    ),
    Case(
        "completion",
        tokens("1.50", "2"),
        5 * 1500 + 7 * 2000,
        {
            "choices": [{"text": "hi", "finish_reason": "length"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
        },
        path="/v1/completions",
    ),
    response(
        "response",
        GPT_41,
        36 * 2000 + 87 * 8000,
        input_tokens=36,
        input_tokens_details={"cached_tokens": 0, "cache_write_tokens": 0},
        output_tokens=87,
        output_tokens_details={"reasoning_tokens": 0},
        total_tokens=123,
    ),
    response(
        "response that searched the web, then opened a page",
        GPT_41,
        8438 * 2000 + 398 * 8000 + 10_000_000,
        {"type": "web_search_call", "status": "completed", "action": {"type": "search"}},
        {"type": "web_search_call", "status": "completed", "action": {"type": "open_page"}},
        input_tokens=8438,
        input_tokens_details={"cached_tokens": 0},
        output_tokens=398,
        total_tokens=8836,
    ),
    response(
        "response that searched in files",
        GPT_41,
        18_307 * 2000 + 348 * 8000 + 2_500_000,
        {"type": "file_search_call", "status": "completed", "queries": ["attributes"]},
        input_tokens=18_307,
        input_tokens_details={"cached_tokens": 0},
        output_tokens=348,
        total_tokens=18_655,
    ),
    response(
        "response with reasoning, which is output",
        tokens("1.10", "4.40"),
        81 * 1100 + 1035 * 4400,
        input_tokens=81,
        output_tokens=1035,
        output_tokens_details={"reasoning_tokens": 832},
        total_tokens=1116,
    ),
    response(
        "response with cached input",
        GPT_41,
        (1500 - 1024) * 2000 + 1024 * 500 + 500 * 8000,
        input_tokens=1500,
        input_tokens_details={"cached_tokens": 1024},
        output_tokens=500,
        output_tokens_details={"reasoning_tokens": 300},
        total_tokens=2000,
    ),
    Case(
        "embedding",
        tokens("0.10", "0"),
        8 * 100,
        {"data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 8, "total_tokens": 8}},
        path="/v1/embeddings",
    ),
    heard(
        "transcription by tokens",
        TRANSCRIBE,
        14 * 6000 + 45 * 10_000,
        type="tokens",
        input_tokens=14,
        input_token_details={"text_tokens": 0, "audio_tokens": 14},
        output_tokens=45,
        total_tokens=59,
    ),
    heard(
        "transcription by the second",
        {"audio_usd_per_hour": "0.36"},
        27 * 100_000,
        type="duration",
        seconds=27,
    ),
    event(
        "transcription as a stream",
        TRANSCRIBE,
        10 * 2500 + 4 * 6000 + 31 * 10_000,
        "/v1/audio/transcriptions",
        type="transcript.text.done",
        text="hi",
        usage={
            "type": "tokens",
            "input_tokens": 14,
            "input_token_details": {"text_tokens": 10, "audio_tokens": 4},
            "output_tokens": 31,
            "total_tokens": 45,
        },
    ),
    Case(
        "speech, by the characters of its text",
        {"per_mchar_usd": "15"},
        44 * 15_000,
        b"\xff\xf3",
        {
            "model": "tts-1",
            "input": "The quick brown fox jumped over the lazy dog",
            "voice": "alloy",
        },
        path="/v1/audio/speech",
        headers=SOUND,
    ),
    event(
        "speech as a stream of events",
        tokens("0.60", "12"),
        14 * 600 + 101 * 12_000,
        "/v1/audio/speech",
        type="speech.audio.done",
        usage={"input_tokens": 14, "output_tokens": 101, "total_tokens": 115},
    ),
    Case(
        "image by tokens",
        IMAGE,
        10 * 5000 + 40 * 10_000 + 50 * 40_000,
        {
            "data": [{"b64_json": "..."}],
            "usage": {
                "total_tokens": 100,
                "input_tokens": 50,
                "output_tokens": 50,
                "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
            },
        },
        path="/v1/images/generations",
    ),
    event(
        "edit of an image as a stream, with its output by kind",
        IMAGE,
        10 * 5000 + 40 * 10_000 + 50 * 40_000,
        "/v1/images/edits",
        type="image_edit.completed",
        b64_json="...",
        usage={
            "total_tokens": 100,
            "input_tokens": 50,
            "output_tokens": 50,
            "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
            "output_tokens_details": {"text_tokens": 0, "image_tokens": 50},
        },
    ),
    Case(
        "image by number",
        {"per_image_usd": "0.04"},
        40_000_000,
        {"data": [{"url": "https://..."}]},
        path="/v1/images/generations",
    ),
    # The usage of `response.done` in the guide to costs of the Realtime API.
    response(
        "sound in and out, with text from the cache",
        AUDIO | mtok(cached_input="0.40"),
        (119 - 64) * 2500 + 13 * 32_000 + 64 * 400 + 30 * 10_000 + 91 * 64_000,
        total_tokens=253,
        input_tokens=132,
        output_tokens=121,
        input_token_details={
            "text_tokens": 119,
            "audio_tokens": 13,
            "cached_tokens": 64,
            "cached_tokens_details": {"text_tokens": 64, "audio_tokens": 0},
        },
        output_token_details={"text_tokens": 30, "audio_tokens": 91},
    ),
    response(
        "sound from the cache has its own price",
        AUDIO | mtok(cached_input="0.60"),
        (120 - 40) * 2500 + 40 * 600 + (80 - 30) * 32_000 + 30 * 400 + 50 * 10_000 + 150 * 64_000,
        total_tokens=400,
        input_tokens=200,
        output_tokens=200,
        input_token_details={
            "text_tokens": 120,
            "audio_tokens": 80,
            "cached_tokens": 70,
            "cached_tokens_details": {"text_tokens": 40, "audio_tokens": 30},
        },
        output_token_details={"text_tokens": 50, "audio_tokens": 150},
    ),
    # https://github.com/Azure/azure-rest-api-specs (AzureOpenAI, 2024-10-21, chat_completions.json)
    chat(
        "Azure: chat",
        GPT_41,
        33 * 2000 + 557 * 8000,
        completion_tokens=557,
        prompt_tokens=33,
        total_tokens=590,
    ),
]

OTHERS = [
    # https://docs.mistral.ai/api
    chat(
        "Mistral: chat",
        SMALL,
        13 * 100 + 7 * 300,
        completion_tokens=7,
        prompt_audio_seconds=0,
        num_cached_tokens=0,
        prompt_tokens=13,
        prompt_tokens_details={"cached_tokens": 0},
        total_tokens=20,
    ),
    Case(
        "Mistral: embedding",
        tokens("0.10", "0"),
        15 * 100,
        {
            "data": [{"embedding": [0.5]}],
            "usage": {
                "prompt_tokens": 15,
                "completion_tokens": 0,
                "total_tokens": 15,
                "prompt_audio_seconds": None,
            },
        },
        path="/v1/embeddings",
    ),
    # https://docs.mistral.ai/capabilities/audio/speech_to_text
    heard(
        "Mistral: transcription, by the second",
        {"audio_usd_per_hour": "0.18"},
        203 * 50_000,
        prompt_audio_seconds=203,
        prompt_tokens=4,
        total_tokens=3264,
        completion_tokens=635,
    ),
    chat(
        "Mistral: chat about a sound, by the second and by tokens of text",
        VOXTRAL,
        12 * 240_000_000 // 3600 + 3 * 100 + 41 * 400,
        prompt_audio_seconds=12,
        prompt_tokens=3,
        total_tokens=419,
        completion_tokens=41,
        prompt_tokens_details={"cached_tokens": 0, "audio_tokens": 375},
    ),
    chat(
        "Mistral: chat about a sound that was cached",
        VOXTRAL,
        -(-5 * 240_000_000 // 3600) + 5 * 100 + 24 * 400,
        prompt_audio_seconds=5,
        prompt_tokens=5,
        total_tokens=404,
        completion_tokens=24,
        prompt_tokens_details={"cached_tokens": 368},
    ),
    Case(
        "Mistral: OCR, by the page",
        {"per_page_usd": "0.002"},
        29 * 2_000_000,
        {"pages": [], "usage_info": {"pages_processed": 29, "doc_size_bytes": None}},
        path="/v1/ocr",
    ),
    # https://api-docs.deepseek.com/api/create-chat-completion
    chat(
        "DeepSeek: chat",
        DEEPSEEK,
        16 * 270 + 10 * 1100,
        completion_tokens=10,
        prompt_tokens=16,
        total_tokens=26,
    ),
    # https://api-docs.deepseek.com/guides/kv_cache: hits and misses are the prompt
    chat(
        "DeepSeek: chat with hits in the cache, and reasoning",
        DEEPSEEK,
        1088 * 70 + 12 * 270 + 200 * 1100,
        prompt_tokens=1100,
        completion_tokens=200,
        total_tokens=1300,
        prompt_cache_hit_tokens=1088,
        prompt_cache_miss_tokens=12,
        completion_tokens_details={"reasoning_tokens": 150},
    ),
    # https://console.groq.com/docs/api-reference
    chat(
        "Groq: chat, with its times",
        GROQ,
        18 * 75 + 556 * 300,
        queue_time=0.037493756,
        prompt_tokens=18,
        prompt_time=0.000680594,
        completion_tokens=556,
        completion_time=0.463333333,
        total_tokens=574,
        total_time=0.464013927,
    ),
    # https://console.groq.com/docs/prompt-caching
    chat(
        "Groq: chat with a cached prompt",
        GROQ,
        (4641 - 4608) * 75 + -(-4608 * 75 // 2) + 1817 * 300,
        queue_time=0.026959759,
        prompt_tokens=4641,
        prompt_time=0.009995497,
        completion_tokens=1817,
        completion_time=5.57691751,
        total_tokens=6458,
        total_time=5.586913007,
        prompt_tokens_details={"cached_tokens": 4608},
    ),
    # https://docs.x.ai/developers/advanced-api-usage/prompt-caching/usage-and-pricing
    chat(
        "xAI: chat with a cached prompt",
        GROK,
        (125 - 98) * 3000 + 98 * 750 + 48 * 15_000,
        prompt_tokens=125,
        completion_tokens=48,
        total_tokens=173,
        prompt_tokens_details={
            "text_tokens": 125,
            "audio_tokens": 0,
            "image_tokens": 0,
            "cached_tokens": 98,
        },
        completion_tokens_details={"reasoning_tokens": 0, "audio_tokens": 0},
    ),
    # https://docs.x.ai/developers/cost-tracking: 10,000,000,000 ticks are a dollar
    chat(
        "xAI: its own charge",
        GROK,
        3_775_600,
        prompt_tokens=125,
        completion_tokens=48,
        total_tokens=173,
        cost_in_usd_ticks=37_756_000,
    ),
    Case(
        "xAI: its own charge for an image",
        {"per_image_usd": "0.07"},
        20_000_000,
        {"data": [{"url": "https://..."}], "usage": {"cost_in_usd_ticks": 200_000_000}},
        path="/v1/images/generations",
    ),
    # https://openrouter.ai/docs/use-cases/usage-accounting
    chat(
        "OpenRouter: its own charge",
        SMALL,
        950_000_000,
        completion_tokens=2,
        completion_tokens_details={"reasoning_tokens": 0},
        cost=0.95,
        cost_details={"upstream_inference_cost": 19},
        prompt_tokens=194,
        prompt_tokens_details={"cached_tokens": 0, "cache_write_tokens": 100, "audio_tokens": 0},
        total_tokens=196,
    ),
    # https://docs.cohere.com/docs/how-does-cohere-pricing-work: not its `tokens`
    chat(
        "Cohere: chat, by what is billed",
        COMMAND,
        6772 * 2500 + 248 * 10_000,
        billed_units={"input_tokens": 6772, "output_tokens": 248},
        tokens={"input_tokens": 7596, "output_tokens": 645},
    ),
    # https://docs.cohere.com/reference/rerank
    Case(
        "Cohere: ranking, by search units",
        {"per_search_usd": "0.002"},
        2_000_000,
        {
            "results": [{"index": 3, "relevance_score": 0.999071}],
            "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
        },
        path="/v1/rerank",
    ),
    # https://docs.cohere.com/reference/embed, and its guide to multimodal embeddings
    Case(
        "Cohere: embedding of an image, by number",
        {"per_image_usd": "0.0001"},
        100_000,
        {
            "embeddings": {"float": [[0.5]]},
            "meta": {"billed_units": {"input_tokens": None, "search_units": None, "images": 1}},
        },
        path="/v1/embeddings",
    ),
    Case(
        "Cohere: embedding of a text and an image, by tokens of each",
        EMBED,
        3 * 120 + 1000 * 470,
        {
            "embeddings": {"float": [[0.5]]},
            "meta": {"billed_units": {"input_tokens": 3, "image_tokens": 1000}},
        },
        path="/v1/embeddings",
    ),
]


def message(name: str, nano: int, **usage: Any) -> Case:
    said = [{"type": "text", "text": "hi"}]
    document = {"type": "message", "content": said, "stop_reason": "end_turn", "usage": usage}
    return Case(name, SONNET, nano, document, path="/v1/messages")


ANTHROPIC = [
    # https://platform.claude.com/docs/en/api/messages
    message("a message", 2095 * 3000 + 503 * 15_000, input_tokens=2095, output_tokens=503),
    # https://platform.claude.com/docs/en/build-with-claude/prompt-caching
    message(
        "a cache read, and written for five minutes and for an hour",
        2048 * 3000 + 1800 * 300 + 148 * 3750 + 100 * 6000 + 503 * 15_000,
        input_tokens=2048,
        cache_read_input_tokens=1800,
        cache_creation_input_tokens=248,
        output_tokens=503,
        cache_creation={"ephemeral_5m_input_tokens": 148, "ephemeral_1h_input_tokens": 100},
    ),
    # https://platform.claude.com/docs/en/agents-and-tools/tool-use/web-search-tool
    message(
        "a web search",
        105 * 3000 + 7123 * 300 + 7345 * 3750 + 6039 * 15_000 + 10_000_000,
        input_tokens=105,
        output_tokens=6039,
        cache_read_input_tokens=7123,
        cache_creation_input_tokens=7345,
        server_tool_use={"web_search_requests": 1},
    ),
    # https://platform.claude.com/docs/en/agents-and-tools/tool-use/web-fetch-tool
    message(
        "a fetched page, which costs its tokens alone",
        25_039 * 3000 + 931 * 15_000,
        input_tokens=25_039,
        output_tokens=931,
        cache_read_input_tokens=0,
        cache_creation_input_tokens=0,
        server_tool_use={"web_fetch_requests": 1},
    ),
    # https://platform.claude.com/docs/en/build-with-claude/batch-processing
    message(
        "half the price in a batch",
        (10 * 3000 + 34 * 15_000) // 2,
        input_tokens=10,
        output_tokens=34,
        service_tier="batch",
    ),
]


def generated(name: str, nano: int, price: Table = FLASH, **usage: Any) -> Case:
    return Case(
        name, price, nano, {"candidates": [{"finishReason": "STOP"}], "usageMetadata": usage}
    )


def kinds(**counts: int) -> list[dict[str, Any]]:
    return [{"modality": kind, "tokenCount": count} for kind, count in counts.items()]


GEMINI = [
    # https://ai.google.dev/gemini-api/docs/tokens
    generated(
        "a text",
        11 * 300 + 73 * 2500,
        promptTokenCount=11,
        candidatesTokenCount=73,
        totalTokenCount=84,
        promptTokensDetails=kinds(TEXT=11),
    ),
    generated(
        "an image costs as much as a text of its tokens",
        264 * 300 + 80 * 2500,
        promptTokenCount=264,
        candidatesTokenCount=80,
        totalTokenCount=344,
        promptTokensDetails=kinds(TEXT=6, IMAGE=258),
    ),
    # https://ai.google.dev/gemini-api/docs/caching
    generated(
        "a cached transcript",
        29 * 300 + 696_190 * 30 + 214 * 2500,
        promptTokenCount=696_219,
        cachedContentTokenCount=696_190,
        candidatesTokenCount=214,
        totalTokenCount=696_433,
    ),
    # https://ai.google.dev/gemini-api/docs/url-context
    generated(
        "the results of tools are input, thoughts are output",
        (27 + 10_309) * 300 + (45 + 31) * 2500,
        candidatesTokenCount=45,
        promptTokenCount=27,
        promptTokensDetails=kinds(TEXT=27),
        thoughtsTokenCount=31,
        toolUsePromptTokenCount=10_309,
        toolUsePromptTokensDetails=kinds(TEXT=10_309),
        totalTokenCount=10_412,
    ),
    # https://ai.google.dev/api/generate-content#UsageMetadata: cacheTokensDetails
    generated(
        "a cached recording has its own price",
        10 * 300 + 200 * 1000 + 1000 * 100 + 50 * 30 + 7 * 2500,
        promptTokenCount=1260,
        promptTokensDetails=kinds(TEXT=60, AUDIO=1200),
        cachedContentTokenCount=1050,
        cacheTokensDetails=kinds(TEXT=50, AUDIO=1000),
        candidatesTokenCount=7,
        totalTokenCount=1267,
    ),
    # https://ai.google.dev/gemini-api/docs/pricing: an image of 1024 x 1024 is 1290 tokens
    generated(
        "a picture that was drawn",
        7 * 300 + 1290 * 30_000,
        FLASH_IMAGE,
        promptTokenCount=7,
        candidatesTokenCount=1290,
        candidatesTokensDetails=kinds(IMAGE=1290),
        totalTokenCount=1297,
    ),
]


def told(case: Case, wire: OpenAI | Anthropic | Gemini) -> Usage:
    payload = Payload({})
    if case.sent is not None:
        call = Call(b"POST", case.path.encode(), [], orjson.dumps(case.sent))
        payload = wire.parse(call)
    reply = HttpReply(200, case.headers, None)  # type: ignore[arg-type] # its body has been read
    usage = wire.usage(payload, reply, case.body)
    assert usage is not None
    return usage


EVERY = [
    *[(OpenAI(), case) for case in (*OPENAI, *OTHERS)],
    *[(Anthropic(), case) for case in ANTHROPIC],
    *[(Gemini(), case) for case in GEMINI],
]


@pytest.mark.parametrize(("wire", "case"), EVERY, ids=[case.name for _, case in EVERY])
def test_what_a_provider_documents_is_billed_to_the_nano_dollar(
    wire: OpenAI | Anthropic | Gemini, case: Case
) -> None:
    price = parse_price(case.price)
    usage = told(case, wire)

    assert price.is_told_by(usage)
    assert price.cost_nano(usage) == case.nano
    assert not price.guesses(usage)


STREAMED = [
    *[(OpenAI(), case, {"type": "response.completed", "response": case.reply})
      for case in OPENAI if case.path == "/v1/responses"],
    *[(OpenAI(), case, {"choices": [], "usage": case.reply["usage"]})
      for case in (*OPENAI, *OTHERS) if case.path == "/v1/chat/completions"],
    *[(Anthropic(), case, {"type": "message_delta", "delta": {"stop_reason": "end_turn"},
                           "usage": case.reply["usage"]})
      for case in ANTHROPIC],
    *[(Gemini(), case, case.reply) for case in GEMINI],
]  # fmt: skip


@pytest.mark.parametrize(
    ("wire", "case", "last"), STREAMED, ids=[case.name for _, case, _ in STREAMED]
)
def test_a_stream_that_ends_with_it_is_billed_the_same(
    wire: OpenAI | Anthropic | Gemini, case: Case, last: dict[str, Any]
) -> None:
    reply = HttpReply(200, SSE, None)  # type: ignore[arg-type] # its body has been read
    usage = wire.usage(Payload({}), reply, b"data: %b\n\n" % orjson.dumps(last))

    assert usage is not None
    assert usage.exact
    assert parse_price(case.price).cost_nano(usage) == case.nano
