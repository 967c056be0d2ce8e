"""All backends of a route are asked one request; what their answers were worth is learned."""

import asyncio
import contextlib
import io
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.harness import Running, Upstream, run, running, serving
from tollway.gateway.cli.main import main
from tollway.policies.types import WARM_UP, Arm

pytestmark = pytest.mark.integration

CONFIG = """
[server]
allow_anonymous = true
[ledger]
url = "memory://"
[[backends]]
name = "cheap"
kind = "gpu"
protocol = "openai"
url = "{cheap}"
price = {{ input_usd_per_mtok = 1.0, output_usd_per_mtok = 2.0 }}
[[backends]]
name = "dear"
kind = "gpu"
protocol = "openai"
url = "{dear}"
price = {{ input_usd_per_mtok = 10.0, output_usd_per_mtok = 20.0 }}
[[backends]]
name = "judge"
kind = "gpu"
protocol = "openai"
url = "{dear}"
price = {{ per_request_usd = 0.01 }}
[[routes]]
name = "chat"
path = "/v1/chat/completions"
protocol = "openai"
backends = ["cheap", "dear"]
context = {{ text = ["messages[*].content"] }}
{route}
[[budgets]]
name = "all"
limit_usd = {limit}
window = "month"
enforcement = "expected"
"""
REQUEST = {"model": "m", "max_tokens": 64, "messages": [{"role": "user", "content": "2 plus 2?"}]}


def says(text: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}}
    used = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return orjson.dumps({"choices": [choice | {"finish_reason": "stop"}], "usage": used})


async def warm_up(app: Running, **document: Any) -> Any:
    return await app.client.post(app.url + "/_tollway/warmup", json={"route": "chat", **document})


def expected(app: Running) -> dict[str, float]:
    """Return what the route's policy expects of each backend for the request."""
    plan = app.gateway.routes["chat"]
    call = app.gateway.warm_ups._state(plan, "/v1/chat/completions", REQUEST, "x").inference.call
    arms = [Arm(name, 0.001) for name in plan.backends]
    choice = plan.policy.choose(plan.features(call), arms, app.gateway.driver.router.rng)
    return dict(zip(choice.arms, choice.quality_hat, strict=True))


def with_gateway(tmp_path: Path, test: Any, route: str = "", limit: float = 1.0) -> None:
    async def main() -> None:
        async with serving(Upstream(body=says("5"))) as cheap:
            async with serving(Upstream(body=says("4"))) as dear:
                toml = CONFIG.format(cheap=cheap, dear=dear, route=route, limit=limit)
                async with running(toml, tmp_path) as app:
                    await test(app)

    run(main)


def test_every_backend_answers_and_every_call_is_charged(tmp_path: Path) -> None:
    async def test(app: Running) -> None:
        reply = await warm_up(app, request=REQUEST)
        assert reply.status_code == 200, reply.text
        asked = reply.json()
        assert [(one["backend"], one["answer"]) for one in asked["replies"]] == [
            ("cheap", "5"),
            ("dear", "4"),
        ]
        assert asked["cost_nano"] == 20_000 + 200_000
        (budget,) = (await app.get("/_tollway/budgets"))["budgets"]
        assert budget["spent_nano"] == asked["cost_nano"]
        draws = app.journalled("decision")
        assert [draw["arm"] for draw in draws] == ["cheap", "dear"]
        assert {draw["reason"] for draw in draws} == {WARM_UP}
        assert all(draw["redrawn"] for draw in draws)  # no replay estimates from them
        assert len(app.journalled("attempt")) == 2

    with_gateway(tmp_path, test)


