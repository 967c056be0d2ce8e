"""What is declared of a route's signals."""

from collections.abc import Mapping

from tollway.gateway import settings as config
from tollway.gateway.routing.plan import Target
from tollway.policies.evidence.signal_trust import SignalPrior


def priors(route: config.RouteConfig) -> dict[str, SignalPrior]:
    """Return what is declared of a route's signals, by name."""
    return {signal.name: signal.prior() for signal in route.signals}


def anchor(route: config.RouteConfig, backends: Mapping[str, Target]) -> str:
    """Return the backend whose declared quality calibrates signals: the baseline, or the best."""
    if route.baseline is not None:
        return route.baseline
    declared = {
        name: quality
        for name in route.backends
        if name in backends and (quality := backends[name].declared_quality) is not None
    }
    return max(declared, key=declared.__getitem__) if declared else ""
