"""Runs the cells of a grid on a Ray cluster."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

Cell = TypeVar("Cell")
Result = TypeVar("Result")


def on_ray(
    run: Callable[[Cell], Result], wanted: Sequence[Cell], workers: int
) -> Iterator[tuple[int, Result]]:
    """Yield (index, result) as cells finish.

    The cluster is RAY_ADDRESS, else `workers` processes on this machine. Its machines need
    Tollway and the scenarios' files in the same places. ModuleNotFoundError without the extra.
    """
    import ray  # noqa: PLC0415 - an extra

    started = not ray.is_initialized()
    if started:
        ray.init(address=None, num_cpus=workers, include_dashboard=False, log_to_driver=False)
    try:
        task: Any = ray.remote(run)
        places = {task.remote(cell): at for at, cell in enumerate(wanted)}
        waiting = list(places)
        while waiting:
            ready, waiting = ray.wait(waiting, num_returns=1)
            for reference in ready:
                yield places[reference], ray.get(reference)
    finally:
        if started:
            ray.shutdown()
