"""What a backend is taken to hold in its prompt cache, so that a conversation stays where it is.

Theory of operation. Servers keep the work done on a prompt for some minutes, and charge less for
the tokens of a later prompt that begins with the same. A conversation sends all that was said so
far each time: on the backend that answered before, most of it is cached; on another one nothing is.
So each backend's memory here has the beginnings of the prompts that it has answered, and the quote
of a call counts as many tokens at the cached price as the longest of them covers. That difference
is the price of moving: it stands in the costs that the policy is offered, and a conversation moves
where the gain pays for it. Nothing else has to know.

    Prompt   the parts of a request, each beginning of them as one number (a chain of hashes)
    memory   number -> when a call that began so was last answered; the least recent are forgotten

How much of what should be cached really is depends on the server (a least length, blocks, several
replicas behind one address), so it is learned: what replies told over what was foreseen, in tokens.

The numbers are Python's own hashes: quick, of 64 bits, and seeded anew in each process, so that
nobody can make two prompts collide. A collision misquotes a call; it cannot mischarge it.
"""

from collections.abc import Hashable, Iterable

from tollway.backends.types import Usage, record

BEGINNINGS_MAX = 20_000  # about 3 MB a backend: the last 2,500 requests, of up to eight beginnings
PARTS_MAX = 512  # beyond these a prompt is its first 512 parts, as far as it is told apart
FIRST, LAST = 4, 4  # beginnings that are kept: what conversations share, and where each one is
PRIOR_TOKENS = 2_000.0  # foreseen and found before any call: the worth of a prompt or two
NEVER = float("-inf")
FORGET = 0.98  # of both sums, a call: about the last fifty


@record
class Prompt:
    """The beginnings of a request: `keys` and, of the same length, how many characters each has."""

    keys: tuple[int, ...]
    chars: tuple[int, ...]
    total_chars: int


def prompt(parts: Iterable[tuple[Hashable, int]], whose: Hashable) -> Prompt:
    """Return the prompt of (part, its characters) in order; what one says no other one can see."""
    keys: list[int] = []
    chars: list[int] = []
    key, total = hash(whose), 0
    for part, size in parts:
        total += size
        if len(keys) < PARTS_MAX:
            key = hash((key, part))
            keys.append(key)
            chars.append(total)
    return Prompt(tuple(keys), tuple(chars), total)


class PromptCacheTracker:
    """What one backend is taken to hold."""

    # The mutable state: when which beginning was last answered, in that order; and the tokens that
    # were foreseen as cached and that were told to be.

    def __init__(self, *, keeps_s: float, most: int = BEGINNINGS_MAX) -> None:
        """`keeps_s`: how long the server keeps a prompt that nobody asks for."""
        self._keeps_s = keeps_s
        self._most = most
        self._seen: dict[int, float] = {}
        self._foreseen = self._found = PRIOR_TOKENS

    def __len__(self) -> int:
        return len(self._seen)

    def revise(self, *, keeps_s: float) -> None:
        """Take another time for which the server keeps prompts."""
        self._keeps_s = keeps_s

    def covers(self, asked: Prompt, now_s: float) -> float:
        """Return the share of a prompt, in [0, 1], of which the same beginning was answered."""
        since_s = now_s - self._keeps_s
        seen = self._seen
        for place in range(len(asked.keys) - 1, -1, -1):
            if seen.get(asked.keys[place], NEVER) > since_s:
                return asked.chars[place] / (asked.total_chars or 1)
        return 0.0

    def expects(self, asked: Prompt, now_s: float) -> float:
        """Return the share of a prompt, in [0, 1], that is expected to be charged as cached."""
        share = self.covers(asked, now_s)
        return min(1.0, share * self._found / self._foreseen) if share else 0.0

    def answered(self, asked: Prompt, usage: Usage | None, now_s: float) -> None:
        """Take note that a prompt was answered, and how much of it was told to be cached."""
        if usage is not None and usage.exact:
            foreseen = self.covers(asked, now_s) * usage.input_tokens
            if foreseen:
                self.learn(foreseen, usage.cached_input_tokens)
        self.saw(asked, now_s)

    def saw(self, asked: Prompt, now_s: float) -> None:
        """Take note that a prompt was answered."""
        keys = asked.keys
        for key in keys if len(keys) <= FIRST + LAST else keys[:FIRST] + keys[-LAST:]:
            self._seen.pop(key, None)  # the last to be written is the last to be forgotten
            self._seen[key] = now_s
        while len(self._seen) > self._most:
            del self._seen[next(iter(self._seen))]

    def learn(self, foreseen_tokens: float, found_tokens: float) -> None:
        """Take how many tokens of a call should have been cached, and how many were."""
        self._foreseen = self._foreseen * FORGET + foreseen_tokens
        self._found = self._found * FORGET + found_tokens
