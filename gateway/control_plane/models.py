"""Model endpoints: operators see the versions of registered models, and move their aliases.

GET  /_tollway/models           each model, and the versions that serve
GET  /_tollway/models/{name}    one model with its versions: stage, metrics, evidence
POST /_tollway/models/{name}    {"alias", "version", "who", "why"}: give `champion` or `challenger`
                                to a version; without `version`, to none
POST /_tollway/registry/webhook a webhook of MLflow, signed: the gateway looks at the registry now

An alias that is moved here is moved in the registry, and the gateway follows it as if somebody else
had. The audit log has who asked and why.
"""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from tollway.gateway.data_plane.problems import HttpProblem
from tollway.gateway.registry.keeper import Keeper
from tollway.gateway.registry.moves import Managed
from tollway.gateway.registry.port import (
    CHALLENGER,
    CHAMPION,
    ModelVersion,
    RegisteredModel,
    RegistryUnavailable,
)
from tollway.gateway.storage import audit_log
from tollway.gateway.storage.audit_log import Actor, AuditLog

SHOWN_MAX = 50  # versions of a model
MEASURED_MAX = 10  # whose metrics are asked for: a call each
WEBHOOK_S = 300.0  # how old a webhook may be; MLflow repeats one for seconds
_CHARS_MAX = {"who": 100, "why": 1000, "version": 64, "alias": 16}
_PREFIX = "tollway."


class ModelEndpoints:
    """Endpoints over the keeper of the models, if there is a registry."""

    def __init__(
        self,
        keeper: Keeper | None,
        audit: AuditLog,
        *,
        looks: bool,
        secret: bytes,
        wall: Callable[[], float],
    ) -> None:
        """`looks`: this process follows the registry. `secret`: of webhooks; empty: refused."""
        self._keeper = keeper
        self._audit = audit
        self._looks = looks
        self._secret = secret
        self._wall = wall

    async def list(self) -> list[dict[str, Any]]:
        """Return all models, without the figures of each version."""
        if self._keeper is None:
            return []
        found = [self._seen(one) for one in self._keeper.models.values()]
        return [
            _document(self._keeper, one, seen)
            for one, seen in zip(
                self._keeper.models.values(), await asyncio.gather(*found), strict=True
            )
        ]

    async def show(self, name: str) -> dict[str, Any]:
        """Return one model with the metrics of its newest versions."""
        keeper, one = self._model(name)
        seen = await self._seen(one)
        newest = seen.versions[-MEASURED_MAX:]
        try:
            measured = await asyncio.gather(
                *(keeper.parts.registry.metrics(name, version) for version in newest)
            )
        except RegistryUnavailable as exc:
            raise _unavailable(exc) from exc
        metrics = {v.version: dict(m) for v, m in zip(newest, measured, strict=True)}
        return _document(keeper, one, seen, metrics)

    async def change(self, name: str, body: bytes, actor: Actor) -> dict[str, Any]:
        """Move an alias in the registry, and return the model."""
        keeper, one = self._model(name)
        asked = _read(body)
        seen = await self._seen(one)
        alias, version = asked["alias"], asked.get("version")
        if version is not None and seen.get(version) is None:
            known = ", ".join(v.version for v in seen.versions[-MEASURED_MAX:]) or "none"
            why = f"{name} has no version {version!r}; the newest are: {known}"
            raise HttpProblem(422, "No such version", why)
        acts = actor.named(asked["who"])
        before, after = {alias: seen.aliases.get(alias)}, {alias: version}

        def write(outcome: str, begun: int | None = None) -> int:
            return self._audit.write(
                "model alias",
                acts,
                outcome,
                about=name,
                why=asked["why"],
                before=before,
                after=after,
                begun=begun,
            )

        try:
            begun = await asyncio.to_thread(write, audit_log.BEGUN)
        except OSError as exc:
            why = f"the audit log cannot be written, so nothing was changed: {exc.strerror or exc}"
            raise HttpProblem(503, "Audit log not writable", why) from exc
        try:
            await keeper.parts.registry.set_alias(name, alias, version)
        except RegistryUnavailable as exc:
            await asyncio.to_thread(write, audit_log.UNKNOWN, begun)
            raise _unavailable(exc) from exc
        await asyncio.to_thread(write, audit_log.DONE, begun)
        if self._looks:
            await keeper.look()
        return _document(keeper, one, await self._seen(one))

    async def webhook(self, headers: Mapping[str, str], body: bytes) -> None:
        """Look at the registry if a webhook is authentic; nothing that it says is believed."""
        if self._keeper is None or not self._secret:
            why = "set registry.webhook_secret to receive webhooks of the registry"
            raise HttpProblem(404, "No webhooks", why)
        moment = headers.get("x-mlflow-timestamp", "")
        signed = f"{headers.get('x-mlflow-delivery-id', '')}.{moment}.".encode() + body
        digest = hmac.new(self._secret, signed, hashlib.sha256).digest()
        wanted = b"v1," + base64.b64encode(digest)
        given = headers.get("x-mlflow-signature", "").encode()
        is_recent = (
            moment.isascii()
            and moment.isdigit()
            and len(moment) <= 12
            and abs(self._wall() - int(moment)) <= WEBHOOK_S
        )
        if not hmac.compare_digest(given, wanted) or not is_recent:
            raise HttpProblem(401, "Unauthorized", "the signature of the webhook is not valid")
        if self._looks:
            await self._keeper.look()

    def _model(self, name: str) -> tuple[Keeper, Managed]:
        if self._keeper is None or name not in self._keeper.models:
            known = ", ".join(self._keeper.models) if self._keeper is not None else "none"
            raise HttpProblem(404, "No model", f"no model is named {name!r}; there are: {known}")
        return self._keeper, self._keeper.models[name]

    async def _seen(self, one: Managed) -> RegisteredModel:
        assert self._keeper is not None
        try:
            return await self._keeper.parts.registry.model(one.model.name)
        except RegistryUnavailable as exc:
            raise _unavailable(exc) from exc


