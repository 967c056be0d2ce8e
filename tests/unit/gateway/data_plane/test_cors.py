"""Pages of other origins may call what the operator opened to them."""

import pytest

from tollway.backends.types import Headers
from tollway.gateway.data_plane.cors import CorsPolicy

APP = b"https://app.example"


def allowed(fields: Headers) -> bytes | None:
    values = [value for name, value in fields if name == b"access-control-allow-origin"]
    assert len(values) <= 1
    return values[0] if values else None


@pytest.mark.parametrize(
    ("origins", "origin", "allows"),
    [
        (("*",), APP, b"*"),
        (("*",), b"null", b"*"),
        (("https://app.example",), APP, APP),
        (("https://app.example",), b"HTTPS://app.example", b"HTTPS://app.example"),
        (("https://app.example",), b"http://app.example", None),
        (("https://app.example",), b"https://app.example:8443", None),
        (("https://app.example",), b"https://app.example.evil", None),
        (("https://app.example",), b"null", None),
        (("https://app.example",), b"\xff", None),
    ],
)
def test_an_origin_is_allowed_as_a_whole(
    origins: tuple[str, ...], origin: bytes, allows: bytes | None
) -> None:
    policy = CorsPolicy(origins)
    for fields in (policy.of_reply(origin), policy.of_preflight(origin, b"authorization")):
        assert allowed(fields) == allows
        assert ((b"vary", b"origin") in fields) is ("*" not in origins)
        assert not any(name == b"access-control-allow-credentials" for name, _ in fields)


def test_credentials_are_allowed_to_listed_origins_alone() -> None:
    policy = CorsPolicy(("https://app.example",), credentials=True)
    field = (b"access-control-allow-credentials", b"true")
    assert field in policy.of_reply(APP)
    assert field not in policy.of_reply(b"https://other.example")


@pytest.mark.parametrize(
    ("headers", "wanted", "given"),
    [
        (("*",), b"authorization, X-Stainless-Lang", b"authorization, X-Stainless-Lang"),
        (("authorization",), b"Authorization,x-other", b"Authorization"),
        (("authorization",), b"x-other", None),
        (("*",), b"", None),
        (("*",), b"a\r\nset-cookie: x", None),
        (("*",), b"a b", None),
        (("*",), b"a," * 4000 + b"a", None),
    ],
)
def test_a_preflight_allows_the_fields_that_it_names(
    headers: tuple[str, ...], wanted: bytes, given: bytes | None
) -> None:
    fields = dict(CorsPolicy(("*",), headers).of_preflight(APP, wanted))
    assert fields.get(b"access-control-allow-headers") == given
    assert b"DELETE" in fields[b"access-control-allow-methods"]
