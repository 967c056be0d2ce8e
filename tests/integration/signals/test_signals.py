"""Signals through the whole gateway: scored off the path, recorded, explained and learned from."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.chat_servers import ChatServer, asking, chat_backend, chat_route
from tests.support.harness import Running, run, running, serving
from tollway.backends.pricing import parse_price
from tollway.gateway.security import keys

pytestmark = pytest.mark.integration

URL = "/v1/chat/completions"
SCHEMA = '{ type = "object", required = ["answer"] }'


async def asked(tollway: Running, request: Any, **headers: str) -> dict[str, Any]:
    """Ask, wait until the answer is scored, and return the decision's explanation."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    reply = await tollway.client.post(tollway.url + URL, json=request, headers=named)
    assert reply.status_code == 200, reply.text
    await tollway.gateway.signals.runner.settled()
    explained: dict[str, Any] = await tollway.get(
        f"/_tollway/decisions/{reply.headers['x-tollway-decision']}"
    )
    return explained


def test_local_hooks_score_an_answer_that_is_journalled_explained_and_counted(
    tmp_path: Path,
) -> None:
    signals = rf"""
signals = [
  {{ kind = "schema", json_schema = {SCHEMA}, timeout_s = 60 }},
  {{ kind = "regex", pattern = "\\d", timeout_s = 60 }},
  {{ kind = "length", length = [1, 5] }},
  {{ kind = "field", field = "metadata.expected", at = "choices[0].message.content" }},
]"""

    async def main() -> None:
        server = ChatServer(lambda prompt: '{"answer": 7}')
        async with serving(server) as url:
            toml = chat_route(["one"], signals) + chat_backend("one", url)
            async with running(toml, tmp_path) as tollway:
                told = await asked(tollway, asking("?", metadata={"expected": '{"answer": 7}'}))
                (row,) = tollway.journalled("signal")
                metrics = (await tollway.client.get(tollway.url + "/metrics")).text
                feedback = tollway.journalled("feedback")
                quality = tollway.gateway.routes["chat"].policy

        scores = {"schema": 1.0, "regex": 1.0, "length": 0.0, "field": 1.0}
        assert row["scores"] == {"one": scores}
        assert (row["by"], row["source"]) == ("gateway", "signals")
        assert told["signals"][0]["scores"] == {"one": scores}
        assert any("Signals scored one's reply" in sentence for sentence in told["story"])
        assert 'tollway_signals_total{route="chat",signal="schema"} 1.0' in metrics
        assert 'tollway_signal_score_total{route="chat",signal="length"} 0.0' in metrics
        assert 'tollway_signal_trust_ratio{route="chat",signal="schema"}' in metrics
        assert feedback == []  # a signal is no label
        assert quality.version == 1  # and is learned from

    run(main)


def test_a_catastrophic_expression_is_cut_off_and_the_loop_goes_on(tmp_path: Path) -> None:
    signals = 'signals = [{ kind = "regex", pattern = "^(a+)+$", timeout_s = 0.2 }]'

    async def main() -> None:
        server = ChatServer(lambda prompt: "a" * 60 + "!")
        async with serving(server) as url:
            toml = chat_route(["one"], signals) + chat_backend("one", url)
            async with running(toml, tmp_path) as tollway:
                told = await asked(tollway, asking("?"))
                metrics = (await tollway.client.get(tollway.url + "/metrics")).text
        assert "signals" not in told
        assert 'tollway_signal_failures_total{route="chat",signal="regex"} 1.0' in metrics

    run(main)


def test_an_operators_program_and_service_score_answers(tmp_path: Path) -> None:
    program = tmp_path / "score.py"
    program.write_text(
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    told = json.loads(line)\n"
        "    score = 0.25 if told['answer'] == 'yes' else None\n"
        "    print(json.dumps({'id': told['id'], 'score': score}), flush=True)\n"
    )

    async def service(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b'{"score": 0.75}'})

    async def main() -> None:
        server = ChatServer(lambda prompt: "yes")
        async with serving(server) as url, serving(service) as scorer:
            signals = f"""
signals = [
  {{ kind = "command", command = ["{sys.executable}", "{program}"], timeout_s = 60 }},
  {{ kind = "service", url = "{scorer}/score", timeout_s = 60 }},
]"""
            toml = chat_route(["one"], signals) + chat_backend("one", url)
            async with running(toml, tmp_path) as tollway:
                told = await asked(tollway, asking("?"))
        assert told["signals"][0]["scores"]["one"] == {"command": 0.25, "service": 0.75}

    run(main)


def test_a_judge_is_paid_within_its_share_and_its_spend_is_visible(tmp_path: Path) -> None:
    signals = """
signals = [{ kind = "judge", backend = "judge", share = 1.0, budget_share = 1.0 }]"""
    budgets = """
[[budgets]]
name = "all"
limit_usd = 1.0
"""

    async def main() -> None:
        server, judge = ChatServer(lambda prompt: "42"), ChatServer(lambda prompt: "7")
        async with serving(server) as url, serving(judge) as judging:
            toml = chat_route(["one"], signals) + chat_backend("one", url) + budgets
            toml += chat_backend("judge", judging)
            async with running(toml, tmp_path) as tollway:
                told: dict[str, Any] = {}
                for _ in range(60):
                    told = await asked(tollway, asking("?"))
                    if "signals" in told:
                        break
                status = tollway.gateway.reservations.status()[0]
                metrics = (await tollway.client.get(tollway.url + "/metrics")).text
        assert told["signals"][0]["scores"] == {"one": {"judge": 0.7}}
        call = told["attempts"][-1]
        assert (call["backend"], call["signal"]) == ("judge", "judge")
        assert call["cost_nano"] > 0
        assert call["reserved_nano"]["all"] > 0
        assert any("For signal judge" in sentence for sentence in told["story"])
        assert status.spent_nano == (len(server.prompts) + len(judge.prompts)) * call["cost_nano"]
        assert "tollway_audit_cost_usd_total" in metrics
        assert '"answer":"42"' in judge.prompts[0]

    run(main)


