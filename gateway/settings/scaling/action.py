"""The table of what sets the replicas of a backend: a command or a webhook."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.errors import KeyProblem
from tollway.gateway.settings.types import Float, Int, WebhookSecret, WebUrl, checked

_KEYS = {"command": {"command", "env"}, "webhook": {"url", "secret"}}


def _check_word(word: str) -> None:
    if "\0" in word:
        raise ValueError("has a zero byte, which no argument can have; remove it")


def _check_variable(name: str) -> None:
    if not name or "=" in name or "\0" in name:
        raise ValueError('is not the name of a variable; write it like "KUBECONFIG"')


Word = Annotated[str, Field(max_length=4096), checked(_check_word)]
Variable = Annotated[str, Field(max_length=256), checked(_check_variable)]


class ActionConfig(ConfigTable):
    """What sets the replicas that are recommended. Without it, nothing is started or stopped."""

    kind: Literal["command", "webhook"] = Field(
        description="`command`: a program on this machine. `webhook`: a signed HTTP request."
    )
    command: tuple[Word, ...] = Field(
        default=(),
        max_length=64,
        description="The program and its arguments; no shell reads them. `{backend}`, "
        "`{replicas}`, `{before}`, `{reason}` and `{id}` are replaced by their values, which also "
        "stand in the program's environment, as `TOLLWAY_REPLICAS`.",
        examples=[["/usr/local/bin/scale", "{backend}", "{replicas}"]],
    )
    env: tuple[Variable, ...] = Field(
        default=(),
        max_length=64,
        description="Variables of the gateway's environment that the program gets, besides PATH, "
        "HOME and the locale.",
        examples=[["KUBECONFIG"]],
    )
    url: WebUrl | None = Field(
        default=None,
        description="Address that changes are posted to. It is hidden wherever settings are shown.",
        examples=["https://scaler.example.com/replicas"],
    )
    secret: WebhookSecret | None = Field(
        default=None,
        description="Secret that signs the changes (`webhook-signature`, as in Standard Webhooks). "
        "After `whsec_` it is read as base64; any other secret is used as it is.",
    )
    timeout_s: Float = Field(
        default=60,
        gt=0,
        le=3600,
        description="Time limit of the program, which is then ended with all it started, or of "
        "one HTTP request.",
    )
    min_interval_s: Float = Field(
        default=30, ge=0, le=86_400, description="Shortest time between two changes."
    )
    max_changes_per_hour: Int = Field(
        default=60, ge=1, le=1000, description="Maximum number of changes in an hour."
    )
    dry_run: bool = Field(
        default=False,
        description="Whether changes are only reported, as events, and not made.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for kind, keys in _KEYS.items():
            for key in sorted(keys & self.model_fields_set):
                if kind != self.kind:
                    raise KeyProblem(key, f'does not apply to kind = "{self.kind}"; remove it')
        if self.kind == "command" and not (self.command and self.command[0]):
            raise KeyProblem(
                "command",
                'is missing or empty; write it like command = ["scale", "{backend}", "{replicas}"]',
            )
        if self.kind == "webhook" and self.url is None:
            raise KeyProblem(
                "url", 'is missing; write it like url = "https://scaler.example.com/replicas"'
            )
        return self
