"""Joins the features of a route's groups to its requests, within the time that the route allows."""

import asyncio
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from tollway.backends.dialect import rewritten
from tollway.backends.sliced_json import LARGE_BYTES, Unread
from tollway.backends.types import Call
from tollway.gateway.features.online.busy_hours import SAMPLED
from tollway.gateway.features.online.counts import MEMORY
from tollway.gateway.features.online.entities import Entity
from tollway.gateway.features.online.lookup import FeatureLookup, Flight
from tollway.gateway.features.online.memory import Entry
from tollway.gateway.features.online.model import (
    ABSENT,
    FRESH,
    LATE,
    NO_ENTITY,
    STALE,
    UNAVAILABLE,
)
from tollway.record import record


class MemberTaken(ValueError):  # noqa: N818 - reads as what happened
    """A request has a member that is the gateway's own, and its body is not edited."""


@record
class Onward:
    """Where the values go in calls to backends: a member of the body, a header field, or both."""

    body: str = ""
    header: bytes = b""


@record
class Member:
    """One group as a route joins it.

    `candidate`: a version of it that a `share` of the entities get.
    """

    lookup: FeatureLookup
    entity: Entity
    onward: Onward = Onward()
    candidate: "Member | None" = None
    share: float = 0.0

    def of(self, key: str | None) -> "Member":
        """Return the version that an entity gets: always the same one, the candidate for a share.

        Each candidate has a share of its own, so that the same entities do not try them all.
        """
        candidate = self.candidate
        if candidate is None or key is None:
            return self
        text = f"{candidate.lookup.group.version}\0{self.lookup.digest(key)}"
        point = int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) / 2.0**64
        return candidate if point < self.share else self


class Part:
    """The values of one group in one request; `entry` is None where they are the defaults."""

    __slots__ = ("age_s", "digest", "entry", "mark", "member")

    def __init__(
        self, member: Member, entry: Entry | None, mark: str, now_s: float, digest: str = ""
    ) -> None:
        self.member = member
        self.entry = entry
        self.mark = mark
        self.age_s = 0.0 if entry is None else now_s - entry.read_s
        self.digest = digest if entry is None else entry.digest

    @property
    def values(self) -> tuple[Any, ...]:
        """The values, with NaN for a number that is not known."""
        if self.entry is None or self.entry.values is None:
            return self.member.lookup.group.defaults
        return self.entry.values


class Joined:
    """The values that a request got, as the encoder and the journal need them."""

    __slots__ = ("categories", "numbers", "parts", "texts")

    def __init__(self, parts: Sequence[Part], blanks: "Sequence[Entry]") -> None:
        """`blanks` are entries with the defaults of each group."""
        self.parts = parts
        if len(parts) == 1:  # nearly always; the lists are only read
            only = parts[0].entry or blanks[0]
            self.numbers, self.texts, self.categories = only.numbers, only.texts, only.categories
            return
        numbers: list[float] = []
        texts: list[str] = []
        categories: list[str] = []
        for part, blank in zip(parts, blanks, strict=True):
            entry = part.entry or blank
            numbers += entry.numbers
            texts += entry.texts
            categories += entry.categories
        self.numbers = numbers
        self.texts = texts
        self.categories = categories

    def row(self) -> dict[str, Any]:
        """Return what the journal keeps of it, by group."""
        return {part.member.lookup.group.name: _recorded(part) for part in self.parts}


class RouteFeatures:
    """The groups that one route joins."""

    def __init__(self, members: Sequence[Member], limit_s: float) -> None:
        """`limit_s`: the longest that a request waits for values."""
        self.members = tuple(members)
        self.limit_s = limit_s
        self._blanks = [Entry(one.lookup.group, "", None, -math.inf) for one in members]
        self._sends = any(one.onward.body or one.onward.header for one in members)

    def join(self, call: Call, now_s: float) -> "Joined | Waiting":
        """Return a call's values if memory has them all (3 us for a group); else what to wait for.

        `now_s` is on the event loop's clock.
        """
        parts = []
        for member in self.members:
            key = member.entity(call)
            if key is None:
                parts.append(_without_entity(member, now_s))
                continue
            if member.candidate is not None:
                member = member.of(key)  # noqa: PLW2901 - the group, in the version of this entity
            entry = member.lookup.peek(key, now_s)
            if entry is None:
                return Waiting(self, call, now_s, parts)
            parts.append(_from_memory(member, entry, now_s))
        return self.whole(call, parts)

    def whole(self, call: Call, parts: Sequence[Part]) -> Joined:
        """Return the values of all groups, and write them into the call where that is declared."""
        joined = Joined(parts, self._blanks)
        if self._sends:
            for part in parts:
                _send_on(call, part)
        return joined


class Waiting:
    """A call whose values are not all in memory."""

    def __init__(
        self, features: RouteFeatures, call: Call, now_s: float, parts: Sequence[Part]
    ) -> None:
        """`parts` are those of the first groups, which are known."""
        self._features = features
        self._call = call
        self._now_s = now_s
        self._parts = parts

    async def joined(self, deadline_s: float) -> Joined:
        """Return the call's values; those that are not there in time are the defaults.

        Takes until `deadline_s`, on the event loop's clock, and the route's limit at most.
        """
        call, began_s = self._call, self._now_s
        began: list[tuple[Member, str | None, Entry | Flight | None]] = []
        for joined in self._features.members[len(self._parts) :]:
            key = joined.entity(call)
            member = joined.of(key)
            got: Entry | Flight | None = None
            if key is not None:
                got = member.lookup.peek(key, began_s)
                if got is None:
                    got = member.lookup.want(key, call.tenant, began_s)
            began.append((member, key, got))
        flights = {got for _, _, got in began if isinstance(got, asyncio.Future)}
        left_s = min(self._features.limit_s, deadline_s - began_s)
        if flights and left_s > 0.0:
            await asyncio.wait(flights, timeout=left_s)
        parts = [_part(member, key, got) for member, key, got in began]
        return self._features.whole(call, [*self._parts, *parts])


