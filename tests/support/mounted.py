"""A volume of a Secret or a ConfigMap, changed as the kubelet changes it."""

from collections.abc import Mapping
from pathlib import Path


class Mounted:
    """A folder whose files are links through `..data`, which one rename replaces as a whole.

    See AtomicWriter in Kubernetes' pkg/volume/util: the files are written into a new folder, a new
    link to it is renamed over `..data`, and the old folder is removed.
    """

    # The mutable state is the folder, and the number of its current version.

    def __init__(self, path: Path, files: Mapping[str, str]) -> None:
        self.path = path
        self._version = 0
        path.mkdir()
        self.put(files)
        for name in files:
            (path / name).symlink_to(f"..data/{name}")

    def put(self, files: Mapping[str, str]) -> None:
        """Replace the content of all files at once."""
        data = self.path / "..data"
        old = data.resolve() if data.exists() else None
        self._version += 1
        new = self.path / f"..2026_11_30_{self._version}"
        new.mkdir()
        for name, text in files.items():
            (new / name).write_text(text)
            (new / name).chmod(0o440)
        beside = self.path / "..data_tmp"
        beside.symlink_to(new.name)
        beside.rename(data)
        if old is not None:
            for one in old.iterdir():
                one.unlink()
            old.rmdir()
