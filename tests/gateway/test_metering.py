"""What a call has cost, by what came back of it: never nothing, where it may have run."""

from typing import Any

import orjson
import pytest

from backends.openai import OpenAI, Stream
from backends.pricing import Price, parse_price
from backends.types import Call, Payload, Reply, Usage
from gateway.estimator import Quote
from gateway.metering import ESTIMATED, REPORTED, USAGE, VOID, Verdict, judge, relayed
from gateway.route import Backend

TOKENS = parse_price({"input_usd_per_mtok": 1, "output_usd_per_mtok": 10})
OUTPUT = parse_price({"input_usd_per_mtok": 0, "output_usd_per_mtok": 10})
QUOTE = Quote(7_000, 8_000, 9_000, Usage(input_tokens=50.0, output_tokens=20.0, exact=False))


def backend(price: Price) -> Backend:
    return Backend("b", "gpu", OpenAI(), None, price)  # type: ignore[arg-type] # it is not called


def judged(usage: Any, *, price: Price = TOKENS, status: int = 200) -> Verdict:
    document = {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}
    body = orjson.dumps({**document, "usage": usage})
    reply = Reply(status, [], None)  # type: ignore[arg-type] # its body has been read
    call = Call(b"POST", b"/v1/chat/completions", [], payload=Payload({}))
    return judge(backend(price), call, reply, body, quote=QUOTE, latency_s=0.1)


@pytest.mark.parametrize(
    ("usage", "price"),
    [
        ({"prompt_tokens": 10}, TOKENS),
        ({"prompt_tokens": 10, "completion_tokens": -5, "total_tokens": 10}, TOKENS),
        ({"prompt_tokens": 10, "completion_tokens": 1e300}, TOKENS),
        ({"prompt_tokens": 10, "completion_tokens": "twenty"}, TOKENS),
        ({"prompt_tokens": 10, "completion_tokens": "NaN"}, TOKENS),
        ({"prompt_tokens": 10, "completion_tokens": "inf"}, TOKENS),
        ({"prompt_tokens": 10, "completion_tokens": 0}, OUTPUT),
        ({"prompt_tokens": 10}, OUTPUT),
        (None, TOKENS),
    ],
)
def test_a_usage_that_lies_or_leaves_out_what_costs_is_charged_by_the_quote(
    usage: Any, price: Price
) -> None:
    verdict = judged(usage, price=price)

    assert (verdict.cost_nano, verdict.provenance) == (QUOTE.expected_nano, ESTIMATED)
    assert not verdict.error


ZERO = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def test_a_backend_that_reports_that_nothing_was_used_is_believed() -> None:
    verdict = judged(ZERO)

    assert (verdict.cost_nano, verdict.provenance) == (0, USAGE)
    assert verdict.ran


def test_a_cost_that_the_backend_reports_is_charged_and_marked_as_reported() -> None:
    verdict = judged({"prompt_tokens": 10, "completion_tokens": 4, "cost": "0.00000123"})

    assert (verdict.cost_nano, verdict.provenance) == (1230, REPORTED)


def test_what_has_no_price_is_charged_as_an_estimate_that_says_so() -> None:
    details = {"prompt_tokens_details": {"audio_tokens": 6}}
    verdict = judged({"prompt_tokens": 10, "completion_tokens": 4, **details})

    assert (verdict.cost_nano, verdict.provenance) == (4 * 1000 + 6 * 16_000 + 40_000, ESTIMATED)
    assert verdict.usage is not None
    assert verdict.usage.more is not None
    assert verdict.usage.more.guessed == ("audio_input_tokens",)


def test_a_total_below_its_parts_is_an_estimate() -> None:
    verdict = judged({"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 4})

    assert (verdict.cost_nano, verdict.provenance) == (10 * 1000 + 4 * 10_000, ESTIMATED)


@pytest.mark.parametrize("status", [400, 424, 429, 503])
def test_a_refusal_is_charged_for_what_it_reports_and_for_nothing_else(status: int) -> None:
    assert (judged(None, status=status).cost_nano, judged(None, status=status).ran) == (0, False)

    verdict = judged({"prompt_tokens": 10, "completion_tokens": 4}, status=status)

    assert (verdict.cost_nano, verdict.provenance) == (10 * 1000 + 4 * 10_000, USAGE)
    assert judged(None, status=status).provenance == VOID


def event(document: Any) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(document)


ROLE = event({"choices": [{"index": 0, "delta": {"role": "assistant"}}]})
TEXT = event({"choices": [{"index": 0, "delta": {"content": "word"}}]})
LIE = event({"choices": [], "usage": {"prompt_tokens": -9, "completion_tokens": 1}})
DONE = b"data: [DONE]\n\n"


def ended(*events: bytes, price: Price = TOKENS, left: bool = False, error: str = "") -> Verdict:
    stream, fields = Stream(), list[tuple[bytes, bytes]]()
    for one in events:
        stream.feed(one)
    return relayed(
        backend(price), stream, fields, quote=QUOTE, latency_s=0.1, error=error, left=left
    )


@pytest.mark.parametrize("cut", range(1, 5))
@pytest.mark.parametrize("price", [TOKENS, OUTPUT])
@pytest.mark.parametrize("how", ["left", "broken"])
def test_a_stream_is_never_free_wherever_it_is_cut(cut: int, price: Price, how: str) -> None:
    events = (ROLE, TEXT, TEXT, TEXT)[:cut]

    verdict = ended(*events, price=price, left=how == "left", error="cut" * (how == "broken"))

    made = max(1, cut - 1)
    given = 50 * 1000 if price is TOKENS else 0
    assert (verdict.cost_nano, verdict.provenance) == (given + made * 10_000, ESTIMATED)


def test_a_stream_that_lies_about_its_usage_is_charged_for_what_was_seen() -> None:
    verdict = ended(ROLE, TEXT, TEXT, LIE, DONE)

    assert (verdict.cost_nano, verdict.provenance) == (50 * 1000 + 2 * 10_000, ESTIMATED)


def test_a_stream_is_charged_as_its_usage_says_of_every_kind() -> None:
    def told(**usage: Any) -> tuple[int, str]:
        tokens = {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}
        verdict = ended(ROLE, TEXT, event({"choices": [], "usage": {**tokens, **usage}}), DONE)
        return verdict.cost_nano, verdict.provenance

    plain = 10 * 1000 + 4 * 10_000
    assert told() == (plain, USAGE)
    assert told(cost=0.5) == (500_000_000, REPORTED)
    assert told(total_tokens=3) == (plain, ESTIMATED)
    assert told(service_tier="priority") == (2 * plain, ESTIMATED)
    assert told(**ZERO) == (0, USAGE)
