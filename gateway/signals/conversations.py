"""What users do after an answer: ask again, change the question, go on, or say how it was.

A chat request repeats the conversation so far. So a request can be joined to the earlier answers of
the same tenant on the same route by its messages alone:

    the same messages again                           the answer was asked for again     0
    another last message after the same conversation  the question was changed           0
    goes on after the answer                          it was good enough to go on        1
    goes on, with `x-tollway-feedback: bad`           what the client says               0

Only digests of messages are kept, for a while, within bounds per tenant. The same request again and
again is a program (a test, a health check), and says nothing.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

REPEATS_MAX = 3  # times the same request counts as asked again; after that it is a program
ANSWERS_MAX = 20_000  # of all tenants: four megabytes
TENANT_SHARE = 0.5  # of the answers that are kept, for one tenant
MESSAGES_MAX = 256  # of a conversation that is followed
WORDS = {"good": 1.0, "bad": 0.0, "up": 1.0, "down": 0.0, "yes": 1.0, "no": 0.0}

Key = tuple[str, str, bytes]


@dataclass(frozen=True, slots=True)
class Hint:
    """What a request says of an earlier answer."""

    decision: str
    backend: str
    score: float
    by: str


@dataclass(slots=True)
class Given:
    """An answer that was given: its decision, its backend, when, and what was made of it."""

    decision: str
    backend: str
    time_s: float
    repeats: int = 0
    told: bool = False

    def hint(self, by: str, score: float) -> Hint:
        """Return what is said of it, once."""
        self.told = True
        return Hint(self.decision, self.backend, score, by)


def said(value: str) -> float:
    """Return the quality that `x-tollway-feedback` states; ValueError if it states none."""
    text = value.strip().lower()
    if text in WORDS:
        return WORDS[text]
    number = float(text)
    if not 0.0 <= number <= 1.0:
        raise ValueError("must be good, bad or a number from 0 to 1")
    return number


class Conversations:
    """The recent answers by what was asked."""

    # The mutable state is the answers by the digest of all messages, and of all but the last, and
    # how many are kept of each tenant.

    def __init__(self) -> None:
        self._asked: OrderedDict[Key, Given] = OrderedDict()
        self._before: OrderedDict[Key, Given] = OrderedDict()
        self._counts: dict[str, int] = {}

    def follow(  # noqa: PLR0917 - the parts of a request, in its order
        self,
        tenant: str,
        route: str,
        request: Any,
        feedback: float | None,
        now_s: float,
        window_s: float,
    ) -> Hint | None:
        """Return what a request says of an earlier answer; None if nothing."""
        digests = digests_of(request)
        if not digests:
            return None
        turn = _last_answer(request)
        if turn is not None:  # it goes on after an answer
            given = self._recent(self._asked, (tenant, route, digests[turn]), now_s, window_s)
            if given is not None and not given.told:
                return given.hint("went_on", 1.0 if feedback is None else feedback)
        given = self._recent(self._asked, (tenant, route, digests[-1]), now_s, window_s)
        by = "asked_again"
        if given is not None:
            given.repeats += 1
        elif turn is not None:  # not the first question alone: others may begin with the same words
            given = self._recent(self._before, (tenant, route, digests[-2]), now_s, window_s)
            by = "changed"
        if given is None or given.told or given.repeats > REPEATS_MAX:
            return None
        return given.hint(by, 0.0 if feedback is None else feedback)

    @staticmethod
    def _recent(
        table: Mapping[Key, Given], key: Key, now_s: float, window_s: float
    ) -> Given | None:
        given = table.get(key)
        return None if given is None or now_s - given.time_s > window_s else given

    def answered(  # noqa: PLR0917 - the parts of an answer
        self, tenant: str, route: str, request: Any, decision: str, backend: str, now_s: float
    ) -> None:
        """Remember an answer."""
        digests = digests_of(request)
        if not digests:
            return
        key = (tenant, route, digests[-1])
        known = self._asked.pop(key, None)
        if known is None:
            if self._counts.get(tenant, 0) >= TENANT_SHARE * ANSWERS_MAX:
                return
            self._counts[tenant] = self._counts.get(tenant, 0) + 1
        given = Given(decision, backend, now_s, known.repeats if known else 0)
        self._asked[key] = given
        if len(self._asked) > ANSWERS_MAX:
            old, _ = self._asked.popitem(last=False)
            self._forget(old[0])
        if _last_answer(request) is not None:
            self._before[tenant, route, digests[-2]] = given
            if len(self._before) > ANSWERS_MAX:
                self._before.popitem(last=False)

    def _forget(self, tenant: str) -> None:
        self._counts[tenant] -= 1
        if not self._counts[tenant]:
            del self._counts[tenant]

    def expire(self, now_s: float, window_s: float) -> None:
        """Drop the answers that no request can refer to any more."""
        for table in (self._asked, self._before):
            while table and now_s - next(iter(table.values())).time_s > window_s:
                key, _ = table.popitem(last=False)
                if table is self._asked:
                    self._forget(key[0])


def digests_of(request: Any) -> list[bytes]:
    """Return a digest of each beginning of a conversation: of none, one, two... messages."""
    messages = request.get("messages") if isinstance(request, Mapping) else None
    if not isinstance(messages, list) or not 0 < len(messages) <= MESSAGES_MAX:
        return []
    digest = hashlib.blake2b(digest_size=16)
    system = request.get("system")  # Anthropic's
    digest.update(orjson.dumps(system))
    digests = [digest.digest()]
    for message in messages:
        digest.update(orjson.dumps(message))
        digests.append(digest.digest())
    return digests


def _last_answer(request: Any) -> int | None:
    """Return how many messages stand before the last answer in a conversation; None without one."""
    messages = request["messages"]
    for at in range(len(messages) - 1, 0, -1):
        message = messages[at]
        if isinstance(message, Mapping) and message.get("role") == "assistant":
            return at
    return None
