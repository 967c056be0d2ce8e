"""A client of a running gateway's control plane, for the commands that query one."""

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

TIMEOUT_S = 10  # a person is waiting; the control plane answers in milliseconds
_REPLY_BYTES_MAX = 64 << 20


class Unreachable(Exception):  # noqa: N818 - reads as what happened
    """No gateway answered."""


class Declined(Exception):  # noqa: N818
    """The gateway refused the request; the message is the gateway's."""


@dataclass(frozen=True, slots=True)
class ControlClient:
    """The control plane at `url` (the gateway's base URL), accessed with the admin `key`."""

    url: str
    key: str | None = None
    timeout_s: float = TIMEOUT_S

    def get(self, *path: str, **query: str) -> Any:
        """Return the JSON at /_tollway/<path>?<query>; raises Unreachable or Declined."""
        return self._json("GET", path, None, query)

    def post(self, document: Mapping[str, Any] | list[dict[str, Any]], *path: str) -> Any:
        """Post a document to /_tollway/<path> and return the JSON reply; raises as `get` does."""
        return self._json("POST", path, json.dumps(document).encode())

    def text(self, target: str) -> str:
        """Return the text at a path such as /metrics; raises as `get` does."""
        status, body = self._ask("GET", target, None)
        if status != 200:
            raise Declined(f"GET {target} is answered with status {status}")
        return body.decode("utf-8", "replace")

    def delete(self, *path: str) -> Any:
        """Delete /_tollway/<path> and return the JSON reply; raises as `get` does."""
        return self._json("DELETE", path, None)

    def _json(
        self,
        method: str,
        path: tuple[str, ...],
        sent: bytes | None,
        query: Mapping[str, str] | None = None,
    ) -> Any:
        target = "/".join(["/_tollway", *(quote(part, safe="") for part in path)])
        if query:
            target += f"?{urlencode(query)}"
        status, body = self._ask(method, target, sent)
        try:
            document = json.loads(body)
        except ValueError:
            raise Declined(
                f"{self.url} is not a Tollway gateway: its reply (status {status}) is not JSON"
            ) from None
        if status != 200:
            problem = document if isinstance(document, dict) else {}
            raise Declined(
                f"{problem.get('title', status)}: {problem.get('detail', 'no reason given')}"
            )
        return document

    def _ask(self, method: str, target: str, sent: bytes | None) -> tuple[int, bytes]:
        connection = self._connection()
        headers = {"accept": "application/json", "content-type": "application/json"}
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        try:
            connection.request(method, target, body=sent, headers=headers)
            reply = connection.getresponse()
            return reply.status, reply.read(_REPLY_BYTES_MAX)
        except (OSError, http.client.HTTPException) as exc:
            raise Unreachable(f"no gateway answers at {self.url}: {exc}") from exc
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        if parts.scheme == "http" and parts.hostname:
            return http.client.HTTPConnection(parts.hostname, parts.port, timeout=self.timeout_s)
        if parts.scheme == "https" and parts.hostname:
            return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=self.timeout_s)
        raise Unreachable(f"{self.url!r} is not an http:// or https:// address")
