"""What the clients of model servers share: the two sides, raw calls, and how they report.

A client runs in the environment of its server, without Tollway. It asks everything twice, of the
server at DIRECT and through the gateway at GATEWAY, and prints one JSON object: the name of each
feature with "" if both sides gave the same, else what went wrong.
"""

import gzip
import http.client
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

JSON = {"content-type": "application/json"}
WAIT_S = 60
TOO_LARGE = b" " * (2 << 20)
"""More than the gateway's `max_body_bytes`; see compat-servers."""


@dataclass(frozen=True)
class Side:
    """Where to ask, and what the model is called there."""

    address: str  # host:port
    model: str
    is_gateway: bool

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> "Reply":
        """Return a reply; a body that is no bytes is sent as JSON, NaN included."""
        headers = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body, headers = json.dumps(body).encode(), JSON | headers
        connection = http.client.HTTPConnection(self.address, timeout=WAIT_S)
        try:
            connection.request(method, path.replace("MODEL", self.model), body, headers)
            reply = connection.getresponse()
            fields = {name.lower(): value for name, value in reply.getheaders()}
            return Reply(reply.status, fields, reply.read(), self)
        finally:
            connection.close()

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> "Reply":
        return self.call("POST", path, body, headers)

    def unnamed(self, text: str) -> str:
        """Return a text with MODEL for the model's names: a server's errors have its own."""
        return re.sub(r"\b(small|iris)\b", "MODEL", text)


@dataclass(frozen=True)
class Reply:
    """A reply, with what can be compared."""

    status: int
    headers: dict[str, str]
    body: bytes
    side: Side

    def ok(self) -> "Reply":
        """Check that it is 200."""
        if self.status != 200:
            raise AssertionError(f"{self.status}: {self.body[:200]!r}")
        return self

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def seen(self) -> tuple[int, str, str]:
        """Return the status, the type and the body, without the model's name."""
        kind = self.headers.get("content-type", "").partition(";")[0]
        return self.status, kind, self.side.unnamed(self.body.decode("latin-1"))

    def refused(self, status: int) -> tuple[int, str, str]:
        """Check that it has this status, and return what is seen."""
        same(self.status, status)
        return self.seen


def same(seen: object, want: object) -> None:
    if seen != want:
        raise AssertionError(f"{seen!r}, not {want!r}"[:400])


def within(part: str, text: object) -> None:
    if part not in str(text):
        raise AssertionError(f"{part!r} is not in {str(text)[:300]!r}")


def raised(call: Callable[[], object]) -> Exception:
    """Return what a call raises; AssertionError if it raises nothing."""
    try:
        call()
    except Exception as wrong:
        return wrong
    raise AssertionError("nothing was raised")


def zipped(document: Any) -> tuple[bytes, dict[str, str]]:
    """Return a document as a gzipped body, and its header fields."""
    return gzip.compress(json.dumps(document).encode()), JSON | {"content-encoding": "gzip"}


def form(name: str, content: bytes) -> tuple[bytes, dict[str, str]]:
    """Return a form with one file, and its header fields."""
    part = (
        f'--XbX\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: image/png\r\n\r\n"
    )
    body = part.encode() + content + b"\r\n--XbX--\r\n"
    return body, {"content-type": "multipart/form-data; boundary=XbX"}


Check = Callable[[Side], Any]


def report(features: dict[str, Check], of_the_gateway: dict[str, Check]) -> None:
    """Try all features on both sides, and those of the gateway on its own; print what differs."""
    direct = Side(os.environ["DIRECT"], "small", False)
    gateway = Side(os.environ["GATEWAY"], "iris", True)
    found = {name: differs(check, direct, gateway) for name, check in features.items()}
    for name, check in of_the_gateway.items():
        try:
            check(gateway)
            found[name] = ""
        except Exception as wrong:
            found[name] = f"{type(wrong).__name__}: {wrong}"[:600]
    print(json.dumps(found))


def differs(check: Check, direct: Side, gateway: Side) -> str:
    """Return how the two sides differ; a failure of the server itself begins with `direct:`."""
    try:
        want = check(direct)
    except Exception as wrong:
        return f"direct: {type(wrong).__name__}: {wrong}"[:600]
    try:
        seen = check(gateway)
    except Exception as wrong:
        return f"{type(wrong).__name__}: {wrong}"[:600]
    return first_difference(seen, want)


def first_difference(seen: Any, want: Any) -> str:
    """Return the first inner values that differ; empty if none do."""
    if seen == want:
        return ""
    if isinstance(seen, list) and isinstance(want, list) and len(seen) == len(want):
        return next(filter(None, map(first_difference, seen, want)))
    return f"{seen!r:.600}, not {want!r:.600}"