def _unavailable(exc: RegistryUnavailable) -> HttpProblem:
    why = f"{exc}; requests are served as before"
    return HttpProblem(503, "Registry unreachable", why)


def _document(
    keeper: Keeper,
    one: Managed,
    seen: RegisteredModel,
    metrics: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, Any]:
    name = one.model.name
    record, trial = keeper.parts.records.fresh(name), keeper.trials.get(name)
    versions = [_version(found, seen) for found in seen.versions[::-1][:SHOWN_MAX]]
    for version in versions:
        version["metrics"] = (metrics or {}).get(version["version"], {})
    return {
        "model": name,
        "backend": one.model.backend,
        "rollout": one.rollout,
        "champion": record.champion or None,
        "challenger": record.challenger or None,
        "trial": None if trial is None else {"phase": trial.phase, "why": trial.why},
        "fault": keeper.faults.get(name),
        "versions": versions,
    }


def _version(found: ModelVersion, seen: RegisteredModel) -> dict[str, Any]:
    return {
        "version": found.version,
        "stage": seen.stage(found.version),
        "aliases": sorted(alias for alias, v in seen.aliases.items() if v == found.version),
        "ready": found.ready,
        "created": found.created_s,
        "evidence": {
            key.removeprefix(_PREFIX): text
            for key, text in found.tags.items()
            if key.startswith(_PREFIX)
        },
    }


def _read(body: bytes) -> Mapping[str, str]:
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise HttpProblem(400, "Bad change", f"the body is not JSON: {exc}") from exc
    asked = asked if isinstance(asked, dict) else {}
    if asked.get("version", "") is None:
        del asked["version"]
    _check_keys(asked, ("alias", "who", "why"))
    if asked["alias"] not in (CHAMPION, CHALLENGER):
        why = f"alias must be {CHAMPION} or {CHALLENGER}"
        raise HttpProblem(422, "Bad change", why)
    return asked


def _check_keys(asked: Mapping[str, Any], required: Sequence[str]) -> None:
    for key in [*required, *asked]:
        text = asked.get(key)
        if key not in _CHARS_MAX:
            raise HttpProblem(422, "Bad change", f"the unknown key {key[:40]!r}; remove it")
        if not isinstance(text, str) or not text.strip() or not text.isprintable():
            why = f"{key} is missing; it must be a non-empty, printable string"
            raise HttpProblem(422, "Bad change", why)
        if len(text) > _CHARS_MAX[key]:
            why = f"{key} has {len(text)} characters; {_CHARS_MAX[key]} at most"
            raise HttpProblem(422, "Bad change", why)
