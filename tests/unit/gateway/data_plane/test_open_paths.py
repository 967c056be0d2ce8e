"""Paths below a wildcard: what passes, and that servers' own administration never does."""

import pytest

from tollway.gateway.data_plane.open_paths import may_pass

CALLS = [  # each server's administration, by method
    *(("POST", f"/v2/repository/models/m/{verb}") for verb in ("load", "unload")),
    *((method, "/models/m") for method in ("PUT", "DELETE")),
    *((method, "/v1/models/m") for method in ("PATCH", "DELETE")),
    *(("POST", path) for path in ("/models", "/quitquitquit")),
    *(("POST", f"/v2/{kind}sharedmemory/unregister") for kind in ("system", "cuda")),
    *(
        ("POST", path)
        for path in ("/v2/trace/setting", "/v2/models/m/trace/setting", "/v2/logging")
    ),
    *(
        ("POST", f"/{base}{call}")
        for base in ("", "v1/")
        for call in ("load_lora_adapter", "unload_lora_adapter")
    ),
    *(
        ("POST", f"/{call}")
        for call in ("sleep", "wake_up", "reset_prefix_cache", "collective_rpc")
    ),
    *(("POST", f"/{call}") for call in ("start_profile", "stop_profile", "pause", "resume")),
    *(
        ("POST", f"/{call}")
        for call in ("flush_cache", "update_weights_from_disk", "abort_request")
    ),
    *(("POST", f"/{call}") for call in ("release_memory_occupation", "resume_memory_occupation")),
    *(("GET", path) for path in ("/slots", "/slots/0", "/server_info", "/get_server_info")),
    *((method, "/cors-proxy") for method in ("GET", "POST")),
    *(
        ("POST", path)
        for path in ("/slots/0", "/props", "/lora-adapters", "/models/load", "/models/unload")
    ),
    *(("POST", f"/api/{call}") for call in ("pull", "push", "copy", "create", "blobs/sha256:00")),
    ("DELETE", "/api/delete"),
    ("POST", "/v1/internal/model/load"),
    ("POST", "/api/v1/models/unload"),
    *(("GET", path) for path in ("/metrics", "/livez", "/_tollway/budgets", "/_tollway")),
]
PASS = [
    *(
        ("POST", f"/v1/{path}")
        for path in ("chat/completions", "embeddings", "fine_tuning/jobs/j/pause")
    ),
    *(("POST", path) for path in ("/models/org/name", "/models/m/invoke", "/predictions/m")),
    *((method, "/items/1") for method in ("PUT", "PATCH", "DELETE")),
    *(
        ("POST", path)
        for path in ("/generate", "/v2/models/m/infer", "/invocations", "/v1/files/f.jsonl")
    ),
    *(
        ("POST", path)
        for path in ("/api/chat", "/api/generate", "/api/embed", "/x/y//z", "/v1/x%20y")
    ),
    *(("GET", path) for path in ("/props", "/lora-adapters", "/health", "/v1/files/a%2Fb/content")),
    *(
        ("GET", path)
        for path in ("/v1/files/sleep", "/v1/files/..a", "/v1/files/f;v=1", "/a/%E2%82%AC")
    ),
    ("GET", "/v1/files/100%25"),
]


def spellings(path: str) -> list[str]:
    """Return a path as an attacker would write it."""
    first, rest = path[1], path[2:]
    encoded = f"/%{ord(first):02x}{rest}"
    return [
        path,
        path.upper(),
        encoded,
        encoded.replace("%", "%25"),
        f"{path}/",
        f"/{path}",
        f"/.{path}",
        f"/x/..{path}",
        f"/x/%2e%2E{path}",
        f"/x/.%2e{path}",
        f"/x/%252e%252e{path}",
        f"/%2e{path}",
        f"{path};a=b",
        f"{path}/.",
        f"{path}/x/..",
        f"{path}%00",
        path.replace("/", "%2F")[3:].join(("/", "")),
        path.replace("/", "\\"),
        path.replace("/", "%5c"),
        f"/a{path}" if path.count("/") > 1 else path,  # below the base path of a server's address
    ]


@pytest.mark.parametrize(("method", "path"), CALLS, ids=str)
def test_no_spelling_of_a_servers_administration_passes(method: str, path: str) -> None:
    passed = [one for one in spellings(path) if may_pass(method, one.encode())]
    assert passed == []


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/admin/reload"), ("GET", "/actuator/env"), ("PUT", "/api/serve/applications/")],
)
def test_the_administration_of_frameworks_stands_at_the_root(method: str, path: str) -> None:
    assert not may_pass(method, path.encode())
    assert not may_pass(method, f"/%{ord(path[1]):02x}{path[2:]}".encode())


@pytest.mark.parametrize(("method", "path"), PASS, ids=str)
def test_models_and_objects_are_reached(method: str, path: str) -> None:
    assert may_pass(method, path.encode())


@pytest.mark.parametrize(
    "path",
    [
        "/v1/threads/t%2Fruns",
        "/v1/threads/t%5cruns",
        "/v1/threads/runs;x",
        "/v1/threads/t%252Fruns",
    ],
)
def test_a_call_is_not_hidden_in_the_name_of_an_object(path: str) -> None:
    """`POST /v1/threads/{id}` is free, and `POST /v1/threads/{id}/runs` is not."""
    assert not may_pass("POST", path.encode())


@pytest.mark.parametrize("path", ["/%c0%af", "/\xff", "/a%0d%0ab", "/a%2525252525b", "/%C0%AEa/"])
def test_what_is_no_text_or_encoded_again_and_again_is_refused(path: str) -> None:
    assert not may_pass("GET", path.encode("latin-1"))
