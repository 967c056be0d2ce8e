"""A change of what answers makes kept answers unreachable."""

from pathlib import Path

import pytest

from tests.support.configs import two_backends
from tollway.gateway import settings as config
from tollway.gateway.wiring.caching import build_cache_plan
from tollway.gateway.wiring.states import States

CACHE = "cache = { ttl_s = 60 }"


def version(backend: str = "", cache: str = CACHE) -> bytes:
    text = two_backends("http://a", "http://b", backend=backend, route=cache)
    settings = config.parse(text, {}, folder=Path())
    plan = build_cache_plan(settings.routes[0], settings, States().stage())
    assert plan is not None
    return plan.version


@pytest.mark.parametrize(
    ("backend", "cache"),
    [
        ('headers = { x-variant = "2" }', CACHE),
        ("", "cache = { ttl_s = 60, sampled = true }"),
        ("", 'cache = { ttl_s = 60, version = "2" }'),
    ],
)
def test_settings_that_change_an_answer_change_the_version(backend: str, cache: str) -> None:
    assert version(backend, cache) != version()


def test_other_settings_do_not() -> None:
    assert version("timeout_s = 5", "cache = { ttl_s = 90 }") == version()
