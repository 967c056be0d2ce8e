"""What a budget pays for, as replicas, and the actuators of actions."""

from dataclasses import replace

import pytest

from tollway.gateway.budgets.model import Budget, BudgetStatus, Scope
from tollway.gateway.scaling.actuators.webhook import WebhookActuator
from tollway.gateway.scaling.advisor import ScalingPlan
from tollway.gateway.scaling.calendar import Bounds, Calendar
from tollway.gateway.scaling.recommendation import Target
from tollway.gateway.settings.scaling.action import ActionConfig
from tollway.gateway.wiring.scaling import build_actuator, paid_replicas

TARGET = Target(Bounds(0, 20), 1, 1.0, None, lead_s=60, up_s=0, down_s=0)
PLAN = ScalingPlan(TARGET, Calendar(), replica_nano_per_hour=2_000_000_000, budget="gpus")
NOW_S = 36_000
STATUS = BudgetStatus(
    Budget("gpus", Scope(), 100_000_000_000, window="day"),
    window_start_s=0,
    resets_at_s=NOW_S + 36_000,
    limit_nano=100_000_000_000,
    spent_nano=40_000_000_000,
    held_nano=0,
    free_nano=60_000_000_000,
    overdraft_nano=0,
    unaccounted_nano=0,
)


def test_the_rest_of_a_budget_pays_for_replicas_until_its_window_ends() -> None:
    assert paid_replicas({"gpu": PLAN}, [STATUS], NOW_S) == {"gpu": 3}  # $60 / (10 h x $2)


def test_a_budget_that_is_spent_pays_for_none() -> None:
    spent = replace(STATUS, spent_nano=101_000_000_000)
    assert paid_replicas({"gpu": PLAN}, [spent], NOW_S) == {"gpu": 0}


def test_without_a_budget_or_a_price_nothing_is_limited() -> None:
    plans = {"a": replace(PLAN, budget=""), "b": replace(PLAN, replica_nano_per_hour=None)}
    assert paid_replicas(plans, [STATUS], NOW_S) == {}
    assert paid_replicas({"gpu": PLAN}, [], NOW_S) == {}


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        ("whsec_MDEyMzQ1Njc4OWFiY2RlZg==", b"0123456789abcdef"),
        ("0123456789abcdef", b"0123456789abcdef"),
    ],
)
def test_a_webhook_signs_with_the_key_that_its_secret_stands_for(secret: str, key: bytes) -> None:
    action = ActionConfig.model_validate(
        {"kind": "webhook", "url": "https://scaler.example.com/x", "secret": secret}
    )
    actuator = build_actuator(action, lambda: 0.0)
    assert isinstance(actuator, WebhookActuator) and actuator._secret == key
