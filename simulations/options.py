"""Reads options of the command line: values, and policies as `NAME:OPTION=VALUE,...`."""

import re
import tomllib
from typing import Any

_DECIMAL = re.compile(r"[+-]?(\d+\.|\.\d+)([eE][+-]?\d+)?")  # forms that TOML lacks: 1. and .9


def value(text: str) -> Any:
    """Parse a value as TOML, or as a decimal such as `.9`; any other text is a string."""
    if _DECIMAL.fullmatch(text):
        return float(text)
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def policy(text: str) -> tuple[str, dict[str, Any]]:
    """Split `NAME:OPTION=VALUE,...` into the policy's name and its options.

    The name of an arm is a string even if it looks like a number. ValueError if an option has no
    value.
    """
    name, _, options = text.partition(":")
    values: dict[str, Any] = {}
    for option in filter(None, options.split(",")):
        key, separator, said = option.partition("=")
        if not separator:
            raise ValueError("write options like fixed:arm=large or weighted:cpu=9,gpu=1")
        values[key] = said if key == "arm" and name == "fixed" else value(said)
    return name, {"weights": values} if name == "weighted" else values
