"""Datagrams to the service manager."""

import os
import socket
from pathlib import Path

import pytest

from tollway.gateway.cli import service_manager


@pytest.mark.parametrize("abstract", [False, True])
def test_a_state_is_one_datagram(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    name = f"@tollway-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name[1:]}" if abstract else name)
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        service_manager.tell(service_manager.READY)
        assert manager.recv(100) == b"READY=1"
        monkeypatch.delenv("NOTIFY_SOCKET")
        service_manager.tell(service_manager.STOPPING)
        with pytest.raises(BlockingIOError):
            manager.recv(100)


def test_a_manager_that_does_not_listen_is_only_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "none"))
    service_manager.tell(service_manager.READY)
    assert "was not told READY=1" in caplog.text
