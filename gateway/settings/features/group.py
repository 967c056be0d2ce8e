"""The table of a group of features: whom they are about, and where they come from."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from tollway.gateway.features.online import entities
from tollway.gateway.features.online.memory import EVICTIONS
from tollway.gateway.features.online.model import KINDS, NUMBER, Feature, FeatureGroup
from tollway.gateway.features.sources.table import check_name
from tollway.gateway.security import addresses
from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.errors import KeyProblem
from tollway.gateway.settings.types import (
    FOLDER,
    FieldPath,
    Float,
    HeaderName,
    Int,
    LocalPath,
    Name,
    Seconds,
    checked,
)

POSTGRES, SQLITE, WEB, PYTHON = "postgresql", "sqlite", "http", "python"
_KNOWN = "sqlite:///FILE, postgresql://USER@HOST/DATABASE, http://HOST or python:MODULE:FUNCTION"


def _source(url: str) -> str:
    """Check where values come from, and resolve the path of a file."""
    scheme, colon, rest = url.partition(":")
    if scheme == PYTHON:
        if rest.count(":") != 1 or not all(rest.split(":")):
            raise ValueError("must name a function; write it like python:package.module:function")
    elif scheme == SQLITE:
        path = rest.removeprefix("///")
        if path == rest or not path:
            raise ValueError("must name a file; write it like sqlite:///features.db")
        return f"sqlite:///{FOLDER.get() / Path(path).expanduser()}"
    elif scheme in (POSTGRES, "postgres"):
        given = urlsplit(url)
        if given.password is not None or "password" in parse_qs(given.query, True):
            raise ValueError("must not contain a password; set TOLLWAY_FEATURES__NAME__PASSWORD")
        if not urlsplit(url).path.strip("/"):
            raise ValueError("must name a database; write it like postgresql://user@host/database")
    elif scheme in (WEB, "https") and colon:
        addresses.check_backend_url(url)
    else:
        raise ValueError(f"must be one of {_KNOWN}")
    return url


def _kind(source: str) -> str:
    scheme = source.partition(":")[0]
    return {"postgres": POSTGRES, "https": WEB}.get(scheme, scheme)


class FeatureValueConfig(ConfigTable):
    """One value of a group."""

    name: Name = Field(description="Name of the value.", examples=["tier"])
    type: Literal[KINDS] = Field(  # type: ignore[valid-type]
        default=NUMBER,
        description="`number`; `category`, a text used as a whole; or `text`, split into words.",
    )
    default: Float | str | None = Field(
        default=None,
        description="Value where the source has none. Default: a number counts as average; a "
        "category or text is empty.",
        examples=[0],
    )
    column: Annotated[str, checked(check_name)] | None = Field(
        default=None, description="SQL only: column of the value. Default: its name."
    )
    feature: str | None = Field(
        default=None,
        max_length=256,
        description="HTTP only: the feature server's name of the value. Default: its name.",
        examples=["user_stats:tier"],
    )
    range: tuple[Float, Float] | None = Field(
        default=None,
        description="Numbers only: the range that `tollway features validate` expects.",
        examples=[[0, 1]],
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.type == NUMBER and isinstance(self.default, str):
            raise KeyProblem("default", "must be a number; write it like default = 0")
        if self.type != NUMBER and isinstance(self.default, float):
            raise KeyProblem("default", 'must be a text; write it like default = "unknown"')
        if self.range is not None and (self.type != NUMBER or not self.range[0] < self.range[1]):
            raise KeyProblem("range", "must be [minimum, maximum] of a number; write [0, 1]")
        return self

    def to_feature(self) -> Feature:
        """Return the value as the gateway uses it."""
        low, high = self.range or (None, None)
        default = self.default
        if default is None and self.type != NUMBER:
            default = ""
        return Feature(self.name, self.type, default, self.column or self.name, low, high)


class FeatureCandidateConfig(ConfigTable):
    """A version of a group's values that a share of the entities try."""

    version: str = Field(min_length=1, max_length=64, description="Its version.", examples=["v3.2"])
    share: Float = Field(
        gt=0,
        lt=1,
        description="Share of the entities that get it, always the same ones.",
        examples=[0.1],
    )
    source: Annotated[str, AfterValidator(_source)] | None = Field(
        default=None,
        description="Where its values are, in a source of the same kind. Default: the group's.",
        examples=["postgresql://tollway@db/next"],
    )
    table: Annotated[str, checked(check_name)] | None = Field(
        default=None,
        description="SQL only: its table. Default: the group's.",
        examples=["users_v3_2"],
    )
    transform: LocalPath | None = Field(
        default=None,
        description="With the group's `transform`: its ONNX model. Default: the group's.",
        examples=["user-v3.2.onnx"],
    )


