"""Usage as providers and model servers report it, read by table.

Theory of operation. All report an input count and an output count. They differ in names, and in
what these counts include:

    OpenAI, Azure, Mistral, vLLM, SGLang ...   cached tokens are in the prompt's count, reasoning in
                                               the completion's
    Anthropic, Bedrock                         cache reads and writes are beside the input
    Gemini                                     thoughts are beside the candidates, tool results
                                               beside the prompt
    xAI, Perplexity                            reasoning is beside the completion
    Portkey, and proxies like it               OpenAI's names, Anthropic's meaning

So each name is looked up in a table that says what it counts; then the counts beside are added. The
total, if there is one, decides in doubt: its excess over the parts is a cache or reasoning that is
reported too, else it is output, which costs more. A total below its parts makes the usage doubtful:
it is charged by its parts, and marked as an estimate.

Null means not reported, and a number in quotes is a number. A negative or impossible count is a
ValueError, and the call is charged by its quote.
"""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any

from tollway.backends.money import NANO_PER_USD
from tollway.backends.price import MAX_NANO
from tollway.backends.types import Details, Usage
from tollway.backends.units import MORE
from tollway.backends.usage_headers import COUNT_MAX, count

_TOP: dict[str, str] = {
    **dict.fromkeys(
        ("prompt_tokens", "input_tokens", "promptTokenCount", "prompt_token_count"), "input"
    ),
    **dict.fromkeys(("inputTokens", "inputTokenCount"), "input"),
    **dict.fromkeys(
        ("completion_tokens", "output_tokens", "candidatesTokenCount", "candidates_token_count"),
        "output",
    ),
    **dict.fromkeys(("outputTokens", "outputTokenCount"), "output"),
    **dict.fromkeys(
        ("total_tokens", "totalTokenCount", "totalTokens", "total_token_count"), "total"
    ),
    **dict.fromkeys(
        ("cached_tokens", "num_cached_tokens", "cached_prompt_text_tokens"), "cached_input_tokens"
    ),
    **dict.fromkeys(
        ("prompt_cache_hit_tokens", "cachedContentTokenCount", "cached_content_token_count"),
        "cached_input_tokens",
    ),
    **dict.fromkeys(
        ("cache_read_input_tokens", "cacheReadInputTokens", "cacheReadInputTokenCount"),
        "cached_input_tokens",
    ),
    **dict.fromkeys(
        ("cache_creation_input_tokens", "cacheWriteInputTokens", "cacheWriteInputTokenCount"),
        "cache_write",
    ),
    "cache_write_tokens": "cache_write",
    "reasoning_tokens": "reasoning_tokens",
    "thoughtsTokenCount": "thoughts",
    "thoughts_token_count": "thoughts",
    "toolUsePromptTokenCount": "tool_results",
    "tool_use_prompt_token_count": "tool_results",
    "citation_tokens": "citations",
    "num_search_queries": "searches",
    "search_units": "searches",
    "pages_processed": "pages",
    "prompt_audio_seconds": "audio_s",
}
"""What a name in a usage object counts."""

_GIVEN = {
    "cached_tokens": "cached_input_tokens",
    "cache_read_input_tokens": "cached_input_tokens",
    "cache_write_tokens": "cache_write",
    "cache_creation_tokens": "cache_write",
    "audio_tokens": "audio_input_tokens",
    "image_tokens": "image_input_tokens",
    "video_tokens": "video_input_tokens",
}
_MADE = {
    "reasoning_tokens": "reasoning_tokens",
    "thinking_tokens": "reasoning_tokens",
    "audio_tokens": "audio_output_tokens",
    "image_tokens": "image_output_tokens",
}
_WITHIN: dict[str, dict[str, str]] = {
    **dict.fromkeys(
        ("prompt_tokens_details", "input_tokens_details", "prompt_token_details"), _GIVEN
    ),
    "input_token_details": _GIVEN,
    **dict.fromkeys(
        ("completion_tokens_details", "output_tokens_details", "output_token_details"), _MADE
    ),
    "cache_creation": {
        "ephemeral_5m_input_tokens": "cache_write_5m_tokens",
        "ephemeral_1h_input_tokens": "cache_write_1h_tokens",
    },
    "server_tool_use": {"web_search_requests": "searches"},
}
"""What the names in an object within a usage object count."""

