"""Heads of HTTP messages that came before, byte for byte.

Parsing and checking a head takes longer than all else that is done with a small message, and the
heads of one sender differ in nothing, or in a length or a date. A head that was parsed twice is
kept with what was made of it. The third time, its message is read by one look-up. Only messages
that come whole in one read are looked up: the head decides where they end.

Heads may have an owner, such as a tenant. One that sends ever new ones pushes out its own only.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from tollway.backends.concurrency.shares import SHARE

T = TypeVar("T")

HEADS_MAX = 1024  # of one generation
HEAD_BYTES_MAX = 2048  # at most 4 MiB in two generations
_END = b"\r\n\r\n"


def nobody() -> str:
    """Return the name of no owner."""
    return ""


class KnownHeads(Generic[T]):
    """What was made of heads, in two generations, so that those no longer sent make room."""

    # The mutable state: the generations, each owner's heads in the newer one, and hashes of the
    # heads seen once.
    __slots__ = ("_newer", "_older", "_once", "_owned")

    def __init__(self) -> None:
        self._newer: dict[bytes, tuple[T, int, str]] = {}
        self._older: dict[bytes, tuple[T, int, str]] = {}
        self._owned: dict[str, int] = {}
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
        made, body_bytes, _ = known
        return (made, data[end:]) if len(data) - end == body_bytes else None

    def accepted(
        self,
        data: bytes,
        body_bytes: int,
        make: Callable[[], T],
        owner: Callable[[], str] = nobody,
    ) -> None:
        """Learn the head of a message that was read, if `data` is all of it.

        `body_bytes` must follow from the head alone, and so must what `make` returns. `owner` names
        who has sent it; empty if that does not matter.
        """
        end = data.find(_END) + 4
        if end > HEAD_BYTES_MAX or len(data) - end != body_bytes:
            return
        head = data[:end]
        mark = hash(head)
        if mark in self._once:
            self._once.discard(mark)
            self._keep(head, (make(), body_bytes, owner()))
        else:  # most heads with an id of their message are never seen again
            if len(self._once) >= HEADS_MAX:
                self._once.clear()
            self._once.add(mark)

    def clear(self) -> None:
        """Forget all."""
        self._newer, self._older, self._owned = {}, {}, {}
        self._once.clear()

    def _keep(self, head: bytes, known: tuple[T, int, str]) -> None:
        if len(self._newer) >= HEADS_MAX:
            self._older, self._newer, self._owned = self._newer, {}, {}
        owner = known[2]
        if owner:
            own = self._owned.get(owner, 0)
            if own > SHARE * (HEADS_MAX - len(self._newer)):
                self._age(owner)
                own = 0
            self._owned[owner] = own + 1
        self._newer[head] = known

    def _age(self, owner: str) -> None:
        """Let the older generation of an owner go, and make its newer one the older."""
        own: dict[bytes, tuple[T, int, str]] = {}
        others: dict[bytes, tuple[T, int, str]] = {}
        for head, known in self._newer.items():
            (own if known[2] == owner else others)[head] = known
        older = {head: known for head, known in self._older.items() if known[2] != owner}
        self._newer = others
        self._older = {**older, **own} if len(older) + len(own) <= HEADS_MAX else own
