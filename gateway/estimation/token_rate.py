"""How many tokens a backend's streams hold: per byte of text, and per second of silence before it.

Where a stream is left before its usage came, its output is estimated from what was seen: the text
by its bytes, and reasoning that is not shown by the time until the first text, for providers bill
it all the same. Both rates are ratios of sums over complete streams with exact usage, in which old
ones fade.

    text tokens     bytes of text / bytes per token
    hidden tokens   seconds until the first text * hidden tokens per second
"""

from dataclasses import dataclass
from typing import Any

from tollway.backends.types import Usage

FADES = 0.98  # about the last fifty streams count
BYTES_PER_TOKEN = 3.0  # English has four to five, Chinese about three: a stream left is not cheap
PRIOR_TOKENS = 100.0  # what the first guess weighs
HIDDEN_PER_S = 50.0  # what hosted reasoning models write; a second of it weighs little
TEXT_BYTES_LEAST = 1.5  # per token; where there are fewer, not all tokens were text


@dataclass(slots=True)
class TokenRate:
    """One backend's rates."""

    # The mutable state is the four sums.

    text_bytes: float = BYTES_PER_TOKEN * PRIOR_TOKENS
    text_tokens: float = PRIOR_TOKENS
    hidden_tokens: float = HIDDEN_PER_S
    silent_s: float = 1.0

    def learn(self, usage: Usage, spoken_bytes: int, silence_s: float) -> None:
        """Learn from a complete stream; `silence_s` is the time until its first text."""
        tokens = usage.output_tokens
        if not tokens > 0:
            return
        hidden = dict(usage.units).get("reasoning_tokens")
        if hidden is None:
            all_text = spoken_bytes >= TEXT_BYTES_LEAST * tokens
            hidden = 0.0 if all_text else tokens - self._text(spoken_bytes)
        hidden = min(max(hidden, 0.0), tokens)
        self.hidden_tokens = FADES * self.hidden_tokens + hidden
        self.silent_s = FADES * self.silent_s + max(silence_s, 0.0)
        if spoken_bytes and tokens > hidden:
            self.text_bytes = FADES * self.text_bytes + spoken_bytes
            self.text_tokens = FADES * self.text_tokens + tokens - hidden

    def tokens(self, spoken_bytes: int, silence_s: float) -> float:
        """Return how many tokens a stream has taken, shown and hidden, as far as can be told."""
        hidden = self.hidden_tokens / max(self.silent_s, 1e-3) * max(silence_s, 0.0)
        return self._text(spoken_bytes) + hidden

    def _text(self, spoken_bytes: int) -> float:
        return spoken_bytes * self.text_tokens / self.text_bytes

    def save(self) -> list[float]:
        """Return the state."""
        return [self.text_bytes, self.text_tokens, self.hidden_tokens, self.silent_s]

    @classmethod
    def load(cls, state: Any) -> "TokenRate":
        """Return a saved one; ValueError where it is damaged."""
        rate = cls(*[float(value) for value in state])
        if not (min(rate.text_bytes, rate.text_tokens) > 0 <= min(rate.save()) < max(rate.save())):
            raise ValueError(f"not a rate of tokens: {state}")
        return rate
