"""Builds what follows a registry of models: the registry's client, and the keeper of its models."""

import os
from collections.abc import Mapping

from tollway.backends.http.factory import open_transport
from tollway.gateway import settings as config
from tollway.gateway.control_plane.models import ModelEndpoints
from tollway.gateway.registry.folder import FolderRegistry
from tollway.gateway.registry.keeper import Keeper
from tollway.gateway.registry.mlflow import MlflowRegistry
from tollway.gateway.registry.moves import Managed, MoveFailed, Parts
from tollway.gateway.registry.port import Registry
from tollway.gateway.registry.records import NAME, Records, versions
from tollway.gateway.security.addresses import is_link_local
from tollway.gateway.security.google_tokens import GoogleToken
from tollway.gateway.settings.errors import ConfigError, Problem
from tollway.gateway.storage.audit_log import Actor
from tollway.gateway.wiring.gateway import Gateway
from tollway.gateway.wiring.lifecycle.trials import Trials

CONNECTIONS = 4  # to a registry: a look, and what operators ask meanwhile


def build_keeper(gateway: Gateway) -> Keeper | None:
    """Return the keeper of a gateway's models; None if there is no registry."""
    settings = gateway.settings
    if settings.registry is None:
        return None
    try:
        records = Records(settings.state.dir)
    except (OSError, ValueError) as exc:
        raise ConfigError([Problem("", f"state.dir/{NAME}", str(exc))]) from exc

    async def apply(actor: Actor) -> None:
        if gateway.control.reload is None:
            raise MoveFailed("this gateway was started without a configuration file")
        await gateway.control.reload(actor)

    parts = Parts(
        registry=build_registry(settings.registry),
        records=records,
        rollouts=Trials(gateway.rollouts),
        apply=apply,
        audit=gateway.audit,
        events=gateway.events,
    )
    keeper = Keeper(parts, clock=gateway.clock)
    keeper.revise(managed(settings))
    return keeper


def build_registry(registry: config.RegistryConfig) -> Registry:
    """Return the client of a registry."""
    if registry.kind == "folder":
        return FolderRegistry(registry.dir)
    assert registry.url is not None
    auth = registry.auth

    def credential() -> tuple[bytes, bytes]:
        assert auth is not None
        assert not isinstance(auth.secret, GoogleToken)  # settings refuse it
        secret = auth.secret.read(os.environ)
        return auth.field_name.encode(), f"{auth.scheme}{secret}".encode()

    transport = open_transport(registry.url, connections=CONNECTIONS, barred=is_link_local)
    return MlflowRegistry(
        registry.url,
        transport,
        timeout_s=registry.timeout_s,
        credential=credential if auth is not None else None,
    )


def managed(settings: config.Settings) -> dict[str, Managed]:
    """Return the models of a configuration by name."""
    addresses = {backend.name: backend.url or "" for backend in settings.backends}
    rollouts = rollouts_of(settings)
    return {
        model.name: Managed(model, rollouts.get(model.name), addresses[model.backend])
        for model in settings.models
    }


def rollouts_of(settings: config.Settings) -> dict[str, str]:
    """Return the rollout that tries the versions of each model."""
    return {
        one.candidate.registry: one.name
        for one in settings.rollouts
        if one.candidate.registry is not None
    }


def served(settings: config.Settings) -> dict[str, Mapping[str, str]]:
    """Return where the versions are that backends serve and rollouts try, by name."""
    return versions(settings.models, rollouts_of(settings), settings.state.dir)


def build_models(gateway: Gateway) -> ModelEndpoints:
    """Return the endpoints of the models."""
    registry = gateway.settings.registry
    secret = registry.webhook_secret if registry is not None else None
    return ModelEndpoints(
        gateway.keeper,
        gateway.audit,
        looks=gateway.identity.learns,
        secret=secret.get_secret_value().encode() if secret is not None else b"",
        wall=gateway.wall,
    )
