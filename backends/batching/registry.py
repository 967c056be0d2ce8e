"""Looks up how calls of a protocol are joined."""

from collections.abc import Callable

from tollway.backends.batching.oip import OipJoiner
from tollway.backends.batching.parts import Joiner
from tollway.backends.batching.rows import RowsJoiner

JOINERS: dict[str, Callable[[], Joiner]] = {
    "http": RowsJoiner,
    "mlflow": RowsJoiner,
    "oip": OipJoiner,
    "plain": RowsJoiner,
    "tfserving": RowsJoiner,
}
