"""State of the whole gateway is restored after a restart, or set aside and reported."""

import asyncio
from pathlib import Path

import pytest

from tollway.gateway.storage.snapshot_file import set_aside
from tollway.gateway.storage.state_file import StateFile


class Kept:
    """State that refuses what it did not save."""

    def __init__(self, state: bytes = b"") -> None:
        self.state = state

    def save(self) -> bytes:
        return self.state

    def load(self, state: bytes) -> None:
        if not state.startswith(b"good"):
            raise ValueError("not mine")
        self.state = state


def state_file(path: Path, told: list[tuple[str, str, str]], **parts: Kept) -> StateFile:
    return StateFile(
        path,
        parts,
        report=lambda kind, about, text: told.append((kind, about, text)),
        wall=lambda: 1_700_000_000.0,
    )


def test_parts_are_there_again_after_a_restart(tmp_path: Path) -> None:
    path, told = tmp_path / "folder" / "spend.snapshot", list[tuple[str, str, str]]()
    one, two = Kept(), Kept()
    state_file(path, told, one=one, two=two).restore()  # the first start: there is no file
    asyncio.run(state_file(path, told, one=Kept(b"good 1"), two=Kept(b"good 2")).save())
    state_file(path, told, one=one, two=two).restore()

    assert (one.state, two.state, told) == (b"good 1", b"good 2", [])


@pytest.mark.parametrize("damage", [b"", b"{}\n", b"not a snapshot"])
def test_a_damaged_file_is_set_aside_and_reported(tmp_path: Path, damage: bytes) -> None:
    path, told = tmp_path / "spend.snapshot", list[tuple[str, str, str]]()
    path.write_bytes(damage)
    state_file(path, told, one=Kept()).restore()

    assert (told[0][:2], len(told)) == (("snapshot_damaged", "spend"), 1)
    assert (path.exists(), (tmp_path / "spend.damaged").read_bytes()) == (False, damage)


def test_a_part_that_is_missing_or_refused_is_reported(tmp_path: Path) -> None:
    path, told = tmp_path / "spend.snapshot", list[tuple[str, str, str]]()
    for saved in ({"other": Kept(b"good")}, {"one": Kept(b"bad")}):
        asyncio.run(state_file(path, told, **saved).save())
        state_file(path, told, one=Kept()).restore()

    assert [kind for kind, *_ in told] == ["snapshot_damaged"] * 2


def test_a_disk_that_rejects_the_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "in the way").write_text("")
    told: list[tuple[str, str, str]] = []
    asyncio.run(state_file(tmp_path / "in the way" / "spend.snapshot", told, one=Kept()).save())

    assert [kind for kind, *_ in told] == ["snapshot_failed"]


def test_two_workers_may_find_the_same_file_damaged(tmp_path: Path) -> None:
    path = tmp_path / "spend.snapshot"
    path.write_bytes(b"damaged")
    assert set_aside(path) == set_aside(path)
    assert set_aside(path).read_bytes() == b"damaged"
