"""The table of a registered model: where its versions are, and how they become champion."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.errors import KeyProblem
from tollway.gateway.settings.registry.template import FIELDS, Template
from tollway.gateway.settings.types import Float, Int, Name, Seconds, Share

_COMMAND = ["scripts/load-model", "{model}", "{version}", "{port}"]
_WORDS = 32  # of a command


class RequirementsConfig(ConfigTable):
    """What a version must have reached before it is tried, by the metrics in the registry."""

    accuracy: Share | None = Field(default=None, description="Smallest accuracy.", examples=[0.85])
    p95_ms: Float | None = Field(
        default=None,
        gt=0,
        description="Largest 95th percentile of the latency, in milliseconds.",
        examples=[50],
    )
    error_rate: Share | None = Field(
        default=None, description="Largest share of calls that fail.", examples=[0.001]
    )
    value_usd: Float | None = Field(
        default=None, description="Smallest mean value of a request, in dollars.", examples=[0.002]
    )


class LoadConfig(ConfigTable):
    """How a model server is made to load a version before it gets requests."""

    oip: bool = Field(
        default=False,
        description="Ask the server at the version's address to load the model, by the repository "
        "API of the Open Inference Protocol (Triton, MLServer), and to unload what is withdrawn.",
    )
    command: Annotated[tuple[str, ...], Field(max_length=_WORDS)] = Field(
        default=(),
        description="Program that loads the version, with its arguments. It is run without a shell "
        f"and without the gateway's environment. {FIELDS} are filled in.",
        examples=[_COMMAND],
    )
    unload_command: Annotated[tuple[str, ...], Field(max_length=_WORDS)] = Field(
        default=(), description="The same for a version that is withdrawn or replaced."
    )
    ready_path: Annotated[str, Field(pattern=r"^/[!-~]*$")] | None = Field(
        default=None,
        description="Path at the version's address that answers 2xx once it can serve. With `oip` "
        f"the default is the model's own. {FIELDS} are filled in.",
        examples=["/v2/models/digits-v{version}/ready"],
    )
    timeout_s: Seconds = Field(
        default=120, description="Maximum time until a version is loaded and ready."
    )
    keep_s: Float = Field(
        default=60,
        ge=0,
        le=86_400,
        description="How long a version that is withdrawn or replaced stays loaded, for requests "
        "in progress.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.oip and self.command:
            raise KeyProblem("command", "is set beside oip; remove one of them")
        return self


class ModelConfig(ConfigTable):
    """A model of the registry, and the backend that serves its champion."""

    name: Name = Field(description="Name of the model in the registry.", examples=["digits"])
    backend: Name = Field(
        description="Backend that serves the champion. Its own `url` and `model` count until the "
        "registry names one.",
        examples=["digits-gpu"],
    )
    url: str | None = Field(
        default=None,
        max_length=512,
        description=f"Address of a version. {FIELDS} are filled in. The host is written here; "
        "nothing in the registry can choose it. If omitted, the backend's address stays.",
        examples=["http://127.0.0.1:{port}"],
    )
    ports: tuple[Int, Int] | None = Field(
        default=None,
        description="First and last port for `{port}`: version 1 gets the first, version 2 the "
        "next, and after the last the first again.",
        examples=[[9100, 9109]],
    )
    model: str | None = Field(
        default=None,
        max_length=256,
        description="The model's name at the server, for a version. If omitted, the backend's "
        "stays.",
        examples=["digits-v{version}"],
    )
    load: LoadConfig = LoadConfig()
    start: bool = Field(
        default=True,
        description="Whether a new version becomes the challenger by itself, where a rollout has "
        "`candidate = { registry = ... }` with this name. Otherwise somebody sets the alias.",
    )
    requires: RequirementsConfig = Field(
        default=RequirementsConfig(),
        description="What the metrics that the registry has of a version must reach before it is "
        "tried. What it must reach on live requests is said by the criteria of the rollout.",
        examples=["{ accuracy = 0.85, p95_ms = 50 }"],
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key, text in (
            ("url", self.url),
            ("model", self.model),
            *(("load", one) for one in (*self.load.command, *self.load.unload_command)),
            ("load", self.load.ready_path),
        ):
            try:
                Template(text or "").check(is_url=key == "url" and text is not None)
            except ValueError as exc:
                raise KeyProblem(key, str(exc)) from None
        if self.url is None and self.model is None:
            why = "is missing, and so is model: one of them must differ between versions; write "
            raise KeyProblem("url", f'{why}it like "http://127.0.0.1:{{port}}"')
        self._check_ports()
        return self

    def _check_ports(self) -> None:
        asked = "{port}" in (self.url or "")
        if asked and self.ports is None:
            raise KeyProblem("ports", "is missing, for {port}; write it like [9100, 9109]")
        if self.ports is not None and not asked:
            raise KeyProblem("ports", "is not used: url has no {port}; remove it")
        if self.ports is not None:
            first, last = self.ports
            if not 1 <= first < last <= 65535:
                why = "must be two ports, the first below the last; write it like [9100, 9109]"
                raise KeyProblem("ports", why)
