import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.backends.protocols.registry import PROTOCOLS
from tollway.gateway.budgets.model import MAX_LIMIT_NANO, Budget, Scope
from tollway.gateway.cli.config_report import as_toml
from tollway.gateway.cli.config_report import price as in_words
from tollway.gateway.security.keys import hash_key, new_key
from tollway.gateway.settings import ConfigError, Settings, load, parse, services
from tollway.gateway.settings.cross_checks import compare_paths
from tollway.policies.types import Objective

HASH = hash_key("tw_acme")

GOOD = f"""
[[backends]]
name = "digits-rules"
kind = "rules"
rules = "rules.toml"
price = {{ per_request_usd = 0.00001 }}

[[backends]]
name = "digits-gpu"
kind = "gpu"
protocol = "oip"
url = "http://127.0.0.1:9002"
price = {{ device_usd_per_hour = 2.50, concurrency = 8, utilization = 0.6 }}

[[routes]]
name = "digits"
path = "/v2/models/digits/infer"
protocol = "oip"
backends = ["digits-rules", "digits-gpu"]
objective = "min_cost"
accuracy_floor = 0.97
baseline = "digits-gpu"
context = {{ numeric = ["inputs[0].data"], range = [0, 16] }}
score = {{ exact = "outputs[0].data[0]" }}

[[tenants]]
name = "acme"
key_hash = "{HASH}"

[[budgets]]
name = "acme-daily"
scope = {{ tenant = "acme", tags = {{ env = "prod" }} }}
limit_usd = 10.000000001
window = "day"
timezone = "Europe/Berlin"
"""