def _send_on(call: Call, part: Part) -> None:
    """Write a group's values where backends are to find them, in place of what the client wrote."""
    onward = part.member.onward
    if not (onward.header or onward.body):
        return
    pairs = zip(part.member.lookup.group.features, part.values, strict=True)
    values = {one.name: finite(value) for one, value in pairs}
    if onward.header:
        text = json.dumps(values, separators=(",", ":"))  # in ASCII, as a field has to be
        fields = [pair for pair in call.headers if pair[0] != onward.header]
        call.headers = [*fields, (onward.header, text.encode())]
    if onward.body:
        _add_member(call, onward.body, values)


def _without_entity(member: Member, now_s: float) -> Part:
    member.lookup.counts.served(NO_ENTITY, 0.0)
    return Part(member, None, NO_ENTITY, now_s)


def _from_memory(member: Member, entry: Entry, now_s: float) -> Part:
    counts, mark = member.lookup.counts, FRESH if entry.values is not None else ABSENT
    hits = counts.answers[MEMORY] = counts.answers[MEMORY] + 1
    if not hits % SAMPLED:
        member.lookup.note_asked(entry.digest)
    counts.marks[mark] += 1
    return Part(member, entry, mark, now_s)


def _answered(member: Member, entry: Entry, now_s: float) -> Part:
    mark = FRESH if entry.values is not None else ABSENT
    member.lookup.counts.served(mark, 0.0)
    return Part(member, entry, mark, now_s)


def _part(member: Member, key: str | None, got: "Entry | Flight | None") -> Part:
    """Return a group's values, once the time to wait is over."""
    lookup, now_s = member.lookup, member.lookup.now_s()
    if key is None:
        return _without_entity(member, now_s)
    if isinstance(got, Entry):
        return _from_memory(member, got, now_s)
    is_late = got is not None and not got.done()
    if got is not None and not is_late and (entry := got.result()) is not None:
        return _answered(member, entry, now_s)
    stale = lookup.stale(key, now_s)
    if stale is not None:
        part = Part(member, stale, STALE, now_s)
    else:
        part = Part(member, None, LATE if is_late else UNAVAILABLE, now_s, lookup.digest(key))
    lookup.counts.served(part.mark, part.age_s)
    return part


def _recorded(part: Part) -> dict[str, Any]:
    group = part.member.lookup.group
    row: dict[str, Any] = {"mark": part.mark, "version": group.version}
    if part.digest:
        row["entity"] = part.digest
    if part.entry is not None:
        row["age_s"] = round(part.age_s, 3)
    pairs = zip(group.features, part.values, strict=True)
    row["values"] = {one.name: finite(value) for one, value in pairs}
    if group.purpose:
        row["purpose"] = group.purpose
    return row


def finite(value: Any) -> Any:
    """Return a value for JSON: null for a number that is not known."""
    return None if value.__class__ is float and math.isnan(value) else value


def _add_member(call: Call, path: str, values: dict[str, Any]) -> None:
    """Set a member of the body's object; no body that is large, or no JSON object, is changed.

    Raises MemberTaken if such a body has the member already: a backend would take what the
    client wrote there for the gateway's.
    """
    payload = call.payload
    data = payload.data
    large = len(call.body) > LARGE_BYTES
    if payload.form is not None or payload.binary or large or isinstance(data, Unread):
        if _may_have(call, path.split(".")):
            why = f"{path!r} is the gateway's own member; send the request without it"
            raise MemberTaken(why)
        return
    if not isinstance(data, dict):
        return
    call.body = rewritten(call, payload, {path: values})
    call.payload = replace(payload, data=_with(data, path, values))


def _may_have(call: Call, names: list[str]) -> bool:
    """Return whether a body that is not edited may have a member, however often names occur."""
    document = call.document
    if document is not None and document.repeats:
        return True
    data = call.payload.data
    if call.payload.binary and document is None:  # then its JSON is small
        text = call.body[:LARGE_BYTES].decode("latin-1").lstrip(" \t\r\n")
        try:
            data = json.JSONDecoder(object_pairs_hook=tuple).raw_decode(text)[0]
        except (ValueError, RecursionError):
            return True
        names = [name.encode().decode("latin-1") for name in names]
    return _is_at(data, names)


def _is_at(data: Any, names: Sequence[str]) -> bool:
    """Return whether an object, or one given as pairs, has a value at a path of names."""
    if not names or isinstance(data, Unread):
        return True
    pairs = data.items() if isinstance(data, dict) else data if isinstance(data, tuple) else ()
    return any(name == names[0] and _is_at(value, names[1:]) for name, value in pairs)


def _with(data: Any, path: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return an object with a member set, at a path of names with dots between them."""
    name, dot, rest = path.partition(".")
    kept = data if isinstance(data, dict) else {}
    return {**kept, name: _with(kept.get(name), rest, values) if dot else values}
