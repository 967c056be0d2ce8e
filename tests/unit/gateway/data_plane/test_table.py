"""Which route a path belongs to."""

from types import SimpleNamespace
from typing import Any

import pytest

from tollway.backends.ports import INFER, METADATA, READY, SERVER, STATISTICS
from tollway.backends.protocols.registry import protocol as wire
from tollway.gateway.data_plane.route_table import MODELS, RouteTable


def route(name: str, protocol: str = "plain", models: tuple[str, ...] = ()) -> Any:
    return SimpleNamespace(name=name, protocol=wire(protocol), models=models)


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/v2/models/m/infer", INFER),
        ("/v2/models/m/versions/1/infer", INFER),
        ("/v2/models/m", METADATA),
        ("/v2/models/m/versions/1", METADATA),
        ("/v2/models/m/ready", READY),
        ("/v2/models/m/versions/7/ready", READY),
        ("/v2/models/m/config", METADATA),
        ("/v2/models/m/stats", METADATA),
        ("/v2/models/m/generate", INFER),
        ("/v2/models/m/versions/1/generate_stream", INFER),
        ("/v2/models/m/infer_stream", INFER),
        ("/v2", SERVER),
        ("/v2/health/ready", SERVER),
        ("/v2/models", SERVER),
        ("/v2/models/stats", STATISTICS),
        ("/v2/repository/index", SERVER),
    ],
)
def test_a_route_answers_every_path_of_its_protocol(path: str, what: str) -> None:
    for prefix, written in (
        ("", "/v2/models/m/infer"),
        ("/seldon/ns", "/seldon/ns/v2/models/m/infer"),
        ("", "/v2/*"),
        ("/a", "/a/v2/models/{model}/infer"),
    ):
        if "{" in written and what == INFER and not path.endswith("m/infer"):
            continue
        if "{" in written and "versions" in path:
            continue
        match = RouteTable([(written, route("m", "oip"))]).match(f"{prefix}{path}".encode())
        assert match is not None, (written, path)
        assert match.what == what, (written, path)


@pytest.mark.parametrize(
    "path",
    [
        "/v2/repository/models/m/load",
        "/v2/repository/models/m/unload",
        "/v2/systemsharedmemory/status",
        "/v2/cudasharedmemory/region/r/register",
        "/v2/trace/setting",
        "/v2/models/m/trace/setting",
        "/v2/logging",
        "/v2/repository/../repository/index",
    ],
)
@pytest.mark.parametrize("written", ["/v2/*", "/v2/models/m/infer", "/*"])
def test_no_route_administers_a_server(path: str, written: str) -> None:
    table = RouteTable([(written, route("m", "oip"))])
    for method in ("GET", "POST"):
        assert table.match(path.encode(), method) is None


@pytest.mark.parametrize(
    ("method", "path", "passes"),
    [
        ("POST", "/v1/models/m:predict", True),
        ("POST", "/v1/models/m:explain", True),
        ("POST", "/v1/models/m/versions/3:classify", True),
        ("POST", "/v1/models/m/labels/stable:predict", True),
        ("GET", "/v1/models/m", True),
        ("GET", "/v1/models/m/metadata", True),
        ("GET", "/v1/models/m/versions/3", True),
        ("POST", "/v1/models/m", False),
        ("POST", "/v1/models/m/anything", False),
        ("DELETE", "/v1/models/m", False),
        ("POST", "/v1/models/n:predict", False),
    ],
)
def test_a_route_of_tf_serving_has_the_verbs_and_the_status_of_its_model(
    method: str, path: str, passes: bool
) -> None:
    table = RouteTable([("/v1/models/m:predict", route("m", "tfserving"))])
    assert (table.match(path.encode(), method) is not None) is passes


def test_free_paths_stand_beside_a_route_for_reading_only() -> None:
    odd = SimpleNamespace(name="odd", protocol=wire("mlflow", path="/odd/invocations"), models=())
    table = RouteTable([("/odd/invocations", odd)])
    found = [
        table.match(path, method) is not None
        for path, method in (
            (b"/odd/ping", "GET"),
            (b"/odd/ping", "HEAD"),
            (b"/odd/ping", "POST"),
            (b"/ping", "GET"),
            (b"/odd/other", "GET"),
        )
    ]
    assert found == [True, True, False, False, False]
    assert table.methods(b"/odd/ping") == [(odd, ["GET", "HEAD"])]
    assert table.methods(b"/odd/other") == []


def test_methods_are_not_told_of_what_is_below_a_wildcard() -> None:
    table = RouteTable([("/v1/*", route("m", "openai"))])
    assert table.match(b"/v1/threads/t%2Fruns", "GET") is not None
    assert table.methods(b"/v1/threads/t%2Fruns") == []


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