def problems(text: str, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        parse(textwrap.dedent(text), environ or {})
    return [str(problem) for problem in refused.value.problems]


def test_the_shape_that_the_documentation_shows_is_read() -> None:
    settings = parse(GOOD, {})
    (route,) = settings.routes
    assert route.backends == ("digits-rules", "digits-gpu")
    assert route.to_objective() == Objective("min_cost", floor=0.97, baseline="digits-gpu")
    assert route.context.range == (0, 16)
    assert settings.tenants[0].hashes == (HASH,)
    assert settings.backends[1].parsed_price().per_device_s_nano == pytest.approx(
        2.5e9 / 3600 / 8 / 0.6
    )


def test_a_price_with_tiers_is_read_from_a_file_and_said_in_words() -> None:
    tier = "{ above_input_tokens = 200000, input_usd_per_mtok = 2, output_usd_per_mtok = 3.5 }"
    tokens = f"{{ input_usd_per_mtok = 1, output_usd_per_mtok = 3, tiers = [{tier}] }}"
    toml = re.sub(r"price = \{ device.*", f"price = {tokens}", GOOD)
    assert toml != GOOD
    price = parse(toml, {}).backends[1].parsed_price()
    assert [above for above, _ in price.tiers] == [200_000]
    assert in_words(price) == (
        "$1 a million input tokens + $1 a million cached input tokens + $3 a million output tokens"
        "; above 200,000 input tokens $2 a million input tokens"
        " + $2 a million cached input tokens + $3.5 a million output tokens"
    )


SHARED = """
[server]
allow_anonymous = true

[[backends]]
name = "llm"
kind = "gpu"
protocol = "openai"
url = "http://127.0.0.1:9001"
price = {{ per_request_usd = 0.1 }}

[[routes]]
name = "one"
path = "/v1/responses"
protocol = "openai"
backends = ["llm"]
{one}

[[routes]]
name = "two"
path = "/v1/responses"
protocol = "openai"
backends = ["llm"]
{two}
"""


@pytest.mark.parametrize(
    ("one", "two"), [('models = ["a"]', ""), ('models = ["a"]', 'models = ["b", "c"]')]
)
def test_routes_may_share_a_path_that_models_tell_apart(one: str, two: str) -> None:
    assert len(parse(SHARED.format(one=one, two=two), {}).routes) == 2


@pytest.mark.parametrize(("one", "two"), [("", ""), ('models = ["a"]', 'models = ["b", "a"]')])
def test_routes_of_one_path_that_nothing_tells_apart_are_refused(one: str, two: str) -> None:
    with pytest.raises(ConfigError, match="set different `models` on each"):
        parse(SHARED.format(one=one, two=two), {})


def test_only_where_the_body_names_the_model_does_it_tell_routes_apart() -> None:
    text = GOOD.replace('path = "/v2/models/digits/infer"', 'path = "/x"\nmodels = ["a"]')
    with pytest.raises(ConfigError, match="applies only to the protocols anthropic"):
        parse(text, {})


def test_a_budget_is_exact_to_the_nano_dollar() -> None:
    (budget,) = parse(GOOD, {}).budgets
    assert budget.to_budget() == Budget(
        name="acme-daily",
        scope=Scope(tenant="acme", tags=(("env", "prod"),)),
        limit_nano=10_000_000_001,
        window="day",
        timezone="Europe/Berlin",
    )
    # Sixteen digits: more than a double holds, so this fails where a float is on the way.
    largest = parse(GOOD.replace("10.000000001", "9007199.254740991"), {}).budgets[0]
    assert largest.to_budget().limit_nano == MAX_LIMIT_NANO


RULES = """
[default]
answer = 1
confidence = 0.1
[[rules]]
when = ["x > 1"]
answer = 2
confidence = 0.5
[features]
x = { path = "inputs[0].data", take = "sum" }
"""


def test_paths_begin_at_the_file(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(RULES)
    file = tmp_path / "tollway.toml"
    file.write_text(GOOD)
    settings = load(file, {})
    assert settings.backends[0].rules == tmp_path / "rules.toml"
    assert settings.ledger.url == f"sqlite:///{tmp_path}/tollway.db"
    assert settings.journal.dir == tmp_path / ".tollway/journal"
    assert settings.state.dir == tmp_path / ".tollway/state"
    absolute = parse(f'ledger.url = "sqlite:////srv/t.db"\n{GOOD}', {}, folder=tmp_path)
    assert absolute.ledger.url == "sqlite:////srv/t.db"


# Each: what to replace in GOOD, by what, and the whole of what is said about it.
REFUSED = [
    (
        "accuracy_floor = 0.97",
        "accuracy_floor = 1.2",
        "routes[0].accuracy_floor = 1.2: must be at most 1; write it like 0.97",
    ),
    (
        "accuracy_floor = 0.97",
        "",
        'routes[0].objective = "min_cost": requires accuracy_floor; write it like accuracy_floor '
        "= 0.97",
    ),
    ("10.000000001", "-1", "budgets[0].limit_usd = -1: must be at least 0; write it like 10.0"),
    (
        "10.000000001",
        "nan",
        "budgets[0].limit_usd = nan: must be a finite number; write it like 10.0",
    ),
    (
        "10.000000001",
        "inf",
        "budgets[0].limit_usd = inf: must be a finite number; write it like 10.0",
    ),
    ("10.000000001", "true", "budgets[0].limit_usd = true: must be a number, not true or false"),
    (
        "10.000000001",
        "0.0000000001",
        "budgets[0].limit_usd = 1e-10: has more than 9 decimals; the smallest amount is "
        "a nano-dollar; write it like 10.0",
    ),
    (
        "10.000000001",
        "9007199.254740992",
        "budgets[0].limit_usd = 9007199.254740992: must be below 9007199.254740992 (2^53 "
        "nano-dollars); use a shorter window or several budgets",
    ),
    (
        "Europe/Berlin",
        "europe/berln",
        'budgets[0].timezone = "europe/berln": is not an IANA time zone; did you mean '
        "'Europe/Berlin'?",
    ),
    (
        "Europe/Berlin",
        "../../etc/passwd",
        'budgets[0].timezone = "../../etc/passwd": is not an IANA time zone; write one '
        "like Europe/Berlin",
    ),
    (
        '"day"',
        '"dya"',
        'budgets[0].window = "dya": must be one of hour, day, week, month, lifetime; did you '
        "mean 'day'?",
    ),
    (
        'tenant = "acme"',
        'tenant = "acmee"',
        'budgets[0].scope.tenant = "acmee": is not a tenant, so the budget matches nothing; did '
        "you mean 'acme'?",
    ),
    (
        'tenant = "acme"',
        'route = "digit"',
        'budgets[0].scope.route = "digit": is not a route, so the budget matches nothing; did you '
        "mean 'digits'?",
    ),
    (
        '["digits-rules", "digits-gpu"]',
        "[]",
        'routes[0].backends = []: must not be empty; write it like ["digits-cpu", "digits-gpu"]',
    ),
    (
        '["digits-rules", "digits-gpu"]',
        '["digits-rulez", "digits-gpu"]',
        "routes[0].backends[0] = \"digits-rulez\": is not a backend; did you mean 'digits-rules'?",
    ),
    (
        '["digits-rules", "digits-gpu"]',
        '["digits-gpu", "digits-gpu"]',
        'routes[0].backends = ["digits-gpu", "digits-gpu"]: contains a backend twice; remove '
        "the duplicate",
    ),
    (
        'baseline = "digits-gpu"',
        'baseline = "digits-rule"',
        'routes[0].baseline = "digits-rule": is not among the route\'s backends; did you '
        "mean 'digits-rules'?",
    ),
    (
        'baseline = "digits-gpu"',
        'baseline = "digits-gpu"\nguard = "shadow"',
        'routes[0].guard = "shadow": does not apply to objective = "min_cost", which the baseline '
        "guards; remove it",
    ),
    (
        'baseline = "digits-gpu"',
        'audit = { backend = "digits-gpi" }',
        "routes[0].audit: names 'digits-gpi', which is not among the route's backends; did you "
        "mean 'digits-gpu'?",
    ),
    (
        'protocol = "oip"\nurl',
        'protocol = "plane"\nurl',
        'backends[1].protocol = "plane": must be one of anthropic, gemini, http, mlflow, oip, '
        "openai, plain, tfserving; did you mean 'plain'?",
    ),
    (
        'protocol = "oip"\nurl',
        'protocol = "plain"\nurl',
        "routes[0].backends[1] = \"digits-gpu\": has protocol 'plain', but the route has 'oip'; "
        "use the same protocol for both",
    ),
    (
        'protocol = "oip"\nurl',
        "url",
        'backends[1].protocol: is missing; write it like protocol = "oip"',
    ),
    (
        "per_request_usd",
        "per_reqest_usd",
        "backends[0].price: per_reqest_usd = 1e-05: is not a key of a price; write per_request_usd",
    ),
    (
        "{ per_request_usd = 0.00001 }",
        "{}",
        "backends[0].price: must not be empty; write it like { per_request_usd = 0.0001 }",
    ),
    (
        "per_request_usd = 0.00001",
        "per_request_usd = nan",
        "backends[0].price: per_request_usd = nan: must be finite and not negative; write"
        " a number, e.g. `per_request_usd = 0.0001`",
    ),
    (
        "per_request_usd = 0.00001",
        "per_request_usd = -1",
        "backends[0].price: per_request_usd = -1: must be finite and not negative; write "
        "a number, e.g. `per_request_usd = 0.0001`",
    ),
    (
        'rules = "rules.toml"',
        "",
        'backends[0].kind = "rules": requires exactly one of rules = "FILE.toml" '
        'and entry_point = "module:name"',
    ),
    (
        'rules = "rules.toml"',
        'rules = "r.toml"\nurl = "http://h"',
        'backends[0].url = "http://h": does not apply to rules, which run inside the gateway; '
        "remove it",
    ),
    (
        'kind = "gpu"',
        'kind = "gpu"\nrules = "r.toml"',
        'backends[1].rules = "r.toml": applies only to kind = "rules"; set that kind or remove it',
    ),
    (
        '"inputs[0].data"',
        '"inputs[x]"',
        "routes[0].context.numeric[0] = \"inputs[x]\": cannot read the path 'inputs[x]' at "
        "'[x]'; write it like data[0].name, or data[*].name for each element",
    ),
    (
        "[0, 16]",
        "[16, 0]",
        "routes[0].context.range = [16, 0]: must be [minimum, maximum]; write it like [0, 16]",
    ),
    (
        '{ exact = "outputs[0].data[0]" }',
        '{ near = "outputs" }',
        "routes[0].score.tolerance: must be set together with near; set both or neither",
    ),
    (
        '{ exact = "outputs[0].data[0]" }',
        "{}",
        'routes[0].score: needs either exact or near; write { exact = "outputs[0].data[0]" }',
    ),
    (
        'name = "acme"',
        'name = "anonymous"',
        'tenants[0].name = "anonymous": is reserved for callers without a key; write another name',
    ),
    (
        HASH,
        "sha256:123",
        "tenants[0].key_hash = (hidden): must be sha256: or hmac-sha256: and 64 hex "
        "digits, as printed by: tollway keys new",
    ),
    (
        "/v2/models/digits/infer",
        "v2",
        'routes[0].path = "v2": must begin with / and contain no space, ? or #; write it '
        "like /v2/models/{model}/infer or /v1/*",
    ),
    (
        "/v2/models/digits/infer",
        "/v2/x{y}",
        'routes[0].path = "/v2/x{y}": may have {name} only as a whole segment and * only as a '
        "final /*; write it like /v2/models/{model}/infer or /v1/*",
    ),
    (
        "/v2/models/digits/infer",
        "/*/x",
        'routes[0].path = "/*/x": may have {name} only as a whole segment and * only as a '
        "final /*; write it like /v2/models/{model}/infer or /v1/*",
    ),
    (
        "/v2/models/digits/infer",
        "/metrics",
        'routes[0].path = "/metrics": is reserved for the gateway (/metrics); choose another path',
    ),
    (
        "/v2/models/digits/infer",
        "/_tollway/x",
        'routes[0].path = "/_tollway/x": is reserved for the gateway (/_tollway); choose another '
        "path",
    ),
]


@pytest.mark.parametrize(("old", "new", "said"), REFUSED)
def test_a_mistake_is_refused_with_place_value_and_remedy(old: str, new: str, said: str) -> None:
    assert old in GOOD
    found = problems(GOOD.replace(old, new, 1))
    assert all(line.startswith("tollway.toml: ") for line in found)
    assert f"tollway.toml: {said}" in found


def test_all_problems_are_reported_at_once() -> None:
    broken = (
        GOOD.replace("0.97", "1.2").replace("10.000000001", "-1").replace('"digits-gpu"]', '"no"]')
    )
    found = problems(broken, {"TOLLWAY_SERVER__DRAIN_S": "-3", "TOLLWAY_SERVR__X": "1"})
    assert {line.split(":")[0] + ":" + line.split(":")[1].split("=")[0] for line in found} == {
        "environment: TOLLWAY_SERVER__DRAIN_S ",
        "environment: TOLLWAY_SERVR__X",
        "tollway.toml: routes[0].accuracy_floor ",
        "tollway.toml: routes[0].backends[1] ",
        "tollway.toml: budgets[0].limit_usd ",
    }


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[server\nlisten = 1", "at line 1, column 8"),
        ('[server]\nlisten = "a', "at line 2, column 12"),
        ("a = 1\na = 2", "at line 2, column 6"),
    ],
)
def test_a_mistake_in_the_toml_is_told_with_line_and_column(text: str, place: str) -> None:
    (said,) = problems(text)
    assert said.startswith("tollway.toml: is not TOML: ")
    assert place in said


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("[servre]\nlisten = 'x'", "tollway.toml: servre: unknown key; did you mean 'server'?"),
        (
            "server.admin_kye = 'canary'",
            "tollway.toml: server.admin_kye: unknown key; did you mean 'admin_key'?",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_the_one_that_was_meant(written: str, meant: str) -> None:
    found = problems(f"{written}\n{GOOD}") if "[" not in written else problems(f"{GOOD}\n{written}")
    assert found == [meant]


def test_an_empty_configuration_says_what_is_missing() -> None:
    assert problems("") == [
        "tollway.toml: backends: is missing",
        "tollway.toml: routes: is missing",
        "tollway.toml: tenants: is empty, so no client could call; add a tenant with a key from: "
        "tollway keys new, or set allow_anonymous = true in [server] for a demo",
    ]


# -- the environment


@pytest.mark.parametrize(
    ("variable", "value", "read"),
    [
        ("TOLLWAY_SERVER__LISTEN", "0.0.0.0:80", lambda s: s.server.listen),
        ("TOLLWAY_LEDGER__ON_LEDGER_FAILURE", "allow", lambda s: s.ledger.on_ledger_failure),
        ("TOLLWAY_BACKENDS__DIGITS_GPU__URL", "http://gpu:1", lambda s: s.backends[1].url),
        ("TOLLWAY_TENANTS__ACME__NAME", "123", lambda s: s.tenants[0].name),
        ("TOLLWAY_Budgets__acme_DAILY__window", "week", lambda s: s.budgets[0].window),
    ],
)
def test_a_variable_wins_over_the_file(variable: str, value: str, read: object) -> None:
    text = GOOD.replace('tenant = "acme"', 'route = "digits"')
    assert callable(read)
    assert read(parse(text, {variable: value})) == value


def test_variables_are_read_as_toml_where_the_key_takes_no_text() -> None:
    environ = {
        "TOLLWAY_BUDGETS__ACME_DAILY__LIMIT_USD": "9007199.254740991",
        "TOLLWAY_BUDGETS__ACME_DAILY__ALERT_AT": "[0.5]",
        "TOLLWAY_BUDGETS__ACME_DAILY__SCOPE__TAGS__TEAM": "ads",
        "TOLLWAY_BACKENDS__DIGITS_RULES__PRICE": "{ per_request_usd = 0.5 }",
        "TOLLWAY_ROUTES__DIGITS__CASCADE": "true",
    }
    settings = parse(GOOD, environ)
    (budget,) = settings.budgets
    assert budget.limit_nano == MAX_LIMIT_NANO
    assert budget.alert_at == (0.5,)
    assert budget.scope.tags == {"env": "prod", "team": "ads"}
    assert settings.backends[0].price == {"per_request_usd": 0.5}
    assert settings.routes[0].cascade is True


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("TOLLWAY_SERVER__LISTN", "x", "unknown variable; did you mean 'TOLLWAY_SERVER__LISTEN'?"),
        ("TOLLWAY_LISTEN", "x", "unknown variable; "),
        ("TOLLWAY_", "x", "unknown variable; "),
        ("TOLLWAY_SERVER__LISTEN__X", "x", "'listen' is a single value, not a table"),
        ("TOLLWAY_BACKENDS__GPU__URL", "x", "matches no entry of the file; did you mean "),
        ("TOLLWAY_BACKENDS__DIGITS_GPU", "x", "unknown variable; "),
        ("TOLLWAY_BACKENDS__DIGITS_GPU__ULR", "x", "'TOLLWAY_BACKENDS__DIGITS_GPU__URL'?"),
        ("TOLLWAY_SERVER__DRAIN_S", "", "is empty; unset it or give it a value"),
        ("TOLLWAY_SERVER__DRAIN_S", "soon", "; write it like 30"),
        ("TOLLWAY_SERVER__DRAIN_S", "1\nopen = true", "should be a valid integer"),
        ("TOLLWAY_SERVER", "1", "valid dictionary"),
        ("TOLLWAY_PEPER", "canary", "did you mean 'TOLLWAY_PEPPER'?"),
    ],
)
def test_a_variable_that_cannot_be_meant_is_refused_by_name(
    variable: str, value: str, said: str
) -> None:
    (found,) = problems(GOOD, {variable: value, "PATH": "/bin", "TOLLWAY_KEY": "for commands"})
    assert found.startswith(f"environment: {variable}")
    assert said in found
    assert "canary" not in found


