"""What a process has open and keeps in memory, and that it comes back to that after a fault."""

import asyncio
import gc
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

PATIENCE_S = 20.0
THREADS = (os.cpu_count() or 1) + 4  # of asyncio's pool: they come when needed, and stay


@dataclass(frozen=True, slots=True)
class Held:
    """Open files and sockets, threads, processes, MiB resident, and tasks of an event loop."""

    files: int
    threads: int
    children: int
    memory_mib: float
    tasks: int = 0

    def above(
        self, base: "Held", *, files: int, memory_mib: float, children: int = 0
    ) -> dict[str, str]:
        """Return by name what exceeds the base and the slack; empty if nothing does.

        A process keeps some freed memory, so each test states its slack.
        """
        slack = {"files": files, "threads": THREADS, "children": children}
        slack |= {"memory_mib": memory_mib, "tasks": 0}
        return {
            name: f"{getattr(base, name):.0f} -> {getattr(self, name):.0f}"
            for name, most in slack.items()
            if getattr(self, name) > getattr(base, name) + most
        }


def of_process(pid: int) -> Held:
    """Measure a process from outside."""
    proc = Path(f"/proc/{pid}")
    status = dict(line.partition(":")[::2] for line in (proc / "status").read_text().splitlines())
    return Held(
        files=len(list((proc / "fd").iterdir())),
        threads=int(status["Threads"]),
        children=len((proc / "task" / str(pid) / "children").read_text().split()),
        memory_mib=int(status["VmRSS"].split()[0]) / 1024,
    )


def of_loop() -> Held:
    """Measure this process and the tasks of its running event loop."""
    gc.collect()
    seen = of_process(os.getpid())
    return Held(
        files=seen.files,
        threads=seen.threads,
        children=seen.children,
        memory_mib=seen.memory_mib,
        tasks=len(asyncio.all_tasks()),
    )


def alive(kinds: Iterable[type]) -> dict[str, int]:
    """Count the objects of some kinds that are still reachable."""
    gc.collect()
    wanted = set(kinds)
    return dict(Counter(type(one).__name__ for one in gc.get_objects() if type(one) in wanted))


async def come_back(kinds: Iterable[type], base: dict[str, int]) -> None:
    """Wait until no other objects of some kinds are alive than at the base.

    Running code may still hold one: the loop keeps the result of its last await.
    """
    end_s = time.monotonic() + PATIENCE_S
    while (left := alive(kinds)) != base:
        assert time.monotonic() < end_s, f"{base} -> {left}"
        await asyncio.sleep(0.02)


async def comes_back(
    look: Callable[[], Held], base: Held, *, files: int = 0, memory_mib: float = 16.0
) -> None:
    """Wait until at most the base and a slack are held; report the excess that remains."""
    end_s = time.monotonic() + PATIENCE_S
    while left := look().above(base, files=files, memory_mib=memory_mib):
        assert time.monotonic() < end_s, f"it still holds more: {left}"
        await asyncio.sleep(0.02)
