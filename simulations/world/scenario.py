"""A scenario: `SCENARIO.toml` as typed, frozen tables, with complete error reports.

A route, its backends and its budgets are written as in `tollway.toml`. Beside them is what a
gateway cannot know: each backend's true quality and latency, the requests, and the changes. `load`
reads all of it and reports all errors at once. `put` changes one value of the document by its
dotted name, as `--set` and grids do.
"""

import tomllib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from tollway.gateway import settings as config
from tollway.gateway.settings import BudgetConfig, ConfigTable
from tollway.gateway.settings.errors import (
    ConfigError,
    Problem,
    did_you_mean,
    key_of,
    of_validation,
    show,
)
from tollway.gateway.settings.types import (
    FOLDER,
    Float,
    FreeTable,
    Int,
    LocalPath,
    Name,
    PolicyName,
    PriceTable,
    Seconds,
    Share,
    Usd,
)
from tollway.policies.registry import build

ROUTE = "route"  # a scenario has one route only
FOLDER_OF_SHIPPED = Path(__file__).parents[1] / "scenarios"
REQUESTS_MAX = 20_000_000  # their results take 3 GB

ByClass = Share | dict[Name, Share]
Hours = Annotated[Float, Field(ge=0, le=24 * 366)]
Positive = Annotated[Float, Field(gt=0, le=1e9)]


class Burst(ConfigTable):
    """A time of more requests, from all tenants or from one."""

    at_h: Hours = Field(description="When it begins, in hours from the start.", examples=[9.0])
    for_h: Positive = Field(description="How long it lasts.", examples=[2.0])
    times: Positive = Field(
        description="How many times the usual requests there are; for a tenant, as many times the "
        "usual requests of all come from it besides.",
        examples=[10],
    )
    tenant: Name | None = Field(default=None, description="From whom; everybody, if left out.")


class Workload(ConfigTable):
    """The requests: their rate, their tenants, their content."""

    requests_per_day: Positive = Field(
        default=100_000, description="How many requests a usual day has."
    )
    arrivals: Literal["poisson", "diurnal", "journal"] = Field(
        default="poisson",
        description="Evenly by chance, by chance with a peak each day, or when a journal's did.",
    )
    swing: Share = Field(
        default=0.6, description="How far `diurnal` swings from its mean, at the peak and at night."
    )
    peak_hour: Annotated[Float, Field(ge=0, lt=24)] = Field(
        default=14, description="The hour of the day of `diurnal`'s peak."
    )
    journal: LocalPath | None = Field(
        default=None,
        description="The folder of the journal whose arrivals are replayed.",
        examples=["yesterday/journal"],
    )
    bursts: tuple[Burst, ...] = Field(default=(), description="Times of more requests.")
    tenants: Int = Field(default=1, ge=1, le=10_000, description="How many call: t1, t2, ...")
    zipf: Annotated[Float, Field(ge=0, le=5)] = Field(
        default=1.1, description="How unevenly: tenant k calls in proportion to k to minus this."
    )
    classes: dict[Name, Positive] = Field(
        default={"all": 1.0},
        min_length=1,
        description="The kinds of requests, and how often each comes.",
        examples=["{ easy = 0.7, hard = 0.3 }"],
    )
    unclear: Share = Field(
        default=0.1, description="The share of requests whose kind looks like another."
    )
    prompt_tokens: Positive = Field(default=300, description="The median length of a prompt.")
    prompt_spread: Annotated[Float, Field(ge=0, le=3)] = Field(
        default=0.7, description="How lengths vary: the deviation of their logarithm."
    )
    table: LocalPath | None = Field(
        default=None,
        description="A table of what each backend would answer and cost, request by request: JSON "
        'lines of {"group", "prompt", "q": {backend: quality}, "c": {backend: dollars}}.',
        examples=["requests.jsonl"],
    )


class Labels(ConfigTable):
    """Feedback on answers: its share, delay and errors."""

    share: Share = Field(default=0.1, description="The share of answers that get feedback.")
    delay_s: Annotated[Float, Field(ge=0, le=30 * 86_400)] = Field(
        default=2.0, description="How long it takes in the middle, in seconds."
    )
    delay_spread: Annotated[Float, Field(ge=0, le=3)] = Field(
        default=0.5, description="How that varies: the deviation of its logarithm."
    )
    wrong: Share = Field(default=0.0, description="The share of feedback that says the opposite.")
    liar: Name | None = Field(
        default=None, description="A tenant whose feedback always says the opposite."
    )