KUBERNETES = {
    "TOLLWAY_SERVICE_HOST": "10.96.0.7",
    "TOLLWAY_SERVICE_PORT": "8080",
    "TOLLWAY_SERVICE_PORT_HTTP": "8080",
    "TOLLWAY_SERVICE_PORT_HTTP_METRICS": "9090",
    "TOLLWAY_PORT": "tcp://10.96.0.7:8080",
    "TOLLWAY_PORT_8080_TCP": "tcp://10.96.0.7:8080",
    "TOLLWAY_PORT_8080_TCP_PROTO": "tcp",
    "TOLLWAY_PORT_8080_TCP_PORT": "8080",
    "TOLLWAY_PORT_8080_TCP_ADDR": "10.96.0.7",
    "TOLLWAY_PORT_53_UDP": "udp://[fd00::7]:53",
    "TOLLWAY_PORT_53_UDP_ADDR": "fd00::7",
    "TOLLWAY_GATEWAY_SERVICE_HOST": "10.96.0.8",
    "TOLLWAY_GATEWAY_PORT": "tcp://10.96.0.8:80",
    "TOLLWAY_GATEWAY_V2_PORT_80_TCP_ADDR": "10.96.0.8",
    "TOLLWAY_SERVER_PORT": "tcp://10.96.0.9:80",  # of a service called tollway-server
}


