"""What a request asks of a backend: features that some models lack, and room for its tokens.

The features are a closed list. A backend says in its settings which of them it lacks; what a
request needs is read from its body by its protocol.
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
"""A text is taken to have a token for six bytes, where four are usual in English and three in code:
an estimate that is hardly ever above the count, because it leaves backends out."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a request needs.

    `input_tokens` is an estimate that errs on the low side; `output_tokens` what it asks for at
    most, 0 where it does not say.
    """

    features: frozenset[str] = frozenset()
    input_tokens: float = 0.0
    output_tokens: float = 0.0

    @property
    def tokens(self) -> float:
        """How much of a context the prompt and the reply take together."""
        return self.input_tokens + self.output_tokens


NOTHING = Needs()