@pytest.mark.parametrize("route", ["", "cascade = true", "accuracy_floor = 0.9"])
def test_a_policy_learns_the_quality_of_every_reply(route: str, tmp_path: Path) -> None:
    async def test(app: Running) -> None:
        for _ in range(20):
            asked = (await warm_up(app, request=REQUEST)).json()
            known = {"cheap": 0.0, "dear": 1.0}
            done = await app.feedback({"decision": asked["decision"], "qualities": known})
            assert done.json()["result"] == "learned", done.text
        after = expected(app)
        assert after["cheap"] < 0.5
        assert after["dear"] > 0.8
        figures = app.gateway.routes["chat"].policy.figures()
        if route.startswith("accuracy"):  # no client got these answers
            assert figures["accuracy_estimate"] == pytest.approx(0.9, abs=0.1)

    with_gateway(tmp_path, test, route)


def test_known_qualities_are_learned_without_a_call(tmp_path: Path) -> None:
    async def test(app: Running) -> None:
        known = {"cheap": 0.0, "dear": 1.0}
        for _ in range(20):
            done = await warm_up(app, request=REQUEST, qualities=known)
            assert done.json()["result"] == "learned", done.text
        after = expected(app)
        assert after["cheap"] < 0.5
        assert after["dear"] > 0.8
        assert not app.journalled("attempt")
        row = app.journalled("decision")[0]
        context = {"dense": row["dense"], "sparse": row["sparse"]}
        done = await warm_up(app, context=context, qualities={"cheap": 1.0})
        assert done.json()["result"] == "learned", done.text

    with_gateway(tmp_path, test)


def test_a_judge_may_be_on_no_route(tmp_path: Path) -> None:
    async def test(app: Running) -> None:
        asked = (await warm_up(app, request=REQUEST, backends=["judge"])).json()
        assert asked["decision"] == ""
        assert [(one["backend"], one["cost_nano"]) for one in asked["replies"]] == [
            ("judge", 10_000_000)
        ]
        (attempt,) = app.journalled("attempt")
        assert (attempt["backend"], attempt["route"]) == ("judge", "chat")

    with_gateway(tmp_path, test)


def test_an_estimate_says_what_it_costs_and_what_is_left(tmp_path: Path) -> None:
    async def test(app: Running) -> None:
        told = (await warm_up(app, requests=[REQUEST] * 3)).json()
        assert told["free_nano"] == 1_000_000_000
        cheap, dear = told["backends"]["cheap"], told["backends"]["dear"]
        assert 0 < cheap["expected_nano"] <= cheap["ceiling_nano"]
        assert dear["expected_nano"] == 10 * cheap["expected_nano"]
        assert not app.journalled("attempt")

    with_gateway(tmp_path, test)


def test_a_budget_that_is_spent_refuses_the_call_and_nothing_is_learned(tmp_path: Path) -> None:
    async def test(app: Running) -> None:
        asked = (await warm_up(app, request=REQUEST)).json()
        assert [one["error"] for one in asked["replies"]] == ["budget all: exhausted"] * 2
        assert (asked["decision"], asked["cost_nano"]) == ("", 0)

    with_gateway(tmp_path, test, limit=0.000001)


@pytest.mark.parametrize(
    ("document", "status", "said"),
    [
        ({"route": "nothing"}, 404, "no route"),
        ({"request": {"model": 3}}, 400, "model"),
        ({"request": {**REQUEST, "stream": True}}, 400, "cannot stream"),
        ({"request": REQUEST, "backends": ["nobody"]}, 404, "no backend"),
        ({"request": REQUEST, "qualities": {"judge": 1}}, 400, "the route's backends"),
        ({"request": REQUEST, "qualities": {"cheap": 2}}, 200, "quality must be"),
        ({"requests": {}}, 400, "a list"),
        ({"requests": [REQUEST], "more": 1}, 400, "more"),
        ({"context": {"dense": ["x"]}, "qualities": {"cheap": 1}}, 400, "context must be"),
        (
            {"context": {"dense": [0.5] * 6, "sparse": []}, "qualities": {"cheap": 1}},
            *(400, "6 numbers"),
        ),
        ({"path": 3}, 400, "path must be"),
    ],
)
def test_what_is_wrong_is_said(document: Any, status: int, said: str, tmp_path: Path) -> None:
    async def test(app: Running) -> None:
        reply = await warm_up(app, **document)
        assert reply.status_code == status, reply.text
        assert said in reply.text

    with_gateway(tmp_path, test)