@pytest.mark.parametrize("variable", KUBERNETES)
def test_what_kubernetes_makes_for_a_service_is_no_setting(variable: str) -> None:
    value = KUBERNETES[variable]
    assert parse(GOOD, {variable: value}) == parse(GOOD, {})
    assert variable in services.note({variable: value, "TOLLWAY_KEY": "k"})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TOLLWAY_SERVER__PORT", "tcp://10.96.0.9:80"),  # two underscores: meant as a setting
        ("TOLLWAY_SERVER__SERVICE_PORT", "8080"),
        ("TOLLWAY_SERVER__LISTN", "10.0.0.1:80"),
        ("TOLLWAY_PORT", "8080"),  # by hand: Kubernetes writes a URL
        ("TOLLWAY_SERVICE_HOST", "gateway.example"),
        ("TOLLWAY_PORT_8080", "tcp://10.96.0.7:8080"),
        ("TOLLWAY_SERVICE", "10.96.0.7"),
        ("tollway_port", "tcp://10.96.0.7:8080"),
    ],
)
def test_a_misspelt_variable_is_not_taken_for_one_of_kubernetes(variable: str, value: str) -> None:
    assert services.note({variable: value}) == ""
    if variable.startswith("TOLLWAY_"):
        assert problems(GOOD, {variable: value})


