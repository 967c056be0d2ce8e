"""The tables of signals, and the notes on judges."""

from pathlib import Path

import pytest

from tests.support.chat_servers import chat_backend, chat_route
from tollway.gateway.settings import ConfigError, parse
from tollway.gateway.settings.signals import notes

URL = "http://127.0.0.1:9"


def configured(signals: str, backends: str = "") -> str:
    """Return a configuration with signals."""
    toml = chat_route(["one"], f"signals = [{signals}]")
    return toml + chat_backend("one", URL) + backends


@pytest.mark.parametrize(
    ("signal", "why"),
    [
        ('{ kind = "regex" }', "pattern"),
        ('{ kind = "regex", pattern = "(" }', "not a regular expression"),
        ('{ kind = "length", length = [5, 1] }', "smaller number first"),
        ('{ kind = "length", length = [1, 5], url = "http://x/" }', "applies only to"),
        ('{ kind = "schema", sensitivity = 0.5, specificity = 0.5 }', "says nothing"),
        ('{ kind = "judge", backend = "nobody" }', "is not a backend"),
        ('{ kind = "judge" }', "is required"),
        ('{ kind = "reference", backend = "two" }', "not among the route's backends"),
        ('{ kind = "users" }, { kind = "users" }', "two signals with one name"),
        ('{ kind = "guess" }', "kind"),
        ('{ kind = "schema", schema_file = "a.json", json_schema = {} }', "contradicts"),
    ],
)
def test_a_wrong_signal_is_refused_with_a_remedy(signal: str, why: str) -> None:
    with pytest.raises(ConfigError, match="signals") as refused:
        parse(configured(signal), {})
    assert why in str(refused.value)


def test_a_signal_is_named_by_its_kind_unless_it_has_a_name() -> None:
    first, second = 'kind = "length", length = [1, 5]', 'kind = "length", length = [1, 9]'
    settings = parse(configured(f'{{ {first} }}, {{ {second}, name = "long" }}'), {})
    assert [signal.name for signal in settings.routes[0].signals] == ["length", "long"]


def test_a_judge_with_an_arms_own_model_is_noted() -> None:
    judge = '{ kind = "judge", backend = "judge" }'
    other = parse(configured(judge, chat_backend("judge", URL)), {})
    own = chat_backend("judge", "http://127.0.0.1:8").replace("judge-model", "one-model")
    same = parse(configured(judge, own), {})
    assert notes.notes(other) == []
    (note,) = notes.notes(same)
    assert "judge its own answers" in note


def test_signals_of_language_models_need_a_route_of_one(tmp_path: Path) -> None:
    toml = configured('{ kind = "users" }').replace('protocol = "openai"', 'protocol = "plain"')
    with pytest.raises(ConfigError, match="need a route of a language model"):
        parse(toml, {})
