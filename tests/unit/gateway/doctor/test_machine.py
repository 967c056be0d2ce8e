"""What is found of folders and of the address to listen on."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tollway.gateway.doctor import machine


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[bytes]]]:
    """Yield the address of a server and the replies that it gives, one for each connection."""
    monkeypatch.setattr(machine, "READY_S", 60.0)
    replies: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60.0)

        def serve() -> None:
            taken, _ = listener.accept()
            with taken:
                taken.recv(4096)
                taken.sendall(replies.pop())

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", replies
        thread.join()


READY = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n"
STARTING = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 9\r\n\r\nstarting\n"
OTHER = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("reply", "state", "seen"),
    [
        (READY, "ok", "is ready"),
        (STARTING, "failure", "starting"),
        (OTHER, "failure", "answers GET /readyz with 404"),
        (b"SSH-2.0\r\n", "failure", "GET /readyz fails"),
    ],
)
def test_what_has_the_address_is_named(
    answering: tuple[str, list[bytes]], reply: bytes, state: str, seen: str
) -> None:
    listen, replies = answering
    replies.append(reply)
    [found] = machine.address(listen, secure=False)
    assert found.state == state
    assert seen in found.seen


def test_a_free_address_is_free() -> None:
    [found] = machine.address("127.0.0.1:0", secure=False)
    assert (found.state, "free" in found.seen) == ("ok", True)


def test_an_address_of_another_machine_is_a_failure() -> None:
    [found] = machine.address("192.0.2.1:8080", secure=False)
    assert found.state == "failure"


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("0.0.0.0:80", "http://127.0.0.1:80"),
        ("[::]:80", "http://[::1]:80"),
        ("10.1.2.3:80", "http://10.1.2.3:80"),
    ],
)
def test_a_gateway_on_all_addresses_is_asked_on_this_machine(listen: str, url: str) -> None:
    assert machine.url_here(listen, secure=False) == url


def test_a_folder_that_is_not_there_yet_is_examined_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "shortage", lambda disk, before: "")
    [found] = machine.folders({"journal": tmp_path / "a" / "b"})
    assert found.state == "ok"
    assert "GB free" in found.seen


def test_a_file_in_place_of_a_folder_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    [found] = machine.folders({"journal": tmp_path / "a" / "b"})
    assert (found.state, str(tmp_path / "a") in found.seen) == ("failure", True)


def test_a_folder_that_all_may_write_to_is_a_warning(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    [found] = machine.folders({"state": tmp_path})
    assert (found.state, found.remedy) == ("warning", f"chmod o-w {tmp_path}")


def test_a_folder_that_cannot_be_written_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    [found] = machine.folders({"state": tmp_path})
    assert (found.state, "cannot be written" in found.seen) == ("failure", True)
