"""The webhook actuator: signed, sent again with the same id, and given up where that is final."""

import asyncio
import json

import pytest

from tests.support.receiver import Receiver, receiver
from tollway.gateway.scaling.actuators.port import Change, Outcome
from tollway.gateway.scaling.actuators.webhook import TRIES, WebhookActuator
from tollway.gateway.security.webhook_signature import signature

SECRET = b"0123456789abcdef"
CHANGE = Change("c-1", "gpu", 2, 3, "spike", "decided by spike")


def applied(*statuses: int) -> tuple[Receiver, Outcome]:
    async def main() -> tuple[Receiver, Outcome]:
        async with receiver(*statuses) as got:
            one = WebhookActuator(
                got.url, timeout_s=10, secret=SECRET, wall=lambda: 1_700_000_000.0, pause_s=0.001
            )
            outcome = await one.apply(CHANGE)
            await one.aclose()
            return got, outcome

    return asyncio.run(main())


def test_a_change_is_posted_signed_and_with_an_idempotency_key() -> None:
    got, outcome = applied()
    ((fields, body),) = got.got
    assert outcome == Outcome()
    assert json.loads(body) == {
        "id": "c-1",
        "backend": "gpu",
        "replicas": 3,
        "before": 2,
        "reason": "spike",
        "why": "decided by spike",
    }
    assert fields["idempotency-key"] == fields["webhook-id"] == "c-1"
    assert fields["webhook-timestamp"] == "1700000000"
    signed = signature(SECRET, "c-1", 1_700_000_000, body)
    assert fields["webhook-signature"] == signed.decode()


def test_a_failure_is_sent_again_with_the_same_id() -> None:
    got, outcome = applied(503, 429)
    assert outcome == Outcome()
    assert {fields["webhook-id"] for fields, _ in got.got} == {"c-1"} and len(got.got) == 3


@pytest.mark.parametrize(("status", "sent"), [(400, 1), (404, 1), (500, TRIES)])
def test_it_gives_up_at_once_where_no_repetition_helps(status: int, sent: int) -> None:
    got, outcome = applied(*[status] * 9)
    assert len(got.got) == sent and outcome.problem == f"status {status}"


def test_a_receiver_that_is_away_is_a_problem_and_no_exception() -> None:
    async def main() -> Outcome:
        one = WebhookActuator("http://127.0.0.1:9/x", timeout_s=5, pause_s=0.001)
        outcome = await one.apply(CHANGE)
        await one.aclose()
        return outcome

    assert asyncio.run(main()).problem