def test_settings_depend_on_the_environment_that_is_given_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOLLWAY_SERVER__LISTEN", "10.0.0.1:1")
    assert parse(GOOD, {}).server.listen == "127.0.0.1:8080"


# -- secrets

CANARY = "canary-4711-canary-4711"


@pytest.mark.parametrize(
    "environ",
    [
        {"TOLLWAY_SERVER__ADMIN_KEY": CANARY},
        {"TOLLWAY_PEPPER": CANARY},
        {"TOLLWAY_LEDGER__URL": "redis://localhost:1/0", "TOLLWAY_LEDGER__PASSWORD": CANARY},
    ],
)
def test_a_secret_is_in_no_text_of_the_settings(environ: dict[str, str]) -> None:
    settings = parse(GOOD, environ)
    shown = [str(settings), repr(settings), str(settings.effective()), settings.model_dump_json()]
    assert not [text for text in shown if CANARY in text or HASH in text]


@pytest.mark.parametrize(
    "text",
    [
        f'server.admin_key = "{CANARY[:10]}"',
        f'server.admin_key_hash = "{CANARY}"',
        f'server.admin_key = ["{CANARY}"]',
        f'ledger.password = "{CANARY}"',
        f'ledger.url = "redis://:{CANARY}@localhost"',
        f'ledger.url = "redis:{CANARY}@localhost"',
        f'ledger.url = "redis://localhost/0?password={CANARY}"',
        f'ledger.url = "rediss://localhost?timeout_ms=50&%70assword={CANARY}"',
        f'ledger.url = "unix:///run/redis.sock?PASSWORD={CANARY}"',
        f'ledger.url = "redis://localhost/0?ssl_password={CANARY}"',
        f'ledger.url = "redis://localhost/0#{CANARY}"',
        f'ledger.url = "postgres://user:{CANARY}@localhost/d?password={CANARY}"',
        f'tracing.endpoint = "http://localhost?key={CANARY}"',
        f'tracing.endpoint = "user:{CANARY}@localhost"',
        f'pepper = ["{CANARY}"]',
        f'server.{CANARY.replace("4711", "key")} = "{CANARY}"',
    ],
)
def test_a_secret_is_in_no_error(text: str) -> None:
    found = problems(f"{text}\n{GOOD}")
    assert found
    assert not [line for line in found if "4711" in line]


def test_a_key_in_place_of_its_hash_is_refused_and_not_shown() -> None:
    key = new_key()
    (found,) = problems(GOOD.replace(HASH, key))
    assert "is a key, not a hash" in found
    assert key not in found