class FeatureGroupConfig(ConfigTable):
    """Values of an entity, such as a user, that routes join to what their policy sees."""

    STATE: ClassVar[tuple[str, ...]] = (
        "source",
        "password",
        "table",
        "key",
        "keys",
        "writable",
        "values",
        "transform",
        "inputs",
        "pool_min",
        "pool_max",
        "connect_timeout_s",
        "acquire_timeout_s",
        "timeout_s",
        "token",
        "version",
        "entities",
        "memory_entries",
        "eviction",
    )
    """Keys that say how the source is asked, and what is kept of its answers."""

    name: Name = Field(
        description="Name of the group, which routes list in `features`.", examples=["user"]
    )
    entity: Annotated[str, checked(entities.check)] = Field(
        description="Where a request names its entity: a path into its JSON, `$headers.NAME`, "
        "`$query.NAME`, or `$tenant`.",
        examples=["$headers.x-user-id"],
    )
    per_tenant: bool = Field(
        default=False,
        description="Whether the entities of each tenant are its own: their keys are then "
        "`TENANT/KEY`. Set it where tenants choose the keys.",
    )
    source: Annotated[str, AfterValidator(_source)] = Field(
        description="Where the values are: `sqlite:///FILE`, `postgresql://USER@HOST/DATABASE`, "
        "`http://HOST` of a feature server that speaks Feast's `/get-online-features`, or "
        "`python:MODULE:FUNCTION`.",
        examples=["sqlite:///features.db"],
    )
    password: SecretStr | None = Field(
        default=None,
        description="PostgreSQL password. Prefer the environment variable "
        "`TOLLWAY_FEATURES__NAME__PASSWORD`.",
    )
    token: SecretStr | None = Field(
        default=None,
        description="HTTP only: bearer token. Prefer `TOLLWAY_FEATURES__NAME__TOKEN`.",
    )
    table: Annotated[str, checked(check_name)] | None = Field(
        default=None,
        description="SQL only: table with one row for each entity. Default for SQLite: a table of "
        "the gateway's own, which `PUT /_tollway/features/...` fills.",
        examples=["users"],
    )
    key: Annotated[str, checked(check_name)] = Field(
        default="id",
        description="Column of the entity's key, or the feature server's name of the entity.",
        examples=["user_id"],
    )
    keys: Literal["text", "integer"] = Field(default="text", description="Type of the keys.")
    writable: bool = Field(
        default=False,
        description="With `table`: whether the gateway may write and delete its rows.",
    )
    values: tuple[FeatureValueConfig, ...] = Field(
        min_length=1,
        max_length=64,
        description="The values.",
        examples=['[{ name = "tier", type = "category", default = "free" }, { name = "spend" }]'],
    )
    transform: LocalPath | None = Field(
        default=None,
        description="ONNX model that makes the values of the raw values in `inputs`. Needs "
        "`tollway[onnx]`. A digest of the file is added to `version`.",
        examples=["user.onnx"],
    )
    inputs: tuple[FeatureValueConfig, ...] = Field(
        default=(),
        max_length=64,
        description="With `transform`: the raw values that the source has, in place of `values`.",
        examples=['[{ name = "orders" }, { name = "country", type = "category" }]'],
    )
    version: str = Field(
        default="1",
        min_length=1,
        max_length=64,
        description="Version of the values, such as a commit or a DVC tag. It is journalled with "
        "them, and each version has its own place in Redis, so it can change gateway by gateway.",
        examples=["v3.1"],
    )
    candidate: FeatureCandidateConfig | None = Field(
        default=None,
        description="A next version of the values that a share of the entities try. `tollway "
        "report feature-versions` compares both; then make it the group's own, or remove it.",
    )
    ttl_s: Seconds = Field(
        default=300, description="How long values are used before they are looked up again."
    )
    stale_s: Float = Field(
        default=3600,
        ge=0,
        le=2_592_000,
        description="How much longer they may be used while the source does not answer.",
    )
    negative_s: Seconds = Field(
        default=30, description="How long it is remembered that the source has no such entity."
    )
    early: Float = Field(
        default=1.0,
        ge=0,
        le=100,
        description="How early values in demand are renewed before they expire, as a multiple of "
        "the time that a look-up takes (XFetch). 0: not before.",
    )
    timeout_s: Seconds = Field(
        default=1.0,
        description="Maximum duration of a look-up. It may outlast the request, which does not "
        "wait for it, and then serves the next one.",
    )
    memory_entries: Int = Field(
        default=50_000,
        ge=1,
        le=10_000_000,
        description="Entities kept in each worker's memory, about 1 kB each.",
    )
    eviction: Literal[EVICTIONS] = Field(  # type: ignore[valid-type]
        default="lru",
        description="Which entity leaves memory first: `lru`, the one not used for longest; `lfu`, "
        "the one used least often.",
    )
    body: FieldPath | None = Field(
        default=None,
        description="Member of the JSON body in which backends get the values, as an object. It "
        "replaces what a client wrote there.",
        examples=["parameters.user"],
    )
    header: HeaderName | None = Field(
        default=None,
        description="Header field in which backends get the values, as JSON. It replaces the "
        "client's.",
        examples=["x-user-features"],
    )
    entities: Literal["hashed", "plain"] = Field(
        default="hashed",
        description="How an entity is named in the journal, Redis and the gateway's own table. "
        "`hashed`: by a pseudonym made with `pepper`. `plain`: by its key.",
    )
    purpose: str = Field(
        default="",
        max_length=200,
        description="What the values may be used for. It is journalled with each use.",
        examples=["routing of support requests"],
    )
    retain_days: Float | None = Field(
        default=None,
        gt=0,
        le=36_500,
        description="How long the journal keeps the values; the rest of its rows stay. Default: "
        "as long as the rows.",
        examples=[30],
    )
    pool_min: Int = Field(
        default=10, ge=1, le=1000, description="PostgreSQL connections that are kept open."
    )
    pool_max: Int = Field(default=20, ge=1, le=1000, description="Most PostgreSQL connections.")
    connect_timeout_s: Seconds = Field(
        default=2.0, description="PostgreSQL: maximum time to open a connection."
    )
    acquire_timeout_s: Seconds = Field(
        default=0.5, description="PostgreSQL: maximum time to wait for a free connection."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [one.name for one in self.values]
        if len(set(names)) != len(names):
            raise KeyProblem("values", "has two of the same name; rename one of them")
        if self.kind == POSTGRES and self.table is None:
            raise KeyProblem("table", 'is required for PostgreSQL; write it like table = "users"')
        if self.kind in (WEB, PYTHON) and self.table is not None:
            raise KeyProblem("table", "applies only to SQLite and PostgreSQL; remove it")
        if self.per_tenant and self.keys == "integer":
            raise KeyProblem("keys", 'must be "text" with per_tenant: keys are then TENANT/KEY')
        if self.writable and self.table is None:
            raise KeyProblem("writable", "applies only to a table; remove it")
        if bool(self.inputs) != (self.transform is not None):
            raise KeyProblem("inputs", "and transform need each other; set both or neither")
        if self.pool_min > self.pool_max:
            raise KeyProblem("pool_min", "is greater than pool_max; lower it")
        if self.password is not None and self.kind != POSTGRES:
            raise KeyProblem("password", "applies only to PostgreSQL; remove it")
        if self.token is not None and self.kind != WEB:
            raise KeyProblem("token", "applies only to a feature server; remove it")
        if self.candidate is not None:
            self._check_candidate(self.candidate)
        return self

    def _check_candidate(self, one: FeatureCandidateConfig) -> None:
        if one.version == self.version:
            raise KeyProblem("candidate", "must have another version than the group")
        if one.source is None and one.table is None and one.transform is None:
            why = "is the same values; give it a source, a table or a transform of its own"
            raise KeyProblem("candidate", why)
        if one.source is not None and _kind(one.source) != self.kind:
            raise KeyProblem("candidate", f"must have a source of the same kind, {self.kind}")
        if one.table is not None and self.table is None:
            raise KeyProblem("candidate", "must not have a table: the group has none")
        if one.transform is not None and self.transform is None:
            raise KeyProblem("candidate", "must not have a transform: the group has none")

    @property
    def tried(self) -> "FeatureGroupConfig | None":
        """The group as its candidate is; None without one."""
        one = self.candidate
        if one is None:
            return None
        own = {"version": one.version, "candidate": None}
        given = {name: getattr(one, name) for name in ("source", "table", "transform")}
        return self.model_copy(
            update=own | {name: value for name, value in given.items() if value is not None}
        )

    @property
    def kind(self) -> str:
        """The kind of the source."""
        return _kind(self.source)

    @property
    def stored(self) -> tuple[FeatureValueConfig, ...]:
        """The values that the source has."""
        return self.inputs or self.values

    def to_group(self, model: str = "") -> FeatureGroup:
        """Return the group as the gateway uses it; `model`: the digest of its transformer."""
        return FeatureGroup(
            name=self.name,
            features=tuple([one.to_feature() for one in self.values]),
            version=f"{self.version}+{model}" if model else self.version,
            ttl_s=self.ttl_s,
            stale_s=self.stale_s,
            negative_s=self.negative_s,
            beta=self.early,
            timeout_s=self.timeout_s,
            entries_max=self.memory_entries,
            eviction=self.eviction,
            concurrency=self.pool_min if self.kind == POSTGRES else 4,
            purpose=self.purpose,
            inputs=tuple([one.to_feature() for one in self.inputs]),
        )
