"""Builds policies by name with named options; an error lists what is allowed."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from tollway.policies import baselines
from tollway.policies.cascade import Cascade
from tollway.policies.exploration import Exploration, Uniform
from tollway.policies.feature_sets import FeatureSets, WithoutEmbedding
from tollway.policies.floor import Floor
from tollway.policies.guard import Guard
from tollway.policies.lagrangian import Lagrangian
from tollway.policies.pacing.pacer import Pacer
from tollway.policies.quality import Quality
from tollway.policies.regressors.ridge import RidgeRegressor
from tollway.policies.regressors.types import Regressor
from tollway.policies.types import Objective, Policy

HEADS: dict[str, dict[str, float]] = {
    "vowpal": {"bits": 18, "learning_rate": 0.5, "power_t": 0.5, "l2": 0.0},
    "ridge": {"prior": 8.0, "forget": 0.999, "folds": 64},
}
"""The options of each regressor, with their defaults."""

QUALITY: dict[str, float] = {"default_quality": 0.8}
EXPLORE: dict[str, float] = {
    "explore_scale": 0.5,
    "explore_share": 0.05,
    "p_min": 0.0,
    "short_list": 16,
}
PACE: dict[str, float] = {"horizon": 200.0, "credit": 20.0, "window": 400, "every": 25}
FLOOR: dict[str, float] = {"margin": 0.001, "slack": 0.02, "floor_alpha": 0.05}

Options = Mapping[str, object]
Build = Callable[[Objective, Options, int], Policy]


def build(
    name: str,
    objective: Objective,
    *,
    options: Options,
    seed: int,
    guard: str = "off",
    embedded: bool = False,
) -> Policy:
    """Return a policy; ValueError, naming what is allowed, for unknown names and bad options.

    guard: `off`, or how the policy is kept in the shadow of a fixed arm: `shadow`, `observe`.
    embedded: contexts end with an embedding, which the policy may use or not (`feature_sets`).
    """
    if name not in POLICIES:
        raise ValueError(f"policy {name!r} is unknown; {_hint(name, POLICIES)}")
    if embedded and (name != "lagrangian" or options.get("head", "ridge") != "ridge"):
        raise ValueError("only policy lagrangian with head ridge can choose to use an embedding")
    made = _feature_sets if embedded else POLICIES[name]
    policy = made(objective, options, seed)
    if guard == "off":
        return policy
    return Guard(policy, baseline=objective.baseline, observe=guard == "observe")


def _lagrangian(objective: Objective, options: Options, seed: int) -> Policy:
    return _learned(Lagrangian, objective, options, seed, EXPLORE)


def _cascade(objective: Objective, options: Options, seed: int) -> Policy:
    return _learned(Cascade, objective, options, seed, EXPLORE)


def _feature_sets(objective: Objective, options: Options, seed: int) -> Policy:
    return _learned(FeatureSets, objective, options, seed, EXPLORE)


def _epsilon_greedy(objective: Objective, options: Options, seed: int) -> Policy:
    return _learned(Lagrangian, objective, options, seed, {"epsilon": 0.05})


def _learned(
    kind: type[Lagrangian],
    objective: Objective,
    options: Options,
    seed: int,
    explore: dict[str, float],
) -> Policy:
    name = options.get("head", "ridge")
    if not isinstance(name, str) or name not in HEADS:
        raise ValueError(f"option head = {name!r}: {_hint(str(name), HEADS)}")
    allowed = {**HEADS[name], **QUALITY, **explore, **PACE, **FLOOR}
    numbers = _numbers({key: value for key, value in options.items() if key != "head"}, allowed)
    floor = None
    if objective.floor is not None:
        floor = Floor(
            objective.floor,
            margin=numbers["margin"],
            slack=numbers["slack"],
            alpha=numbers["floor_alpha"],
        )
    head, more = _head(name, numbers, seed), {}
    if kind is FeatureSets:
        mine = {key: numbers[key] for key in HEADS["ridge"]}
        more["embedded"] = Quality(head, default=numbers["default_quality"])
        head = WithoutEmbedding(**{**mine, "folds": int(mine["folds"])})  # type: ignore[arg-type]
    return kind(
        objective,
        Quality(head, default=numbers["default_quality"]),
        explore=_exploration(numbers),
        pacer=Pacer(horizon=numbers["horizon"], credit=numbers["credit"]),
        floor=floor,
        window=int(numbers["window"]),
        every=int(numbers["every"]),
        **more,
    )


def _head(name: str, numbers: dict[str, float], seed: int) -> Regressor:
    mine: dict[str, Any] = {key: numbers[key] for key in HEADS[name]}
    if name == "vowpal":
        from tollway.policies.regressors.vowpal import VowpalRegressor  # noqa: PLC0415 - 8 MB

        return VowpalRegressor(**mine, seed=seed)
    return RidgeRegressor(**{**mine, "folds": int(mine["folds"])})


def _exploration(numbers: dict[str, float]) -> Exploration | Uniform:
    if "epsilon" in numbers:
        return Uniform(numbers["epsilon"])
    return Exploration(
        scale=numbers["explore_scale"],
        share=numbers["explore_share"],
        p_min=numbers["p_min"],
        short_list=int(numbers["short_list"]),
    )


def _fixed(objective: Objective, options: Options, seed: int) -> Policy:
    arm = _only(options, "arm")
    if not isinstance(arm, str):
        raise ValueError('policy fixed needs the option arm, such as arm = "gpu"')
    return baselines.Fixed(baselines.named(arm))


def _weighted(objective: Objective, options: Options, seed: int) -> Policy:
    weights = _only(options, "weights")
    if not isinstance(weights, Mapping):
        raise ValueError(
            "policy weighted needs the option weights, such as weights = { cpu = 90, gpu = 10 }"
        )
    return baselines.Weighted({str(arm): _number("weights", w) for arm, w in weights.items()})


def _cheapest(objective: Objective, options: Options, seed: int) -> Policy:
    _numbers(options, {})
    return baselines.Fixed(baselines.cheapest)


def _most_accurate(objective: Objective, options: Options, seed: int) -> Policy:
    _numbers(options, {})
    return baselines.MostAccurate()


def _folded(objective: Objective, options: Options, seed: int) -> Policy:
    from tollway.policies.vw_cb_adf import VwCbAdf  # noqa: PLC0415 - 8 MB

    return VwCbAdf(**_numbers(options, {"gamma_scale": 100.0}), seed=seed)


POLICIES: dict[str, Build] = {
    "lagrangian": _lagrangian,
    "cascade": _cascade,
    "fixed": _fixed,
    "weighted": _weighted,
    "cheapest": _cheapest,
    "most_accurate": _most_accurate,
    "epsilon_greedy": _epsilon_greedy,
    "cb_explore_adf": _folded,
}


def _only(options: Options, key: str) -> object:
    unknown = [name for name in options if name != key]
    if unknown:
        raise ValueError(f"option {unknown[0]!r} is unknown; allowed: {key}")
    return options.get(key)


def _numbers(options: Options, allowed: dict[str, float]) -> dict[str, float]:
    """Return the allowed options, overridden by the given values."""
    for key in options:
        if key not in allowed:
            raise ValueError(f"option {key!r} is unknown; {_hint(key, allowed)}")
    return {**allowed, **{key: _number(key, value) for key, value in options.items()}}


def _number(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e18:
        raise ValueError(f"option {key} = {value!r}: must be a finite number")
    return float(value)


def _hint(name: str, allowed: Mapping[str, object]) -> str:
    near = get_close_matches(name, allowed, n=1)
    names = ", ".join(sorted(allowed)) or "none"
    return f"did you mean {near[0]!r}? allowed: {names}" if near else f"allowed: {names}"
