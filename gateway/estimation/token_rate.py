"""Token rates of a backend's streams: per byte of text, and per second before the first text.

If a stream is abandoned before its usage arrives, its output is estimated: text from its bytes, and
hidden reasoning from the time until the first text, because providers bill hidden reasoning too.
Both rates are ratios of decaying sums over complete streams with exact usage.

    text tokens     bytes of text / bytes per token
    hidden tokens   seconds until the first text * hidden tokens per second
"""

from dataclasses import dataclass
from typing import Any

from tollway.backends.types import Usage

FADES = 0.98  # decay per stream: about the last fifty streams count
BYTES_PER_TOKEN = 3.0  # English: four to five, Chinese: about three; low, to not underestimate
PRIOR_TOKENS = 100.0  # weight of the prior
HIDDEN_PER_S = 50.0  # rate of hosted reasoning models; the prior weighs one second
TEXT_BYTES_LEAST = 1.5  # per token; below this, some tokens were not text


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
        """Return the estimated number of tokens of a stream, visible and hidden."""
        hidden = self.hidden_tokens / max(self.silent_s, 1e-3) * max(silence_s, 0.0)
        return self._text(spoken_bytes) + hidden

    def _text(self, spoken_bytes: int) -> float:
        return spoken_bytes * self.text_tokens / self.text_bytes

    def save(self) -> list[float]:
        """Return the state."""
        return [self.text_bytes, self.text_tokens, self.hidden_tokens, self.silent_s]

    @classmethod
    def load(cls, state: Any) -> "TokenRate":
        """Return a saved rate. Raises ValueError if it is damaged."""
        rate = cls(*[float(value) for value in state])
        if not (min(rate.text_bytes, rate.text_tokens) > 0 <= min(rate.save()) < max(rate.save())):
            raise ValueError(f"the saved token rates are damaged: {state}")
        return rate
