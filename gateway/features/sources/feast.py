"""A feature server over HTTP, asked as Feast is: POST /get-online-features.

Feast's reply has a column for each feature, with a status for each entity. Only values that are
`PRESENT` count. Other servers that speak this format do as well.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson

from tollway.backends.errors import BackendError
from tollway.backends.ports import Transport
from tollway.backends.types import Call, Headers
from tollway.gateway.features.online.model import Found, SourceError
from tollway.gateway.features.sources.table import is_integer

REPLY_BYTES_MAX = 4 << 20  # 256 entities of 4 kB, four times over


class FeastSource:
    """One group's values on a feature server."""

    by_digest = False
    is_writable = False

    def __init__(
        self,
        url: str,
        transport: Transport,
        *,
        join_key: str,
        features: Mapping[str, str],
        integer_keys: bool = False,
        headers: Headers = (),  # type: ignore[assignment]
    ) -> None:
        """`features` maps the names of values to the server's, such as `user_stats:age`.

        `join_key` is the server's name of the entity. `transport` carries calls to the origin.
        """
        parts = urlsplit(url)
        self._target = (parts.path.rstrip("/") + "/get-online-features").encode()
        self._host = parts.netloc.encode()
        self._transport = transport
        self._join_key = join_key
        self._features = list(features.values())
        # The reply has names without the part before the colon, or with __ in place of it.
        self._names = {
            answered: name
            for name, asked in features.items()
            for answered in (asked, asked.rpartition(":")[2], asked.replace(":", "__"))
        }
        self._integer_keys = integer_keys
        self._headers = list(headers)

    async def fetch(self, keys: Sequence[str], deadline_s: float) -> Found:
        """Return the values of the keys that it knows. Raises SourceError or TimeoutError."""
        asked: list[Any] = list(keys)
        if self._integer_keys:
            keys = [key for key in keys if is_integer(key)]
            asked = list(map(int, keys))
        if not keys:
            return {}
        document = {"features": self._features, "entities": {self._join_key: asked}}
        fields = [
            (b"host", self._host),
            (b"accept-encoding", b"identity"),
            (b"content-type", b"application/json"),
            *self._headers,
        ]
        call = Call(b"POST", self._target, fields, orjson.dumps(document))
        try:
            reply = await self._transport.send(call, deadline_s)
            body = await reply.read(REPLY_BYTES_MAX)
        except BackendError as exc:
            raise SourceError(f"the feature server: {exc}") from exc
        if reply.status != 200:
            raise SourceError(f"the feature server answered with status {reply.status}")
        try:
            return self._read(keys, orjson.loads(body))
        except (ValueError, TypeError, KeyError, IndexError) as exc:
            raise SourceError(f"the feature server's reply cannot be read: {exc!r}") from exc

    def _read(self, keys: Sequence[str], document: Any) -> Found:
        found: dict[str, dict[str, Any]] = {}
        columns = zip(document["metadata"]["feature_names"], document["results"], strict=True)
        for answered, column in columns:
            name = self._names.get(answered)
            if name is None:
                continue
            cells = zip(keys, column["values"], column["statuses"], strict=True)
            for key, value, status in cells:
                if status == "PRESENT":
                    found.setdefault(key, {})[name] = value
        return found

    async def put(self, key: str, values: Mapping[str, Any]) -> None:
        """Refuse: a feature server is written through its own pipeline."""
        raise SourceError("a feature server is written by its own pipeline")

    async def erase(self, key: str) -> int:
        """Refuse, for the same reason."""
        raise SourceError("a feature server is written by its own pipeline")

    def gauges(self) -> Mapping[str, float]:
        """Return nothing."""
        return {}

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()