class Route(ConfigTable):
    """The route, as in `tollway.toml`."""

    objective: Literal["max_quality", "min_cost", "value"] = Field(
        default="max_quality", description="As a route's `objective`."
    )
    accuracy_floor: Share | None = Field(
        default=None, description="As a route's `accuracy_floor`.", examples=[0.9]
    )
    value_per_correct_usd: Positive | None = Field(
        default=None, description="As a route's `value_per_correct_usd`.", examples=[0.01]
    )
    baseline: Name | None = Field(
        default=None, description="As a route's `baseline`.", examples=["large"]
    )
    policy: PolicyName = Field(default="lagrangian", description="As a route's `policy`.")
    policy_options: FreeTable = Field(
        default_factory=dict, description="As a route's `policy_options`."
    )
    cascade: bool = Field(default=False, description="As a route's `cascade`.")
    fallback: bool = Field(default=True, description="As a route's `fallback`.")
    timeout_s: Seconds = Field(default=30, description="As a route's `timeout_s`.")


class Backend(ConfigTable):
    """A backend: the gateway's configuration of it, and its true behaviour."""

    name: Name = Field(description="Its name.", examples=["large"])
    kind: Literal["gpu", "cpu", "api", "rules"] = Field(
        default="cpu", description="What it runs on."
    )
    price: PriceTable = Field(
        min_length=1,
        description="As a backend's `price`.",
        examples=["{ per_request_usd = 0.0001 }"],
    )
    declared_accuracy: Share | None = Field(
        default=None, description="As a backend's `declared_accuracy`.", examples=[0.9]
    )
    timeout_s: Seconds = Field(default=30, description="As a backend's `timeout_s`.")
    quality: ByClass = Field(
        default=0.9,
        description="The share of right answers it really gives, one for all kinds or one each.",
        examples=["{ easy = 0.95, hard = 0.6 }"],
    )
    slope: Share = Field(
        default=0.0, description="How much of it is lost where a request is harder by a deviation."
    )
    latency_s: Positive = Field(default=0.05, description="How long a call takes, in the middle.")
    latency_spread: Annotated[Float, Field(ge=0, le=3)] = Field(
        default=0.3, description="How that varies: the deviation of its logarithm."
    )
    latency_per_1k_tokens_s: Annotated[Float, Field(ge=0, le=3600)] = Field(
        default=0.0, description="How much longer it takes per thousand tokens of the prompt."
    )
    output_tokens: Annotated[Float, Field(ge=0, le=1e6)] = Field(
        default=0.0, description="How many tokens it writes, in the middle."
    )
    output_spread: Annotated[Float, Field(ge=0, le=3)] = Field(
        default=0.5, description="How that varies: the deviation of its logarithm."
    )
    servers: Int = Field(
        default=64, ge=1, le=100_000, description="How many calls it works on at once."
    )
    queue: Int = Field(
        default=1000, ge=0, le=1_000_000, description="How many may wait; beyond, it answers 503."
    )
    from_h: Hours = Field(default=0.0, description="When it is added to the route.")


class Change(ConfigTable):
    """An event in the scenario."""

    at_h: Hours = Field(description="When, in hours from the start.", examples=[8.0])
    says: str = Field(default="", max_length=60, description="What to call it in reports.")
    backend: Name | None = Field(default=None, description="The backend that changes.")
    price: PriceTable | None = Field(default=None, description="Its new price, announced.")
    quality: ByClass | None = Field(default=None, description="Its new quality, unannounced.")
    latency_times: Positive | None = Field(
        default=None, description="How many times its usual latency it takes from now on."
    )
    up: bool | None = Field(default=None, description="Whether it can be reached.")
    errors: Share | None = Field(default=None, description="The share of calls it fails.")
    budget: Name | None = Field(default=None, description="The budget that changes.")
    limit_usd: Usd | None = Field(default=None, description="Its new limit.", examples=[5.0])
    cut: tuple[Int, ...] | None = Field(
        default=None,
        description="The gateways, counted from 0, that cannot reach the ledger from now on.",
        examples=[[1]],
    )


class Scenario(ConfigTable):
    """A complete scenario. Read one with `load`."""

    name: Name = Field(description="Its name.")
    about: str = Field(default="", max_length=500, description="What it is about.")
    start: datetime = Field(
        default=datetime(2026, 3, 2, tzinfo=UTC),
        description="When it starts: budgets' windows are by the calendar.",
        examples=["2026-03-02T00:00:00Z"],
    )
    hours: Positive = Field(default=24.0, description="How long it lasts.")
    seed: Int = Field(default=1, ge=0, le=1 << 31, description="What chance begins with.")
    gateways: Int = Field(
        default=1, ge=1, le=16, description="How many share the ledger, and the requests evenly."
    )
    ledger_ms: Annotated[Float, Field(ge=0, le=60_000)] = Field(
        default=0.0, description="How long the ledger takes to answer them."
    )
    upkeep_s: Seconds = Field(
        default=1.0,
        description="How often pace and leases are looked after; as in production. Longer saves "
        "time in long, slow worlds.",
    )
    workload: Workload = Field(default=Workload(), description="Who calls.")
    labels: Labels = Field(default=Labels(), description="What becomes known.")
    route: Route = Field(default=Route(), description="How to choose.")
    backends: tuple[Backend, ...] = Field(min_length=1, max_length=32, description="Who answers.")
    budgets: tuple[BudgetConfig, ...] = Field(default=(), description="As in `tollway.toml`.")
    changes: tuple[Change, ...] = Field(default=(), description="What happens.")

    @property
    def start_s(self) -> float:
        """When it starts, in seconds since the epoch."""
        aware = self.start if self.start.tzinfo else self.start.replace(tzinfo=UTC)
        return aware.timestamp()

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.hours * 3600.0


