"""Webhooks to a real receiver: signed, retried with the same id, and never blocking."""

import asyncio
import base64
import hashlib
import hmac
import json
from typing import Any

from tests.support.receiver import Receiver, receiver
from tollway.gateway.observability.events import EventLog
from tollway.gateway.observability.webhooks import Target, Webhooks

SECRET = b"0123456789abcdef"


def sent(*statuses: int, **target: Any) -> tuple[Receiver, Webhooks]:
    async def run() -> tuple[Receiver, Webhooks]:
        async with receiver(*statuses) as got:
            hooks = Webhooks(
                [Target("on-call", got.url, **target)], source="tollway/here", pause_s=0.001
            )
            hooks.start()
            events = EventLog(lambda: 1_700_000_000.5)
            events.listen(hooks.take)
            events.add("boring", "x", "nothing to see")
            events.add("spend_anomaly", "tenant acme", "spends <much>", ratio=3.0)
            async with asyncio.timeout(10):
                await hooks.stop()
            return got, hooks

    return asyncio.run(run())


def test_an_event_is_a_signed_cloud_event() -> None:
    got, _ = sent(secret=SECRET, kinds=frozenset({"spend_anomaly"}))

    ((fields, body),) = got.got
    event = json.loads(body)
    assert fields["content-type"] == "application/cloudevents+json"
    assert event["specversion"] == "1.0"
    assert event["type"] == "tollway.spend_anomaly"
    assert event["source"] == "tollway/here"
    assert event["subject"] == "tenant acme"
    assert event["time"] == "2023-11-14T22:13:20.500+00:00"
    assert event["data"] == {"text": "spends <much>", "ratio": 3.0}
    assert event["id"] == fields["webhook-id"]
    signed = f"{fields['webhook-id']}.{fields['webhook-timestamp']}.".encode() + body
    digest = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
    assert fields["webhook-signature"] == f"v1,{digest}"


def test_slack_gets_a_message_with_its_markup_escaped() -> None:
    got, _ = sent(format="slack", kinds=frozenset({"spend_anomaly"}))

    ((_, body),) = got.got
    text = json.loads(body)["text"]
    assert text == "*spend_anomaly* `tenant acme`: spends &lt;much&gt;"


def test_an_event_that_is_not_accepted_is_sent_again_under_the_same_id() -> None:
    got, _ = sent(503, 429, kinds=frozenset({"spend_anomaly"}))

    assert len(got.got) == 3
    assert len({fields["webhook-id"] for fields, _ in got.got}) == 1


def test_an_event_that_is_rejected_for_good_is_dropped_and_the_next_is_sent() -> None:
    got, _ = sent(404)

    assert [json.loads(body)["type"] for _, body in got.got] == [
        "tollway.boring",
        "tollway.spend_anomaly",
    ]


def test_a_receiver_that_is_down_costs_events_not_memory() -> None:
    async def run() -> int:
        hooks = Webhooks([Target("x", "http://127.0.0.1:9/")], source="t")
        events = EventLog(lambda: 0.0)
        events.listen(hooks.take)
        for number in range(1500):
            events.add("k", str(number), "t")
        return hooks.dropped

    assert asyncio.run(run()) == 500


def test_redirects_are_not_followed() -> None:
    async def run() -> list[int]:
        async with receiver(302) as got:
            hooks = Webhooks([Target("x", got.url)], source="t", pause_s=0.001)
            hooks.start()
            events = EventLog(lambda: 0.0)
            events.listen(hooks.take)
            events.add("k", "a", "t")
            async with asyncio.timeout(10):
                await hooks.stop()
            return [len(got.got)]

    assert asyncio.run(run()) == [2]  # asked a second time, at the same address
