"""The settings of scaling, their errors, and the plans that are built from them."""

import pytest

from tollway.gateway import settings as config
from tollway.gateway.scaling.calendar import Bounds, Entry
from tollway.gateway.settings.errors import ConfigError
from tollway.gateway.wiring.scaling import known_events, scaling_plans

TEXT = """
[server]
allow_anonymous = true
[ledger]
url = "memory://"
[[backends]]
name = "gpu"
kind = "gpu"
protocol = "oip"
url = "http://127.0.0.1:9"
price = {{ per_request_usd = 0.001 }}
[[routes]]
name = "r"
path = "/x"
protocol = "oip"
backends = ["gpu"]
[[scaling]]
name = "{name}"
calls_per_replica = 4
{more}
"""


def parse(more: str = "max = 8", name: str = "gpu") -> config.Settings:
    return config.parse(TEXT.format(more=more, name=name), {})


def test_a_plan_has_the_bounds_the_schedule_and_the_events() -> None:
    more = """
max = 8
timezone = "Europe/Berlin"
[[scaling.schedule]]
days = ["sat", "sun"]
start = "20:00"
end = "07:30"
min = 0
[[scaling.events]]
name = "sale"
start = 2026-11-27T00:00:00+01:00
end = 2026-11-27T01:00:00+01:00
factor = 4
"""
    plan = scaling_plans(parse(more))["gpu"]
    assert plan.target.usual == Bounds(1, 8)
    assert plan.calendar.schedule == (Entry(frozenset({5, 6}), 1200, 450, 0, None),)
    (event,) = plan.calendar.events
    assert (event.end_s - event.start_s, event.factor) == (3600.0, 4.0)


def test_a_maximum_can_be_overridden_from_the_environment() -> None:
    text = TEXT.format(more="max = 8", name="gpu")
    settings = config.parse(text, {"TOLLWAY_SCALING__GPU__MAX": "3"})
    assert settings.scaling[0].max == 3