@pytest.mark.parametrize(
    ("path", "name", "sent"),
    [
        (b"/predict", "bare", b""),
        (b"/predict/", "bare", b"/predict"),
        (b"//predict", "bare", b"/predict"),
        (b"/a//predict//", "slash", b"/a/predict/"),
        (b"/a/predict", "slash", b"/a/predict/"),
        (b"/both/", "other", b""),
        (b"/below/predict/", "below", b""),  # a pattern that matches as it is spelled comes first
        (b"/%70redict/", None, b""),
        (b"/./predict", None, b""),
        (b"/a/../predict/", None, b""),
        (b"/predict;a/", None, b""),
        (b"/predict\\", None, b""),
        (b"/", None, b""),
        (b"/v2/models/m/infer/", None, b""),
    ],
)
def test_an_http_routes_own_path_matches_with_other_slashes(
    path: bytes, name: str | None, sent: bytes
) -> None:
    table = RouteTable(
        [
            ("/predict", route("bare", "http")),
            ("/a/predict/", route("slash", "http")),
            ("/both", route("bare", "http")),
            ("/both/", route("other", "http")),
            ("/below/predict", route("bare", "http")),
            ("/below/*", route("below", "http")),
            ("/v2/models/m/infer", route("oip", "oip")),
        ]
    )
    for method in ("GET", "POST", "DELETE"):
        match = table.match(path, method)
        assert (match and match.route.name) == name
        if match is not None:
            assert match.path == sent


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


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions/",
        "//v1//chat/completions",
        "/chat/completions",
        "/v1/v1/chat/completions/",
    ],
)
@pytest.mark.parametrize("written", ["/v1/chat/completions", "/chat/completions", "/v1/*", "/*"])
def test_clients_of_language_models_spell_a_path_in_several_ways(written: str, path: str) -> None:
    table = RouteTable([(written, route("chat", "openai"))])
    match = table.match(path.encode(), "POST")
    assert match is not None
    spelled = match.path or path.encode()
    assert spelled in (b"/v1/chat/completions", b"/chat/completions")
    assert spelled.startswith(written.rstrip("*").encode())


@pytest.mark.parametrize("path", ["/v1/chat/completions/", "/chat/completions"])
def test_another_spelling_reaches_the_specific_route_not_the_wildcard(path: str) -> None:
    routes = [("/v1/*", route("all", "openai")), ("/v1/chat/completions", route("one", "openai"))]
    match = RouteTable(routes).match(path.encode(), "POST")
    assert match is not None
    assert match.route.name == "one"


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/v1/responses/resp_1", "responses"),
        ("POST", "/v1/responses/resp_1/cancel", "responses"),
        ("GET", "/v1/responses/resp_1/input_items/", "responses"),
        ("DELETE", "/responses/resp_1", "responses"),
        ("POST", "/v1/responses/compact", "responses"),
        ("GET", "/v1/files/file-1/content", "rest"),
        ("GET", "/v1/responses/resp_1/unheard_of", "rest"),
        ("POST", "/v1/responses/resp_1/unheard_of", None),
        ("POST", "/v1/batches", None),
        ("POST", "/v1/batches/batch_1/cancel", "rest"),
    ],
)
def test_a_route_answers_for_the_objects_that_are_made_at_its_path(
    method: str, path: str, name: str | None
) -> None:
    routes = [("/v1/responses", route("responses", "openai")), ("/v1/*", route("rest", "openai"))]
    match = RouteTable(routes).match(path.encode(), method)
    assert (match and match.route.name) == name


@pytest.mark.parametrize(
    ("written", "passes"), [("/v1/batches", True), ("/v1/batches/*", False), ("/v1/*", False)]
)
def test_work_of_unknown_cost_needs_a_path_that_names_it(written: str, passes: bool) -> None:
    table = RouteTable([(written, route("batches", "openai"))])
    assert (table.match(b"/v1/batches", "POST") is not None) is passes
    below = RouteTable([("/v1/threads/*", route("threads", "openai"))])
    assert below.match(b"/v1/threads/t/runs", "POST") is not None


def test_a_route_of_every_model_answers_for_the_names_that_no_other_has() -> None:
    routes = [route("all", "openai", ("*",)), route("smart", "openai", ("smart",))]
    match = RouteTable([("/v1/*", one) for one in routes]).match(b"/v1/chat/completions", "POST")
    assert match is not None
    assert [(one := match.of_model(name)) and one.name for name in ("smart", "x", "")] == [
        *("smart", "all", "all"),
    ]


def test_gemini_clients_call_models_below_a_path_that_lists_openais() -> None:
    table = RouteTable(
        [("/v1/*", route("all", "openai")), ("/v1/models/*", route("gemini", "gemini"))]
    )
    called = table.match(b"/v1/models/flash:generateContent", "POST")
    listed = table.match(b"/v1/models/flash", "GET")
    assert called is not None and (called.route.name, called.what) == ("gemini", INFER)
    assert listed is not None and (listed.route.name, listed.what) == ("all", MODELS)


def test_without_a_route_for_gemini_a_model_is_only_read() -> None:
    table = RouteTable([("/v1/*", route("all", "openai"))])
    for path in (b"/v1/models/flash", b"/v1/models/flash:generateContent"):
        match = table.match(path, "POST")
        assert match is not None and match.what == MODELS  # it refuses POST
