"""Builds the groups of features from outside: their sources, their tiers, and what routes join."""

import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from random import Random
from urllib.parse import urlsplit, urlunsplit

from tollway.backends.http.factory import open_transport
from tollway.gateway import settings as config
from tollway.gateway.features.online import entities
from tollway.gateway.features.online.join import Member, Onward, RouteFeatures
from tollway.gateway.features.online.lookup import FeatureLookup
from tollway.gateway.features.online.model import NUMBER, Digest, Source, WarmTier
from tollway.gateway.features.online.stores import FeatureStores
from tollway.gateway.features.sources import function
from tollway.gateway.features.sources.table import SourceTable
from tollway.gateway.settings.errors import ConfigError, Problem
from tollway.gateway.settings.features.group import POSTGRES, PYTHON, SQLITE
from tollway.gateway.wiring.states import Stage

_EXTRA = "cannot be used: install tollway[{}]"


def build_stores(settings: config.Settings) -> FeatureStores:
    """Return the groups' tiers, without a group yet; ConfigError if an extra is missing."""
    return FeatureStores(_warm(settings) if settings.features else None)


def build_lookups(
    settings: config.Settings,
    stage: Stage,
    warm: WarmTier | None,
    *,
    clock: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
    rng: Random | None = None,
) -> dict[str, FeatureLookup]:
    """Return the groups by name; those whose source and values are the same go on.

    ConfigError if a source cannot be built.
    """

    def make(one: config.FeatureGroupConfig) -> FeatureLookup:
        return FeatureLookup(
            one.to_group(_model(one)),
            build_source(one),
            digest=digest_of(one, settings),
            clock=clock,
            wall=wall,
            rng=rng or Random(),
            warm=warm,
        )

    def staged(one: config.FeatureGroupConfig, name: str) -> FeatureLookup:
        return stage.get(
            ("features", name),
            (one.of(*one.STATE), _model(one)),
            lambda: make(one),
            revise=lambda kept: kept.revise(one.to_group(_model(one))),
        )

    groups = {one.name: one for one in settings.features}
    groups |= {candidate_name(one): one.tried for one in settings.features if one.tried is not None}
    return {name: staged(one, name) for name, one in groups.items()}


def candidate_name(one: config.FeatureGroupConfig) -> str:
    """Return the name under which the candidate of a group is shown and asked."""
    assert one.candidate is not None
    return f"{one.name}@{one.candidate.version}"


def route_features(
    route: config.RouteConfig, settings: config.Settings, lookups: Mapping[str, FeatureLookup]
) -> RouteFeatures | None:
    """Return what a route joins; None if that is nothing."""
    if not route.features or not lookups:
        return None
    tables = {one.name: one for one in settings.features}
    members = [_member(tables[name], lookups) for name in route.features]
    return RouteFeatures(members, route.features_ms / 1000.0)


def _member(one: config.FeatureGroupConfig, lookups: Mapping[str, FeatureLookup]) -> Member:
    entity = entities.entity(one.entity, per_tenant=one.per_tenant)
    onward = Onward(one.body or "", (one.header or "").encode())
    if one.candidate is None:
        return Member(lookups[one.name], entity, onward)
    candidate = Member(lookups[candidate_name(one)], entity, onward)
    return Member(lookups[one.name], entity, onward, candidate, one.candidate.share)


def digest_of(one: config.FeatureGroupConfig, settings: config.Settings) -> Digest:
    """Return the function that gives the pseudonyms of a group's entities."""
    if one.entities == "plain":
        return entities.plain
    return entities.pseudonyms(settings.pepper.get_secret_value() if settings.pepper else None)


def value_limits(settings: config.Settings) -> dict[str, float]:
    """Return how long the journal keeps values, in seconds by group."""
    days = {one.name: one.retain_days for one in settings.features}
    return {name: limit * 86_400.0 for name, limit in days.items() if limit is not None}


def joined_numbers(route: config.RouteConfig, settings: config.Settings) -> int:
    """Return how many numbers from outside each request of a route has."""
    named = [one for one in settings.features if one.name in route.features]
    return sum(value.type == NUMBER for one in named for value in one.values)


