"""Answers are kept and given again: what is kept, for whom, and what is recorded of it."""

import asyncio
import contextlib
import random
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.support.configs import two_backends
from tests.support.harness import Running, Upstream, inference, run, running, serving
from tests.support.kept_answers import Highest
from tests.support.scripted import Scripted, document
from tests.support.streams import ASK, CONFIG, END, Model, chunk, usage
from tests.support.until import until
from tollway.backends.types import Call
from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.security.keys import hash_key, new_key

pytestmark = pytest.mark.integration

CACHE = "cache = { ttl_s = 3600, stale_s = 600, early = 0, fresh_share = 0 }"
CHEAP_NANO = 100_000
QUIET = {**ASK, "stream": False, "temperature": 0}


async def metric(tollway: Running, name: str) -> float:
    text = (await tollway.client.get(tollway.url + "/metrics")).text
    found = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(name + " ")]
    return float(found[0]) if found else float("nan")


class FailsFirst(Upstream):
    """Holds its first call, and fails it."""

    def __init__(self, first: asyncio.Event) -> None:
        super().__init__()
        self.first = first

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.calls or scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        self.calls += 1
        await self.first.wait()
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"failed"})


def completion(text: str = "hi") -> bytes:
    return orjson.dumps(
        {
            "id": "c",
            "object": "chat.completion",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        }
    )


