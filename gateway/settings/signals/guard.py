"""The table of a guard: what checks a route's requests before a backend is chosen."""

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.errors import KeyProblem
from tollway.gateway.settings.types import Int, JsonPath, Name, Seconds, WebUrl

_NEEDS = {
    "regex": ("pattern", r'pattern = "\\d{16}"'),
    "length": ("most", "most = 20000"),
    "command": ("command", 'command = ["python3", "guard.py"]'),
    "service": ("url", 'url = "http://127.0.0.1:9100/guard"'),
}


class GuardConfig(ConfigTable):
    """A guard: it tags, rewrites or refuses requests ([guards](signals.md#guards))."""

    name: Name = Field(description="Name of the guard in metrics and refusals.")
    kind: Literal["regex", "length", "command", "service"] = Field(
        description="`regex`: an expression is found in the request's texts. `length`: they are "
        "longer than `most`. `command`, `service`: a program or an HTTP service of your own says."
    )
    act: Literal["tag", "refuse", "rewrite"] = Field(
        default="refuse",
        description="`regex`, `length`: what to do with such a request. `tag`: add `tags`. "
        "`refuse`: answer 422. `rewrite` (`regex` only): replace what is found.",
    )
    at: JsonPath | None = Field(
        default=None,
        description="Path of the texts that are checked. Default: all texts of the messages, or of "
        "the request if it has none.",
        examples=["messages[-1].content"],
    )
    pattern: str | None = Field(
        default=None,
        max_length=4096,
        description="`regex`: the expression, in Python's syntax.",
        examples=[r"\d{16}"],
    )
    replacement: str = Field(
        default="[removed]", max_length=256, description="`rewrite`: what is written instead."
    )
    most: Int | None = Field(
        default=None, ge=1, description="`length`: the most characters of all texts together."
    )
    tags: dict[Name, Name] = Field(
        default_factory=dict,
        max_length=16,
        description="`tag`: tags that are added to the request, for budgets and reports.",
        examples=['{ pii = "yes" }'],
    )
    command: tuple[str, ...] = Field(
        default=(),
        max_length=32,
        description="`command`: the program and its arguments.",
        examples=[["python3", "guard.py"]],
    )
    url: WebUrl | None = Field(
        default=None,
        description="`service`: the URL that is asked with POST.",
        examples=["http://127.0.0.1:9100/guard"],
    )
    timeout_s: Seconds = Field(
        default=0.2, description="Time for one request; it is part of the client's wait."
    )
    concurrency: Int = Field(
        default=4, ge=1, le=64, description="Processes or calls at once, for each worker."
    )
    on_failure: Literal["allow", "refuse"] = Field(
        default="refuse",
        description="What happens to a request that cannot be checked: the guard fails, takes too "
        "long, or the request is larger than 1 MiB.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        key, example = _NEEDS[self.kind]
        if not getattr(self, key):
            raise KeyProblem(key, f"is required for kind {self.kind!r}; write it like {example}")
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as exc:
                raise KeyProblem("pattern", f"is not a regular expression: {exc}") from exc
        if self.kind in {"regex", "length"} and self.act == "tag" and not self.tags:
            raise KeyProblem("tags", 'is required to tag; write it like { pii = "yes" }')
        if self.kind == "length" and self.act == "rewrite":
            raise KeyProblem("act", "can be rewrite for kind regex only; write refuse or tag")
        return self
