"""What a request needs of a backend: features that some models lack, and room for its tokens.

The features are a closed list. A backend's settings list the ones it lacks; the needs of a request
are read from its body by its protocol.
"""

from dataclasses import dataclass
from typing import Literal, get_args

Feature = Literal[
    "tools",
    "vision",
    "audio",
    "files",
    "json_schema",
    "json_object",
    "reasoning",
    "logprobs",
    "n",
    "streaming",
]
FEATURES: frozenset[str] = frozenset(get_args(Feature))

CHARS_A_TOKEN = 6.0
"""A text is assumed to have a token per six bytes, where four are usual in English and three in
code: an estimate that is hardly ever above the count, because it excludes backends.
"""


@dataclass(frozen=True, slots=True)
class Needs:
    """The needs of a request.

    `input_tokens` is an estimate that errs on the low side; `output_tokens` is the requested
    maximum, 0 if the request does not say.
    """

    features: frozenset[str] = frozenset()
    input_tokens: float = 0.0
    output_tokens: float = 0.0

    @property
    def tokens(self) -> float:
        """How much of a context the prompt and the reply need together."""
        return self.input_tokens + self.output_tokens


NOTHING = Needs()