# -- what tables must agree on


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            GOOD + '[[tenants]]\nname = "acme"\nkey_hash = "sha256:' + "1" * 64 + '"',
            'tenants[1].name = "acme": is also the name of tenants[0]; rename one of them',
        ),
        (
            GOOD + f'[[tenants]]\nname = "b"\nkey_hash = "{HASH}"',
            "tenants[1].key_hash = (hidden): is already the key of tenants[0]; "
            "use a different key for each",
        ),
        (
            GOOD + f'[[tenants]]\nname = "b"\nkey_hash = "hmac-{HASH}"',
            "tenants[1].key_hash = (hidden): was made with a pepper, but none is set; "
            "set TOLLWAY_PEPPER, or hash without it",
        ),
        (
            GOOD + '[[tenants]]\nname = "b"',
            "tenants[1].key_hash: is missing; write the hash that this prints: tollway keys new",
        ),
        (
            GOOD.replace('key_hash = "', 'routes = ["digit"]\nkey_hash = "'),
            "tenants[0].routes[0] = \"digit\": is not a route; did you mean 'digits'?",
        ),
        (
            GOOD + '[[routes]]\nname = "r"\npath = "/v2/models/digits/infer"\nprotocol = "oip"\n'
            'backends = ["digits-gpu"]',
            'routes[1].path = "/v2/models/digits/infer": matches the same requests as routes[0] '
            "(/v2/models/digits/infer); change one of them",
        ),
        (
            GOOD.replace('window = "day"', "carry_overdraft = true"),
            "budgets[0].carry_overdraft = true: requires a window other than lifetime and an "
            'enforcement other than soft; set window, and enforcement = "hard" or "expected", or '
            "remove it",
        ),
        (
            GOOD.replace('window = "day"', 'pacing = "even"'),
            'budgets[0].pacing = "even": requires a window other than lifetime, an enforcement '
            'other than soft, and a scope without a backend; set window, and enforcement = "hard" '
            'or "expected", or '
            'write "none"',
        ),
        (
            GOOD.replace('window = "day"', 'then = "rules"').replace(
                '["digits-rules", "digits-gpu"]', '["digits-gpu"]'
            ),
            'budgets[0].then = "rules": requires a backend with kind = "rules" on a route in '
            'its scope; add one, or write then = "reject"',
        ),
        (
            GOOD.replace('tenant = "acme"', 'route = "digits", backend = "digits-rules"').replace(
                '["digits-rules", "digits-gpu"]', '["digits-gpu"]'
            ),
            "budgets[0].scope: matches no calls, because no route has all of its parts; "
            "remove one of them",
        ),
        (
            GOOD.replace('protocol = "oip"\nurl', 'protocol = "oip"\nenabled = false\nurl'),
            'routes[0].baseline = "digits-gpu": is disabled, but the floor depends on it; '
            "enable it or name another backend",
        ),
        (
            'server.admin_key = "short"\n' + GOOD,
            "server.admin_key = (hidden): is shorter than 16 characters; "
            "make one with: tollway keys new",
        ),
    ],
)
def test_tables_that_disagree_are_refused(text: str, said: str) -> None:
    assert f"tollway.toml: {said}" in problems(text)


def test_an_open_gateway_needs_no_tenant_and_may_bind_a_budget_to_strangers() -> None:
    head, _, tail = GOOD.partition("[[tenants]]")
    budget = tail[tail.index("[[budgets]]") :].replace('"acme"', '"anonymous"')
    settings = parse(f"server.allow_anonymous = true\n{head}{budget}", {})
    assert settings.budgets[0].to_budget().scope.tenant == "anonymous"


@pytest.mark.parametrize(
    ("a", "b", "how"),
    [
        ("/a", "/a", "same"),
        ("/a", "/b", "apart"),
        ("/a", "/a/b", "apart"),
        ("/a/{x}", "/a/{y}", "same"),
        ("/a/{x}", "/a/b", "nested"),
        ("/a/{x}/c", "/a/b/{y}", "crossed"),
        ("/a/{x}", "/a/b/c", "apart"),
        ("/a/*", "/a/b/c", "nested"),
        ("/a/*", "/a", "apart"),
        ("/a/*", "/a/*", "same"),
        ("/a/*", "/a/b/*", "nested"),
        ("/a/*", "/{x}/b", "crossed"),
        ("/a/*", "/b/*", "apart"),
        ("/a/{x}", "/a/*", "nested"),
        ("/*", "/{x}/{y}", "nested"),
    ],
)
def test_paths_are_told_apart(a: str, b: str, how: str) -> None:
    assert compare_paths(a, b) == how
    assert compare_paths(b, a) == how


