"""Every situation of benchmarks/cases.py passes through a gateway with one configuration."""

import pytest

from benchmarks import cases
from benchmarks.situations import chats, gateways, streams

pytestmark = pytest.mark.integration


def test_every_situation_passes_through_one_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (chats, streams):
        monkeypatch.setattr(module, "REST_S", 1.1)  # the gateway rests as long as it is told: 1 s
    _, found = cases.run(lambda *at: gateways.tollway(*at, version="this one"), only="")
    assert {name: why for name, why in found.items() if why} == {}
    assert len(found) == sum(map(len, cases.GROUPS.values()))  # no two have the same name
