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
from tollway.backends.protocols.openai.usage_names import (
    BESIDE,
    CACHED,
    COUNTS,
    INPUTS,
    LISTS,
    WITHIN,
)
from tollway.backends.types import Details, Usage
from tollway.backends.units import MORE
from tollway.backends.usage_headers import COUNT_MAX, count

_UNITS = tuple(unit.name for unit in MORE)
_INPUT_PARTS = tuple(unit.name for unit in MORE if unit.part_of == "input_tokens")
_OUTPUT_PARTS = tuple(unit.name for unit in MORE if unit.part_of == "output_tokens")

_STANDARD = frozenset(
    (
        *("", "default", "standard", "auto", "on_demand", "on-demand"),
        *("global", "not_available"),  # places of inference
    )
)
_NO_TIERS = (None, None, None, None)
_BILLED = frozenset(("cost_in_usd_ticks", "cost", "service_tier", "speed", "inference_geo"))
_TIER_CHARS_MAX = 32
MEMBERS_MAX = 256
"""Members of an object of usage that is read; providers send some twenty."""

_ENTRIES_MAX = 32  # of a list: there are five modalities
_BESIDE_MESSAGE = frozenset(("compaction", "advisor_message"))
_OTHER_MODELS = frozenset(("advisor_message", "fallback_message"))
TICKS_PER_NANO = 10  # xAI bills in 1e-10 dollars

Counts = dict[str, float]
Units = tuple[tuple[str, float], ...]


def of(document: Any) -> Usage | None:
    """Return the usage that a reply, or an event of a stream, reports anywhere; None: nowhere.

    Raises ValueError if a count is not a number, or below 0.
    """
    if not isinstance(document, dict):
        return None
    tier = None
    if "service_tier" in document or "serviceTier" in document:
        tier = document.get("service_tier") or document.get("serviceTier")
    usage = read(
        member_of(document), embeds="choices" not in document and _embeds(document), tier=tier
    )
    if usage is not None:
        ran = _tool_calls(document["output"]) if "output" in document else ()
        return with_units(usage, ran) if ran else usage
    data = document.get("data")
    if isinstance(data, list) and data and all(_is_image(one) for one in data):
        return Usage(more=Details((("images", float(len(data))),)))
    return None


def with_units(usage: Usage, units: Units) -> Usage:
    """Return a usage with further units beside those that it has."""
    more = usage.more or Details()
    return replace(usage, more=replace(more, units=(*more.units, *units), is_zero=False))