# -- addresses


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://0251.0376.0251.0376/",
        "http://[fe80::1]/",
        "http://[fe80::1%25eth0]/",
        "http://[::ffff:169.254.169.254]/",
        "http://[fd00:ec2::254]/",
        "http://metadata.google.internal./",
        "http://METADATA.google.internal/",
        "http://100.100.100.200/",
    ],
)
def test_link_local_and_metadata_addresses_are_refused_unless_they_are_meant(url: str) -> None:
    text = GOOD.replace("http://127.0.0.1:9002", url)
    assert any("link-local or metadata" in line for line in problems(text)), url
    meant = text.replace('url = "http', 'allow_link_local = true\nurl = "http')
    assert parse(meant, {}).backends[1].url == url


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:9002",
        "ftp://h",
        "file:///etc/passwd",
        "http://",
        "http://user@h",
        "http://user:canary-4711@h",
        "http://@h",
        "http://h:99999",
        "http://h:x",
        "http://[::1",
        "http://h/a?b=c",
        "http://h/a#b",
        "http://h/\\r\\nx: y",
        "http://h/ä",
        "http://h/a b",
    ],
)
def test_what_is_no_backends_address_is_refused(url: str) -> None:
    (found,) = problems(GOOD.replace("http://127.0.0.1:9002", url))
    assert found.startswith("tollway.toml: backends[1].url = ")
    assert "4711" not in found


@pytest.mark.parametrize("listen", ["unix:x", "8080", ":8080", "h:99999", "::1:80", "h:", "h:8o"])
def test_what_is_no_listener_is_refused(listen: str) -> None:
    (found,) = problems(GOOD, {"TOLLWAY_SERVER__LISTEN": listen})
    assert found.startswith(f'environment: TOLLWAY_SERVER__LISTEN = "{listen}": ')
    assert "; write it like " in found


@pytest.mark.parametrize("listen", ["[::1]:80", "localhost:80", "127.8.0.1:0", "unix:/run/t.sock"])
def test_an_open_gateway_may_listen_where_only_this_machine_is(listen: str) -> None:
    assert parse(
        f"server.allow_anonymous = true\n{GOOD}", {"TOLLWAY_SERVER__LISTEN": listen}
    ).server.allow_anonymous


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "tollway.db", "http://h", "sqlite:x"])
def test_what_is_no_ledger_is_refused(url: str) -> None:
    (found,) = problems(GOOD, {"TOLLWAY_LEDGER__URL": url})
    assert found.startswith("environment: TOLLWAY_LEDGER__URL = ")


@pytest.mark.parametrize(
    ("cors", "said"),
    [
        ('origins = ["https://app.example/"]', "https://app.example/' is no origin"),
        ('origins = ["app.example"]', "is no origin; write it like https://chat.example.com"),
        ('origins = ["https://*.example"]', "is no origin"),
        ("origins = []", "server.cors.origins"),
        (
            'origins = ["*"]\ncredentials = true',
            "credentials = true: needs the origins by name",
        ),
    ],
)
def test_origins_of_pages_are_checked(cors: str, said: str) -> None:
    (found,) = problems(f"[server.cors]\n{cors}\n{GOOD}", {})
    assert said in found


# -- files


def test_a_file_that_cannot_be_read_is_a_problem_and_no_traceback(tmp_path: Path) -> None:
    latin = tmp_path / "latin.toml"
    latin.write_bytes("# über".encode("latin-1"))
    for path, said in ((tmp_path, "cannot be read"), (latin, "is not UTF-8 at byte 2")):
        with pytest.raises(ConfigError, match=said):
            load(path, {})


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (None, "No such file or directory; write the path of a rules file"),
        ("", "is missing"),
        ("[default", "rules.toml: "),
    ],
)
def test_the_rules_that_a_configuration_names_are_read_with_it(
    rules: str | None, said: str, tmp_path: Path
) -> None:
    (tmp_path / "tollway.toml").write_text(GOOD)
    if rules is not None:
        (tmp_path / "rules.toml").write_text(rules)
    with pytest.raises(ConfigError) as refused:
        load(tmp_path / "tollway.toml", {})
    (found,) = refused.value.problems
    assert found.key == "backends[0].rules"
    assert said in str(found)


