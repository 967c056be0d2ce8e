"""The admin key that a gateway makes for itself."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tollway.gateway.security import admin_key
from tollway.gateway.security.keys import is_key, new_key


def test_a_key_is_made_once_and_is_its_owners(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "state"
    assert admin_key.stored(folder) is None
    assert admin_key.make(folder)
    key = admin_key.stored(folder)
    assert key is not None
    assert is_key(key)
    assert not admin_key.make(folder)
    assert admin_key.stored(folder) == key
    path = folder / admin_key.NAME
    modes = [stat.S_IMODE(one.stat().st_mode) for one in (path, folder, folder.parent)]
    assert modes == [0o600, 0o700, 0o700]
    assert [one.name for one in folder.iterdir()] == [admin_key.NAME]


def test_gateways_that_start_together_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as threads:
        made = list(threads.map(lambda _: admin_key.make(tmp_path), range(64)))
    assert sum(made) == 1
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "text",
    ["", "\n", "password", new_key()[:-1], new_key() * 9, "\xff" * 50],
    ids=["empty", "line", "password", "too short", "too long", "bytes"],
)
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / admin_key.NAME
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ValueError, match="is not an admin key; delete it"):
        admin_key.stored(tmp_path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    admin_key.make(tmp_path)
    (tmp_path / admin_key.NAME).chmod(mode)
    with pytest.raises(ValueError, match="other users can read"):
        admin_key.stored(tmp_path)
