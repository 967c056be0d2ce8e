"""The table of the registry that names the versions of models."""

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, SecretStr, model_validator

from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.credential import BackendAuth
from tollway.gateway.settings.errors import KeyProblem
from tollway.gateway.settings.types import BackendUrl, Float, LocalPath


class RegistryConfig(ConfigTable):
    """The registry of models: MLflow, or a folder. See [model registry](registry.md)."""

    NEEDS_RESTART: ClassVar[tuple[str, ...]] = ("*",)

    kind: Literal["mlflow", "folder"] = Field(
        description="`mlflow`: an MLflow server, asked over its REST API. `folder`: a folder with "
        "a folder for each version of each model.",
        examples=["mlflow"],
    )
    url: BackendUrl | None = Field(
        default=None,
        description="Address of the MLflow server. Required for `mlflow`.",
        examples=["http://127.0.0.1:5000"],
    )
    auth: BackendAuth | None = Field(
        default=None,
        description="Credential for the MLflow server.",
        examples=['{ bearer_env = "MLFLOW_TOKEN" }'],
    )
    dir: LocalPath = Field(
        default=Path("models"),
        validate_default=True,
        description="The folder of `folder`: `DIR/MODEL/VERSION/`.",
    )
    poll_s: Float = Field(
        default=1.0,
        ge=0.1,
        le=3600,
        description="Interval between two looks at the registry. A webhook makes the gateway look "
        "at once.",
    )
    timeout_s: Float = Field(
        default=5.0, gt=0, le=60, description="Maximum time of a call to the registry."
    )
    webhook_secret: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Secret of the MLflow webhook that calls `/_tollway/registry/webhook`. Set it "
        "as `TOLLWAY_REGISTRY__WEBHOOK_SECRET`. Without it, webhooks are refused.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "mlflow" and self.url is None:
            raise KeyProblem("url", 'is missing; write it like url = "http://127.0.0.1:5000"')
        if self.kind == "folder":
            for key in ("url", "auth", "webhook_secret"):
                if getattr(self, key) is not None:
                    raise KeyProblem(key, 'applies only to kind = "mlflow"; remove it')
        if self.auth is not None and self.auth.key.startswith("google_"):
            raise KeyProblem("auth", 'must be a key; write it like { bearer_env = "MLFLOW_TOKEN" }')
        return self
