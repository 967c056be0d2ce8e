"""How spent budgets and pacing change choices, where that is recorded, what counts as demand."""

import asyncio
from pathlib import Path

import pytest

from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, run, running, serving
from tollway.gateway.learning.multipliers import resolve
from tollway.gateway.security.keys import hash_key

KEY = "tw_0123456789abcdef"

pytestmark = pytest.mark.integration


def three_backends(cheap: str, dear: str, more: str, policy: str = "most_accurate") -> str:
    """Return a route whose most accurate backend is `dear`, then `middle`, then `cheap`."""
    middle = f"""
[[backends]]
name = "middle"
kind = "cpu"
protocol = "oip"
url = "{cheap}"
price = {{ per_request_usd = 0.0005 }}
declared_accuracy = 0.9
"""
    whole = two_backends(cheap, dear, policy=policy, more=middle + more)
    return whole.replace('["cheap", "dear"]', '["cheap", "middle", "dear"]')


@pytest.mark.parametrize(
    ("on_exhausted", "status", "backend"),
    [("", 200, "cheap"), ('on_exhausted = "reject"', 402, None)],
)
def test_once_a_budget_is_spent_the_cheapest_unaffected_backend_answers_unless_it_rejects(
    tmp_path: Path, on_exhausted: str, status: int, backend: str | None
) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            few = budget("few", "0.001", {"backend": "dear"}, on_exhausted)
            async with running(three_backends(a, b, few), tmp_path) as tollway:
                first = await tollway.infer()
                assert first.headers["x-tollway-backend"] == "dear"
                second = await tollway.infer()
                assert second.status_code == status
                assert second.headers.get("x-tollway-backend") == backend
                told = await tollway.get(
                    f"/_tollway/decisions/{second.headers['x-tollway-decision']}"
                )
                assert told["stages"][0]["refused_by"] == "few"
                assert told["stages"][0]["refused_for"] == "exhausted"
                said = "Budget few refused dear: not enough of it is left."
                assert said in told["story"]
                metrics = (await tollway.client.get(tollway.url + "/metrics")).text
                changed = 'tollway_choices_changed_total{by="budget",route="m"}'
                assert f"{changed} {float(status == 200)}" in metrics

    run(main)


def test_a_choice_changed_by_pacing_is_recorded(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            day = budget("day", "1.0", more='window = "day"\npacing = "even"')
            text = three_backends(a, b, day, policy="lagrangian")
            async with running(text, tmp_path) as tollway:
                pacing = tollway.gateway.pacing
                pacing.pace()
                for _ in range(20):
                    await tollway.infer()
                await asyncio.sleep(0.05)
                pacing.pace()
                resolve(tollway.gateway.routes, tollway.gateway.events)
                assert tollway.gateway.routes["m"].paced_by == {"": "day"}
                assert pacing.to_come["day"] > 1
                reply = await tollway.infer()
                told = await tollway.get(
                    f"/_tollway/decisions/{reply.headers['x-tollway-decision']}"
                )
                [stage] = told["stages"]
                assert stage["paced_by"] == ["day"]
                assert stage["unpaced"] == "dear"
                said = "Without the pacing of day, the best arm would be dear."
                assert said in told["story"]
                metrics = (await tollway.client.get(tollway.url + "/metrics")).text
                [line] = [
                    line
                    for line in metrics.splitlines()
                    if line.startswith('tollway_choices_changed_total{by="pace"')
                ]
                assert float(line.split()[-1]) >= 1

    run(main)


def test_only_routed_requests_are_demand(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            tenants = f"""
[[tenants]]
name = "one"
key_hash = "{hash_key(KEY)}"
"""
            few = budget("few", "0.0002")
            text = two_backends(a, b, more=tenants + few, server="")
            async with running(text, tmp_path) as tollway:
                routed = tollway.gateway.pacing._arrivals.of
                path, known = tollway.url + "/v2/models/m/infer", f"Bearer {KEY}"
                for headers, body, status in (
                    ({"authorization": known}, b"{", 400),
                    ({"authorization": "Bearer nobody"}, b"{}", 401),
                ):
                    refused = await tollway.client.post(path, content=body, headers=headers)
                    assert refused.status_code == status
                assert routed("m") == 0
                for count in (1, 1):
                    again = await tollway.infer(idempotency_key="one", authorization=known)
                    assert again.status_code == 200
                    assert routed("m") == count
                assert (await tollway.infer(authorization=known)).status_code == 200
                spent = await tollway.infer(
                    authorization=known
                )  # wanted, and not to be paid: it is demand
                assert spent.status_code == 402
                assert routed("m") == 3

    run(main)
