"""Blue-green on a real gateway, and rollouts across reloads."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.configs import budget, two_backends
from tests.support.harness import Running, Upstream, inference, run, running, serving
from tests.support.reloading import File
from tests.support.rollouts import act, rollout, serve, status
from tests.support.until import until

pytestmark = pytest.mark.integration


async def at_step(tollway: Running, step: int) -> Any:
    """Return the rollout once it has come to a step; smoke requests may take a while."""
    found = await status(tollway)
    return found if found["step"] == step else None


async def ended(tollway: Running) -> Any:
    found = await status(tollway)
    return found if found["phase"] != "progressing" else None


LIMITS = '[{ metric = "error_rate", limit = 0.2 }]'
BLUE_GREEN = 'strategy = "blue_green"\nmin_samples = 5\nsmoke = [{ path = "/ready" }]\n'


def test_green_gets_everything_once_its_smoke_requests_are_answered(tmp_path: Path) -> None:
    async def main() -> None:
        green = Upstream()
        async with serving(Upstream()) as a, serving(green) as b:
            toml = two_backends(a, a, more=rollout(b, BLUE_GREEN, LIMITS, start="manual"))
            async with running(toml, tmp_path) as tollway:
                assert set(await serve(tollway, 5)) == {"cheap"}
                await act(tollway, "start")
                found = await until(lambda: at_step(tollway, 1))
                assert [path for _, path, _, _ in green.requests] == [b"/ready"]
                assert (found["phase"], found["weight"], found["step"]) == ("progressing", 1.0, 1)
                assert set(await serve(tollway, 8)) == {"next"}
                assert (await status(tollway))["phase"] == "promoted"
                assert (await act(tollway, "abort")).json()["weight"] == 0.0
                assert set(await serve(tollway, 5)) == {"cheap"}

    run(main)


def test_green_gets_nothing_if_a_smoke_request_fails(tmp_path: Path) -> None:
    async def main() -> None:
        green = Upstream(status=503)
        async with serving(Upstream()) as a, serving(green) as b:
            toml = two_backends(a, a, more=rollout(b, BLUE_GREEN, LIMITS))
            async with running(toml, tmp_path) as tollway:
                found = await until(lambda: ended(tollway))
                assert (found["phase"], found["weight"]) == ("rolled_back", 0.0)
                assert found["why"] == "smoke request failed: /ready: status 503"
                assert set(await serve(tollway, 5)) == {"cheap"}
                assert green.calls == 1

    run(main)


@pytest.mark.parametrize(("limit_usd", "why"), [("1.0", ""), ("0.00001", "budget cap")])
def test_smoke_requests_with_a_body_are_reserved_and_charged(
    tmp_path: Path, limit_usd: str, why: str
) -> None:
    async def main() -> None:
        green = Upstream()
        smoke = f"smoke = [{{ path = \"/ready\" }}, {{ body = '{json.dumps(inference())}' }}]"
        more = f'strategy = "blue_green"\nmin_samples = 5\n{smoke}'
        async with serving(Upstream()) as a, serving(green) as b:
            toml = two_backends(a, a, more=rollout(b, more, LIMITS, start="manual"))
            toml += budget("cap", limit_usd, more='window = "month"')
            async with running(toml, tmp_path) as tollway:
                await act(tollway, "start")
                if why:
                    found = await until(lambda: ended(tollway))
                    assert found["phase"] == "rolled_back"
                    assert why in found["why"]
                else:
                    await until(lambda: at_step(tollway, 1))
                rows = tollway.journalled("attempt")
                spent = [(row["backend"], row["cost_nano"]) for row in rows]
                assert spent == ([] if why else [("next", 100_000)])
                by = (await tollway.get("/_tollway/spend"))["by"]
                assert sum(row["cost_nano"] for row in by) == (0 if why else 100_000)
                assert len(green.requests) == (1 if why else 2)

    run(main)


def test_a_reload_keeps_a_rollout_and_removing_it_ends_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b, serving(Upstream()) as c:
            steps = "steps = [{ setWeight = 50, pause = {} }]"
            toml = two_backends(a, a, more=rollout(b, steps))
            async with running(toml, tmp_path) as tollway:
                await serve(tollway, 30)
                before = await status(tollway)
                file = File(tollway, tmp_path)
                reloaded = await file.reload(toml + "\n# no change\n")
                assert reloaded.status_code == 200, reloaded.text
                same = await status(tollway)
                assert (same["run"], same["weight"]) == (before["run"], 0.5)
                seen = same["measures"]["error_rate"]["candidate_count"]
                assert seen == before["measures"]["error_rate"]["candidate_count"] > 0
                assert set(await serve(tollway, 20)) == {"cheap", "next"}

                other = two_backends(a, a, more=rollout(c, steps, start="manual"))
                assert (await file.reload(other)).status_code == 200
                assert (await status(tollway))["phase"] == "idle"  # another candidate
                assert set(await serve(tollway, 8)) == {"cheap"}

                assert (await file.reload(two_backends(a, a))).status_code == 200
                gone = await tollway.client.get(f"{tollway.url}/_tollway/rollouts/next")
                assert gone.status_code == 404
                assert set(await serve(tollway, 8)) == {"cheap"}

                assert (await file.reload(toml)).status_code == 200
                assert (await status(tollway))["run"] == before["run"]  # where it was

    run(main)


def test_a_gateway_that_starts_again_goes_on_where_it_was(tmp_path: Path) -> None:
    async def main() -> None:
        steps = "steps = [{ setWeight = 50, pause = {} }]"
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            ledger = f"sqlite:///{tmp_path}/ledger.db"
            toml = two_backends(a, a, more=rollout(b, steps), ledger=ledger)
            async with running(toml, tmp_path) as tollway:
                await serve(tollway, 20)
                before = await status(tollway)
            async with running(toml, tmp_path) as tollway:
                after = await status(tollway)
                assert (after["run"], after["weight"]) == (before["run"], 0.5)
                counts = [
                    one["measures"]["error_rate"]["candidate_count"] for one in (before, after)
                ]
                assert counts[0] == counts[1] > 0
                assert set(await serve(tollway, 20)) == {"cheap", "next"}

    run(main)
