"""Which paths that a route does not spell out reach its backends.

A wildcard, or a `{name}`, passes on paths that the operator has not read. Servers have calls there
that change them for everybody (load a model, sleep, delete) or show what others asked, and servers
and proxies differ in how they read an unusual spelling: one is charged as a free read here and runs
as a completion there. So these paths are judged decoded and normalised, and passed on as they came.
"""

import re
from urllib.parse import unquote_to_bytes

READS = frozenset(("GET", "HEAD"))
_DECODINGS_MAX = 3  # proxies on the way may decode once more each
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")
_DOTS = frozenset((".", ".."))

# The administration of servers, as segments in lower case.
_ANYWHERE = frozenset(
    (
        *("_tollway", "repository", "systemsharedmemory", "cudasharedmemory", "xpusharedmemory"),
        "slots",  # of llama.cpp: they hold the prompts of other clients
        "cors-proxy",  # of llama.cpp: it fetches any address that is asked for
        "internal",  # of text-generation-webui
    )
)
_AT_THE_END = frozenset(
    (
        *(
            "quitquitquit",
            "load_lora_adapter",
            "unload_lora_adapter",
            "load_lora_adapter_from_tensors",
        ),
        *("wake_up", "collective_rpc", "server_info", "get_server_info", "set_internal_state"),
        *("reset_prefix_cache", "reset_mm_cache", "reset_encoder_cache", "flush_cache"),
        *("clear_hicache_storage_backend", "scale_elastic_ep", "start_profile", "stop_profile"),
        *("release_memory_occupation", "resume_memory_occupation", "pause_generation"),
        *("continue_generation", "abort_request", "abort_requests", "open_session"),
        *("close_session", "configure_logging", "freeze_gc", "slow_down", "get_weights_by_name"),
        *("start_expert_distribution_record", "stop_expert_distribution_record"),
        *("dump_expert_distribution_record", "init_weight_transfer_engine"),
        *("init_weights_update_group", "destroy_weights_update_group", "weights_checker"),
        *("init_weights_send_group_for_remote_instance", "send_weights_to_remote_instance"),
    )
)
_STARTS = ("update_weights",)
_PAIRS = frozenset(
    (
        *(("api", call) for call in ("delete", "pull", "push", "copy", "create")),
        *(("models", call) for call in ("load", "unload", "download")),
        *(("lora", call) for call in ("load", "unload")),
        *(("trace", "setting"), ("v2", "logging")),
    )
)
_OURS = ("metrics", "livez", "healthz", "readyz")
_AT_THE_ROOT = frozenset(
    (
        *("sleep", "pause", "resume", "shutdown"),  # below the root they are calls of jobs
        *_OURS,  # in another spelling
    )
)
_FIRST = frozenset(("admin", "actuator", "debug"))
_CHANGES = frozenset(("PUT", "PATCH", "DELETE"))
_READ_ONLY = frozenset(("props", "lora-adapters"))  # writing them changes a llama.cpp


def may_pass(method: str, path: bytes, *, below: bool = True) -> bool:
    """Return whether a request for a path that no route spells out may reach a backend (3 us).

    `below`: all of the path below some point is open, not only single segments.
    """
    text = _decoded(path)
    if text is None or _CONTROL.search(text):
        return False
    if below and method not in READS and (";" in text or text.count("/") != path.count(b"/")):
        return False  # some servers end a segment at `;`, or start one at an encoded slash
    text = text.lower()
    segments = [segment for segment in text.split("/") if segment]
    if ";" in text:
        segments = [segment.partition(";")[0] for segment in segments]
    if not _DOTS.isdisjoint(segments):
        return False
    return not _administers(method, segments)


def administers(method: str, path: bytes) -> bool:
    """Return whether a path is a call by which a server is administered.

    Our own paths in another spelling are not: those are unknown.
    """
    text = _decoded(path)
    if text is None:
        return False
    segments = [one for one in text.lower().split("/") if one]
    ours = "_tollway" in segments or (len(segments) == 1 and segments[0] in _OURS)
    return not ours and _administers(method, segments)


def _administers(method: str, segments: list[str]) -> bool:
    """Return whether a path is a call by which a server is administered, or one of our own."""
    if not segments or segments[-2:] == ["repository", "index"]:  # a list, asked for by POST
        return False
    last = segments[-1]
    if last in _AT_THE_END or last.startswith(_STARTS) or not _ANYWHERE.isdisjoint(segments):
        return True
    if segments[0] in _FIRST or (last in _READ_ONLY and method not in READS):
        return True
    if len(segments) > 1 and tuple(segments[-2:]) in _PAIRS:
        return True
    if "blobs" in segments and segments[segments.index("blobs") - 1] == "api":
        return True
    at_root = len(segments) == 1 or segments[:-1] == ["v1"]
    return (last in _AT_THE_ROOT and at_root) or _manages_models(method, segments)


def _manages_models(method: str, segments: list[str]) -> bool:
    """Return whether models are registered, scaled or removed (TorchServe, Ray Serve)."""
    if method == "POST":
        return segments == ["models"]
    return method in _CHANGES and ("models" in segments or segments[:2] == ["api", "serve"])


def _decoded(path: bytes) -> str | None:
    """Return a path without percent-encoding; None if it is not UTF-8, or encoded too often."""
    for _ in range(_DECODINGS_MAX):
        if b"%" not in path or (decoded := unquote_to_bytes(path)) == path:
            try:
                return path.decode()
            except UnicodeDecodeError:
                return None
        path = decoded
    return None
