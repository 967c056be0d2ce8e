"""Errors over REST become statuses of gRPC, with their reason and the gateway's fields."""

import grpc
import pytest

from tollway.gateway.data_plane import problems
from tollway.gateway.grpc_listener import failures
from tollway.gateway.grpc_listener.failures import code_of, failed

NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "INVALID_ARGUMENT"),
        (401, "UNAUTHENTICATED"),
        (402, "RESOURCE_EXHAUSTED"),
        (403, "PERMISSION_DENIED"),
        (404, "NOT_FOUND"),
        (413, "RESOURCE_EXHAUSTED"),
        (429, "RESOURCE_EXHAUSTED"),
        (500, "INTERNAL"),
        (502, "UNAVAILABLE"),
        (503, "UNAVAILABLE"),
        (504, "DEADLINE_EXCEEDED"),
        (599, "INTERNAL"),
        (418, "FAILED_PRECONDITION"),
    ],
)
def test_a_status_becomes_its_code(status: int, name: str) -> None:
    assert NAMES[code_of(status)] == name


def test_the_codes_have_grpcs_numbers() -> None:
    ours = {name: value for name, value in vars(failures).items() if name in NAMES.values()}
    assert len(ours) == 12
    assert ours == {name: number for number, name in NAMES.items() if name in ours}


def test_every_refusal_of_the_gateway_has_a_code_of_its_own() -> None:
    unknown = (failures.INTERNAL, failures.FAILED_PRECONDITION)
    for status, _ in problems._STATUSES.values():
        assert status == 500 or code_of(status) not in unknown, status


@pytest.mark.parametrize(
    ("body", "details"),
    [
        (b'{"error": "no such input"}', "no such input"),
        (b'{"error": {"message": "no"}}', "no"),
        (b'{"title": "t", "detail": "d"}', "d"),
        (b"plain text", "plain text"),
        (b"<html>a proxy's page</html>", "HTTP 404"),
        (b"", "HTTP 404"),
    ],
)
def test_the_details_are_the_reason_in_the_body(body: bytes, details: str) -> None:
    assert failed(404, [], body).details == details


def test_details_are_short_enough_for_metadata() -> None:
    assert len(failed(500, [], b'{"error": "%b"}' % (b"x" * 100_000)).details) == 1000


def test_the_gateways_fields_go_along_and_the_backends_do_not() -> None:
    fields = [
        (b"x-tollway-reason", b"budget_held"),
        (b"retry-after", b"3"),
        (b"set-cookie", b"a=b"),
        (b"content-type", b"application/json"),
    ]
    assert failed(429, fields, b"").trailers == fields[:2]
