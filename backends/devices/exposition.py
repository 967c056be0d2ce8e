"""Reads one figure out of Prometheus' text format, by a selector like PromQL's.

`node_gpu_hourly_cost{instance="gpu-1"}` is the sum of all samples of that name whose labels have
these values. Nothing else of the text is kept: an exporter may have thousands of other samples.
Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\\n]|\\.)*)"\s*(,?)')
_ESCAPE = re.compile(r"\\(.)")
_LIKE = 'write it like node_gpu_hourly_cost{instance="gpu-1"}'


@dataclass(frozen=True, slots=True)
class Selector:
    """A metric's name, and the values that its labels must have."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        inner = ",".join(f'{name}="{_escaped(value)}"' for name, value in self.labels)
        return f"{self.name}{{{inner}}}" if inner else self.name


def parse_selector(text: str) -> Selector:
    """Return the selector of a text; ValueError says how to write one."""
    name = _NAME.match(text)
    if name is None:
        raise ValueError(f"{text!r} begins with no metric's name; {_LIKE}")
    rest = text[name.end() :].strip()
    if not rest:
        return Selector(name.group())
    labels = _labels(rest)
    if labels is None or labels[1]:
        raise ValueError(f"{text!r} has labels that cannot be read; {_LIKE}")
    return Selector(name.group(), tuple(labels[0].items()))


def total(text: str, selector: Selector) -> float:
    """Return the sum of the samples that a selector matches.

    Raises ValueError if none matches, or if a matching one is malformed or not finite.
    """
    values = list(_values(text, selector))
    if not values:
        raise ValueError(f"has no sample {selector}")
    return math.fsum(values)


def _values(text: str, selector: Selector) -> Iterator[float]:
    wanted = dict(selector.labels)
    written = [_escaped(value) for value in wanted.values()]
    for line in text.splitlines():
        if not line.startswith(selector.name):
            continue
        if any(value not in line for value in written):
            continue  # reading the labels of each of many samples takes ten times as long
        rest, labels = line[len(selector.name) :], dict[str, str]()
        if rest.startswith("{"):
            read = _labels(rest)
            if read is None:
                raise ValueError(f"has a malformed sample of {selector.name}")
            labels, rest = read
        elif not rest[:1].isspace():
            continue  # a longer name
        if wanted.items() <= labels.items():
            yield _value(rest, selector)


def _value(rest: str, selector: Selector) -> float:
    parts = rest.split("#", 1)[0].split()  # OpenMetrics may add an exemplar
    try:
        value = float(parts[0]) if 1 <= len(parts) <= 2 else math.nan  # the second is a time
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"has a sample of {selector.name} that is no finite number")
    return value


def _labels(text: str) -> tuple[dict[str, str], str] | None:
    """Return the labels between braces, and what follows; None if they are malformed."""
    at, labels, more = 1, dict[str, str](), True
    if not text.startswith("{"):
        return None
    while True:
        label = _LABEL.match(text, at)
        if label is None or not more:
            break
        labels[label.group(1)] = _ESCAPE.sub(_unescaped, label.group(2))
        at, more = label.end(), bool(label.group(3))
    end = len(text) - len(text[at:].lstrip())
    return (labels, text[end + 1 :]) if text[end : end + 1] == "}" else None


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _unescaped(escape: re.Match[str]) -> str:
    return "\n" if escape.group(1) == "n" else escape.group(1)
