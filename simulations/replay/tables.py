"""Tables of every backend's quality and cost, request by request.

JSON lines of `{"group", "prompt", "q": {backend: quality in [0, 1]}, "c": {backend: dollars}}`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from tollway.gateway.settings.errors import ConfigError, Problem, did_you_mean


@dataclass(frozen=True, slots=True)
class Table:
    """`quality` and `cost_usd` are requests x backends; `group` indexes `groups`."""

    quality: NDArray[np.float64]
    cost_usd: NDArray[np.float64]
    group: NDArray[np.int64]
    groups: tuple[str, ...]
    prompts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.quality)


def read(path: Path, backends: Sequence[str]) -> Table:
    """Read a table's columns for some backends; ConfigError names the first invalid line.

    Costs are those of a call at the scenario's initial prices.
    """
    rows: list[tuple[list[float], list[float], str, str]] = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    rows.append(_row(orjson.loads(line), backends, path.name, number))
    except OSError as exc:
        raise _wrong(path.name, f"cannot be read: {exc.strerror}; name a table") from None
    except orjson.JSONDecodeError as exc:
        raise _wrong(path.name, f"line {number} is not JSON: {exc}") from None
    if not rows:
        raise _wrong(path.name, "has no rows")
    groups = sorted({group for _, _, group, _ in rows})
    at = {name: index for index, name in enumerate(groups)}
    return Table(
        np.array([quality for quality, *_ in rows]),
        np.array([cost for _, cost, *_ in rows]),
        np.array([at[group] for *_, group, _ in rows]),
        tuple(groups),
        tuple(prompt for *_, prompt in rows),
    )


def _row(
    row: Any, backends: Sequence[str], source: str, number: int
) -> tuple[list[float], list[float], str, str]:
    where = f"line {number}"
    if not (isinstance(row, dict) and isinstance(row.get("q"), dict)):
        raise _wrong(source, f'{where} is not an object with "q": {{backend: quality}}')
    costs = row.get("c")
    if not isinstance(costs, dict):
        raise _wrong(source, f'{where} has no "c": {{backend: dollars}}')
    for backend in backends:
        for key, table in (("q", row["q"]), ("c", costs)):
            if not isinstance(table.get(backend), int | float):
                near = did_you_mean(backend, table)
                raise _wrong(source, f'{where} has no number for {backend!r} in "{key}"; {near}')
        if not 0 <= row["q"][backend] <= 1 or not 0 <= costs[backend] < 1e6:
            raise _wrong(source, f"{where}: a quality must be from 0 to 1, a cost not negative")
    return (
        [float(row["q"][backend]) for backend in backends],
        [float(costs[backend]) for backend in backends],
        str(row.get("group", "all")),
        str(row.get("prompt", "")),
    )


def _wrong(source: str, why: str) -> ConfigError:
    return ConfigError([Problem(source, "", why)])
