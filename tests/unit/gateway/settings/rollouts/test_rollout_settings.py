"""The table of a rollout, and the candidate that it adds."""

import pytest

from tests.support.configs import two_backends
from tollway.gateway import settings
from tollway.gateway.settings.errors import ConfigError
from tollway.gateway.wiring.rollouts.plans import build_plan

HEAD = '[[rollouts]]\nname = "next"\nbackend = "cheap"\n'
URL = 'candidate = { url = "http://127.0.0.1:9003" }\n'


def parse(more: str, **changes: str) -> settings.Settings:
    urls = "http://127.0.0.1:9001", "http://127.0.0.1:9002"
    return settings.parse(two_backends(*urls, more=HEAD + more, **changes), {})


def refused(more: str, **changes: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(more, **changes)
    return "; ".join(map(str, caught.value.problems))


def test_a_candidate_with_a_url_is_else_like_the_stable_backend() -> None:
    loaded = parse('candidate = { url = "http://127.0.0.1:9003", model = "v2" }')
    old, new = loaded.backends[0], loaded.backends[2]
    assert (new.name, new.url, new.model) == ("next", "http://127.0.0.1:9003", "v2")
    assert (new.price, new.protocol, new.timeout_s) == (old.price, old.protocol, old.timeout_s)
    assert loaded.routes[0].backends == ("cheap", "dear", "next")


def test_steps_speak_argos_vocabulary() -> None:
    steps = """steps = [
      { setWeight = 10 }, { pause = { duration = "10m" } },
      { setWeight = 20, pause = "1h", analysis = false }, { pause = {} }, { setWeight = 100 }]"""
    loaded = parse(URL + steps)
    plan = build_plan(loaded.rollouts[0], loaded)
    assert [(s.weight, s.pause_s, s.analysis) for s in plan.steps] == [
        (0.1, 600.0, True),
        (0.2, 3600.0, False),
        (0.2, None, True),
        (1.0, 0.0, True),
    ]


def test_presets_set_the_durations() -> None:
    for preset, least, most in (("staging", 600, 86_400), ("production", 86_400, 604_800)):
        loaded = parse(f'{URL}preset = "{preset}"')
        plan = build_plan(loaded.rollouts[0], loaded)
        assert (plan.min_s, plan.max_s) == (least, most)


def test_a_registry_that_names_no_version_yet_adds_nothing() -> None:
    model = """candidate = { registry = "digits" }
    [registry]
    kind = "folder"
    [[models]]
    name = "digits"
    backend = "cheap"
    url = "http://127.0.0.1:{port}"
    ports = [9100, 9109]
    """
    loaded = parse(model)
    assert len(loaded.backends) == 2
    text = two_backends(
        "http://127.0.0.1:9001",
        "http://127.0.0.1:9002",
        more=HEAD + model,
    )
    versions = {"next": {"url": "http://127.0.0.1:9007", "model": "digits:3"}}
    named = settings.parse(text, {}, versions=versions)
    assert (named.backends[2].name, named.backends[2].model) == ("next", "digits:3")


def test_another_candidate_is_another_rollout() -> None:
    one, two = parse(URL), parse('candidate = { url = "http://127.0.0.1:9004" }')
    identities = {build_plan(each.rollouts[0], each).identity for each in (one, two)}
    assert len(identities) == 2


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ('candidate = { backend = "dear" }', "is among the backends of route 'm'; remove it"),
        ('candidate = { backend = "chep" }', "is not a backend; did you mean 'cheap'?"),
        ('candidate = { backend = "cheap" }', "is the stable backend itself; name another"),
        ("candidate = {}", "needs one of url, backend and registry"),
        (URL + 'steps = [{ pause = "1h" }]', "must begin with setWeight"),
        (URL + 'steps = [{ setWeight = 10, pause = "1x" }]', "must be a duration with its unit"),
        (URL + "steps = [{ setWeight = 101 }]", "must be at most 100"),
        (URL + 'min_duration = "2d"\nmax_duration = "1d"', "is longer than the maximum"),
        (URL + 'smoke = [{ path = "/" }]', 'applies only to strategy = "blue_green"'),
        (URL + "mirror = { share = 0.5 }", 'applies only to strategy = "shadow"'),
        (URL + 'sticky = "cookie"', "must match"),
        (
            URL + 'strategy = "blue_green"\ncriteria = [{ metric = "cost" }]',
            "needs a limit and no margin",
        ),
        (URL + 'criteria = [{ metric = "cost" }, { metric = "cost" }]', "have a metric twice"),
        (
            URL + 'criteria = [{ metric = "cost", tolerance = 0.2, margin = 0.1 }]',
            "must be greater than tolerance",
        ),
        (URL + 'routes = ["x"]', "is on none of the rollout's routes"),
        (
            URL + HEAD.replace("next", "other") + URL,
            "has a rollout on this route already, rollouts[0]",
        ),
    ],
)
def test_what_is_wrong_is_said(more: str, why: str) -> None:
    assert why in refused(more)


OTHER = HEAD.replace("next", "other").replace("cheap", "dear") + URL
STICKY = 'sticky = "tenant"\n'


@pytest.mark.parametrize("more", [URL + STICKY + OTHER, URL + OTHER + STICKY])
def test_a_sticky_rollout_needs_a_route_of_its_own(more: str) -> None:
    why = "is on route 'm', which has another rollout, rollouts[0]; sticky needs a route of its own"
    assert why in refused(more)


def test_rollouts_that_draw_each_request_may_share_a_route() -> None:
    assert len(parse(URL + OTHER).rollouts) == 2


def test_the_name_of_a_candidate_must_be_free() -> None:
    text = two_backends("http://127.0.0.1:9001", "http://127.0.0.1:9002", more=HEAD + URL)
    with pytest.raises(ConfigError, match="is also the name of a backend"):
        settings.parse(text.replace('name = "next"', 'name = "dear"'), {})
