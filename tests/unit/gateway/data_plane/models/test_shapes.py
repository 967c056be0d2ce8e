"""The shapes of model lists: who asks, and what a server says of a model."""

import pytest

from tollway.backends.types import Headers
from tollway.gateway.data_plane.models import shapes
from tollway.gateway.data_plane.models.shapes import ANTHROPIC, GEMINI, OPENAI, ModelShape
from tollway.gateway.data_plane.problems import HttpProblem

EVERY = ("openai", "anthropic", "gemini")
CLAUDES: Headers = [(b"anthropic-version", b"2023-06-01"), (b"x-api-key", b"k")]
GOOGLES: Headers = [(b"x-goog-api-key", b"k")]


@pytest.mark.parametrize(
    ("headers", "protocols", "shape"),
    [
        ([], EVERY, OPENAI),
        (CLAUDES, EVERY, ANTHROPIC),
        (GOOGLES, EVERY, GEMINI),
        ([], ("anthropic",), ANTHROPIC),
        ([], ("gemini", "gemini"), GEMINI),
        (CLAUDES, ("openai",), ANTHROPIC),
        ([], ("anthropic", "gemini"), OPENAI),
    ],
)
def test_the_fields_tell_the_shape_and_else_the_routes_do(
    headers: Headers, protocols: tuple[str, ...], shape: ModelShape
) -> None:
    assert shapes.asked(headers, protocols) is shape


TOLD = {
    "openai": {"id": "m", "object": "model", "owned_by": "them"},
    "anthropic": {"type": "model", "id": "m", "display_name": "M"},
    "gemini": {"name": "models/m", "inputTokenLimit": 7},
}


@pytest.mark.parametrize("shape", [OPENAI, ANTHROPIC, GEMINI], ids=EVERY)
def test_what_a_server_says_is_kept_in_its_own_shape_and_its_name_in_others(
    shape: ModelShape,
) -> None:
    for protocol, told in TOLD.items():
        entry = shape.entry("m", told)
        if protocol == shape.protocol:
            assert entry == told
        else:
            assert entry == shape.entry("m", None)


def test_geminis_pages_are_followed_by_their_tokens() -> None:
    entries = [GEMINI.entry(f"m{number}", None) for number in range(5)]
    names, token = [], "0"
    while token:
        page = GEMINI.page(entries, {"pageSize": "2", "pageToken": token})
        names += [entry["name"] for entry in page["models"]]
        token = page.get("nextPageToken", "")
    assert names == [f"models/m{number}" for number in range(5)]


@pytest.mark.parametrize("query", [{"pageToken": "x"}, {"pageToken": "6"}, {"pageSize": "-1"}])
def test_a_page_of_gemini_that_does_not_exist_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(HttpProblem):
        GEMINI.page([GEMINI.entry("m", None)], query)