async def command(app: Running, *arguments: str) -> tuple[int, str]:
    """Run `tollway warmup` as a process would; return its code and what it said."""
    out, said = io.StringIO(), io.StringIO()

    def run_it() -> int:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
            return main(["warmup", "chat", *arguments, "--url", app.url, "--json"], {})

    code = await asyncio.to_thread(run_it)
    return code, out.getvalue() + said.getvalue()


def asked(folder: Path, count: int, **more: Any) -> Path:
    path = folder / "asked.jsonl"
    rows = [{"prompt": f"{n} plus 0?", **more} for n in range(count)]
    path.write_text("\n".join(orjson.dumps(row).decode() for row in rows))
    return path


def test_the_command_asks_scores_and_teaches_and_goes_on_after_a_break(tmp_path: Path) -> None:
    async def test(app: Running) -> None:
        path = asked(tmp_path, 8, answer="4")
        code, said = await command(app, "--prompts", str(path), "--rows", "5", "--yes")
        assert code == 0, said
        assert '"learned": 5' in said
        assert "5 requests to 2 backends: about $" in said
        attempts = app.journalled("attempt")
        assert f'"cost_nano": {sum(one["cost_nano"] for one in attempts)}' in said
        code, said = await command(app, "--prompts", str(path), "--yes")
        assert (code, '"learned": 3' in said, '"learned_before": 5' in said) == (0, True, True)
        assert len(app.journalled("attempt")) == 16
        feedback = app.journalled("feedback")
        assert {row["source"] for row in feedback} == {"warm-up"}
        assert feedback[0]["known"] == {"cheap": 0.0, "dear": 1.0}

    with_gateway(tmp_path, test)


def test_the_command_has_a_judge_grade_what_nothing_else_scores(tmp_path: Path) -> None:
    async def test(app: Running) -> None:
        path = asked(tmp_path, 2)
        code, said = await command(app, "--prompts", str(path), "--judge", "judge", "--yes")
        assert code == 0, said
        assert "and the judge" in said
        assert app.journalled("feedback")[0]["known"] == {"cheap": 0.4, "dear": 0.4}

    with_gateway(tmp_path, test)


def test_the_command_spends_nothing_unless_that_is_confirmed(tmp_path: Path) -> None:
    async def test(app: Running) -> None:
        code, said = await command(app, "--prompts", str(asked(tmp_path, 2, answer="4")))
        assert code == 1
        assert "Confirm with --yes" in said
        code, said = await command(app, "--prompts", str(asked(tmp_path, 2)), "--yes")
        assert code == 2
        assert "--judge BACKEND" in said
        assert not app.journalled("attempt")

    with_gateway(tmp_path, test)


def test_the_command_stops_where_the_budgets_do_not_cover_it(tmp_path: Path) -> None:
    async def test(app: Running) -> None:
        path = asked(tmp_path, 40, answer="4")
        code, said = await command(app, "--prompts", str(path), "--yes")
        assert code == 1
        assert "do not cover the expected cost" in said
        assert not app.journalled("attempt")

    with_gateway(tmp_path, test, limit=0.001)


def test_the_command_learns_a_table_and_another_journal_without_a_call(tmp_path: Path) -> None:
    async def test(app: Running) -> None:
        path = tmp_path / "table.csv"
        lines = [f"{n} plus 0?,0,1" for n in range(10)]
        path.write_text("prompt,cheap,big\n" + "\n".join(lines))
        code, said = await command(app, "--table", str(path), "--column", "dear=big")
        assert code == 0, said
        assert '"learned": 10' in said
        app.gateway.journal.flush()
        folder = str(app.gateway.settings.journal.dir)
        code, said = await command(app, "--journal", folder, "--progress", str(tmp_path / "p"))
        assert code == 0, said
        assert '"learned": 10' in said
        assert not app.journalled("attempt")
        assert expected(app)["cheap"] < 0.5

    with_gateway(tmp_path, test)
