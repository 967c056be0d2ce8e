"""The table of a backend's credential: the source of the secret and the header that carries it."""

import re
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from tollway.gateway.security.google_tokens import GoogleToken
from tollway.gateway.security.secrets import EnvironmentSecret, FileSecret, Secret
from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.errors import KeyProblem
from tollway.gateway.settings.types import HeaderName, Int, LocalPath

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_SOURCES = (
    *("bearer_env", "bearer_file", "value_env", "value_file"),
    *("google_file", "google_default"),
)
_EXAMPLE = '{ bearer_env = "OPENAI_API_KEY" }'


class BackendAuth(ConfigTable):
    """The credential that the gateway adds to a backend's calls. It has exactly one source."""

    bearer_env: str | None = Field(
        default=None,
        description="Environment variable with the key that is sent as `Authorization: Bearer "
        "KEY`.",
        examples=["OPENAI_API_KEY"],
    )
    bearer_file: LocalPath | None = Field(
        default=None,
        description="File with the key that is sent as `Authorization: Bearer KEY`. A change takes "
        "effect within a second.",
        examples=["secrets/openai"],
    )
    header: HeaderName | None = Field(
        default=None,
        description="Header field for `value_env` or `value_file`, such as Azure's `api-key`, "
        "Anthropic's `x-api-key` or Google's `x-goog-api-key`.",
        examples=["x-api-key"],
    )
    value_env: str | None = Field(
        default=None,
        description="Environment variable with the value of `header`.",
        examples=["ANTHROPIC_API_KEY"],
    )
    value_file: LocalPath | None = Field(
        default=None,
        description="File with the value of `header`. A change takes effect within a second.",
        examples=["secrets/azure"],
    )

    google_file: LocalPath | None = Field(
        default=None,
        description="File with credentials of Google Cloud, for Vertex AI: its access tokens are "
        "sent as `Authorization: Bearer TOKEN` and renewed. Needs the extra `google`.",
        examples=["secrets/service-account.json"],
    )
    google_default: Literal[True] | None = Field(
        default=None,
        description="The same with the credentials of this machine (Application Default "
        "Credentials).",
        examples=[True],
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
        if not given[0].startswith("value_") and self.header is not None:
            raise KeyProblem(
                "header", "applies only to value_env and value_file; remove it or use one of those"
            )
        if given[0].endswith("_env"):
            _check_variable(given[0], getattr(self, given[0]))
        return self

    @property
    def key(self) -> str:
        """The configuration key that names the source: one of `_SOURCES`."""
        return next(key for key in _SOURCES if getattr(self, key) is not None)

    @cached_property
    def secret(self) -> Secret | GoogleToken:
        """The source of the secret: one object, because a token is kept in it."""
        source = getattr(self, self.key)
        if self.key.startswith("google_"):
            return GoogleToken(self.google_file)
        return FileSecret(source) if isinstance(source, Path) else EnvironmentSecret(source)

    @property
    def field_name(self) -> str:
        """The header field that carries the credential."""
        return self.header or "authorization"

    @property
    def scheme(self) -> str:
        """The prefix of the secret in the header field."""
        return "" if self.header else "Bearer "


class BackendKey(BackendAuth):
    """One of several keys of a backend, with its share of the calls."""

    weight: Int = Field(
        default=1,
        ge=1,
        le=1000,
        description="Share of the calls, relative to the other keys that may be used.",
        examples=[3],
    )


def _check_variable(key: str, name: str) -> None:
    if _VARIABLE.fullmatch(name) is None:
        why = "is not the name of an environment variable; write the name, not the key itself"
        raise KeyProblem(key, f'{why}: {key} = "PROVIDER_API_KEY"')
    if name.upper().startswith("TOLLWAY_"):
        raise KeyProblem(
            key, "begins with TOLLWAY_, which is reserved for settings; rename the variable"
        )
