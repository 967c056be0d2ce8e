"""What a call is charged, by its reply or failure; never nothing if it may have run."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from tollway.backends.pricing import Price, parse_price
from tollway.backends.protocols.openai.protocol import OpenAI, Stream
from tollway.backends.types import Call, HttpReply, Payload, Usage
from tollway.gateway.estimation.cost_estimator import Quote
from tollway.gateway.estimation.token_rate import TokenRate
from tollway.gateway.routing.metering import (
    ESTIMATED,
    REPORTED,
    USAGE,
    VOID,
    AttemptOutcome,
    Ending,
    evaluate_reply,
    evaluate_stream,
    outcome_without_reply,
)
from tollway.gateway.routing.plan import Target

NO_RATE = TokenRate(text_bytes=4.0, text_tokens=1.0, hidden_tokens=0.0)
TOKENS = parse_price({"input_usd_per_mtok": 1, "output_usd_per_mtok": 10})
OUTPUT = parse_price({"input_usd_per_mtok": 0, "output_usd_per_mtok": 10})
QUOTE = Quote(7_000, 8_000, 9_000, Usage(input_tokens=50.0, output_tokens=20.0, exact=False))


def backend(price: Price) -> Target:
    return Target("b", "gpu", OpenAI(), None, price)  # type: ignore[arg-type] # it is not called


def judged(usage: Any, *, price: Price = TOKENS, status: int = 200) -> AttemptOutcome:
    document = {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}
    body = orjson.dumps({**document, "usage": usage})
    reply = HttpReply(status, [], None)  # type: ignore[arg-type] # its body has been read
    call = Call(b"POST", b"/v1/chat/completions", [], payload=Payload({}))
    return evaluate_reply(backend(price), call, reply, body, quote=QUOTE, latency_s=0.1)


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
def test_an_invalid_or_incomplete_usage_is_charged_by_the_quote(usage: Any, price: Price) -> None:
    outcome = judged(usage, price=price)

    assert (outcome.cost_nano, outcome.provenance) == (QUOTE.expected_nano, ESTIMATED)
    assert not outcome.error


ZERO = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def test_a_backend_that_reports_that_nothing_was_used_is_believed() -> None:
    outcome = judged(ZERO)

    assert (outcome.cost_nano, outcome.provenance) == (0, USAGE)


def test_a_cost_that_the_backend_reports_is_charged_and_marked_as_reported() -> None:
    outcome = judged({"prompt_tokens": 10, "completion_tokens": 4, "cost": "0.00000123"})

    assert (outcome.cost_nano, outcome.provenance) == (1230, REPORTED)


def test_what_has_no_price_is_charged_as_an_estimate_that_says_so() -> None:
    details = {"prompt_tokens_details": {"audio_tokens": 6}}
    outcome = judged({"prompt_tokens": 10, "completion_tokens": 4, **details})

    assert (outcome.cost_nano, outcome.provenance) == (4 * 1000 + 6 * 16_000 + 40_000, ESTIMATED)
    assert outcome.usage is not None
    assert outcome.usage.more is not None
    assert outcome.usage.more.guessed == ("audio_input_tokens",)


def test_a_total_below_its_parts_is_an_estimate() -> None:
    outcome = judged({"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 4})

    assert (outcome.cost_nano, outcome.provenance) == (10 * 1000 + 4 * 10_000, ESTIMATED)


@pytest.mark.parametrize("status", [307, 400, 424, 429, 503, 529])
def test_a_refusal_is_charged_for_what_it_reports_and_for_nothing_else(status: int) -> None:
    silent = judged(None, status=status)
    outcome = judged({"prompt_tokens": 10, "completion_tokens": 4}, status=status)

    assert (outcome.cost_nano, outcome.provenance) == (10 * 1000 + 4 * 10_000, USAGE)
    assert (silent.cost_nano, silent.provenance) == (0, VOID)


@pytest.mark.parametrize("status", [500, 502, 504, 599])
def test_an_error_reply_of_a_token_price_is_free_unless_it_reports_usage(status: int) -> None:
    outcome = judged(None, status=status)

    assert (outcome.cost_nano, outcome.provenance, outcome.error) == (0, VOID, f"status {status}")
    told = judged({"prompt_tokens": 10, "completion_tokens": 4}, status=status)
    assert (told.cost_nano, told.provenance) == (10 * 1000 + 4 * 10_000, USAGE)


@pytest.mark.parametrize(
    ("status", "fixed_nano", "device_nano"),
    [(400, 0, 100_000), (404, 0, 100_000), (429, 0, 0), (500, 5_000, 100_000), (503, 0, 0)],
)
def test_an_error_reply_costs_the_request_where_it_failed_and_the_time_of_the_device(
    status: int, fixed_nano: int, device_nano: int
) -> None:
    fixed = parse_price({"per_request_usd": "0.000005"})
    device = parse_price({"device_usd_per_hour": "3.6"})

    assert judged(None, price=fixed, status=status).cost_nano == fixed_nano
    assert judged(None, price=device, status=status).cost_nano == device_nano


def body_judged(body: Any) -> AttemptOutcome:
    reply = HttpReply(200, [], None)  # type: ignore[arg-type] # its body has been read
    call = Call(b"POST", b"/v1/chat/completions", [], b"{}", payload=Payload({"messages": []}))
    return evaluate_reply(
        backend(TOKENS), call, reply, orjson.dumps(body), quote=QUOTE, latency_s=0.1
    )


@pytest.mark.parametrize("code", [502, 400, "insufficient_quota"])
def test_an_error_with_status_200_is_free_unless_it_reports_usage(code: Any) -> None:
    error = {"error": {"message": "no", "code": code}}

    assert (body_judged(error).cost_nano, body_judged(error).provenance) == (0, VOID)
    told = body_judged({**error, "usage": {"prompt_tokens": 10, "completion_tokens": 4}})
    assert told.cost_nano == 10 * 1000 + 4 * 10_000


@pytest.mark.parametrize("hold_nano", [None, 90_000])
def test_a_call_without_a_reply_is_charged_the_hold_of_a_hard_budget_else_the_quote(
    hold_nano: int | None,
) -> None:
    late = outcome_without_reply(QUOTE, "late", ran=True, hold_nano=hold_nano)
    unsent = outcome_without_reply(QUOTE, "unsent", ran=False, hold_nano=hold_nano)

    expected = (8_000, "estimate") if hold_nano is None else (90_000, "hold")
    assert (late.cost_nano, late.charged_by) == expected
    assert (unsent.cost_nano, unsent.provenance) == (0, VOID)


def event(document: Any) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(document)


ROLE = event({"choices": [{"index": 0, "delta": {"role": "assistant"}}]})
TEXT = event({"choices": [{"index": 0, "delta": {"content": "word"}}]})
LIE = event({"choices": [], "usage": {"prompt_tokens": -9, "completion_tokens": 1}})
DONE = b"data: [DONE]\n\n"


def ended(
    *events: bytes,
    price: Price = TOKENS,
    abandoned: str = "",
    error: str = "",
    hold_nano: int | None = None,
    rate: TokenRate = NO_RATE,
    silence_s: float = 0.0,
    quote: Quote = QUOTE,
) -> AttemptOutcome:
    stream, fields = Stream(), list[tuple[bytes, bytes]]()
    for one in events:
        stream.feed(one)
    whole = not (abandoned or error)
    ending = Ending(0.1, silence_s, error, abandoned, whole)
    return evaluate_stream(
        backend(price), stream, fields, ending, quote=quote, rate=rate, hold_nano=hold_nano
    )


@pytest.mark.parametrize("cut", range(1, 5))
@pytest.mark.parametrize("price", [TOKENS, OUTPUT])
@pytest.mark.parametrize("how", ["left", "broken"])
def test_a_stream_is_never_free_wherever_it_is_cut(cut: int, price: Price, how: str) -> None:
    events = (ROLE, TEXT, TEXT, TEXT)[:cut]

    abandoned, error = ("close", "") if how == "left" else ("", "cut")
    outcome = ended(*events, price=price, abandoned=abandoned, error=error)

    made = max(1, cut - 1)
    given = 50 * 1000 if price is TOKENS else 0
    assert (outcome.cost_nano, outcome.provenance) == (given + made * 10_000, ESTIMATED)


def test_a_stream_with_a_false_usage_is_charged_for_what_was_received() -> None:
    outcome = ended(ROLE, TEXT, TEXT, LIE, DONE)

    assert (outcome.cost_nano, outcome.provenance) == (50 * 1000 + 2 * 10_000, ESTIMATED)


def test_a_stream_is_charged_as_its_usage_says_of_every_kind() -> None:
    def told(**usage: Any) -> tuple[int, str]:
        tokens = {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}
        outcome = ended(ROLE, TEXT, event({"choices": [], "usage": {**tokens, **usage}}), DONE)
        return outcome.cost_nano, outcome.provenance

    plain = 10 * 1000 + 4 * 10_000
    assert told() == (plain, USAGE)
    assert told(cost=0.5) == (500_000_000, REPORTED)
    assert told(total_tokens=3) == (plain, ESTIMATED)
    assert told(service_tier="priority") == (2 * plain, ESTIMATED)
    assert told(**ZERO) == (0, USAGE)


LONG = event({"choices": [{"index": 0, "delta": {"content": "word" * 200}}]})
USED = event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}})


def test_a_stream_left_under_a_hard_budget_is_charged_all_that_is_held_for_it() -> None:
    left = ended(ROLE, TEXT, abandoned="close", hold_nano=400_000)
    cut = ended(ROLE, TEXT, error="closed", hold_nano=400_000)

    assert (left.cost_nano, left.charged_by, left.abandoned) == (400_000, "hold", "close")
    assert (cut.cost_nano, cut.charged_by, cut.abandoned) == (400_000, "hold", "")


def test_a_stream_that_reported_its_usage_is_charged_by_it_whatever_is_held() -> None:
    drained = ended(ROLE, TEXT, USED, DONE, abandoned="drain", hold_nano=400_000)

    assert (drained.cost_nano, drained.provenance) == (9 * 1000 + 4 * 10_000, USAGE)
    assert (drained.charged_by, drained.abandoned) == ("usage", "drain")


def test_a_hold_that_is_too_small_does_not_hide_what_was_seen() -> None:
    left = ended(ROLE, LONG, abandoned="close", hold_nano=60_000)

    assert left.cost_nano == 50 * 1000 + 200 * 10_000


def test_a_stream_left_is_estimated_from_its_text_and_not_from_the_number_of_events() -> None:
    left = ended(ROLE, LONG, LONG, abandoned="close")

    assert (left.cost_nano, left.charged_by) == (50 * 1000 + 400 * 10_000, "estimate")


def test_reasoning_that_is_not_shown_is_estimated_from_the_silence_before_the_text() -> None:
    rate = TokenRate(text_bytes=4.0, text_tokens=1.0, hidden_tokens=100.0, silent_s=2.0)

    left = ended(ROLE, abandoned="close", rate=rate, silence_s=3.0)

    assert left.cost_nano == 50 * 1000 + 150 * 10_000


def test_an_estimate_of_a_stream_stays_below_the_limit_that_its_request_named() -> None:
    quote = replace(QUOTE, known=Usage(output_tokens=30.0, exact=False))

    left = ended(ROLE, LONG, abandoned="close", quote=quote)

    assert left.cost_nano == 50 * 1000 + 30 * 10_000


def test_input_tokens_reported_during_a_stream_are_known() -> None:
    begun = {
        "type": "message_start",
        "message": {"usage": {"input_tokens": 70, "output_tokens": 1}},
    }

    left = ended(event(begun), LONG, abandoned="close")

    assert left.usage is not None
    assert left.usage.input_tokens == 70
