"""The table of a signal: what scores a route's answers without knowing the truth."""

import re
from importlib.util import find_spec
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.errors import KeyProblem
from tollway.gateway.settings.types import (
    DefaultBy,
    Float,
    FreeTable,
    Int,
    JsonPath,
    LocalPath,
    Name,
    Seconds,
    Share,
    WebUrl,
)
from tollway.policies.evidence.signal_trust import SignalPrior

KINDS = ("schema", "regex", "length", "field", "reference", "command", "service", "judge", "users")
_KEYS = {
    "schema": {"json_schema", "schema_file", "at", "timeout_s", "concurrency"},
    "regex": {"pattern", "found", "at", "timeout_s", "concurrency"},
    "length": {"length", "at"},
    "field": {"field", "at"},
    "reference": {"backend", "budget_share"},
    "command": {"command", "timeout_s", "concurrency"},
    "service": {"url", "timeout_s", "concurrency"},
    "judge": {"backend", "budget_share", "rubric", "compare_to", "timeout_s"},
    "users": {"window_s"},
}
_OWN = set().union(*_KEYS.values())
_NEEDS = {
    "regex": ("pattern", r'pattern = "^\\d+$"'),
    "length": ("length", "length = [1, 2000]"),
    "field": ("field", 'field = "metadata.expected"'),
    "reference": ("backend", 'backend = "openai"'),
    "command": ("command", 'command = ["python3", "score.py"]'),
    "service": ("url", 'url = "http://127.0.0.1:9100/score"'),
    "judge": ("backend", 'backend = "judge"'),
}


class SignalConfig(ConfigTable):
    """A signal: a score of answers that is no true label ([how it is used](signals.md))."""

    kind: Literal[KINDS] = Field(  # type: ignore[valid-type]
        description="`schema`: the answer is JSON that meets a schema. `regex`: an expression is "
        "found in it. `length`: its length is within bounds. `field`: it agrees with a field of "
        "the request. `reference`: it agrees with another backend's answer. `command`, `service`: "
        "a program or an HTTP service of your own scores it. `judge`: a language model does. "
        "`users`: what users do next, and `x-tollway-feedback`."
    )
    name: Name = Field(
        default="", description="Name of the signal in journals and metrics. Default: its kind."
    )
    weight: Share = Field(
        default=1.0,
        description="How far it may be believed, whatever the labels say. 0 only records it.",
    )
    share: Share = Field(
        default=1.0, gt=0, description="Share of the answers that it scores.", examples=[0.2]
    )
    sensitivity: Share = Field(
        default_factory=DefaultBy("kind", 0.85, schema=0.98, regex=0.95, length=0.98, field=0.9),
        description="Mean score of right answers, until labels tell.",
        examples=[0.95],
    )
    specificity: Share = Field(
        default_factory=DefaultBy(
            "kind", 0.8, schema=0.5, regex=0.5, length=0.2, field=0.9, users=0.3
        ),
        description="One minus the mean score of wrong answers, until labels tell.",
        examples=[0.6],
    )
    at: JsonPath | None = Field(
        default=None,
        description="Path of what is scored in the reply. Default: the answer. Streams have only "
        "the answer.",
        examples=["choices[0].message.content"],
    )
    json_schema: FreeTable | None = Field(
        default=None,
        description="`schema`: the JSON schema. Without it and `schema_file`, the one that the "
        "request declares (`response_format`).",
        examples=['{ type = "object", required = ["answer"] }'],
    )
    schema_file: LocalPath | None = Field(
        default=None, description="`schema`: file of the JSON schema.", examples=["answer.json"]
    )
    pattern: str | None = Field(
        default=None,
        max_length=4096,
        description="`regex`: the expression, in Python's syntax.",
        examples=[r"^\d+$"],
    )
    found: bool = Field(
        default=True, description="`regex`: whether a good answer has it, rather than lacks it."
    )
    length: tuple[Int, Int] | None = Field(
        default=None,
        description="`length`: the least and the most characters.",
        examples=[[1, 2000]],
    )
    field: JsonPath | None = Field(
        default=None,
        description="`field`: path of the expected answer in the request.",
        examples=["metadata.expected"],
    )
    backend: str | None = Field(
        default=None,
        description="`reference`: the backend of the route that is asked too. `judge`: the backend "
        "that judges, any with protocol openai; best none of the route's own.",
        examples=["judge"],
    )
    budget_share: Float = Field(
        default=0.05,
        gt=0,
        le=1,
        description="`reference`, `judge`: most that it may cost, as a share of what the requests "
        "would cost at the most expensive backend of the route.",
    )
    rubric: str | None = Field(
        default=None,
        max_length=8192,
        description="`judge`: what makes an answer good, in words.",
        examples=["The answer is right, complete and has no invented facts."],
    )
    compare_to: str | None = Field(
        default=None,
        description="`judge`: a backend of the route, to compare each answer with its own (asked "
        "too, in both orders). Default: each answer is judged by itself.",
        examples=["openai"],
    )
    command: tuple[str, ...] = Field(
        default=(),
        max_length=32,
        description="`command`: the program and its arguments. It reads a line of JSON and writes "
        'one, such as `{"score": 0.8}`.',
        examples=[["python3", "score.py"]],
    )
    url: WebUrl | None = Field(
        default=None,
        description="`service`: the URL that is asked with POST.",
        examples=["http://127.0.0.1:9100/score"],
    )
    timeout_s: Seconds = Field(
        default_factory=DefaultBy("kind", 2.0, command=5.0, service=5.0, judge=60.0),
        description="Time for one answer.",
    )
    concurrency: Int = Field(
        default=2, ge=1, le=64, description="Processes or calls at once, for each worker."
    )
    window_s: Seconds = Field(
        default=600.0, description="`users`: how long after an answer the next request counts."
    )

    @model_validator(mode="before")
    @classmethod
    def _known(cls, table: Any) -> Any:
        if isinstance(table, dict) and isinstance(kind := table.get("kind"), str) and kind in _KEYS:
            for key in table:
                if key in _OWN and key not in _KEYS[kind]:
                    kinds = " and ".join(sorted(one for one, own in _KEYS.items() if key in own))
                    raise KeyProblem(key, f"applies only to signals of kind {kinds}; remove it")
            return {"name": kind, **table}
        return table

    @model_validator(mode="after")
    def _check(self) -> Self:
        key, example = _NEEDS.get(self.kind, ("kind", ""))
        if not getattr(self, key):
            raise KeyProblem(key, f"is required for kind {self.kind!r}; write it like {example}")
        if self.json_schema is not None and self.schema_file is not None:
            raise KeyProblem("json_schema", "contradicts schema_file; write one of them")
        if self.kind == "schema" and find_spec("jsonschema") is None:
            raise KeyProblem("kind", "needs an extra; install it: pip install 'tollway[signals]'")
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as exc:
                raise KeyProblem("pattern", f"is not a regular expression: {exc}") from exc
        if self.length is not None and not 0 <= self.length[0] <= self.length[1]:
            raise KeyProblem("length", "must be [least, most]; write the smaller number first")
        if self.sensitivity + self.specificity <= 1.0:
            raise KeyProblem(
                "specificity",
                "must be more than 1 - sensitivity: otherwise the signal says nothing",
            )
        return self

    def prior(self) -> SignalPrior:
        """Return what is declared of it."""
        return SignalPrior(self.sensitivity, self.specificity, self.weight)