def seen_of(route: config.RouteConfig, settings: config.Settings) -> object:
    """Return the settings that say what a policy sees; if they change, learning starts again."""
    named = [one for one in settings.features if one.name in route.features]
    values = [(one.name, [(v.name, v.type) for v in one.values]) for one in named]
    embedder = [
        (one.url, one.model)
        for one in settings.backends
        if one.name == route.context.embedding_backend
    ]
    context = route.context.model_copy(update={"embedding_timeout_s": 0.0})
    return route.of(*route.FEATURES[1:]), context, values, embedder


def _model(one: config.FeatureGroupConfig) -> str:
    """Return the digest of a group's transformer; empty without one."""
    if one.transform is None:
        return ""
    try:
        return sha256(one.transform.read_bytes()).hexdigest()[:12]
    except OSError as exc:
        place = f'[[features]] "{one.name}" transform'
        raise ConfigError([Problem("", place, f"cannot be read: {exc.strerror}")]) from exc


def build_source(one: config.FeatureGroupConfig) -> Source:
    """Return a group's source; ConfigError if it cannot be built."""
    source = _source(one)
    if one.transform is None:
        return source
    place = f'[[features]] "{one.name}" transform'
    try:
        from tollway.gateway.features.sources.onnx import (  # noqa: PLC0415 - an extra
            OnnxTransformer,
            TransformedSource,
        )

        inputs = [value.to_feature() for value in one.inputs]
        made = OnnxTransformer(one.transform, inputs, [value.name for value in one.values])
    except ImportError as exc:
        raise ConfigError([Problem("", place, _EXTRA.format("onnx"))]) from exc
    except ValueError as exc:
        raise ConfigError([Problem("", place, str(exc))]) from exc
    return TransformedSource(source, made)


def _source(one: config.FeatureGroupConfig) -> Source:
    """Return what a group's values, or the raw ones, are read from."""
    place = f'[[features]] "{one.name}" source'
    if one.kind == SQLITE:
        from tollway.gateway.features.sources.sqlite import (  # noqa: PLC0415 - few use it
            SqliteSource,
        )

        path = Path(one.source.removeprefix("sqlite:///"))
        return SqliteSource(path, one.name, _table(one) if one.table else None)
    if one.kind == POSTGRES:
        try:
            from tollway.gateway.features.sources.postgres import (  # noqa: PLC0415 - an extra
                PostgresSource,
            )
        except ImportError as exc:
            raise ConfigError([Problem("", place, _EXTRA.format("postgres"))]) from exc
        return PostgresSource(
            one.source,
            _table(one),
            pool_min=one.pool_min,
            pool_max=one.pool_max,
            connect_timeout_s=one.connect_timeout_s,
            acquire_timeout_s=one.acquire_timeout_s,
            query_timeout_s=one.timeout_s,
            password=one.password.get_secret_value() if one.password else None,
        )
    if one.kind == PYTHON:
        try:
            return function.FunctionSource(function.load(one.source.partition(":")[2]))
        except ValueError as exc:
            raise ConfigError([Problem("", place, str(exc))]) from exc
    return _feast(one)


def _table(one: config.FeatureGroupConfig) -> SourceTable:
    assert one.table is not None
    return SourceTable(
        one.table,
        one.key,
        {value.name: value.column or value.name for value in one.stored},
        integer_keys=one.keys == "integer",
        is_writable=one.writable,
    )


def _feast(one: config.FeatureGroupConfig) -> Source:
    from tollway.gateway.features.sources.feast import FeastSource  # noqa: PLC0415 - few use it

    origin = urlunsplit((*urlsplit(one.source)[:2], "", "", ""))
    token = one.token
    headers = (
        []
        if token is None
        else [(b"authorization", b"Bearer " + token.get_secret_value().encode())]
    )
    return FeastSource(
        one.source,
        open_transport(origin, connections=20),
        join_key=one.key,
        features={value.name: value.feature or value.name for value in one.stored},
        integer_keys=one.keys == "integer",
        headers=headers,
    )


def _warm(settings: config.Settings) -> WarmTier | None:
    tiers = settings.feature_tiers
    if tiers.redis is None:
        return None
    try:
        from tollway.gateway.features.sources.redis import RedisTier  # noqa: PLC0415 - an extra
    except ImportError as exc:
        place = "feature_tiers.redis"
        raise ConfigError([Problem("", place, _EXTRA.format("redis"))]) from exc
    password = tiers.redis_password
    return RedisTier(tiers.redis, password.get_secret_value() if password else None)
