"""Builds a policy to step through by hand."""

from tollway.policies import registry
from tollway.policies.types import Objective, Policy


def build_policy(
    name: str,
    *,
    objective: Objective | None = None,
    seed: int = 0,
    guard: str = "off",
    **options: object,
) -> Policy:
    """Return a policy as a route with this `policy` and these `policy_options` has it.

    `objective` defaults to `max_quality` without a floor; `guard` is `off`, `shadow` or `observe`.
    Call `pace` with an allowance, then `choose`, `charge` and `learn` per request, and `resolve`
    when `resolve_due` says so: see `Policy`.

    ValueError, with the allowed names, for an unknown policy or option.
    """
    return registry.build(name, objective or Objective(), options=options, seed=seed, guard=guard)
