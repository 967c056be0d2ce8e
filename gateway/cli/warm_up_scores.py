"""Scores the replies of a warm-up: by a true answer, an expression, a JSON Schema, or a judge."""

import json
import re
from collections.abc import Mapping
from typing import Any

from tollway.backends.texts.json_schema import TooMuchWork, violation
from tollway.backends.texts.signals import agreement
from tollway.gateway.signals.judge import ALONE, MOST, number_of

SAME = 0.9  # of agreement: the same final answer, or the same words but for spelling
JUDGED_CHARS = 8_000  # of a question and of an answer each
RUBRIC = "It is right, complete, and agrees with the `reference` if there is one."


def score(document: Mapping[str, Any], answer: Any) -> float | None:
    """Return the quality of an answer in [0, 1]; None if nothing in `document` tells it."""
    text = answer if isinstance(answer, str) else json.dumps(answer)
    verdicts = []
    if "answer" in document:
        wanted = str(document["answer"]).strip()
        verdicts.append(wanted == text.strip() or agreement(wanted, text) >= SAME)
    if "regex" in document:
        verdicts.append(re.search(document["regex"], text) is not None)
    if "schema" in document:
        verdicts.append(_conforms(document["schema"], text))
    return float(all(verdicts)) if verdicts else None


def _conforms(schema: Any, text: str) -> bool:
    try:
        return not violation(schema, json.loads(text))
    except TooMuchWork:
        return True
    except ValueError:
        return False


def judged(document: Mapping[str, Any], answer: str) -> dict[str, Any]:
    """Return the request that asks a judge to grade an answer, as data: see `signals.judge`."""
    shown = {"request": _question(document["request"])[:JUDGED_CHARS]}
    if (reference := document.get("answer")) is not None:
        shown["reference"] = str(reference)[:JUDGED_CHARS]
    shown["answer"] = answer[:JUDGED_CHARS]
    messages = [
        {"role": "system", "content": ALONE.format(rubric=RUBRIC)},
        {"role": "user", "content": json.dumps(shown, ensure_ascii=False)},
    ]
    return {"model": "judge", "messages": messages, "max_tokens": 16, "temperature": 0}


def grade(reply: Any) -> float | None:
    """Return the quality that a judge's reply says; None if it is no single number from 0 to 10."""
    number = number_of(reply) if isinstance(reply, str) else None
    return None if number is None else number / MOST


def _question(request: Mapping[str, Any]) -> str:
    parts = []
    for message in request.get("messages") or ():
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            content = " ".join(str(one.get("text") or "") for one in content if one)
        parts.append(f"{message.get('role', 'user')}: {content}")
    return "\n".join(parts) or json.dumps(request)