def test_a_pair_judge_is_asked_in_both_orders(tmp_path: Path) -> None:
    signals = """
policy = "cheapest"
signals = [
  { kind = "judge", backend = "judge", share = 1.0, budget_share = 1.0, compare_to = "dear" },
]"""

    async def main() -> None:
        cheap, dear = ChatServer(lambda prompt: "bad"), ChatServer(lambda prompt: "good")
        judge = ChatServer(lambda prompt: "1")  # it prefers the first place, whatever stands there
        async with serving(cheap) as a, serving(dear) as b, serving(judge) as c:
            toml = chat_route(["cheap", "dear"], signals)
            toml += chat_backend("cheap", a) + chat_backend("judge", c)
            higher = "{ input_usd_per_mtok = 2.0, output_usd_per_mtok = 20.0 }"
            toml += chat_backend("dear", b, price=higher)
            async with running(toml, tmp_path) as tollway:
                told: dict[str, Any] = {}
                for _ in range(200):
                    told = await asked(tollway, asking("?"))
                    if "signals" in told:
                        break
        assert told["signals"][0]["scores"] == {"cheap": {"judge": 0.5}}
        asked_for = [call["backend"] for call in told["attempts"]]
        assert asked_for == ["cheap", "dear", "judge", "judge"]

    run(main)


def test_what_users_do_next_scores_the_answer_before(tmp_path: Path) -> None:
    signals = 'signals = [{ kind = "users" }]'

    async def main() -> None:
        server = ChatServer(lambda prompt: "hello")
        async with serving(server) as url:
            toml = chat_route(["one"], signals) + chat_backend("one", url)
            async with running(toml, tmp_path) as tollway:
                first = await asked(tollway, asking("hi"))
                again = await asked(tollway, asking("hi"))
                good = asking("hi", "hello", "and?")
                await asked(tollway, good, x_tollway_feedback="good")
                rows = tollway.journalled("signal")
                bad = await tollway.client.post(
                    tollway.url + URL, json=good, headers={"x-tollway-feedback": "fine"}
                )
        assert [(row["id"], row["scores"]) for row in rows] == [
            (first["id"], {"one": {"users": 0.0}}),
            (again["id"], {"one": {"users": 1.0}}),
        ]
        assert bad.status_code == 400

    run(main)


@pytest.mark.parametrize(("labeller", "score"), [("true", 0.0), ("false", 1.0)])
def test_where_only_labellers_label_the_word_of_others_is_ignored(
    labeller: str, score: float, tmp_path: Path
) -> None:
    key = keys.new_key()
    tenant = f"""
[[tenants]]
name = "one"
key_hash = "{keys.hash_key(key)}"
labeller = {labeller}
"""

    async def main() -> None:
        server = ChatServer(lambda prompt: "hello")
        async with serving(server) as url:
            toml = chat_route(["one"], 'feedback = "labellers"\nsignals = [{ kind = "users" }]')
            async with running(toml + chat_backend("one", url) + tenant, tmp_path) as tollway:
                for request in (asking("hi"), asking("hi", "hello", "and?")):
                    reply = await tollway.client.post(
                        tollway.url + URL,
                        json=request,
                        headers={"authorization": f"Bearer {key}", "x-tollway-feedback": "bad"},
                    )
                    assert reply.status_code == 200, reply.text
                    await tollway.gateway.signals.runner.settled()
                (row,) = tollway.journalled("signal")
        assert row["scores"] == {"one": {"users": score}}

    run(main)


def test_a_judge_is_charged_at_the_price_in_force(tmp_path: Path) -> None:
    signals = """
signals = [{ kind = "judge", backend = "judge", share = 1.0, budget_share = 1.0 }]"""
    other = """
[[routes]]
name = "other"
path = "/v1/completions"
protocol = "openai"
backends = ["judge"]
"""
    flat = "{ per_request_usd = 0.001 }"

    costs: list[int] = []

    async def main(*, on_a_route: bool) -> None:
        server, judge = ChatServer(lambda prompt: "42"), ChatServer(lambda prompt: "7")
        async with serving(server) as url, serving(judge) as judging:
            toml = chat_route(["one"], signals) + chat_backend("one", url, price=flat)
            toml += chat_backend("judge", judging, price=flat) + other * on_a_route
            async with running(toml, tmp_path / str(on_a_route)) as tollway:
                for price in (0.002, 0.0005):
                    now = parse_price({"per_request_usd": price})
                    if on_a_route:
                        tollway.gateway.routes["other"].reprice("judge", now)
                    else:
                        tollway.gateway.backends["judge"].tariff = now
                    judged = len(judge.prompts)
                    for _ in range(60):
                        told = await asked(tollway, asking("?"))
                        if len(judge.prompts) > judged:
                            break
                    costs.append(told["attempts"][-1]["cost_nano"])

    run(partial(main, on_a_route=True))
    run(partial(main, on_a_route=False))
    assert costs == [2_000_000, 500_000] * 2
