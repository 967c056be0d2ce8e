"""Checks texts against regular expressions and JSON schemas, in a process of its own.

Both can take for ever on a hostile text, and neither can be interrupted in a thread. The gateway
runs this file as a program, and kills it when it takes too long. It reads and writes lines of JSON
(see `process`).
"""

import contextlib
import json
import re
import signal
import sys
from functools import cache
from typing import Any

SCHEMAS_MAX = 64  # compiled ones that are kept
PR_SET_PDEATHSIG = 1  # of Linux

FENCE = "```"


@cache
def _expression(pattern: str) -> "re.Pattern[str]":
    return re.compile(pattern)


def check(document: dict[str, Any]) -> dict[str, Any]:
    """Return the result of one check.

    `pattern`: whether it is found in `text`; of `texts`, each with it replaced by `replacement`.
    `schema`: whether the text is a JSON document that meets it.
    """
    if "pattern" in document:
        expression = _expression(document["pattern"])
        if "texts" in document:
            replacement, count, new = document["replacement"], 0, []
            for text in document["texts"]:
                changed, found = expression.subn(lambda _: replacement, text)
                count += found
                new.append(changed)
            return {"found": count > 0, "texts": new}
        return {"score": float(expression.search(document["text"]) is not None)}
    return {"score": _meets(document["schema"], document["text"])}


_compiled: dict[str, Any] = {}


def _meets(schema: Any, text: str) -> float | None:
    """Return 1 if a text meets a schema, 0 if not; None if the schema itself is invalid.

    A schema may be a client's, so that a reference to anything but itself and the specifications
    of JSON Schema is invalid: nothing is fetched, and no file is read.
    """
    import jsonschema  # type: ignore[import-untyped] # noqa: PLC0415 - only where it is used
    import referencing.exceptions  # noqa: PLC0415

    key = json.dumps(schema, sort_keys=True)
    if key not in _compiled:
        if len(_compiled) >= SCHEMAS_MAX:
            _compiled.clear()
        kind = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
        try:
            kind.check_schema(schema)
            _compiled[key] = kind(schema, registry=jsonschema.validators.SPECIFICATIONS)
        except jsonschema.exceptions.SchemaError:
            _compiled[key] = None
    validator = _compiled[key]
    if validator is None:
        return None
    try:
        value = json.loads(_unfenced(text))
    except ValueError:
        return 0.0
    try:
        return float(validator.is_valid(value))
    except referencing.exceptions.Unresolvable:
        return None


def _unfenced(text: str) -> str:
    """Return the inside of a text that is one fenced block, as language models write JSON."""
    stripped = text.strip()
    if not (stripped.startswith(FENCE) and stripped.endswith(FENCE)):
        return stripped
    return stripped[len(FENCE) : -len(FENCE)].partition("\n")[2]


def _end_with_parent() -> None:
    """Have this process killed when the gateway is: it may be in an expression that never ends."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Answer lines until the input ends."""
    _end_with_parent()
    for line in sys.stdin:
        number = None
        try:
            document = json.loads(line)
            number = document.pop("id", None)
            result = check(document)
        except Exception as exc:
            result = {"error": str(exc)[:200]}
        sys.stdout.write(json.dumps({"id": number, **result}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