async def chat(tollway: Running, document: Any, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    path = tollway.url + "/v1/chat/completions"
    return await tollway.client.post(path, json=document, headers=named)


def test_the_same_request_is_answered_from_the_cache_at_no_cost(tmp_path: Path) -> None:
    async def main() -> None:
        cheap, dear = Upstream(), Upstream()
        async with serving(cheap) as a, serving(dear) as b:
            async with running(two_backends(a, b, route=CACHE), tmp_path) as tollway:
                first, again, other = (
                    await tollway.infer(1.0),
                    await tollway.infer(1.0),
                    await tollway.infer(2.0),
                )
                assert again.content == first.content
                assert [r.headers["x-tollway-cache"] for r in (first, again, other)] == [
                    "miss",
                    "hit",
                    "miss",
                ]
                assert again.headers["x-tollway-backend"] == "cache:cheap"
                assert again.headers["x-tollway-reason"] == "cached"
                assert float(again.headers["x-tollway-cost-usd"]) == 0.0
                assert (await tollway.get("/_tollway/spend"))["cost_nano"] == 2 * CHEAP_NANO
                rows = tollway.journalled("decision")
                saved = 'tollway_cache_saved_usd_total{route="m"}'
                assert await metric(tollway, saved) == pytest.approx(0.0001)
                hits = 'tollway_cache_lookups_total{result="hit",route="m"}'
                assert await metric(tollway, hits) == 1
        assert cheap.calls == 2
        row = rows[1]
        assert row["arm"] == "cache:cheap"
        assert row["arms"] == ["cheap", "dear", "cache:cheap"]
        assert row["propensity"] == row["pmf"][2] == 1.0
        assert row["cost_hat_usd"][2] == 0.0
        told = row["cached"]
        assert (told["backend"], told["found"], told["saved_nano"]) == ("cheap", "hit", CHEAP_NANO)
        assert "cached" not in rows[0]

    run(main)


def test_an_attempt_of_the_cache_is_journalled_and_explained_as_any_other(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream(label=7)) as a, serving(Upstream()) as b:
            async with running(two_backends(a, b, route=CACHE), tmp_path) as tollway:
                await tollway.infer(1.0)
                again = await tollway.infer(1.0)
                decision = again.headers["x-tollway-decision"]
                story = await tollway.get(f"/_tollway/decisions/{decision}")
                attempt = tollway.journalled("attempt")[-1]
        assert attempt["backend"] == "cache:cheap"
        assert (attempt["cost_nano"], attempt["provenance"]) == (0, "usage")
        assert attempt["answer"] == 7
        assert "0.0001" in orjson.dumps(story).decode()

    run(main)


def test_a_request_is_the_same_whatever_its_id_white_space_and_order(tmp_path: Path) -> None:
    async def main() -> None:
        cheap = Upstream()
        async with serving(cheap) as a, serving(Upstream()) as b:
            async with running(two_backends(a, b, route=CACHE), tmp_path) as tollway:
                path = tollway.url + "/v2/models/m/infer"
                first = await tollway.infer(1.0)
                assert first.json()["id"] == "q"
                spaced = orjson.dumps(
                    {**dict(reversed(inference(1.0).items())), "id": "other"},
                    option=orjson.OPT_INDENT_2,
                )
                headers = {"content-type": "application/json"}
                other = await tollway.client.post(path, content=spaced, headers=headers)
                nameless = {"inputs": inference(1.0)["inputs"]}
                third = await tollway.client.post(path, json=nameless)
        assert cheap.calls == 1
        assert other.headers["x-tollway-cache"] == third.headers["x-tollway-cache"] == "hit"
        assert other.json() == {**first.json(), "id": "other"}
        assert "id" not in third.json()
        assert int(other.headers["content-length"]) == len(other.content)

    run(main)


def test_tenants_do_not_get_each_others_answers_unless_the_route_shares_them(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        keys = {name: new_key() for name in ("one", "two")}
        more = "".join(
            f'\n[[tenants]]\nname = "{name}"\nkey_hash = "{hash_key(key)}"\n'
            for name, key in keys.items()
        )
        for shared, calls in (("tenant", 2), ("route", 1)):
            cheap = Upstream()
            cache = CACHE.replace("{ ", f'{{ scope = "{shared}", ')
            async with serving(cheap) as a, serving(Upstream()) as b:
                text = two_backends(a, b, route=cache, server="", more=more)
                async with running(text, tmp_path / shared) as tollway:
                    for key in keys.values():
                        reply = await tollway.infer(1.0, authorization=f"Bearer {key}")
                        assert reply.status_code == 200
            assert cheap.calls == calls

    run(main)


@pytest.mark.parametrize(
    ("field", "calls", "result"),
    [
        (("cache-control", "no-store"), 2, "bypass"),
        (("cache-control", "no-cache"), 2, "bypass"),
        (("cache-control", "max-age=0"), 2, "miss"),
        (("cache-control", "max-age=60"), 1, "hit"),
        (("x-tollway-cache", "bypass"), 2, "bypass"),
        (("x-tollway-cache", "refresh"), 2, "bypass"),
    ],
)
def test_a_client_says_whether_it_takes_a_kept_answer(
    field: tuple[str, str], calls: int, result: str, tmp_path: Path
) -> None:
    async def main() -> None:
        cheap = Upstream()
        now_s = 1_000_000.0
        async with serving(cheap) as a, serving(Upstream()) as b:
            async with running(two_backends(a, b, route=CACHE), tmp_path) as tollway:
                tollway.gateway.caching.wall = lambda: now_s
                await tollway.infer(1.0)
                now_s += 1.0
                reply = await tollway.infer(1.0, **{field[0]: field[1]})
        assert cheap.calls == calls
        assert reply.headers["x-tollway-cache"] == result

    run(main)


def test_only_if_cached_gets_504_where_there_is_none(tmp_path: Path) -> None:
    async def main() -> None:
        cheap = Upstream()
        async with serving(cheap) as a, serving(Upstream()) as b:
            async with running(two_backends(a, b, route=CACHE), tmp_path) as tollway:
                reply = await tollway.infer(1.0, cache_control="only-if-cached")
        assert (reply.status_code, cheap.calls) == (504, 0)
        assert reply.headers["x-tollway-reason"] == "not_cached"

    run(main)


def test_only_if_cached_never_makes_a_call(tmp_path: Path) -> None:
    async def main() -> None:
        cheap, dear = Upstream(), Upstream()
        cache = CACHE.replace("fresh_share = 0 }", "fresh_share = 0.5 }")
        now_s = 1_000_000.0
        async with serving(cheap) as a, serving(dear) as b:
            async with running(two_backends(a, b, route=cache), tmp_path) as tollway:
                tollway.gateway.caching.wall = lambda: now_s
                await tollway.infer(1.0)
                given = [await tollway.infer(1.0, cache_control="only-if-cached") for _ in range(9)]
                now_s += 3601.0
                given.append(await tollway.infer(1.0, cache_control="only-if-cached"))
                refused = [
                    await tollway.infer(1.0, cache_control="only-if-cached, no-cache"),
                    await tollway.infer(
                        1.0, cache_control="only-if-cached", x_tollway_cache="bypass"
                    ),
                    await tollway.client.post(
                        tollway.url + "/v2/models/m/infer",
                        json={**inference(1.0), "parameters": {"temperature": 1}},
                        headers={"cache-control": "only-if-cached"},
                    ),
                ]
                assert tollway.gateway.caching.is_quiet
        assert cheap.calls + dear.calls == 1
        found = [reply.headers["x-tollway-cache"] for reply in given]
        assert found == [*["hit"] * 9, "stale"]
        assert [reply.status_code for reply in refused] == [504] * 3

    run(main)


@pytest.mark.parametrize(
    "upstream",
    [
        Upstream(status=400, body=b'{"error": "no"}'),
        Upstream(headers=[(b"set-cookie", b"session=1")]),
        Upstream(headers=[(b"cache-control", b"private")]),
        Upstream(headers=[(b"cache-control", b"no-store")]),
        Upstream(headers=[(b"vary", b"x-other")]),
        Upstream(body=b'{"model_name": "m", "outputs": []}'),
    ],
    ids=["error", "cookie", "private", "no-store", "vary", "no answer"],
)
def test_what_may_not_be_kept_is_not(upstream: Upstream, tmp_path: Path) -> None:
    async def main() -> None:
        upstream.calls = 0
        async with serving(upstream) as a, serving(upstream) as b:
            async with running(two_backends(a, b, route=CACHE), tmp_path) as tollway:
                for _ in range(2):
                    reply = await tollway.infer(1.0)
                    assert reply.headers["x-tollway-cache"] == "miss"
                assert not len(tollway.gateway.caching.memory)
        assert upstream.calls == 2

    run(main)


def test_a_language_models_answer_is_kept_if_it_does_not_sample(tmp_path: Path) -> None:
    async def main() -> None:
        cache = CACHE.replace("{ ", "{ sampled = false, ")
        model = Upstream(body=completion())
        async with serving(model) as url:
            text = CONFIG.format(one=url, two=url, route=cache)
            async with running(text, tmp_path) as tollway:
                sampling = {**QUIET, "temperature": 0.7}
                for document in (QUIET, {**QUIET, "user": "someone"}, sampling, sampling):
                    reply = await chat(tollway, document)
                    assert reply.content == model.body
                lookups = tollway.gateway.routes["chat"].cache.counts.lookups  # type: ignore[union-attr]
        assert model.calls == 3
        assert (lookups["miss"], lookups["hit"], lookups["not_cacheable"]) == (1, 1, 2)

    run(main)


def test_a_stream_is_kept_and_given_again_as_a_stream(tmp_path: Path) -> None:
    async def main() -> None:
        model = Model(chunk("Hel"), chunk("lo", "stop"), usage(100, 50), END)
        ask = {**ASK, "temperature": 0}
        async with serving(model) as url:
            text = CONFIG.format(one=url, two=url, route=CACHE)
            async with running(text, tmp_path) as tollway:
                first, again = await chat(tollway, ask), await chat(tollway, ask)
                unstreamed = await chat(tollway, {**ask, "stream": False})
                await until(lambda: len(tollway.journalled("settlement")) >= 2)
                settled = tollway.journalled("settlement")[1]
                assert (await tollway.get("/_tollway/spend"))["cost_nano"] >= 600_000
        assert first.content == again.content == chunk("Hel") + chunk("lo", "stop") + END
        assert again.headers["content-type"] == "text/event-stream"
        assert again.headers["x-tollway-cache"] == "hit"
        assert unstreamed.headers["x-tollway-cache"] == "miss"
        assert (settled["backend"], settled["cost_nano"]) == ("cache:one", 0)
        assert settled["answer"] == "Hello"

    run(main)


def test_a_cut_stream_is_not_kept(tmp_path: Path) -> None:
    async def main() -> None:
        model = Model(chunk("Hel"), chunk("lo"), cut=True)
        ask = {**ASK, "temperature": 0}
        async with serving(model) as url:
            text = CONFIG.format(one=url, two=url, route=CACHE)
            async with running(text, tmp_path) as tollway:
                for _ in range(2):
                    with contextlib.suppress(httpx.RemoteProtocolError):
                        await chat(tollway, ask)
                await until(lambda: len(model.asked) == 2)
                await until(lambda: not len(tollway.gateway.caching.flights))
                assert not len(tollway.gateway.caching.memory)

    run(main)


def test_labels_of_hits_teach_the_cache_and_turn_the_policy_away_from_it(tmp_path: Path) -> None:
    async def main() -> None:
        cheap = Upstream(label=3)
        async with serving(cheap) as a, serving(Upstream()) as b:
            text = two_backends(a, b, policy="most_accurate", route=CACHE)
            async with running(text, tmp_path) as tollway:
                policy = tollway.gateway.routes["m"].policy
                await tollway.infer(1.0)
                hits = 0
                for _ in range(40):
                    reply = await tollway.infer(1.0)
                    hits += reply.headers["x-tollway-cache"] == "hit"
                    told = await tollway.feedback(
                        {"decision": reply.headers["x-tollway-decision"], "quality": 0.0}
                        if reply.headers["x-tollway-backend"].startswith("cache:")
                        else {"decision": reply.headers["x-tollway-decision"], "quality": 1.0}
                    )
                    assert told.json()["result"] == "learned"
                assert 5 <= hits <= 20  # about ten labels show it
                assert policy.figures()["cache_loss"] > 0.5

    run(main)


def test_a_repeated_draw_is_recorded_as_it_was_drawn_until_something_is_learned(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        cache = CACHE.replace("fresh_share = 0 }", "fresh_share = 0.2 }")
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            text = two_backends(a, b, policy="most_accurate", route=cache)
            async with running(text, tmp_path) as tollway:
                clock_s = 1000.0
                tollway.gateway.caching.clock = lambda: clock_s  # no memo grows old
                tollway.gateway.caching.rng = random.Random(3)
                replies = [await tollway.infer(1.0) for _ in range(60)]
                while replies[-1].headers["x-tollway-cache"] != "hit":
                    replies.append(await tollway.infer(1.0))
                entry = next(iter(tollway.gateway.caching.memory))
                assert entry.memo is not None
                policy = tollway.gateway.routes["m"].policy
                assert entry.memo.holds(inference_of(tollway), clock_s)
                decision = replies[-1].headers["x-tollway-decision"]
                await tollway.feedback({"decision": decision, "quality": 1.0})
                assert policy.version == 1
                assert not entry.memo.holds(inference_of(tollway), clock_s)
                rows = tollway.journalled("decision")
                attempts = tollway.journalled("attempt")
        assert len({row["id"] for row in rows}) == len(replies)
        assert [row["backend"] for row in attempts] == [row["arm"] for row in rows]
        hits = [row for row in rows[1:] if row["arm"] == "cache:dear"]
        assert 40 <= len(hits) < len(rows) - 1
        for row in rows[1:]:
            assert row["propensity"] == pytest.approx(0.8 if row in hits else 0.2)
            assert (row["reason"] == "cached") is (row in hits)

    run(main)


def test_fresh_answers_are_as_frequent_as_is_logged_while_draws_are_repeated(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        cache = CACHE.replace("fresh_share = 0 }", "fresh_share = 0.2 }")
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            text = two_backends(a, b, policy="most_accurate", route=cache)
            async with running(text, tmp_path, seed=5) as tollway:
                tollway.gateway.caching.clock = lambda: 1000.0
                tollway.gateway.caching.rng = random.Random(3)
                replies = [await tollway.infer(1.0) for _ in range(601)]
                rows = tollway.journalled("decision")[1:]
        results = [reply.headers["x-tollway-cache"] for reply in replies[1:]]
        assert set(results) == {"hit", "fresh"}
        assert 0.15 <= results.count("fresh") / 600 <= 0.25
        for row in rows:
            is_hit = row["arm"] == "cache:dear"
            assert row["propensity"] == pytest.approx(0.8 if is_hit else 0.2)

    run(main)


def inference_of(tollway: Running) -> InferenceRequest:
    """Return a request of no conditions to the route of a gateway."""
    call = Call(b"POST", b"/v2/models/m/infer", [])
    return InferenceRequest(tollway.gateway.routes["m"], "anonymous", call, 0.0, 1.0)


def test_one_request_asks_and_the_others_wait_for_its_answer(tmp_path: Path) -> None:
    async def main() -> None:
        hold = asyncio.Event()
        cheap = Upstream(hold=hold)
        async with serving(cheap) as a, serving(Upstream()) as b:
            async with running(two_backends(a, b, route=CACHE), tmp_path) as tollway:
                asking = [asyncio.create_task(tollway.infer(1.0)) for _ in range(50)]
                flights = tollway.gateway.caching.flights
                await until(lambda: flights.waiting == 49)
                hold.set()
                replies = await asyncio.gather(*asking)
                rows = tollway.journalled("attempt")
                draws = tollway.journalled("decision")
        assert cheap.calls == 1
        assert {reply.status_code for reply in replies} == {200}
        assert len({reply.content for reply in replies}) == 1
        assert sorted(reply.headers["x-tollway-cache"] for reply in replies) == [
            *["joined"] * 49,
            "miss",
        ]
        assert len({reply.headers["x-tollway-decision"] for reply in replies}) == 50
        assert sorted(row["backend"] for row in rows) == [*["cache:cheap"] * 49, "cheap"]
        assert sum(row["cost_nano"] for row in rows) == CHEAP_NANO
        joined = [row for row in draws if "cached" in row]
        assert {row["propensity"] for row in joined} == {1.0}
        assert {row["cached"]["saved_nano"] for row in joined} == {CHEAP_NANO}

    run(main)


def test_the_failure_of_the_first_does_not_fail_those_that_wait(tmp_path: Path) -> None:
    async def main() -> None:
        hold = asyncio.Event()
        cheap = FailsFirst(hold)
        route = f"{CACHE}\nfallback = false"
        async with serving(cheap) as a, serving(Upstream()) as b:
            async with running(two_backends(a, b, route=route), tmp_path) as tollway:
                leader = asyncio.create_task(tollway.infer(1.0))
                await until(lambda: cheap.calls == 1)
                followers = [asyncio.create_task(tollway.infer(1.0)) for _ in range(5)]
                await until(lambda: tollway.gateway.caching.flights.waiting == 5)
                hold.set()
                first = await leader
                replies = await asyncio.gather(*followers)
        assert first.status_code == 500
        assert [reply.status_code for reply in replies] == [200] * 5

    run(main)


def test_if_the_client_of_the_first_leaves_another_takes_its_place(tmp_path: Path) -> None:
    async def main() -> None:
        hold = asyncio.Event()
        cheap = Upstream(hold=hold)
        async with serving(cheap) as a, serving(Upstream()) as b:
            async with running(two_backends(a, b, route=CACHE), tmp_path) as tollway:
                leader = asyncio.create_task(tollway.infer(1.0))
                await until(lambda: cheap.calls == 1)
                followers = [asyncio.create_task(tollway.infer(1.0)) for _ in range(5)]
                flights = tollway.gateway.caching.flights
                await until(lambda: flights.waiting == 5)
                leader.cancel()
                hold.set()
                replies = await asyncio.gather(*followers)
        assert [reply.status_code for reply in replies] == [200] * 5
        assert cheap.calls <= 2

    run(main)


def test_at_expiry_a_herd_gets_the_old_answer_and_one_call_fetches_the_new_one(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        label = 1
        cheap = Upstream(label=lambda document: label)
        now_s = 1_000_000.0
        async with serving(cheap) as a, serving(Upstream()) as b:
            async with running(two_backends(a, b, route=CACHE), tmp_path) as tollway:
                caching = tollway.gateway.caching
                caching.wall = lambda: now_s
                await tollway.infer(1.0)
                now_s += 3601.0
                label = 2
                herd = await asyncio.gather(*[tollway.infer(1.0) for _ in range(100)])
                await until(lambda: not len(caching.flights))
                after = await tollway.infer(1.0)
                refreshes = [row for row in tollway.journalled("decision") if row.get("refresh")]
        assert cheap.calls == 2
        assert {reply.status_code for reply in herd} == {200}
        assert {reply.headers["x-tollway-cache"] for reply in herd} <= {"stale", "hit"}
        assert after.json()["outputs"][0]["data"] == [2]
        assert len(refreshes) == 1

    run(main)


def test_a_kept_answer_is_given_when_the_budget_is_spent_or_no_backend_is_up(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        cheap = Upstream()
        more = """
[[budgets]]
name = "b"
limit_usd = 0.00015
window = "month"
enforcement = "hard"
"""
        async with serving(cheap) as a, serving(Upstream()) as b:
            text = two_backends(a, b, route=CACHE, more=more)
            async with running(text, tmp_path) as tollway:
                assert (await tollway.infer(1.0)).status_code == 200
                assert (await tollway.infer(2.0)).status_code == 402
                again = await tollway.infer(1.0)
        assert again.status_code == 200
        assert again.headers["x-tollway-cache"] == "hit"

    run(main)


@pytest.mark.parametrize(("scope", "sent"), [("route", False), ("tenant", True)])
def test_where_tenants_share_answers_no_field_outside_the_key_reaches_a_backend(
    scope: str, sent: bool, tmp_path: Path
) -> None:
    async def main() -> None:
        server = Scripted(lambda asked: document({"model_name": "m", "outputs": []}))
        cache = CACHE.replace("{ ", f'{{ scope = "{scope}", headers = ["x-region"], ')
        async with serving(server) as a:
            async with running(two_backends(a, a, route=cache), tmp_path) as tollway:
                await tollway.infer(
                    1.0, x_forwarded_host="evil", x_http_method_override="PUT", x_region="eu"
                )
        got = server.asked[0].headers
        assert got["x-region"] == "eu"
        assert ("x-forwarded-host" in got, "x-http-method-override" in got) == (sent, sent)
        assert "content-type" in got

    run(main)


def test_a_fresh_answer_in_place_of_a_stale_one_is_paid_once(tmp_path: Path) -> None:
    async def main() -> None:
        cheap, dear = Upstream(), Upstream()
        now_s = 1_000_000.0
        async with serving(cheap) as a, serving(dear) as b:
            text = two_backends(a, b, policy="most_accurate", route=CACHE)
            async with running(text, tmp_path) as tollway:
                caching = tollway.gateway.caching
                caching.wall = lambda: now_s
                await tollway.infer(1.0)
                now_s += 3601.0
                policy: Any = tollway.gateway.routes["m"].policy
                policy._expected["dear"] = 0.0
                policy._share = lambda *_: 0.0  # it prefers a fresh answer
                reply = await tollway.infer(1.0)
                await until(lambda: caching.is_quiet)
        assert reply.headers["x-tollway-cache"] == "fresh"
        assert cheap.calls + dear.calls == 2

    run(main)


def test_an_early_refresh_without_a_stale_time_does_not_fail_a_request(tmp_path: Path) -> None:
    async def main() -> None:
        cheap = Upstream()
        cache = "cache = { ttl_s = 60, stale_s = 0, early = 10, fresh_share = 0 }"
        now_s = 1_000_000.0
        async with serving(cheap) as a, serving(Upstream()) as b:
            text = two_backends(a, b, route=cache + "\nfallback = false")
            async with running(text, tmp_path) as tollway:
                caching = tollway.gateway.caching
                caching.wall = lambda: now_s
                caching.rng = Highest()
                await tollway.infer(1.0)
                entry = next(iter(caching.memory))
                entry.took_s = 1.0
                now_s += 30.0
                cheap.status = 500
                reply = await tollway.infer(1.0)
                await until(lambda: caching.is_quiet)
        assert (reply.status_code, reply.headers["x-tollway-cache"]) == (200, "hit")
        assert cheap.calls == 2

    run(main)


def test_a_joined_request_keeps_its_own_floor(tmp_path: Path) -> None:
    async def main() -> None:
        hold = asyncio.Event()
        cheap, dear = Upstream(hold=hold), Upstream()
        async with serving(cheap) as a, serving(dear) as b:
            async with running(two_backends(a, b, route=CACHE), tmp_path) as tollway:
                policy: Any = tollway.gateway.routes["m"].policy
                policy._less = lambda *_: 0.5
                leader = asyncio.create_task(tollway.infer(1.0))
                await until(lambda: cheap.calls == 1)
                flights = tollway.gateway.caching.flights
                strict = asyncio.create_task(tollway.infer(1.0, x_tollway_min_accuracy="0.9"))
                await until(lambda: flights.waiting == 1)
                hold.set()
                await leader
                reply = await strict
        assert reply.headers["x-tollway-cache"] == "fresh"

    run(main)


def test_nobody_waits_for_a_stream_that_another_client_reads(tmp_path: Path) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        model = Model(chunk("Hel"), chunk("lo", "stop"), usage(100, 50), END, gate=gate)
        ask = {**ASK, "temperature": 0}
        async with serving(model) as url:
            text = CONFIG.format(one=url, two=url, route=CACHE)
            async with running(text, tmp_path) as tollway:
                slow = asyncio.create_task(chat(tollway, ask))
                await until(lambda: model.written == 1)
                other = asyncio.create_task(chat(tollway, ask))
                await until(lambda: len(model.asked) == 2)
                await until(lambda: not len(tollway.gateway.caching.flights))
                gate.set()
                replies = [await slow, await other, await chat(tollway, ask)]
        assert len({reply.content for reply in replies}) == 1
        assert replies[2].headers["x-tollway-cache"] == "hit"

    run(main)
