"""How `check-config` and the start report backends without bounds under hard budgets."""

import pytest

from tests.support.configs import PRICE, budget, capped_model, one_model
from tollway.gateway import settings as config
from tollway.gateway.settings import hard_bounds

URL = "http://127.0.0.1:9"
DEVICE = "{ device_usd_per_hour = 2.5 }"
BOTH = "context_tokens = 1000\nmax_output_tokens = 10"


@pytest.mark.parametrize(
    ("backend", "options", "keys"),
    [
        ("", {}, ["context_tokens"]),
        ("context_tokens = 1000", {}, []),
        ("", {"enforcement": "expected"}, []),
        ("", {"enforcement": "soft"}, []),
        ("", {"price": DEVICE}, []),  # the time limit bounds it
        ("", {"price": "{ per_request_usd = 0.1 }"}, []),
        ("", {"price": "{ input_usd_per_mtok = 0, output_usd_per_mtok = 1 }"}, []),
        ("", {"protocol": "plain"}, ["context_tokens", "max_output_tokens"]),
        ("", {"protocol": "plain", "price": DEVICE}, []),
        ("max_output_tokens = 10", {"protocol": "plain"}, ["context_tokens"]),
        (BOTH, {"protocol": "plain", "price": PRICE}, []),
    ],
)
def test_each_backend_without_a_bound_is_named_with_the_keys_to_set(
    backend: str, options: dict[str, str], keys: list[str]
) -> None:
    notes = hard_bounds.notes(config.parse(capped_model(URL, 1.0, backend, **options), {}))
    assert [note.rpartition("set ")[2] for note in notes] == keys
    assert all("[[backends]] \"llm\": under the hard budget 'b'" in note for note in notes)


def test_a_budget_that_binds_another_route_says_nothing() -> None:
    limit = budget("b", "1.0", {"route": "other"}, 'enforcement = "hard"')
    text = one_model(URL, more=limit)
    text += '[[routes]]\nname = "other"\npath = "/other"\nprotocol = "oip"\nbackends = ["free"]\n'
    text += 'policy = "cheapest"\n[[backends]]\nname = "free"\nkind = "cpu"\nprotocol = "oip"\n'
    text += f'url = "{URL}"\nprice = {{ free = true }}\n'
    assert hard_bounds.notes(config.parse(text, {})) == []