def test_an_entry_point_that_is_not_there_is_refused(tmp_path: Path) -> None:
    text = GOOD.replace('rules = "rules.toml"', 'entry_point = "no.such:function"')
    (tmp_path / "tollway.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"backends\[0\].entry_point: .*No module named 'no'"):
        load(tmp_path / "tollway.toml", {})


def test_rules_are_refused_on_a_route_whose_protocol_they_cannot_answer(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(RULES)
    (tmp_path / "tollway.toml").write_text(GOOD.replace('"oip"', '"mlflow"'))
    with pytest.raises(ConfigError, match="rules cannot answer in protocol 'mlflow'"):
        load(tmp_path / "tollway.toml", {})


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ('"lagrangain"', "policy = \"lagrangain\": must be one of .*; did you mean 'lagrangian'?"),
        ('"cascade"', 'write policy = "lagrangian" and cascade = true'),
        ('"cheapest"\npolicy_options.gama = 1', "policy_options: option 'gama' is unknown"),
        ('"fixed"', "policy_options: policy fixed needs the option arm"),
        (
            '"fixed"\npolicy_options.arm = "digits-cpu"',
            "policy_options: names 'digits-cpu', which is not among .* 'digits-gpu'?",
        ),
        ('"weighted"\npolicy_options.weights = { gpu = 1 }', "policy_options: names 'gpu'"),
    ],
)
def test_a_policy_that_cannot_be_had_is_refused(policy: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(RULES)
    (tmp_path / "tollway.toml").write_text(
        GOOD.replace("objective =", f"policy = {policy}\nobjective =")
    )
    with pytest.raises(ConfigError, match=said):
        load(tmp_path / "tollway.toml", {})


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_every_protocol_that_there_is_can_be_named(name: str) -> None:
    assert parse(GOOD.replace('"oip"', f'"{name}"'), {}).routes[0].protocol == name


def test_an_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(ConfigError, match="is larger than"):
        load(Path("/dev/zero"), {})


@pytest.mark.integration
def test_the_page_of_the_documentation_is_current() -> None:
    root = Path(__file__).parents[4]
    script = [sys.executable, str(root / "scripts" / "generate-config-docs"), "--check"]
    environ = {**os.environ, "PYTHONPATH": str(root)}
    ran = subprocess.run(script, capture_output=True, text=True, check=False, env=environ)
    assert ran.returncode == 0, ran.stdout + ran.stderr


# Real names, so that what is generated gets past the first check.
NAMES = """server ledger journal backends routes tenants budgets pepper name path scope tenant price
    listen url kind protocol limit_usd timezone tags context score key_hash alert_at then"""
KEYS = st.sampled_from(NAMES.split())
TEXTS = st.text(alphabet='a1./:{}*[]"\\\n\0é', max_size=12)
VARIABLES = st.builds(
    lambda steps: "TOLLWAY_" + "__".join(steps).upper(),
    st.lists(KEYS | st.sampled_from(["digits_gpu", "acme", ""]), min_size=1, max_size=4),
)
TOML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, TOML, max_size=6))
def test_whatever_is_written_is_read_or_refused(document: dict[str, object]) -> None:
    text = as_toml(document).replace("null", '""').replace("NaN", "nan").replace("Infinity", "inf")
    try:
        settings = parse(text, {})
    except ConfigError as refused:
        assert refused.problems
        assert str(refused)
    else:
        assert isinstance(settings, Settings)


@given(st.dictionaries(VARIABLES, TEXTS, max_size=4))
def test_whatever_is_set_is_read_or_refused(environ: dict[str, str]) -> None:
    try:
        parse(GOOD, environ)
    except ConfigError as refused:
        assert all(str(problem) for problem in refused.problems)


LLM = """
[server]
allow_anonymous = true

[[backends]]
name = "llm"
kind = "{kind}"
protocol = "openai"
url = "http://127.0.0.1:9002"
price = {{ per_request_usd = 0.00001 }}
{more}

[[routes]]
name = "chat"
path = "/v1/*"
protocol = "openai"
backends = ["llm"]
"""


def test_a_language_model_has_ten_minutes_and_others_half_a_minute() -> None:
    llm, digits = parse(LLM.format(kind="gpu", more=""), {}), parse(GOOD, {})
    assert (llm.backends[0].timeout_s, llm.routes[0].timeout_s) == (600.0, 600.0)
    assert llm.backends[0].first_byte_timeout_s is None
    assert llm.backends[0].first_event_timeout_s == 120.0
    assert llm.backends[0].event_idle_timeout_s == 60.0
    assert (digits.backends[1].timeout_s, digits.routes[0].timeout_s) == (30.0, 30.0)
    assert digits.backends[1].first_event_timeout_s is None


def test_what_is_written_wins_over_a_default_that_depends_on_another_key() -> None:
    more = "timeout_s = 5\nconcurrency = 3\nadaptive = true"
    backend = parse(LLM.format(kind="api", more=more), {}).backends[0]
    assert (backend.timeout_s, backend.concurrency, backend.adaptive) == (5.0, 3, True)


def test_a_paid_api_has_a_thousand_places_that_are_not_adapted() -> None:
    api = parse(LLM.format(kind="api", more=""), {}).backends[0]
    own = parse(LLM.format(kind="gpu", more=""), {}).backends[0]
    assert (api.concurrency, api.adaptive) == (1000, False)
    assert (own.concurrency, own.adaptive) == (64, True)


def test_defaults_that_depend_on_another_key_are_shown_by_check_config() -> None:
    settings = parse(LLM.format(kind="api", more=""), {})
    shown = as_toml(settings.effective())
    for line in ("timeout_s = 600", "first_event_timeout_s = 120", "concurrency = 1000"):
        assert line in shown
    assert parse(shown, {}) == settings


def test_a_wrong_key_is_reported_without_the_defaults_that_depend_on_it() -> None:
    with pytest.raises(ConfigError) as refused:
        parse(LLM.format(kind="apis", more=""), {})
    (problem,) = refused.value.problems
    assert problem.key == "backends[0].kind"
    assert "did you mean 'api'?" in problem.why
