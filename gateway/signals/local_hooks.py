"""Hooks that need no backend: schema, regular expression, length, agreement with a field."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from tollway.backends.json_path import Get
from tollway.gateway.signals import checker
from tollway.gateway.signals.ports import Answer, HookFailed, checked
from tollway.gateway.signals.process import Program

CHECKER = (sys.executable, "-I", "-X", "utf8", str(Path(checker.__file__).resolve()))
"""The command of the process that checks texts; isolated: nothing of a folder is imported."""

PATTERN_HELLO = {"pattern": "", "text": ""}
SCHEMA_HELLO = {"schema": {"pattern": ""}, "text": "{}"}
"""What a new process is asked first, so that it has imported all it needs."""

WORDS_MAX = 2000  # of each text that are compared
_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


class Part:
    """Finds the part of an answer to score: all of it, or the text at a path of the reply."""

    def __init__(self, path: Get | None = None) -> None:
        self._path = path

    def __call__(self, answer: Answer) -> str | None:
        """Return the text; None if there is none."""
        if self._path is None:
            return answer.text
        if not answer.body:
            return None
        try:
            value = self._path(orjson.loads(answer.body))
        except orjson.JSONDecodeError:
            return None
        return text_of(value)


def text_of(value: Any) -> str | None:
    """Return a value as text: a text itself, else its JSON; None for None."""
    if value is None or isinstance(value, str):
        return value
    return orjson.dumps(value).decode()


class LengthHook:
    """Whether an answer's length in characters is within bounds."""

    def __init__(self, name: str, low: int, high: int, part: Part) -> None:
        self.name = name
        self._low = low
        self._high = high
        self._part = part

    async def score(self, answer: Answer) -> float | None:
        """Return 1 within the bounds, else 0."""
        text = self._part(answer)
        return None if text is None else float(self._low <= len(text) <= self._high)

    async def aclose(self) -> None:
        """Do nothing."""


class PatternHook:
    """Whether a regular expression is found in an answer, or not."""

    def __init__(self, name: str, pattern: str, wanted: bool, part: Part, program: Program) -> None:
        self.name = name
        self._pattern = pattern
        self._wanted = wanted
        self._part = part
        self._program = program

    async def score(self, answer: Answer) -> float | None:
        """Return 1 if it is found and wanted, or neither; else 0."""
        text = self._part(answer)
        if text is None:
            return None
        asked = {"pattern": self._pattern, "text": text}
        found = _score(await self._program.ask(asked, answer.tenant), self.name)
        return found if self._wanted or found is None else 1.0 - found

    async def aclose(self) -> None:
        """End the processes."""
        await self._program.aclose()


class SchemaHook:
    """Whether an answer is JSON that meets a schema: the operator's, or the request's own."""

    def __init__(self, name: str, schema: Any, part: Part, program: Program) -> None:
        """`schema`: None for the one that the request declares."""
        self.name = name
        self._schema = schema
        self._part = part
        self._program = program

    async def score(self, answer: Answer) -> float | None:
        """Return 1 if it is met, else 0; None if the request declares none."""
        schema = self._schema if self._schema is not None else declared_schema(answer.request)
        text = self._part(answer)
        if schema is None or text is None:
            return None
        return _score(
            await self._program.ask({"schema": schema, "text": text}, answer.tenant), self.name
        )

    async def aclose(self) -> None:
        """End the processes."""
        await self._program.aclose()


def declared_schema(request: Any) -> Any:
    """Return the JSON schema that a chat request declares; None if it declares none."""
    if not isinstance(request, dict):
        return None
    for member in ("response_format", "text"):
        wanted = request.get(member)
        if member == "text" and isinstance(wanted, dict):  # the responses API
            wanted = wanted.get("format")
        if not isinstance(wanted, dict):
            continue
        if wanted.get("type") == "json_object":
            return {"type": "object"}
        if wanted.get("type") == "json_schema":
            inner = wanted.get("json_schema")
            schema = (inner if isinstance(inner, dict) else wanted).get("schema")
            if isinstance(schema, dict):
                return schema
    return None


class FieldHook:
    """Whether an answer agrees with a field of its request."""

    def __init__(self, name: str, field: Get, part: Part) -> None:
        self.name = name
        self._field = field
        self._part = part

    async def score(self, answer: Answer) -> float | None:
        """Return how far they agree; None if the request has no such field."""
        text, reference = self._part(answer), text_of(self._field(answer.request))
        return None if text is None or reference is None else agreement(text, reference)

    async def aclose(self) -> None:
        """Do nothing."""


class ProgramHook:
    """An operator's own program."""

    def __init__(self, name: str, program: Program) -> None:
        self.name = name
        self._program = program

    async def score(self, answer: Answer) -> float | None:
        """Return the score that the program gives."""
        return _score(await self._program.ask(answer.document(), answer.tenant), self.name)

    async def aclose(self) -> None:
        """End the processes."""
        await self._program.aclose()


class ServiceHook:
    """An operator's own HTTP service."""

    def __init__(self, name: str, ask: Callable[[Any, str], Any], close: Callable[[], Any]) -> None:
        """`ask` posts a document and returns the one in the reply. Raises HookFailed."""
        self.name = name
        self._ask = ask
        self._close = close

    async def score(self, answer: Answer) -> float | None:
        """Return the score that the service gives."""
        return _score(await self._ask(answer.document(), answer.tenant), self.name)

    async def aclose(self) -> None:
        """Close its connections."""
        await self._close()


def _score(result: Any, name: str) -> float | None:
    if not isinstance(result, dict):
        raise HookFailed(f"signal {name!r} got {str(result)[:40]!r}, not an object")
    if "score" not in result:
        raise HookFailed(f"signal {name!r}: {str(result.get('error', 'no score'))[:200]}")
    return checked(result["score"], name)


def agreement(text: str, reference: str) -> float:
    """Return how far two texts agree: 1 for the same last number or the same words, else the F1
    score of their words (Rajpurkar et al., SQuAD, 2016, section 6.1).
    """
    left, right = _words(text), _words(reference)
    if left == right:
        return 1.0
    numbers, others = _NUMBER.findall(text), _NUMBER.findall(reference)
    if numbers and others and len(right) <= 3:  # a short reference is a value, not a text
        return float(float(numbers[-1]) == float(others[-1]))
    if not left or not right:
        return 0.0
    counts: dict[str, int] = {}
    for word in right:
        counts[word] = counts.get(word, 0) + 1
    common = 0
    for word in left:
        if counts.get(word, 0) > 0:
            counts[word] -= 1
            common += 1
    return 2.0 * common / (len(left) + len(right))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())[:WORDS_MAX]
