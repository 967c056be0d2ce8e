"""Builds the gateway from its settings: the one place that names concrete classes."""

from gateway.wiring.assembly import build
from gateway.wiring.backend import build_backend, build_limiter
from gateway.wiring.plane import (
    build_authenticator,
    build_counter,
    build_proxy,
    build_rates,
    feedback_rates,
)
from gateway.wiring.route import build_route
from gateway.wiring.whole import Gateway

__all__ = [
    "Gateway",
    "build",
    "build_authenticator",
    "build_backend",
    "build_counter",
    "build_limiter",
    "build_proxy",
    "build_rates",
    "build_route",
    "feedback_rates",
]
