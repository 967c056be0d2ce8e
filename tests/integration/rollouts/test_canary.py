"""A canary on a real gateway: requests and labels move it forward, or send it back."""

from pathlib import Path

import pytest

from tests.support.configs import two_backends
from tests.support.harness import Upstream, run, running, serving
from tests.support.rollouts import act, rollout, serve, status

pytestmark = pytest.mark.integration


def test_a_candidate_that_is_as_good_is_promoted_step_by_step(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            toml = two_backends(a, a, more=rollout(b, "steps = [{ setWeight = 50 }]"))
            async with running(toml, tmp_path) as tollway:
                assert (await status(tollway))["weight"] == 0.5
                answered = await serve(tollway, 20)
                assert 2 < answered.count("next") < 18
                waiting = (await status(tollway))["waiting"]
                assert any("observations" in why for why in waiting)
                await serve(tollway, 180)
                found = await status(tollway)
                assert (found["phase"], found["weight"]) == ("promoted", 1.0)
                assert set(await serve(tollway, 20)) == {"next"}
                moves = (await tollway.get("/_tollway/rollouts/next/history"))["history"]
                assert [move["kind"] for move in moves] == ["promoted", "started"]

    run(main)


def test_a_candidate_that_fails_is_rolled_back_and_gets_no_more_requests(tmp_path: Path) -> None:
    async def main() -> None:
        bad = Upstream(label=lambda document: 1, status=200)
        async with serving(Upstream()) as a, serving(bad) as b:
            toml = two_backends(a, a, more=rollout(b, "steps = [{ setWeight = 50 }]"))
            async with running(toml, tmp_path) as tollway:
                await serve(tollway, 10)
                bad.label = 2  # wrong from now on
                await serve(tollway, 60)
                found = await status(tollway)
                assert (found["phase"], found["weight"]) == ("rolled_back", 0.0)
                assert found["why"].startswith("quality is worse than tolerated")
                calls = bad.calls
                assert set(await serve(tollway, 20)) == {"cheap"}
                assert bad.calls == calls
                events = (await tollway.get("/_tollway/events"))["events"]
                assert "rollout_rolled_back" in [event["kind"] for event in events]

    run(main)


def test_the_propensities_of_both_versions_are_journalled(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            toml = two_backends(a, a, more=rollout(b, "steps = [{ setWeight = 30 }]"))
            async with running(toml, tmp_path) as tollway:
                await serve(tollway, 20)
                for row in tollway.journalled("decision"):
                    assert dict(zip(row["arms"], row["pmf"], strict=True)) == pytest.approx(
                        {"cheap": 0.7, "dear": 0.0, "next": 0.3}
                    )

    run(main)


def test_a_sticky_client_sees_one_version_and_stays_when_the_weight_rises(tmp_path: Path) -> None:
    async def main() -> None:
        more = 'sticky = "header:x-user"\nsteps = [{ setWeight = 30, pause = {} }]'
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            toml = two_backends(a, a, more=rollout(b, more))
            async with running(toml, tmp_path) as tollway:
                await status(tollway)
                first = {}
                for user in range(40):
                    seen = set(await serve(tollway, 3, **{"x-user": f"u{user}"}))
                    assert len(seen) == 1
                    first[user] = seen.pop()
                assert 0 < list(first.values()).count("next") < 40
                for user, version in first.items():
                    if version == "next":
                        assert await serve(tollway, 1, **{"x-user": f"u{user}"}) == ["next"]

    run(main)


def test_operators_pause_resume_promote_and_abort(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            toml = two_backends(a, a, more=rollout(b, start="manual"))
            async with running(toml, tmp_path) as tollway:
                assert (await status(tollway))["phase"] == "idle"
                assert set(await serve(tollway, 5)) == {"cheap"}
                assert (await act(tollway, "pause")).status_code == 409
                started = await act(tollway, "start")
                assert started.json()["phase"] == "progressing"
                assert (await act(tollway, "pause")).json()["phase"] == "paused"
                assert (await act(tollway, "resume")).json()["phase"] == "progressing"
                assert (await act(tollway, "promote")).json()["weight"] == 1.0
                assert set(await serve(tollway, 5)) == {"next"}
                assert (await act(tollway, "abort")).json()["phase"] == "aborted"
                assert set(await serve(tollway, 5)) == {"cheap"}
                acts = (await tollway.get("/_tollway/audit"))["acts"]
                assert [one["act"] for one in acts] == [
                    "rollout aborted",
                    "rollout promoted",
                    "rollout resumed",
                    "rollout paused",
                    "rollout started",
                ]
                assert {one["who"] for one in acts} == {"kim"}

    run(main)
