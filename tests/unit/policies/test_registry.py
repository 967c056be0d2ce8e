"""What the registry refuses, and that it says what is allowed."""

import pytest

from tollway.policies.registry import build
from tollway.policies.types import Objective

CASES = [
    ("lagrangan", {}, r"did you mean 'lagrangian'\? allowed: cascade"),
    ("lagrangian", {"explore_scal": 1}, r"did you mean 'explore_scale'"),
    ("lagrangian", {"head": "forest"}, r"allowed: ridge, vowpal"),
    ("lagrangian", {"head": "ridge", "bits": 20}, r"'bits' is unknown"),
    ("lagrangian", {"explore_scale": float("nan")}, r"finite"),
    ("lagrangian", {"explore_scale": True}, r"finite"),
    ("lagrangian", {"explore_scale": -1}, r"explore_scale"),
    ("lagrangian", {"p_min": 2}, r"p_min"),
    ("epsilon_greedy", {"epsilon": 2}, r"epsilon"),
    ("fixed", {}, r"arm ="),
    ("fixed", {"arms": "a"}, r"allowed: arm"),
    ("weighted", {"weights": {}}, r"weights"),
    ("weighted", {"weights": {"a": -1}}, r"negative"),
    ("weighted", {"weights": {"a": 0}}, r"above 0"),
    ("weighted", {"weights": {"a": "many"}}, r"finite"),
    ("cheapest", {"x": 1}, r"allowed: none"),
    ("cb_explore_adf", {"gamma": 1}, r"gamma_scale"),
]


@pytest.mark.parametrize(("name", "options", "says"), CASES)
def test_what_is_not_allowed_is_refused_with_what_is(
    name: str, options: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        build(name, Objective(), options=options, seed=0)


def test_saving_on_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="floor"):
        build("lagrangian", Objective(kind="min_cost"), options={}, seed=0)