EVENT = 'max = 8\n[[scaling.events]]\nname = "sale"\nfactor = {}\nstart = {}\nend = {}'


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("", "max: is missing"),
        ("max = 0", "must be at least 1"),
        ("min = 9\nmax = 8", r"min = 9: is greater than max"),
        ("max = 8\nschedule = [{}]", "max are both missing"),
        ("max = 8\nschedule = [{ min = 3, max = 2 }]", "is greater than max"),
        ("max = 8\nschedule = [{ min = 9 }]", "has a min above its max of 8"),
        ('max = 8\nschedule = [{ start = "8:00", min = 1 }]', "must be a time of day"),
        ('max = 8\nschedule = [{ start = "24:00", min = 1 }]', "must be a time of day"),
        ("max = 8\nschedule = [{ days = [], min = 1 }]", "days"),
        (EVENT.format(2, "2026-11-27T00:00:00Z", "2026-11-26T00:00:00Z"), "is not after start"),
        (EVENT.format(2, "2026-11-27T00:00:00", "2026-11-28T00:00:00Z"), "start"),
        (EVENT.format(1, "2026-11-27T00:00:00Z", "2026-11-28T00:00:00Z"), "factor"),
    ],
)
def test_what_is_wrong_is_named(more: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(more)


def test_a_name_that_is_no_backend_is_reported() -> None:
    with pytest.raises(ConfigError, match="is not a backend; did you mean 'gpu'"):
        parse(name="gpv")


def test_a_backend_is_scaled_by_one_entry() -> None:
    again = 'max = 8\n[[scaling]]\nname = "gpu"\nmax = 3\ncalls_per_replica = 1'
    with pytest.raises(ConfigError, match="is also the name of"):
        parse(again)


ACTION = """
max = 8
[scaling.action]
kind = "command"
command = ["scale", "{backend}", "{replicas}"]
"""
WHOLE = """
kind = "backend"
min = 1
max = 8
target_utilization = 0.7
target_wait_s = 0.1
lead_s = 60
scale_up_after_s = 30
scale_down_after_s = 300
headroom = 0.2
growth = 0.05
peak = 1.0
replica_usd_per_hour = 2.5
timezone = "UTC"
budget = "gpus"
start_wait_s = 5
start_queue = 10
wait_usd_per_hour = 1.5
[scaling.action]
kind = "command"
command = ["scale", "{backend}"]
env = ["KUBECONFIG"]
timeout_s = 5
min_interval_s = 1
max_changes_per_hour = 5
dry_run = true
[[scaling.schedule]]
days = ["sat"]
start = "20:00"
end = "07:00"
min = 1
max = 2
[[scaling.events]]
name = "sale"
start = 2026-11-27T00:00:00+01:00
end = 2026-11-28T00:00:00+01:00
factor = 4
[[budgets]]
name = "gpus"
limit_usd = 10
window = "day"
[[events]]
name = "sale-of-all"
start = 2026-11-28T00:00:00+01:00
end = 2026-11-29T00:00:00+01:00
factor = 3.5
routes = ["r"]
"""
WEBHOOK = """
max = 8
[scaling.action]
kind = "webhook"
url = "https://scaler.example.com/x"
secret = "0123456789abcdef"
"""
SHAPES = ("{}", "[]", "7", '""', '"\\u0000"', "nan", "1e400", "9" * 400, "true", "[[1]]", "-1")


def test_the_whole_table_is_accepted() -> None:
    plan = scaling_plans(parse(WHOLE))["gpu"]
    assert plan.replica_nano_per_hour == 2_500_000_000 and plan.budget == "gpus"


@pytest.mark.parametrize(
    ("text", "line"),
    [(text, line) for text in (WHOLE, WEBHOOK) for line in text.splitlines() if " = " in line],
)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_value_of_any_shape_is_accepted_or_refused_in_words(
    text: str, line: str, shape: str
) -> None:
    key = line.split(" = ", 1)[0]
    try:
        found = parse(text.replace(line, f"{key} = {shape}", 1))
        scaling_plans(found)
        known_events(found)
    except ConfigError as exc:
        assert str(exc)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ('max = 8\n[scaling.action]\nkind = "command"', "command: is missing"),
        ('max = 8\n[scaling.action]\nkind = "webhook"', "url: is missing"),
        (ACTION + 'url = "https://x.example"', "does not apply to kind"),
        (ACTION.replace('"scale"', '"a\\u0000b"'), "zero byte"),
        (ACTION + 'env = ["A=B"]', "not the name of a variable"),
        (WEBHOOK.replace("0123456789abcdef", "short"), "must have at least 16 characters"),
        (WEBHOOK.replace("0123456789abcdef", "whsec_0123456789!"), "not base64"),
        (WEBHOOK.replace("//scaler", "//user:pw@scaler"), "user or password"),
        (WEBHOOK.replace("/x", "/a b"), "percent-encode"),
        ('max = 8\nbudget = "gpus"\nreplica_usd_per_hour = 1', "is not a budget"),
        ('max = 8\nbudget = "gpus"', "requires replica_usd_per_hour"),
        (
            'max = 8\nbudget = "b"\nreplica_usd_per_hour = 1\n'
            '[[budgets]]\nname = "b"\nlimit_usd = 1',
            "set its window",
        ),
        ('max = 8\nkind = "gateway"', "is a backend; write another name"),
    ],
)
def test_an_action_and_a_budget_are_checked(more: str, says: str) -> None:
    with pytest.raises(ConfigError) as problem:
        parse(more)
    assert says in str(problem.value).replace("\n", " ")


def test_a_floor_keeps_its_baseline() -> None:
    text = TEXT.format(name="gpu", more="max = 8").replace(
        'backends = ["gpu"]',
        'backends = ["gpu"]\nobjective = "min_cost"\naccuracy_floor = 0.9\nbaseline = "gpu"',
    )
    assert scaling_plans(config.parse(text, {}))["gpu"].floor_routes == ("r",)


def test_events_of_routes_reach_their_backends_and_the_pacing() -> None:
    event = (
        '[[events]]\nname = "sale"\nstart = 2026-11-27T00:00:00Z\nend = 2026-11-28T00:00:00Z\n'
        "factor = 3\n"
    )
    found = parse(f"max = 8\n{event}")
    (known,) = known_events(found)["r"]
    assert known.factor == 3.0 and known.end_s - known.start_s == 86_400.0
    assert list(scaling_plans(found)["gpu"].calendar.events) == [known]
    with pytest.raises(ConfigError, match="is not a route"):
        parse(f'max = 8\n{event}routes = ["x"]\n')
