"""Other spellings of a path, for the APIs whose clients spell it in several ways.

Clients of language models join a base address and a path of their own: with and without `/v1` in
either, with a slash at the end of one and at the beginning of the other. Only literal slashes and
`/v1` are touched, so no spelling reaches another endpoint. For `http` slashes are forgiven too, but
only where a route spells out its whole path and nothing else matches; the call goes to the path as
the route spells it. All other protocols match byte for byte.
"""

LENIENT = frozenset(("openai", "anthropic"))
"""The protocols whose paths may be spelled in other ways."""

FORGIVING = frozenset(("http",))
"""The protocols whose exact paths match with other slashes too, if nothing else does."""

_ROOT = b"/v1"


def spellings(path: bytes) -> list[bytes]:
    """Return the usual spelling of a path, then that with or without `/v1` (2 us)."""
    usual = with_usual_slashes(path)
    bare = usual
    while bare.startswith(b"/v1/"):
        bare = bare[len(_ROOT) :]
    return [usual, _ROOT + usual] if bare is usual else [_ROOT + bare, bare]


def with_usual_slashes(path: bytes) -> bytes:
    """Return a path with one slash before each segment and none at the end (1 us)."""
    return b"/" + b"/".join([segment for segment in path.split(b"/") if segment])