_LISTS: dict[str, tuple[str, str, dict[str, str]]] = {
    "promptTokensDetails": (
        "modality",
        "tokenCount",
        {
            "AUDIO": "audio_input_tokens",
            "IMAGE": "image_input_tokens",
            "VIDEO": "video_input_tokens",
        },
    ),
    "candidatesTokensDetails": (
        "modality",
        "tokenCount",
        {"AUDIO": "audio_output_tokens", "IMAGE": "image_output_tokens"},
    ),
    "cacheDetails": (
        "ttl",
        "inputTokens",
        {"5m": "cache_write_5m_tokens", "1h": "cache_write_1h_tokens"},
    ),
}
"""What the entries of a list within a usage object count, by their own type."""

_BESIDE = frozenset(
    (
        *("cache_read_input_tokens", "cache_creation_input_tokens"),
        *("cacheReadInputTokens", "cacheWriteInputTokens"),
        *("cacheReadInputTokenCount", "cacheWriteInputTokenCount"),
    )
)
"""Names of caches counted beside the input, if the input has a name of the same provider."""

_INPUTS = frozenset(("input_tokens", "inputTokens", "inputTokenCount"))
_UNITS = tuple(unit.name for unit in MORE)
_INPUT_PARTS = tuple(unit.name for unit in MORE if unit.part_of == "input_tokens")
_OUTPUT_PARTS = tuple(unit.name for unit in MORE if unit.part_of == "output_tokens")

_STANDARD = frozenset(("", "default", "standard", "auto", "on_demand", "on-demand"))
_NO_TIERS = (None, None, None)
_TIER_CHARS_MAX = 32
_ENTRIES_MAX = 32  # of a list: there are five modalities
TICKS_PER_NANO = 10  # xAI bills in 1e-10 dollars

Counts = dict[str, float]


def of(document: Any) -> Usage | None:
    """Return the usage that a reply, or an event of a stream, reports anywhere; None: nowhere.

    Raises ValueError if a count is not a number, or below 0.
    """
    if not isinstance(document, dict):
        return None
    tier = document.get("service_tier") or document.get("serviceTier")
    usage = read(
        member_of(document), embeds="choices" not in document and _embeds(document), tier=tier
    )
    if usage is not None:
        return usage
    data = document.get("data")
    if isinstance(data, list) and data and all(_is_image(one) for one in data):
        return Usage(more=Details((("images", float(len(data))),)))
    return None


def member_of(document: dict[str, Any]) -> dict[str, Any] | None:
    """Return the object in which a reply, or an event of a stream, reports its usage."""
    member = document.get("usage")
    if isinstance(member, dict):
        return member
    for name in ("usageMetadata", "usage_info", "amazon-bedrock-invocationMetrics"):
        member = document.get(name)
        if isinstance(member, dict):
            return member
    for holder in ("meta", "x_groq", "message", "delta", "response", "result", "metadata"):
        inner = document.get(holder)
        if isinstance(inner, dict):
            if holder == "meta":  # Cohere's first version, and its embeddings and rankings
                return inner if isinstance(inner.get("billed_units"), dict) else None
            if isinstance(inner.get("usage"), dict):
                return dict(inner["usage"])
    choices = document.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    member = choice.get("usage") if isinstance(choice, dict) else None  # Moonshot's streams
    return member if isinstance(member, dict) else None


_EMBEDS = ("data", "results", "embeddings", "embedding")


def _embeds(document: dict[str, Any]) -> bool:
    """Whether a reply without choices is of a kind without output tokens: embeddings, rankings."""
    if "output" in document or "text" in document:
        return False
    return any(isinstance(document.get(name), list | dict) for name in _EMBEDS)


def _is_image(one: Any) -> bool:
    return isinstance(one, dict) and ("b64_json" in one or "url" in one)


