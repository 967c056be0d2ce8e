"""The length limits of a request's answers, and the limit that the gateway inserts.

A hard budget reserves the maximum cost of a call, so each answer needs a limit that the server
enforces. If the request has none, or one that the budget cannot cover, the gateway inserts one.
"""

import re
from collections.abc import Collection, Mapping

from tollway.record import record

MAX_TOKENS, MAX_COMPLETION_TOKENS = "max_tokens", "max_completion_tokens"
MAX_OUTPUT_TOKENS = "max_output_tokens"
FIELDS = (MAX_COMPLETION_TOKENS, MAX_OUTPUT_TOKENS, MAX_TOKENS)

ANOTHER = {MAX_TOKENS: MAX_COMPLETION_TOKENS, MAX_COMPLETION_TOKENS: MAX_TOKENS}
"""The other name that chat servers have for the limit. `max_tokens` is tried first: all but a few
know it, and those refuse it with a message; the servers that do not know `max_completion_tokens`
often ignore it, and then nothing limits the answer.
"""

_TOO_LARGE = re.compile(
    rb"too large|too big|at most|maximum|exceed|less than|greater than|must be <=|out of range",
    re.IGNORECASE,
)
_NUMBER = re.compile(rb"\d+")
_ECHO = re.compile(rb"""max_(?:completion_|output_)?tokens\\*["']?\s*:\s*\d+""")
"""The limit in a refusal that repeats the request, as those of pydantic do: not informative."""
_READ_BYTES = 65_536  # of a refusal
SMALLEST = 16  # no server refuses this many; OpenAI's Responses API takes no fewer
UNLIMITED = 2**31  # tokens; above any limit that a server takes


@record
class Output:
    """The answers that a request asks for.

    limits: the maximum tokens of each answer, by field; 0 if the value is not reliable. answers:
    how many are generated; 0 if unknown. field: the field in which a limit can be inserted; empty
    if the protocol has none. modality: the unit of what is generated beside text, empty for text
    alone. generates: whether there is any output to pay for. least: the smallest limit that leaves
    room for an answer. samples: how many times the model may be sampled, and read the input.
    written_as: the unit as which all input may be written to a cache, if it is. unbounded: why
    nothing bounds the call; empty if it is bounded.
    """

    limits: Mapping[str, int]
    answers: float
    field: str
    modality: str = ""
    generates: bool = True
    least: int = 0
    samples: int = 1
    written_as: str = ""
    unbounded: str = ""

    def own(self, dropped: Collection[str] = ()) -> int:
        """Return the limit that the server will see; 0 if it sees none.

        Of several limits it is the largest: servers differ in which they obey. `dropped` fields are
        not sent.
        """
        if not self.limits:
            return 0
        seen = [limit for name, limit in self.limits.items() if name not in dropped]
        return max(seen) if seen and all(seen) else 0


@record
class OutputLimit:
    """A limit of `tokens` for each answer, to be inserted into `field`.

    `present`: the request's own limits that are replaced because they are higher.
    """

    tokens: int
    field: str
    present: tuple[str, ...] = ()

    @property
    def is_inserted(self) -> bool:
        """Whether the request had no such field, so that a refusal of it is not shown to the
        client.
        """
        return not self.present


def limit(output: Output, tokens: int, field: str, dropped: Collection[str]) -> OutputLimit:
    """Return how a limit is written into a request, never above an existing one."""
    if not output.limits:
        return OutputLimit(tokens, field)
    present = [name for name in output.limits if name not in dropped]
    above = [name for name in present if not 0 < output.limits[name] <= tokens]
    return OutputLimit(tokens, field, tuple(above))


def other_field(refused: OutputLimit, refusal: bytes) -> str:
    """Return the field to use instead, if a refusal names the inserted one; else empty."""
    message = _ECHO.sub(b"", refusal[:_READ_BYTES])
    another = ANOTHER.get(refused.field, "")
    if not refused.is_inserted or refused.field.encode() not in message:
        return ""
    return "" if _is_too_large(message, refused.tokens) else another


def smaller(refused: OutputLimit, refusal: bytes) -> int:
    """Return the limit to use instead, if a refusal says that the inserted one is too large, else
    0.

    It is half of the largest smaller number in the message, which is the model's maximum or its
    context.
    """
    message = _ECHO.sub(b"", refusal[:_READ_BYTES])
    if not refused.is_inserted or not _is_too_large(message, refused.tokens):
        return 0
    numbers = [int(digits) for digits in _NUMBER.findall(message) if len(digits) < 10]
    below = [number for number in numbers if 2 * SMALLEST <= number < refused.tokens]
    return max(below) // 2 if below else refused.tokens // 4


def _is_too_large(message: bytes, tokens: int) -> bool:
    return str(tokens).encode() in message and _TOO_LARGE.search(message) is not None
