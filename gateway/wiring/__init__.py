"""Builds the gateway from its settings: the one place that names concrete classes."""

from tollway.gateway.wiring.backends import build_backend
from tollway.gateway.wiring.build import build
from tollway.gateway.wiring.gateway import Gateway
from tollway.gateway.wiring.planes import (
    build_authenticator,
    build_budget_endpoints,
    build_proxy,
    build_rates,
    feedback_rates,
    made_admin_key,
)
from tollway.gateway.wiring.routes import build_route

__all__ = [
    "Gateway",
    "build",
    "build_authenticator",
    "build_backend",
    "build_budget_endpoints",
    "build_proxy",
    "build_rates",
    "build_route",
    "feedback_rates",
    "made_admin_key",
]