def read(member: Any, *, embeds: bool = False, tier: Any = None) -> Usage | None:
    """Return the usage in a `usage` object; None if there is none.

    `embeds`: the reply is an embedding or a ranking, so a missing output count is 0. `tier`: the
    service tier that the reply names beside it. Raises ValueError if a count is not a number, or
    below 0.
    """
    if not isinstance(member, dict):
        return None
    billed = member.get("billed_units")  # Cohere; beside them `tokens` are those not billed
    if isinstance(billed, dict):
        member = billed
    counts = _counts(member)
    usage = _told(counts, _stands_beside(member), embeds=embeds)
    bill, tier = _bill(member), _tier(member, tier)
    if usage is None:
        if bill is None:
            return None
        usage = Usage()
    if bill is None and not tier:
        return usage
    more = usage.more or Details()
    return replace(usage, more=Details(more.units, bill, tier, more.is_zero, more.is_doubtful))


def _counts(member: dict[str, Any]) -> Counts:
    """Return a usage object's counts, by the tables; of two reports of one thing the greater."""
    counts: Counts = {}
    for name, value in member.items():
        if value is None:
            continue
        what = _TOP.get(name)
        if what is not None:
            if type(value) is int and what not in counts and 0 <= value <= COUNT_MAX:
                counts[what] = float(value)  # nearly always
            else:
                _put(counts, what, value, name)
        elif (within := _WITHIN.get(name)) is not None:
            if isinstance(value, dict):
                for inner, told in value.items():
                    if told and inner in within:  # most details are 0
                        _put(counts, within[inner], told, inner)
        elif name in _LISTS and isinstance(value, list):
            _add_entries(counts, name, value)
        elif name == "seconds" and member.get("type") == "duration":
            _put(counts, "audio_s", value, name)
    return counts


def _put(counts: Counts, what: str, value: Any, name: str) -> None:
    if name == "prompt_audio_seconds" and isinstance(value, bool | dict):
        return  # Mistral's, without any sound
    found = count(value, name)
    if found < 0:
        raise ValueError(f"{name}: {found:g} is below 0")
    before = counts.get(what)
    counts[what] = found if before is None or found > before else before


def _add_entries(counts: Counts, name: str, entries: list[Any]) -> None:
    key, where, kinds = _LISTS[name]
    for entry in entries[:_ENTRIES_MAX]:
        what = kinds.get(str(entry.get(key))) if isinstance(entry, dict) else None
        if what is not None and entry.get(where) is not None:
            found = count(entry[where], f"{name}.{where}")
            if found < 0:
                raise ValueError(f"{name}.{where}: {found:g} is below 0")
            counts[what] = counts.get(what, 0.0) + found


def _stands_beside(member: dict[str, Any]) -> bool | None:
    """Whether caches are beside the input; None if the names leave it open."""
    if _BESIDE.isdisjoint(member):
        return False
    return None if _INPUTS.isdisjoint(member) or "prompt_tokens" in member else True


def _told(counts: Counts, beside: bool | None, *, embeds: bool) -> Usage | None:
    """Return the usage of some counts; None if the input or the output count is missing."""
    given, made, total = counts.get("input"), counts.get("output"), counts.get("total")
    if len(counts) == 3 and given and made is not None and total == given + made:
        return Usage(1.0, 0.0, given, 0.0, made)  # nearly always
    if given is None and embeds:
        given = total
    if made is None and embeds:
        made = 0.0
    if given is None or (made is None and total is None):
        apart = _standing_apart(counts)
        return Usage(more=Details(apart)) if apart and given is None and not made else None
    made = made or 0.0
    is_doubtful = total < given + made if total is not None else beside is None
    given += counts.get("tool_results", 0.0)
    made += counts.get("thoughts", 0.0)
    if "thoughts" in counts:
        counts["reasoning_tokens"] = counts["thoughts"]
    _split_writes(counts)
    cached = counts.get("cached_input_tokens", 0.0)
    if len(counts) > 3 or cached or total is not None:
        given, made = _widened(counts, beside, given, made, total)
    parts = _parts(counts, given, made)
    more = None
    if parts or is_doubtful:
        more = Details(parts, is_doubtful=is_doubtful)
    elif not (given or made):
        more = Details(is_zero=True)
    return Usage(1.0, 0.0, given, counts.get("cached_input_tokens", 0.0), made, True, more)


def _standing_apart(counts: Counts) -> tuple[tuple[str, float], ...]:
    """Return the units that are not part of the tokens."""
    parts = (*_INPUT_PARTS, *_OUTPUT_PARTS)
    return tuple((name, counts[name]) for name in _UNITS if counts.get(name) and name not in parts)


