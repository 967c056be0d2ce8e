"""The table of a backend's credential: which secret proves to it who pays, and in which field."""

import re
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from tollway.gateway.security.secrets import EnvironmentSecret, FileSecret, Secret
from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.errors import KeyProblem
from tollway.gateway.settings.types import HeaderName, LocalPath

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_SOURCES = ("bearer_env", "bearer_file", "value_env", "value_file")
_EXAMPLE = '{ bearer_env = "OPENAI_API_KEY" }'


class BackendAuth(ConfigTable):
    """The credential that the gateway adds to a backend's calls, from exactly one source."""

    bearer_env: str | None = Field(
        default=None,
        description="The environment variable that holds the key sent as `Authorization: Bearer "
        "KEY`.",
        examples=["OPENAI_API_KEY"],
    )
    bearer_file: LocalPath | None = Field(
        default=None,
        description="The file that holds that key; a change is taken up within a second.",
        examples=["secrets/openai"],
    )
    header: HeaderName | None = Field(
        default=None,
        description="With `value_env` or `value_file`: the header field that is sent, such as "
        "Azure's `api-key`, Anthropic's `x-api-key`, Google's `x-goog-api-key`.",
        examples=["x-api-key"],
    )
    value_env: str | None = Field(
        default=None,
        description="The environment variable that holds the field's value.",
        examples=["ANTHROPIC_API_KEY"],
    )
    value_file: LocalPath | None = Field(
        default=None,
        description="The file that holds the field's value; a change is taken up within a second.",
        examples=["secrets/azure"],
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [key for key in _SOURCES if getattr(self, key) is not None]
        if len(given) != 1:
            several = " and ".join(given) or "none"
            raise ValueError(
                f"needs exactly one of {', '.join(_SOURCES)} and has {several}; write it like "
                f"{_EXAMPLE}"
            )
        if given[0].startswith("value_") and self.header is None:
            raise KeyProblem("header", 'is missing; write it like header = "x-api-key"')
        if given[0].startswith("bearer_") and self.header is not None:
            raise KeyProblem(
                "header", "goes with value_env or value_file; remove it or write those"
            )
        if given[0].endswith("_env"):
            _check_variable(given[0], getattr(self, given[0]))
        return self

    @property
    def key(self) -> str:
        """The key that names the source: one of the four."""
        return next(key for key in _SOURCES if getattr(self, key) is not None)

    @property
    def secret(self) -> Secret:
        """Where the secret is."""
        source = getattr(self, self.key)
        return FileSecret(source) if isinstance(source, Path) else EnvironmentSecret(source)

    @property
    def field_name(self) -> str:
        """The name of the header field that is sent."""
        return self.header or "authorization"

    @property
    def scheme(self) -> str:
        """What stands before the secret in that field."""
        return "" if self.header else "Bearer "


def _check_variable(key: str, name: str) -> None:
    if _VARIABLE.fullmatch(name) is None:
        why = "is no name of an environment variable; write the variable's name, not the key itself"
        raise KeyProblem(key, f'{why}: {key} = "PROVIDER_API_KEY"')
    if name.upper().startswith("TOLLWAY_"):
        raise KeyProblem(key, "begins with TOLLWAY_, as the gateway's own settings do; rename it")
