"""Which route a path belongs to."""

from types import SimpleNamespace
from typing import Any

import pytest

from tollway.gateway.data_plane.route_table import INFER, METADATA, READY, RouteTable


def route(name: str, protocol: str = "plain", models: tuple[str, ...] = ()) -> Any:
    return SimpleNamespace(name=name, protocol=SimpleNamespace(name=protocol), models=models)


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/v2/models/m/infer", INFER),
        ("/v2/models/m/versions/1/infer", INFER),
        ("/v2/models/m", METADATA),
        ("/v2/models/m/versions/1", METADATA),
        ("/v2/models/m/ready", READY),
        ("/v2/models/m/versions/7/ready", READY),
    ],
)
def test_a_model_answers_all_that_its_protocol_asks_of_it(path: str, what: str) -> None:
    match = RouteTable([("/v2/models/m/infer", route("m", "oip"))]).match(path.encode())
    assert match is not None
    assert (match.what, match.model) == (what, "m")


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/m/infer/",
        "/v2/models/n/infer",
        "/v2/models/m/versions//infer",
        "/v2/models/%6d/infer",
        "/",
        "",
    ],
)
def test_another_spelling_of_a_path_is_another_path(path: str) -> None:
    assert RouteTable([("/v2/models/m/infer", route("m", "oip"))]).match(path.encode()) is None


def test_the_most_specific_pattern_wins_and_an_exact_path_wins_over_all() -> None:
    table = RouteTable(
        [
            ("/a/*", route("below")),
            ("/a/{x}", route("segment")),
            ("/a/{x}/c", route("one")),
            ("/a/b/c", route("exact")),
        ]
    )
    names = [table.match(path) for path in (b"/a/b/c", b"/a/z/c", b"/a/z", b"/a/z/d", b"/b")]
    assert [m and m.route.name for m in names] == ["exact", "one", "segment", "below", None]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/*"])
def test_routes_that_share_a_path_are_told_apart_by_the_models_name(path: str) -> None:
    routes = [route("smart", "openai", ("smart", "gpt-5")), route("rest", "openai")]
    match = RouteTable([(path, one) for one in routes]).match(b"/v1/chat/completions")
    assert match is not None
    meant = [match.of_model(name) for name in ("gpt-5", "smart", "llama", "")]
    assert [one and one.name for one in meant] == ["smart", "smart", "rest", "rest"]


def test_a_route_alone_with_its_models_answers_no_other_name() -> None:
    alone = RouteTable([("/v1/responses", route("smart", "openai", ("smart",)))])
    match = alone.match(b"/v1/responses")
    assert match is not None
    assert match.of_model("llama") is None