def _tool_calls(output: Any) -> Units:
    """Return the calls of the provider's own tools that a response lists, and that cost money.

    Of the actions of a web search, only `search` is charged; the others read what it found.
    https://developers.openai.com/api/docs/guides/tools-web-search
    """
    ran = {"searches": 0.0, "file_searches": 0.0}
    for item in output if isinstance(output, list) else ():
        kind = item.get("type") if isinstance(item, dict) else None
        if kind == "file_search_call":
            ran["file_searches"] += 1.0
        elif kind == "web_search_call":
            action = item.get("action")
            searched = not isinstance(action, dict) or action.get("type", "search") == "search"
            ran["searches"] += searched
    return tuple((unit, count) for unit, count in ran.items() if count)


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
    below 0, or if there are too many members to read them all.
    """
    if not isinstance(member, dict):
        return None
    if len(member) > MEMBERS_MAX:
        raise ValueError(f"{len(member)} members in usage")
    billed = member.get("billed_units")  # Cohere; beside them `tokens` are those not billed
    if isinstance(billed, dict):
        member = billed
    counts = _counts(member)
    usage = _reported(counts, _stands_beside(member), embeds=embeds)
    if usage is not None and tier is None and _BILLED.isdisjoint(member):  # nearly always
        return usage
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
        if name in COUNTS:
            what = COUNTS[name]
            if type(value) is int and what not in counts and 0 <= value <= COUNT_MAX:
                counts[what] = float(value)  # nearly always
            else:
                _put(counts, what, value, name)
        elif name in WITHIN:
            within = WITHIN[name]
            if isinstance(value, dict) and len(value) <= MEMBERS_MAX:
                for inner, reported in value.items():
                    if reported and inner in within:  # most details are 0
                        _put(counts, within[inner], reported, inner)
        elif name in LISTS and isinstance(value, list):
            _add_entries(counts, name, value)
        elif name == "iterations" and isinstance(value, list):
            _add_iterations(counts, value)
        elif name == "seconds" and member.get("type") == "duration":
            _put(counts, "audio_s", value, name)
    return counts


def _put(counts: Counts, what: str, value: Any, name: str) -> None:
    if name == "prompt_audio_seconds" and isinstance(value, bool | dict):
        return  # Mistral's, without any sound
    if name == "cached_tokens_details":
        _put_cached(counts, value)
        return
    reported = count(value, name)
    if reported < 0:
        raise ValueError(f"{name}: {reported:g} is below 0")
    before = counts.get(what)
    counts[what] = reported if before is None or reported > before else before


def _put_cached(counts: Counts, details: Any) -> None:
    for inner, reported in details.items() if isinstance(details, dict) else ():
        if reported and inner in CACHED:
            _put(counts, CACHED[inner], reported, inner)


def _add_entries(counts: Counts, name: str, entries: list[Any]) -> None:
    key, where, kinds = LISTS[name]
    for entry in entries[:_ENTRIES_MAX]:
        what = kinds.get(str(entry.get(key))) if isinstance(entry, dict) else None
        if what is not None and entry.get(where) is not None:
            reported = count(entry[where], f"{name}.{where}")
            if reported < 0:
                raise ValueError(f"{name}.{where}: {reported:g} is below 0")
            counts[what] = counts.get(what, 0.0) + reported


def _add_iterations(counts: Counts, entries: list[Any]) -> None:
    """Add the samples that Anthropic bills beside the counts of a message.

    Those of another model (an advisor, a fallback) are charged at another price than is known.
    """
    for entry in entries[:_ENTRIES_MAX]:
        kind = entry.get("type") if isinstance(entry, dict) else None
        if kind in _BESIDE_MESSAGE:
            for what, number in _counts(entry).items():
                counts[what] = counts.get(what, 0.0) + number
        if kind in _OTHER_MODELS:
            counts["other_models"] = 1.0


def _stands_beside(member: dict[str, Any]) -> bool | None:
    """Whether caches are beside the input; None if the names leave it open."""
    if BESIDE.isdisjoint(member):
        return False
    return None if INPUTS.isdisjoint(member) or "prompt_tokens" in member else True


def _reported(counts: Counts, beside: bool | None, *, embeds: bool) -> Usage | None:
    """Return the usage of some counts; None if the input or the output count is missing."""
    given, made, total = counts.get("input"), counts.get("output"), counts.get("total")
    if len(counts) == 3 and given and made is not None and total == given + made:
        return Usage(1.0, 0.0, given, 0.0, made)  # nearly always
    if "audio_s" in counts:
        _drop_sound(counts, given)
        made, total = made or 0.0, None
    if "billed_image_tokens" in counts:
        counts["image_input_tokens"] = counts.pop("billed_image_tokens")
        given = (given or 0.0) + counts["image_input_tokens"]
    if given is None and embeds:
        given = total
    if made is None and embeds:
        made = 0.0
    if given is None or (made is None and total is None):
        apart = _standing_apart(counts)
        return Usage(more=Details(apart)) if apart and given is None and not made else None
    made = made or 0.0
    is_doubtful = total < given + made if total is not None else beside is None
    is_doubtful = is_doubtful or "other_models" in counts
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


def _drop_sound(counts: Counts, given: float | None) -> None:
    """Remove the tokens of sound that is billed by the second, as Mistral's is.

    They are beside the prompt: in the total alone, or as `audio_tokens`; a cache may hold them too.
    """
    counts.pop("audio_input_tokens", None)
    if counts.get("cached_input_tokens", 0.0) > (given or 0.0):
        del counts["cached_input_tokens"]


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
    _split_cached(counts)
    others = sum(counts.get(name, 0.0) for name in _INPUT_PARTS)
    cached = counts.get("cached_input_tokens", 0.0)
    if others and others <= given and cached <= given < cached + others:
        counts["cached_input_tokens"] = given - others
    audible = counts.get("audio_output_tokens", 0.0) + counts.get("image_output_tokens", 0.0)
    thought = counts.get("reasoning_tokens", 0.0)
    if audible <= made and thought <= made < audible + thought:
        counts["reasoning_tokens"] = made - audible
    return tuple([(name, counts[name]) for name in _UNITS if counts.get(name)])


def _split_cached(counts: Counts) -> None:
    """Count cached sounds and images once: neither as the rest that is cached, nor as fresh."""
    for kind in ("audio", "image"):
        part = counts.get(f"cached_{kind}_input_tokens", 0.0)
        for whole in (f"{kind}_input_tokens", "cached_input_tokens"):
            if part and counts.get(whole, 0.0) >= part:
                counts[whole] -= part


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
        raise ValueError(f"{name}: {value!r} is not an amount of money")
    nano = int(amount)
    return nano if nano == amount else nano + 1


def _tier(member: Mapping[str, Any], beside: Any) -> str:
    """Return the service tier of a call; empty for the standard one.

    A place of inference that costs more (Anthropic's `us`) and fast mode are tiers too; where
    several apply, `+` stands between their names.
    """
    tiers = member.get("service_tier"), beside, member.get("speed"), member.get("inference_geo")
    if tiers == _NO_TIERS or (
        type(tiers[0]) is str and tiers[0] in _STANDARD and tiers[1:] == _NO_TIERS[1:]
    ):
        return ""
    names = [tier[:_TIER_CHARS_MAX].lower() for tier in tiers if isinstance(tier, str)]
    return "+".join(dict.fromkeys([name for name in names if name not in _STANDARD]))