def _split_writes(counts: Counts) -> None:
    """Return all cache writes by duration; if only some have one, the rest are for an hour."""
    if "cache_write" not in counts:
        return
    short, hour = "cache_write_5m_tokens", "cache_write_1h_tokens"
    rest = counts["cache_write"] - counts.get(short, 0.0) - counts.get(hour, 0.0)
    if rest > 0:
        where = hour if counts.get(hour) else short
        counts[where] = counts.get(where, 0.0) + rest


def _widened(
    counts: Counts, beside: bool | None, given: float, made: float, total: float | None
) -> tuple[float, float]:
    """Return the input and output counts, plus the counts beside them."""
    cache = counts.get("cached_input_tokens", 0.0)
    cache += counts.get("cache_write_5m_tokens", 0.0) + counts.get("cache_write_1h_tokens", 0.0)
    thought = counts.get("reasoning_tokens", 0.0) if "thoughts" not in counts else 0.0
    gap = total - given - made if total is not None else 0.0
    if beside is None:
        # Of two that fit the gap, reasoning costs more.
        beside = cache > given or (gap in (cache, cache + thought) and gap != thought)
    elif not beside:
        beside = cache > given and gap >= cache
    if beside:
        given += cache
        gap -= cache
    if gap > 0:
        made += gap
    elif thought > made or "citations" in counts:
        # Perplexity's total leaves out reasoning and citations, which it bills as output.
        made += thought + counts.get("citations", 0.0)
    return given, made


def _parts(counts: Counts, given: float, made: float) -> tuple[tuple[str, float], ...]:
    """Return the further units; parts that overlap count as the one that costs more.

    A cached sound is counted as cached and as audio: as much of it is audio as is reported.
    """
    others = sum(counts.get(name, 0.0) for name in _INPUT_PARTS)
    cached = counts.get("cached_input_tokens", 0.0)
    if others and others <= given and cached <= given < cached + others:
        counts["cached_input_tokens"] = given - others
    heard = counts.get("audio_output_tokens", 0.0) + counts.get("image_output_tokens", 0.0)
    thought = counts.get("reasoning_tokens", 0.0)
    if heard <= made and thought <= made < heard + thought:
        counts["reasoning_tokens"] = made - heard
    return tuple([(name, counts[name]) for name in _UNITS if counts.get(name)])


def _bill(member: dict[str, Any]) -> int | None:
    """Return the amount that a provider reports as its charge, in nano-dollars; None without one.

    xAI: `cost_in_usd_ticks`; Perplexity: `cost.total_cost`; OpenRouter: `cost`, plus what the key's
    own provider charges if the key is the caller's (`is_byok`).
    """
    ticks = member.get("cost_in_usd_ticks")
    if ticks is not None:
        return _nano(ticks, "cost_in_usd_ticks", Decimal(1) / TICKS_PER_NANO)
    cost = member.get("cost")
    if isinstance(cost, dict):
        cost = cost.get("total_cost")
    if cost is None:
        return None
    nano = _nano(cost, "cost", Decimal(NANO_PER_USD))
    details = member.get("cost_details")
    if member.get("is_byok") is True and isinstance(details, dict):
        upstream = details.get("upstream_inference_cost")
        if upstream is not None:
            nano += _nano(upstream, "upstream_inference_cost", Decimal(NANO_PER_USD))
    return nano


def _nano(value: Any, name: str, per: Decimal) -> int:
    count(value, name)  # a number, or a ValueError
    try:
        amount = Decimal(str(value)) * per
    except InvalidOperation as exc:
        raise ValueError(f"{name}: {value!r} is not a number") from exc
    if not 0 <= amount < MAX_NANO:
        raise ValueError(f"{name}: {value!r} is no amount of money")
    nano = int(amount)
    return nano if nano == amount else nano + 1


def _tier(member: Mapping[str, Any], beside: Any) -> str:
    """Return the service tier of a call; empty for the standard one."""
    found = member.get("service_tier"), beside, member.get("speed")
    if found == _NO_TIERS:
        return ""
    for told in found:
        if isinstance(told, str):
            name = told[:_TIER_CHARS_MAX].lower()
            if name not in _STANDARD:
                return name
    return ""
