"""Runs the cells of a grid on a Ray cluster: the same tasks, on other machines."""

from collections.abc import Iterator, Sequence
from typing import Any

from simulations.grid import Cell, Result, run_cell


def on_ray(wanted: Sequence[Cell], workers: int) -> Iterator[tuple[int, Result]]:
    """Yield (place, result) as they come.

    The cluster is RAY_ADDRESS, else one of `workers` processes on this machine. Its machines need
    Tollway and the scenarios' files in the same places. ModuleNotFoundError without the extra.
    """
    import ray  # noqa: PLC0415 - an extra

    started = not ray.is_initialized()
    if started:
        ray.init(address=None, num_cpus=workers, include_dashboard=False, log_to_driver=False)
    try:
        task: Any = ray.remote(run_cell)
        places = {task.remote(cell): at for at, cell in enumerate(wanted)}
        waiting = list(places)
        while waiting:
            ready, waiting = ray.wait(waiting, num_returns=1)
            for reference in ready:
                yield places[reference], ray.get(reference)
    finally:
        if started:
            ray.shutdown()
