"""The table of the listener for gRPC, and what it needs of the others."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.configs import two_backends
from tollway.gateway import settings
from tollway.gateway.settings import loader
from tollway.gateway.settings.errors import ConfigError

URL = "http://127.0.0.1:1"
GRPC = '[grpc]\nlisten = "127.0.0.1:0"\n'


def test_the_table_may_come_from_the_environment() -> None:
    environ = {"TOLLWAY_GRPC__LISTEN": "[::1]:8001", "TOLLWAY_GRPC__MAX_CALLS": "7"}
    parsed = settings.parse(two_backends(URL, URL), environ)
    assert parsed.grpc is not None
    assert (parsed.grpc.listen, parsed.grpc.max_calls) == ("[::1]:8001", 7)


@pytest.mark.parametrize("listen", ["unix:/run/a.sock", "127.0.0.1", "http://127.0.0.1:1"])
def test_the_address_has_a_port(listen: str) -> None:
    with pytest.raises(ConfigError, match=r"grpc\.listen"):
        settings.parse(two_backends(URL, URL, more=GRPC.replace("127.0.0.1:0", listen)), {})


def test_a_route_of_the_protocol_is_needed() -> None:
    text = two_backends(URL, URL, more=GRPC).replace('protocol = "oip"', 'protocol = "plain"')
    with pytest.raises(ConfigError, match='grpc: serves routes with protocol = "oip"'):
        settings.parse(text, {})


def test_callers_without_a_key_may_not_reach_a_providers_key_over_grpc_either() -> None:
    auth = 'auth = { bearer_env = "KEY" }'
    text = two_backends(URL, URL, backend=auth, more=GRPC)
    settings.parse(text, {})
    with pytest.raises(ConfigError, match=r"can reach 0\.0\.0\.0:0 spend"):
        settings.parse(text.replace("127.0.0.1:0", "0.0.0.0:0"), {})


def test_the_extra_is_named_if_it_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tollway.toml"
    file.write_text(two_backends(URL, URL, more=GRPC))
    settings.load(file, {})
    monkeypatch.setattr(
        loader, "find_spec", lambda name: None if name == "grpc" else find_spec(name)
    )
    with pytest.raises(ConfigError, match=r"tollway\[grpc\]"):
        settings.load(file, {})
