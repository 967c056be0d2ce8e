"""What a request says of the length of its answers, and the limit that the gateway writes into it.

A hard budget holds the most that a call can cost, so each answer needs a limit that the server
keeps. Where the request has none, or one that the budget cannot hold, the gateway writes one.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

MAX_TOKENS, MAX_COMPLETION_TOKENS = "max_tokens", "max_completion_tokens"
MAX_OUTPUT_TOKENS = "max_output_tokens"
FIELDS = (MAX_COMPLETION_TOKENS, MAX_OUTPUT_TOKENS, MAX_TOKENS)

ANOTHER = {MAX_TOKENS: MAX_COMPLETION_TOKENS, MAX_COMPLETION_TOKENS: MAX_TOKENS}
"""The other name that chat servers have for the limit. `max_tokens` is tried first: all but a few
know it, and those refuse it in words; the servers that do not know `max_completion_tokens` often
ignore it, and then nothing limits the answer."""

_TOO_LARGE = re.compile(
    rb"too large|too big|at most|maximum|exceed|less than|greater than|must be <=|out of range",
    re.IGNORECASE,
)
_NUMBER = re.compile(rb"\d+")
_ECHO = re.compile(rb"""max_(?:completion_|output_)?tokens\\*["']?\s*:\s*\d+""")
"""The limit where a refusal repeats the request, as those of pydantic do: that says nothing."""
_READ_BYTES = 65_536  # of a refusal
SMALLEST = 16  # no server refuses this many; OpenAI's Responses API takes no fewer
UNLIMITED = 2**31  # tokens; above any limit that a server takes


@dataclass(frozen=True, slots=True)
class Output:
    """The answers that a request asks for.

    limits: by field, the most tokens of each answer; 0 where the value is none that can be relied
    on. answers: how many are generated; 0 where that cannot be told. field: where a limit can be
    written; empty where the protocol has no such field. modality: the unit of what is generated
    beside text, empty where it is text alone. generates: whether there is any output to pay for.
    """

    limits: Mapping[str, int]
    answers: float
    field: str
    modality: str = ""
    generates: bool = True

    def own(self, dropped: Collection[str] = ()) -> int:
        """Return the limit that the server will see; 0 where it sees none.

        Of several the largest: servers differ in which they heed. `dropped` fields are not sent.
        """
        seen = [limit for name, limit in self.limits.items() if name not in dropped]
        return max(seen) if seen and all(seen) else 0


@dataclass(frozen=True, slots=True)
class OutputLimit:
    """A limit of `tokens` for each answer, to be written into `field`.

    `present`: the limits of the request itself that are replaced, as they are above it.
    """

    tokens: int
    field: str
    present: tuple[str, ...] = ()

    @property
    def is_inserted(self) -> bool:
        """Whether the request had no such field, so that a refusal of it is not for the client."""
        return not self.present


def limit(output: Output, tokens: int, field: str, dropped: Collection[str]) -> OutputLimit:
    """Return how a limit is written into a request, never above one that is there."""
    present = [name for name in output.limits if name not in dropped]
    above = [name for name in present if not 0 < output.limits[name] <= tokens]
    return OutputLimit(tokens, field, tuple(above))


def other_field(refused: OutputLimit, refusal: bytes) -> str:
    """Return the field to use instead, if a refusal names the one that was inserted; else empty."""
    said = _ECHO.sub(b"", refusal[:_READ_BYTES])
    another = ANOTHER.get(refused.field, "")
    if not refused.is_inserted or refused.field.encode() not in said:
        return ""
    return "" if _is_too_large(said, refused.tokens) else another


def smaller(refused: OutputLimit, refusal: bytes) -> int:
    """Return the limit to use instead, if a refusal says that the inserted one is too large.

    0 if it does not.

    Half of the largest smaller number in the message, which is the model's maximum or its context.
    """
    said = _ECHO.sub(b"", refusal[:_READ_BYTES])
    if not refused.is_inserted or not _is_too_large(said, refused.tokens):
        return 0
    numbers = [int(found) for found in _NUMBER.findall(said) if len(found) < 10]
    below = [number for number in numbers if 2 * SMALLEST <= number < refused.tokens]
    return max(below) // 2 if below else refused.tokens // 4


def _is_too_large(said: bytes, tokens: int) -> bool:
    return str(tokens).encode() in said and _TOO_LARGE.search(said) is not None
