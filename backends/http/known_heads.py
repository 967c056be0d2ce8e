"""Heads of HTTP messages that came before, byte for byte.

Parsing and checking a head takes longer than all else that is done with a small message, and the
heads of one sender differ in nothing, or in a length or a date. A head that was parsed twice is
kept with what was made of it. The third time, its message is read by one look-up. Only messages
that come whole in one read are looked up: the head decides where they end.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

HEADS_MAX = 1024  # of one generation
HEAD_BYTES_MAX = 2048  # at most 4 MiB in two generations
_END = b"\r\n\r\n"


class KnownHeads(Generic[T]):
    """What was made of heads, in two generations, so that those no longer sent make room."""

    # The mutable state: the generations, and hashes of the heads seen once.
    __slots__ = ("_newer", "_older", "_once")

    def __init__(self) -> None:
        self._newer: dict[bytes, tuple[T, int]] = {}
        self._older: dict[bytes, tuple[T, int]] = {}
        self._once: set[int] = set()

    def find(self, data: bytes) -> tuple[T, bytes] | None:
        """Return what was made of the head, and the body, if `data` is exactly one message."""
        end = data.find(_END) + 4
        head = data[:end]
        known = self._newer.get(head)
        if known is None:
            known = self._older.get(head)
            if known is None:
                return None
            self._keep(head, known)
        made, body_bytes = known
        return (made, data[end:]) if len(data) - end == body_bytes else None

    def accepted(self, data: bytes, body_bytes: int, make: Callable[[], T]) -> None:
        """Learn the head of a message that was read, if `data` is all of it.

        `body_bytes` must follow from the head alone, and so must what `make` returns.
        """
        end = data.find(_END) + 4
        if end > HEAD_BYTES_MAX or len(data) - end != body_bytes:
            return
        head = data[:end]
        mark = hash(head)
        if mark in self._once:
            self._once.discard(mark)
            self._keep(head, (make(), body_bytes))
        else:  # most heads with an id of their message are never seen again
            if len(self._once) >= HEADS_MAX:
                self._once.clear()
            self._once.add(mark)

    def clear(self) -> None:
        """Forget all."""
        self._newer, self._older = {}, {}
        self._once.clear()

    def _keep(self, head: bytes, known: tuple[T, int]) -> None:
        if len(self._newer) >= HEADS_MAX:
            self._older, self._newer = self._newer, {}
        self._newer[head] = known
