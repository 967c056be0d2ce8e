"""The memory that this process may still use."""

from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def available_bytes(cgroup: Path = _CGROUP, meminfo: Path = _MEMINFO) -> int | None:
    """Return the free memory of the machine or of the container, whichever is less.

    None if the system does not say, as on macOS.
    """
    known = [size for size in (_of_machine(meminfo), _of_container(cgroup)) if size is not None]
    return min(known, default=None)


def _of_machine(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(sizes[0]) * 1024 if sizes else None


def _of_container(cgroup: Path) -> int | None:
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
        cache = _cache(cgroup / "memory.stat")
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(int(limit) - used + cache, 0)


def _cache(stat: Path) -> int:
    """Return the file cache, which counts as used but makes room when needed."""
    entries = dict(line.split() for line in stat.read_text().splitlines())
    return int(entries.get("inactive_file", 0))
