"""The surcharge of a call: what it adds to the cost of replicas, beyond its price.

A call that fits into what already runs adds nothing: those replicas are paid for, busy or not. A
call that needs one more replica adds the part of it that will be idle, and a start. So a policy
that compares backends prefers what is paid for, and a backend that has to be started is offered at
its price, its start, and the wait. The surcharge is an offer's; calls are charged their price.
"""

import math

HOUR_S = 3600.0


def surcharge_usd(
    *,
    running: int,
    needed: float,
    rate_per_s: float,
    usd_per_hour: float,
    lead_s: float,
    kept_s: float,
    wait_usd_per_hour: float = 0.0,
) -> float:
    """Return by how much more a call is offered.

    `running`: the replicas that are paid for; `needed`: those that the load needs, a fraction.
    `rate_per_s`: of the calls that share what is added. A replica takes `lead_s` to start, and
    stays for `kept_s` after it was last needed. `wait_usd_per_hour`: what waiting costs a client.
    """
    whole = math.ceil(max(needed, 1e-9))
    added = whole - running
    if added <= 0:
        return 0.0
    per_s = usd_per_hour / HOUR_S
    calls = max(1.0, rate_per_s * (lead_s + kept_s))
    idle = min(1.0, whole - needed)
    # From its start to its end a replica is idle while it starts, and in part while it serves.
    extra = per_s * (added * lead_s + idle * kept_s) / calls
    waits = lead_s * wait_usd_per_hour / HOUR_S if running == 0 else 0.0
    return extra + waits
