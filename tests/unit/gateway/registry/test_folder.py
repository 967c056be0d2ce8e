import asyncio
import json
from pathlib import Path

import pytest

from tollway.gateway.registry.folder import FolderRegistry
from tollway.gateway.registry.port import RegisteredModel, RegistryUnavailable


def test_folders_are_versions_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("10", "9", "rc.1", ".hidden", "registry.json.tmp dir"):
        (tmp_path / "m" / name).mkdir(parents=True)
    (tmp_path / "m" / "9" / "metrics.json").write_text('{"accuracy": 0.9, "note": "x"}')

    async def main() -> None:
        registry = FolderRegistry(tmp_path)
        model = await registry.model("m")
        assert [one.version for one in model.versions] == ["rc.1", "9", "10"]
        assert await registry.metrics("m", model.versions[1]) == {"accuracy": 0.9}
        assert await registry.metrics("m", model.versions[2]) == {}
        assert await registry.model("other") == RegisteredModel()

    asyncio.run(main())


def test_aliases_and_tags_are_kept_in_one_file(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)

    async def main() -> None:
        registry = FolderRegistry(tmp_path)
        await registry.set_alias("m", "champion", "1")
        await registry.set_alias("m", "challenger", "1")
        await registry.set_alias("m", "challenger", None)
        await registry.set_tags("m", "1", {"a": "b"})
        await registry.set_tags("m", "1", {"c": "d"})
        model = await registry.model("m")
        assert model.aliases == {"champion": "1"}
        assert model.versions[0].tags == {"a": "b", "c": "d"}

    asyncio.run(main())
    written = json.loads((tmp_path / "m" / "registry.json").read_text())
    assert written == {"aliases": {"champion": "1"}, "tags": {"1": {"a": "b", "c": "d"}}}


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "registry.json").write_text("{")

    async def main() -> None:
        with pytest.raises(RegistryUnavailable, match=r"registry\.json is not JSON"):
            await FolderRegistry(tmp_path).model("m")
        with pytest.raises(RegistryUnavailable, match="is not a folder"):
            await FolderRegistry(tmp_path).set_alias("x", "champion", "1")

    asyncio.run(main())
