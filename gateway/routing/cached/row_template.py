"""The journal rows of a draw that is repeated: only the id, the time and the answer's age change.

The rows are built once for each draw, by the code that builds all rows; what follows is cut out of
their JSON, so that no member is named in two places.
"""

import orjson

from tollway.gateway.storage.journal_format import Row, closed

_FIRST = ("kind", "id", "time")


class RowTemplate:
    """The rows of a decision and its attempt as JSON, in parts between what changes."""

    # Nothing changes once it is built.
    __slots__ = ("_after_age", "_attempt", "_before_age", "_decision", "_kinds")

    def __init__(self, decision: Row, attempt: Row) -> None:
        """Take apart the rows of one draw."""
        for row in (decision, attempt):
            assert tuple(row)[:3] == _FIRST
        names = list(decision)
        at = names.index("cached")
        before = {name: decision[name] for name in names[3:at]}
        after = {name: decision[name] for name in names[at + 1 :]}
        cached = dict(decision["cached"])
        head = {name: cached.pop(name) for name in list(cached)[: list(cached).index("age_s")]}
        del cached["age_s"]
        self._kinds = tuple(
            b'{"kind":%b,"id":"' % orjson.dumps(row["kind"]) for row in (decision, attempt)
        )
        self._before_age = b'%b,"cached":%b,"age_s":' % (_members(before), orjson.dumps(head)[:-1])
        self._after_age = b",%b}%b" % (_members(cached)[1:], _members(after))
        self._attempt = _members({name: attempt[name] for name in list(attempt)[3:]})

    def lines(self, decision: str, time_s: float, age_s: float) -> bytes:
        """Return the lines of both rows (1.5 us)."""
        tail = b'%b","time":%b' % (decision.encode(), repr(time_s).encode())
        first = b"%b%b%b%b%b" % (
            self._kinds[0],
            tail,
            self._before_age,
            repr(age_s).encode(),
            self._after_age,
        )
        return closed(first) + closed(b"%b%b%b" % (self._kinds[1], tail, self._attempt))


def _members(row: Row) -> bytes:
    """Return the members of an object as JSON, each with a comma before it."""
    return b"," + orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1] if row else b""
