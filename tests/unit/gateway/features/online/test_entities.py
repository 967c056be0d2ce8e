"""Entities: where a request names them, and their pseudonyms."""

import pytest

from tollway.backends.types import Call, Payload
from tollway.gateway.features.online.entities import KEY_CHARS_MAX, check, entity, pseudonyms

CALL = Call(
    b"POST",
    b"/v1?user=q%20u",
    [(b"x-user-id", b"h-1"), (b"x-user-id", b"h-2")],
    payload=Payload({"user": {"id": 17}, "flag": True, "long": "x" * (KEY_CHARS_MAX + 1)}),
    tenant="shop",
)


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("user.id", "17"),
        ("$headers.X-User-Id", "h-1"),
        ("$query.user", "q u"),
        ("$tenant", "shop"),
        ("missing", None),
        ("flag", None),
        ("user", None),
        ("long", None),
        ("$headers.x-other", None),
    ],
)
def test_an_entity_is_read_from_where_the_request_has_it(path: str, key: str | None) -> None:
    assert entity(path)(CALL) == key


def test_the_entities_of_a_tenant_may_be_its_own() -> None:
    assert entity("user.id", per_tenant=True)(CALL) == "shop/17"


def test_a_pseudonym_depends_on_the_group_and_the_pepper() -> None:
    digest = pseudonyms("a")
    known = {digest("g", "1"), digest("h", "1"), digest("g", "2"), pseudonyms("b")("g", "1")}
    assert len(known) == 4
    assert digest("g", "1") == pseudonyms("a")("g", "1")


def test_a_path_that_no_request_has_is_refused() -> None:
    check("$tenant")
    with pytest.raises(ValueError, match=r"\$cookie is unknown"):
        check("$cookie.user")


def test_a_field_is_read_as_utf_8_if_it_is_that() -> None:
    read = entity("$headers.x-user-id")
    for sent, key in (("grün".encode(), "grün"), ("grün".encode("latin-1"), "grün")):
        assert read(Call(b"POST", b"/", [(b"x-user-id", sent)], b"{}")) == key
