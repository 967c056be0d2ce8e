"""The registry of an MLflow server, over its REST API (mlflow.org/docs/latest/rest-api.html).

Aliases and tags are used, not stages: MLflow has deprecated them. Replies are read as from a
stranger: with a limit, and nothing but names, numbers and texts is taken from them.
"""

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import orjson

from tollway.backends.errors import BackendError
from tollway.backends.ports import Transport
from tollway.backends.types import Call
from tollway.gateway.registry.port import (
    VERSIONS_MAX,
    ModelVersion,
    RegisteredModel,
    RegistryUnavailable,
)

REPLY_BYTES_MAX = 4 << 20  # a thousand versions with tags
_API = "api/2.0/mlflow"
_PAGE = 200
_MISSING = "RESOURCE_DOES_NOT_EXIST"
_TAG_CHARS_MAX = 5000  # MLflow's own


class MlflowRegistry:
    """An MLflow server at `url`, over `transport`."""

    def __init__(
        self,
        url: str,
        transport: Transport,
        *,
        timeout_s: float,
        credential: Callable[[], tuple[bytes, bytes]] | None = None,
    ) -> None:
        """`credential` returns the header field with the key, which may change."""
        parts = urlsplit(url)
        self._base = parts.path.rstrip("/")
        self._host = parts.netloc.encode()
        self._transport = transport
        self._timeout_s = timeout_s
        self._credential = credential

    async def model(self, name: str) -> RegisteredModel:
        """Return a model with its newest versions."""
        try:
            found = await self._ask("GET", "registered-models/get", {"name": name})
        except _Missing:
            return RegisteredModel()
        described = _table(found, "registered_model")
        aliases = {
            str(one.get("alias")): str(one.get("version")) for one in _tables(described, "aliases")
        }
        return RegisteredModel(aliases, tuple(await self._versions(name)))

    async def _versions(self, name: str) -> list[ModelVersion]:
        versions: list[ModelVersion] = []
        # Quotes of a name are doubled in MLflow's filters; names in a configuration have none.
        query = {"filter": f"name='{name}'", "max_results": str(_PAGE)}
        query["order_by"] = "creation_timestamp DESC"
        while len(versions) < VERSIONS_MAX:
            found = await self._ask("GET", "model-versions/search", query)
            versions += [_version(one) for one in _tables(found, "model_versions")]
            token = found.get("next_page_token")
            if not isinstance(token, str) or not token:
                break
            query["page_token"] = token
        return versions[::-1]

    async def metrics(self, name: str, version: ModelVersion) -> Mapping[str, float]:
        """Return the metrics of the run that made a version."""
        if not version.run:
            return {}
        try:
            found = await self._ask("GET", "runs/get", {"run_id": version.run})
        except _Missing:
            return {}
        data = _table(_table(found, "run"), "data")
        return {
            str(one.get("key")): value
            for one in _tables(data, "metrics")
            if (value := _number(one.get("value"))) is not None
        }

    async def set_alias(self, name: str, alias: str, version: str | None) -> None:
        """Give an alias to a version, or to none."""
        document = {"name": name, "alias": alias}
        if version is not None:
            await self._ask("POST", "registered-models/alias", {**document, "version": version})
            return
        try:
            await self._ask("DELETE", "registered-models/alias", document)
        except _Missing:
            return  # it is gone already

    async def set_tags(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Write tags of a version."""
        for key, value in tags.items():
            document = {"name": name, "version": version, "key": key}
            await self._ask(
                "POST", "model-versions/set-tag", {**document, "value": value[:_TAG_CHARS_MAX]}
            )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def _ask(self, method: str, path: str, given: Mapping[str, str]) -> dict[str, Any]:
        target, body = f"{self._base}/{_API}/{path}", b""
        headers = [(b"host", self._host), (b"accept", b"application/json")]
        if method == "GET":
            target += f"?{urlencode(given, quote_via=quote)}"
        else:
            body = orjson.dumps(given)
            headers.append((b"content-type", b"application/json"))
        try:
            if self._credential is not None:
                headers.append(self._credential())
            deadline_s = asyncio.get_running_loop().time() + self._timeout_s
            call = Call(method.encode(), target.encode(), headers, body)
            reply = await self._transport.send(call, deadline_s)
            content = await reply.read(REPLY_BYTES_MAX)
        except (BackendError, ValueError) as exc:
            raise RegistryUnavailable(f"{path}: {exc or type(exc).__name__}") from exc
        return _read(path, reply.status, content)


class _Missing(RegistryUnavailable):
    """What was asked about does not exist."""


def _read(path: str, status: int, content: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(content or b"{}")
    except orjson.JSONDecodeError as exc:
        raise RegistryUnavailable(f"{path}: {status}, and the reply is not JSON") from exc
    if not isinstance(document, dict):
        raise RegistryUnavailable(f"{path}: the reply is not an object")
    if status == 200:
        return document
    why = f"{path}: {status} {document.get('error_code', '')} {document.get('message', '')}"
    kind = _Missing if document.get("error_code") == _MISSING else RegistryUnavailable
    raise kind(why[:300])


def _version(one: Mapping[str, Any]) -> ModelVersion:
    created = _number(one.get("creation_timestamp"))
    return ModelVersion(
        version=str(one.get("version", "")),
        created_s=(created or 0.0) / 1000,
        ready=one.get("status", "READY") == "READY",
        tags={str(tag.get("key")): str(tag.get("value", "")) for tag in _tables(one, "tags")},
        run=str(one.get("run_id", "")),
    )


def _table(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    inner = document.get(key)
    return inner if isinstance(inner, dict) else {}


def _tables(document: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    entries = document.get(key)
    return [one for one in entries if isinstance(one, dict)] if isinstance(entries, list) else []


def _number(value: Any) -> float | None:
    """Return a number, which MLflow may write as a text; None if it is none, or not finite."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