def shipped() -> list[str]:
    """Return the names of the scenarios that come with Tollway."""
    return sorted(path.stem for path in FOLDER_OF_SHIPPED.glob("*.toml"))


def find(name: str) -> Path:
    """Return the file of a scenario: a path, or the name of one that comes with Tollway."""
    path = Path(name)
    if path.suffix != ".toml" and not path.exists():
        inside = FOLDER_OF_SHIPPED / f"{name}.toml"
        if not inside.exists():
            near = did_you_mean(name, shipped())
            why = f"is neither a file nor a scenario that comes with Tollway; {near}"
            raise ConfigError([Problem(name, "", why)])
        return inside
    return path


def load(name: str, changes: Mapping[str, Any] | None = None) -> Scenario:
    """Read a scenario by path or name, with changes; ConfigError lists all errors."""
    path = find(name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        why = f"cannot be read: {getattr(exc, 'strerror', None) or exc}; give a scenario's file"
        raise ConfigError([Problem(str(path), "", why)]) from None
    return parse(text, source=path.name, folder=path.absolute().parent, changes=changes)


def parse(
    text: str,
    *,
    source: str = "scenario.toml",
    folder: Path = Path(),
    changes: Mapping[str, Any] | None = None,
) -> Scenario:
    """Parse a scenario's text, as `load` does; relative paths are resolved against `folder`."""
    try:
        raw = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError([Problem(source, "", f"is not TOML: {exc}")]) from None
    for key, value in (changes or {}).items():
        put(raw, key, value)
    token = FOLDER.set(folder)
    try:
        found = Scenario(**raw)
    except ValidationError as exc:
        raise ConfigError(
            Problem(source, key_of(location), why, value)
            for location, value, why in of_validation(exc, Scenario)
        ) from None
    finally:
        FOLDER.reset(token)
    if problems := [Problem(source, *problem) for problem in _disagreements(found)]:
        raise ConfigError(problems)
    return found


def put(raw: dict[str, Any], key: str, value: Any) -> None:
    """Set a value by its dotted name; list members are addressed by `name` or by index.

    `backends.large.price.per_request_usd`, `changes.0.at_h`. ConfigError if there is no such
    member; a missing table is created.
    """
    *way, last = key.split(".")
    place: Any = raw
    for step in way:
        inside = isinstance(place, list)
        place = _member(place, step, key) if inside else place.setdefault(step, {})
        if not isinstance(place, (dict, list)):
            raise ConfigError([Problem("--set", key, f"{step!r} is a value and has nothing in it")])
    if isinstance(place, list):
        raise ConfigError([Problem("--set", key, "names a list; name a key of a member of it")])
    place[last] = value


def _member(members: list[Any], step: str, key: str) -> Any:
    if step.isdigit() and int(step) < len(members):
        return members[int(step)]
    named = {str(member.get("name", at)): member for at, member in enumerate(members)}
    if step not in named:
        why = f"nothing there is called {step!r}; {did_you_mean(step, named)}"
        raise ConfigError([Problem("--set", key, why)])
    return named[step]


def _disagreements(scenario: Scenario) -> Iterator[tuple[str, str, str]]:
    """Yield (key, why, value) for each inconsistency between the tables."""
    classes, names = scenario.workload.classes, [b.name for b in scenario.backends]
    for at, backend in enumerate(scenario.backends):
        if names.index(backend.name) != at:
            yield f"backends[{at}].name", "is another's too; rename one", show(backend.name)
        yield from _of_classes(backend.quality, classes, f"backends[{at}].quality")
        yield from _of_price(backend.price, f"backends[{at}].price")
    if all(backend.from_h > 0 for backend in scenario.backends):
        yield "backends[0].from_h", "one backend must be there from the start; write 0", ""
    for at, change in enumerate(scenario.changes):
        yield from _of_change(scenario, change, f"changes[{at}]")
    yield from _of_workload(scenario)
    if scenario.route.baseline is not None and scenario.route.baseline not in names:
        near = did_you_mean(scenario.route.baseline, names)
        yield "route.baseline", f"is not among the backends; {near}", show(scenario.route.baseline)
    try:
        document = settings_document(scenario)
        route = config.Settings(**document).routes[0]
        build(route.policy, route.to_objective(), options=route.policy_options, seed=0)
    except ValidationError as exc:
        for location, value, why in of_validation(exc, config.Settings):
            yield key_of(location).replace("routes[0]", "route"), why, value
    except ValueError as exc:
        yield "route.policy_options", str(exc), ""


def _of_price(price: Mapping[str, Any] | None, key: str) -> Iterator[tuple[str, str, str]]:
    if price is not None and "hours" in price:
        why = "is not simulated; write [[changes]] of the price at the hours when it changes"
        yield f"{key}.hours", why, show(price["hours"])


def _of_classes(
    quality: ByClass | None, classes: Mapping[str, float], key: str
) -> Iterator[tuple[str, str, str]]:
    if not isinstance(quality, dict):
        return
    for name in quality.keys() - classes.keys():
        near = did_you_mean(name, classes)
        yield f"{key}.{name}", f"is none of workload.classes; {near}", ""
    for name in sorted(classes.keys() - quality.keys()):
        yield f"{key}.{name}", "is missing; write a quality for each of workload.classes", ""


def _of_change(scenario: Scenario, change: Change, key: str) -> Iterator[tuple[str, str, str]]:
    backends, budgets = [b.name for b in scenario.backends], [b.name for b in scenario.budgets]
    yield from _of_price(change.price, f"{key}.price")
    of_backend = [change.price, change.quality, change.latency_times, change.up, change.errors]
    if change.backend is None and any(value is not None for value in of_backend):
        yield f"{key}.backend", "is missing; name the backend that changes", ""
    if change.backend is not None and change.backend not in backends:
        yield f"{key}.backend", did_you_mean(change.backend, backends), show(change.backend)
    if (change.budget is None) != (change.limit_usd is None):
        yield f"{key}.budget", "goes with limit_usd; give both or neither", ""
    elif change.budget is not None and change.budget not in budgets:
        yield f"{key}.budget", did_you_mean(change.budget, budgets), show(change.budget)
    if change.at_h >= scenario.hours:
        why = f"is not before the end; write less than {float(scenario.hours):g}"
        yield f"{key}.at_h", why, show(change.at_h)
    if any(not 0 <= at < scenario.gateways for at in change.cut or ()):
        why = f"names a gateway that is not there; count from 0 to {scenario.gateways - 1}"
        yield f"{key}.cut", why, show(list(change.cut or ()))
    yield from _of_classes(change.quality, scenario.workload.classes, f"{key}.quality")


def _of_workload(scenario: Scenario) -> Iterator[tuple[str, str, str]]:
    workload = scenario.workload
    if (workload.arrivals == "journal") != (workload.journal is not None):
        yield "workload.journal", 'goes with arrivals = "journal"; give both or neither', ""
    expected = workload.requests_per_day * scenario.hours / 24
    if expected > REQUESTS_MAX:
        why = f"makes {expected:,.0f} requests in all; {REQUESTS_MAX:,} are the most"
        yield "workload.requests_per_day", why, show(workload.requests_per_day)
    tenants = {f"t{number + 1}" for number in range(workload.tenants)}
    tenants |= {burst.tenant for burst in workload.bursts if burst.tenant}
    if scenario.labels.liar is not None and scenario.labels.liar not in tenants:
        why = f"is not among the tenants, t1 to t{workload.tenants}, nor named by a burst"
        yield "labels.liar", why, show(scenario.labels.liar)


def settings_document(scenario: Scenario) -> dict[str, Any]:
    """Return the configuration of the scenario's gateways, as a `tollway.toml` document."""
    route = scenario.route.model_dump(exclude_none=True)
    context = {"numeric": ["x"], "categorical": ["kind"]}
    if scenario.workload.table is not None:
        context = {"text": ["prompt"]}
    return {
        "routes": [
            {
                **route,
                "name": ROUTE,
                "path": "/",
                "protocol": "plain",
                "backends": [backend.name for backend in scenario.backends],
                "context": context,
            }
        ],
        "backends": [
            {
                "name": backend.name,
                "kind": "cpu",
                "protocol": "plain",
                "url": "http://127.0.0.1:9",  # nothing is sent there: the simulation answers
                "price": backend.price,
                "timeout_s": backend.timeout_s,
                **(
                    {"declared_accuracy": backend.declared_accuracy}
                    if backend.declared_accuracy is not None
                    else {}
                ),
            }
            for backend in scenario.backends
        ],
        "budgets": [budget.model_dump() for budget in scenario.budgets],
        "server": {"allow_anonymous": True},
    }
