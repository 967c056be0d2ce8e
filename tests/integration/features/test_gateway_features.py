"""Whole gateways whose routes join features from outside."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.configs import two_backends
from tests.support.harness import Running, Upstream, inference, run, running, serving
from tests.support.reloading import File
from tests.support.until import until
from tollway.gateway.listener.http_protocol import limited_protocol
from tollway.gateway.listener.request_head import HeadLimits
from tollway.gateway.routing.router import Router
from tollway.gateway.routing.sinks.records import contexts

pytestmark = pytest.mark.integration

FEATURES = """
[[features]]
name = "user"
entity = "$headers.x-user-id"
source = "sqlite:///features.db"
values = [
  { name = "spend" },
  { name = "tier", type = "category", default = "free" },
]
version = "v1"
purpose = "routing"
header = "x-user-features"
body = "parameters.user"
"""


async def gateway_with(folder: Path, test: Any, more: str = FEATURES, **route: str) -> None:
    upstream = Upstream()
    async with serving(upstream) as url:
        joined = 'features = ["user"]\nfeatures_ms = 5000' + route.get("route", "")
        toml = two_backends(url, url, route=joined, more=more, policy="lagrangian")
        async with running(toml, folder) as gateway:
            await test(gateway, upstream)


async def put(gateway: Running, user: str, **values: Any) -> Any:
    path = f"{gateway.url}/_tollway/features/user/{user}"
    return await gateway.client.put(path, json={"values": values})


def test_what_was_served_is_what_the_journal_has_and_what_is_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(gateway: Running, upstream: Upstream) -> None:
        assert (await put(gateway, "ann", spend=12.5, tier="gold")).status_code == 200
        seen = []
        begin = Router.begin

        def noted(router: Router, request: Any) -> Any:
            state = begin(router, request)
            seen.append(state.context)
            return state

        monkeypatch.setattr(Router, "begin", noted)
        for user in ["ann", "bob", "ann"]:
            assert (await gateway.infer(x_user_id=user)).status_code == 200
        assert (await gateway.infer()).status_code == 200
        rows = gateway.journalled("decision")
        parts = [row["features"]["user"] for row in rows]
        assert [part["mark"] for part in parts] == ["fresh", "absent", "fresh", "no_entity"]
        assert parts[0]["values"] == {"spend": 12.5, "tier": "gold"}
        assert parts[1]["values"] == {"spend": None, "tier": "free"}
        assert (parts[0]["version"], parts[0]["purpose"]) == ("v1", "routing")
        assert "ann" not in json.dumps(rows)
        replayed = [decision.context for row in rows for decision in contexts([row])]
        assert [(one.dense, one.sparse) for one in replayed] == [
            (one.dense, one.sparse) for one in seen
        ]
        assert replayed[0].sparse == replayed[2].sparse != replayed[1].sparse

    run(lambda: gateway_with(tmp_path, test))


def test_an_explanation_has_the_features(tmp_path: Path) -> None:
    async def test(gateway: Running, upstream: Upstream) -> None:
        await put(gateway, "ann", spend=12.5, tier="gold")
        reply = await gateway.infer(x_user_id="ann")
        decision = reply.headers["x-tollway-decision"]
        document = await gateway.get(f"/_tollway/decisions/{decision}")
        assert document["features"]["user"]["values"] == {"spend": 12.5, "tier": "gold"}
        assert document["story"][0].startswith("Features of user, version v1, fresh")
        assert document["story"][0].endswith("spend 12.5, tier gold.")

    run(lambda: gateway_with(tmp_path, test))


def test_backends_get_the_values_in_body_and_header(tmp_path: Path) -> None:
    async def test(gateway: Running, upstream: Upstream) -> None:
        await put(gateway, "ann", spend=12.5, tier="gold")
        forged = {"x_user_id": "ann", "x_user_features": "forged"}
        assert (await gateway.infer(**forged)).status_code == 200
        _, _, headers, body = upstream.requests[-1]
        values = {"spend": 12.5, "tier": "gold"}
        assert json.loads(headers[b"x-user-features"]) == values
        assert json.loads(body) == {**inference(), "parameters": {"user": values}}

    run(lambda: gateway_with(tmp_path, test))


def test_an_entity_is_erased_from_tiers_and_journal_with_proof(tmp_path: Path) -> None:
    async def test(gateway: Running, upstream: Upstream) -> None:
        for user in ("ann", "bob"):
            await put(gateway, user, spend=1.0)
            for _ in range(3):
                await gateway.infer(x_user_id=user)
        path = f"{gateway.url}/_tollway/features/user/ann"
        proof = (await gateway.client.delete(path)).json()
        assert proof["tiers"] == {"source": 1, "memory": 1}
        assert (proof["journal"]["rows_erased"], proof["remaining"]) == (3, 0)
        assert len(proof["journal"]["digest"]) == 64
        marks = [row["features"]["user"]["mark"] for row in gateway.journalled("decision")]
        assert marks == ["erased"] * 3 + ["fresh"] * 3
        await gateway.infer(x_user_id="ann")
        assert gateway.journalled("decision")[-1]["features"]["user"]["mark"] == "absent"
        acts = (await gateway.get("/_tollway/audit"))["acts"]
        assert [act["act"] for act in acts][:2] == ["erased features", "erase features"]
        assert "ann" not in json.dumps(acts)

    run(lambda: gateway_with(tmp_path, test))


def test_values_of_other_types_and_unknown_groups_are_refused(tmp_path: Path) -> None:
    async def test(gateway: Running, upstream: Upstream) -> None:
        assert (await put(gateway, "ann", spend="much")).status_code == 422
        assert (await put(gateway, "ann", other=1)).status_code == 422
        missing = await gateway.client.get(f"{gateway.url}/_tollway/features/nobody/ann")
        assert missing.status_code == 404
        assert (await gateway.get("/_tollway/features"))["features"][0]["name"] == "user"
        metrics = (await gateway.client.get(f"{gateway.url}/metrics")).text
        assert 'tollway_feature_source_state{feature="user",state="closed"} 1.0' in metrics

    run(lambda: gateway_with(tmp_path, test))


def test_a_gateway_that_starts_again_has_the_entities_seen_most_in_memory(tmp_path: Path) -> None:
    async def first(gateway: Running, upstream: Upstream) -> None:
        await put(gateway, "ann", spend=12.5)
        await gateway.infer(x_user_id="ann")

    async def second(gateway: Running, upstream: Upstream) -> None:
        lookup = gateway.gateway.features.lookups["user"]
        assert list(lookup.warmed) == [lookup.digest("ann")]
        await gateway.infer(x_user_id="ann")
        assert lookup.counts.queries == 0
        assert gateway.journalled("decision")[-1]["features"]["user"]["values"]["spend"] == 12.5

    run(lambda: gateway_with(tmp_path, first))
    run(lambda: gateway_with(tmp_path, second))


def test_a_reload_keeps_what_memory_has_and_applies_new_times(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as url:
            joined = 'features = ["user"]\nfeatures_ms = 5000'
            toml = two_backends(url, url, route=joined, more=FEATURES, policy="lagrangian")
            async with running(toml, tmp_path) as gateway:
                await put(gateway, "ann", spend=12.5)
                file = File(gateway, tmp_path)
                before = gateway.gateway.features.lookups["user"]
                changed = (await file.reload(f"{toml}\nttl_s = 7\n")).json()["changed"]
                assert changed == ["features user changed"]
                kept = gateway.gateway.features.lookups["user"]
                assert kept is before
                assert (kept.group.ttl_s, len(kept.memory)) == (7.0, 1)
                await file.reload(toml.replace('"v1"', '"v2"'))
                new = gateway.gateway.features.lookups["user"]
                assert new is not before
                assert (await gateway.infer(x_user_id="ann")).status_code == 200
                part = gateway.journalled("decision")[-1]["features"]["user"]
                assert (part["version"], part["values"]["spend"]) == ("v2", 12.5)

    run(main)


def test_a_client_that_leaves_while_features_are_looked_up_harms_nothing(tmp_path: Path) -> None:
    """The gateway has its own listener here, which stops the request of a client that leaves."""

    async def main() -> None:
        upstream = Upstream()
        async with serving(upstream) as url:
            joined = 'features = ["user"]\nfeatures_ms = 60000\ntimeout_s = 60'
            toml = two_backends(url, url, route=joined, more=f"{FEATURES}\ntimeout_s = 60\n")
            async with running(toml, tmp_path, http=limited_protocol(HeadLimits())) as gateway:
                await test(gateway, upstream)

    async def test(gateway: Running, upstream: Upstream) -> None:
        lookup = gateway.gateway.features.lookups["user"]
        asked, go_on = asyncio.Event(), asyncio.Event()

        class Slow:
            by_digest, is_writable = True, False

            async def fetch(self, keys: Any, deadline_s: float) -> Any:
                asked.set()
                await go_on.wait()
                return {}

            def gauges(self) -> Any:
                return {}

            async def aclose(self) -> None:
                pass

        lookup.source = Slow()  # type: ignore[assignment]
        leaving = asyncio.create_task(gateway.infer(x_user_id="cat"))
        await asked.wait()
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        in_flight = gateway.gateway.in_flight
        await until(lambda: not in_flight.count)
        assert upstream.calls == 0  # nobody is asked for a client that has left
        go_on.set()
        assert (await gateway.infer(x_user_id="cat")).status_code == 200
        assert (lookup.in_flight, upstream.calls) == (0, 1)

    run(main)


CANDIDATE = """
[features.candidate]
version = "v2"
share = 0.5
source = "sqlite:///next.db"
"""


def test_a_next_version_is_tried_journalled_and_promoted_without_a_failed_request(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with serving(Upstream()) as url:
            joined = 'features = ["user"]\nfeatures_ms = 5000'
            toml = two_backends(url, url, route=joined, more=FEATURES, policy="lagrangian")
            async with running(toml + CANDIDATE, tmp_path) as gateway:
                users = [f"u{number}" for number in range(40)]
                for user in users:
                    await put(gateway, user, spend=1.0)
                    await gateway.gateway.features.put("user@v2", user, {"spend": 2.0})
                assert await statuses(gateway, users) == {200}
                parts = [row["features"]["user"] for row in gateway.journalled("decision")]
                found = {(part["version"], part["values"]["spend"]) for part in parts}
                assert found == {("v1", 1.0), ("v2", 2.0)}
                shown = (await gateway.get("/_tollway/features"))["features"]
                assert {one["name"] for one in shown} == {"user", "user@v2"}
                promoted = toml.replace('"v1"', '"v2"').replace("features.db", "next.db")
                await File(gateway, tmp_path).reload(promoted)
                assert await statuses(gateway, users) == {200}
                parts = [row["features"]["user"] for row in gateway.journalled("decision")[40:]]
                assert {(part["version"], part["values"]["spend"]) for part in parts} == {
                    ("v2", 2.0)
                }

    run(main)


async def statuses(gateway: Running, users: list[str]) -> set[int]:
    return {(await gateway.infer(x_user_id=user)).status_code for user in users}
