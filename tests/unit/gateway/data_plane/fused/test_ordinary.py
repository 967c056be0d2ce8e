"""Which routes may take the fused path."""

import pytest

from tollway.gateway.data_plane.fused.ordinary import is_ordinary
from tollway.gateway.settings import parse
from tollway.gateway.wiring.backends import build_backend
from tollway.gateway.wiring.routes import build_route

CONFIG = """
[server]
allow_anonymous = true

[ledger]
url = "memory://"

[[backends]]
name = "a"
kind = "gpu"
protocol = "oip"
url = "http://127.0.0.1:1"
price = { per_request_usd = 0.001 }

[[routes]]
name = "r"
path = "/v2/models/m/infer"
protocol = "oip"
backends = ["a"]
"""
SCALING = """
[[scaling]]
name = "a"
max = 2
calls_per_replica = 4
"""


@pytest.mark.parametrize(
    ("more", "is_taken"),
    [
        ("", True),
        (SCALING, True),
        (SCALING + "replica_usd_per_hour = 3.6\n", False),
        (SCALING + "start_wait_s = 5\n", False),
    ],
)
def test_backends_that_are_offered_at_more_than_their_price_are_left_to_the_machine(
    more: str, is_taken: bool
) -> None:
    settings = parse(CONFIG + more, {})
    scaling = next(iter(settings.scaling), None)
    backend = build_backend(settings.backends[0], lambda *_: None, scaling=scaling)
    route = build_route(settings.routes[0], settings, {"a": backend})
    assert is_ordinary(route) is is_taken
