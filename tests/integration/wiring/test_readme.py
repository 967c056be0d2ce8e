"""What the README shows saves money: its configurations, served as they stand."""

import random
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.support.chat_servers import ChatServer
from tests.support.harness import Upstream, run, running, serving
from tests.support.parrot import Parrot

ROOT = Path(__file__).parents[3]
BLOCKS = [
    block
    for block in re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    if "[[routes]]" in block
]

pytestmark = pytest.mark.integration


def shown(protocol: str, urls: Iterable[tuple[str, str]]) -> str:
    """Return the README's configuration of a protocol, its backends at other addresses."""
    (text,) = [block for block in BLOCKS if f'protocol = "{protocol}"' in block]
    for shown_url, url in urls:
        assert f'url = "{shown_url}"' in text
        text = text.replace(f'url = "{shown_url}"', f'url = "{url}"', 1)
    return text + '\n[ledger]\nurl = "memory://"\n'


def chat_urls(local: str, remote: str, judge: str) -> list[tuple[str, str]]:
    """Return the addresses of the chat configuration's backends, in their order."""
    openai = "https://api.openai.com"
    return [("http://127.0.0.1:8000", local), (openai, remote), (openai, judge)]


def test_openai_and_a_local_server_save_before_any_feedback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-a-real-key")

    async def main() -> None:
        local, remote, judge = Parrot(), Parrot(), Parrot()  # the judge says nothing of use
        async with serving(local) as a, serving(remote) as b, serving(judge) as c:
            async with running(shown("openai", chat_urls(a, b, c)), tmp_path) as tollway:
                for number in range(200):
                    content = f"question number {number}"
                    asked = {"model": "chat", "messages": [{"role": "user", "content": content}]}
                    reply = await tollway.client.post(
                        tollway.url + "/v1/chat/completions", json=asked
                    )
                    assert reply.status_code == 200, reply.text
        # Between the declared .85 and .92 a floor of .88 lets four in seven stay local.
        assert local.calls + remote.calls == 200
        assert 80 <= local.calls <= 150

    run(main)


def test_a_judge_teaches_the_chat_route_without_any_label_which_requests_are_easy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three requests in four are easy; `local` is hardly ever right about the others."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-a-real-key")
    rng = random.Random(0)

    def answering(easy: float, hard: float) -> ChatServer:
        def reply(prompt: str) -> str:
            return "right" if rng.random() < (easy if "easy" in prompt else hard) else "wrong"

        return ChatServer(reply, tokens=100)

    async def main() -> None:
        local, remote = answering(0.98, 0.4), answering(0.95, 0.85)
        judge = ChatServer(lambda prompt: "10" if '"answer":"right"' in prompt else "0", tokens=1)
        last: list[tuple[bool, bool, bool]] = []
        async with serving(local) as a, serving(remote) as b, serving(judge) as c:
            async with running(shown("openai", chat_urls(a, b, c)), tmp_path) as tollway:
                for number in range(600):
                    easy = rng.random() < 0.75
                    content = f"an {'easy' if easy else 'awkward'} question"
                    asked = {"model": "chat", "messages": [{"role": "user", "content": content}]}
                    reply = await tollway.client.post(
                        tollway.url + "/v1/chat/completions", json=asked, headers={"x-n": "1"}
                    )
                    await tollway.gateway.signals.runner.settled()
                    right = reply.json()["choices"][0]["message"]["content"] == "right"
                    if number >= 400:
                        last.append((easy, reply.headers["x-tollway-backend"] == "local", right))
                assert tollway.journalled("feedback") == []
                learned = tollway.gateway.routes["chat"].policy.version
                spent = dict.fromkeys(("local", "openai", "judge"), 0)
                for row in tollway.journalled("attempt"):
                    spent[row["backend"]] += row["cost_nano"]
        always_nano = 600 * (20 * 2_000 + 100 * 8_000)  # a token's price in nano-dollars
        assert 0 < spent["judge"] <= 0.05 * always_nano
        # How fast it learns depends on when prices are solved; benchmarks/signals.py measures it.
        stays = [local for easy, local, _ in last if easy]
        assert sum(stays) / len(stays) > 0.4
        assert learned > 100

    run(main)


def test_the_configuration_with_a_cascade_saves_within_a_few_hundred_labels(
    tmp_path: Path,
) -> None:
    """Four requests in five are easy for `cpu`, and its confidence shows which."""
    rng = random.Random(0)
    easy = [rng.random() < 0.8 for _ in range(600)]
    right = [{"cpu": rng.random() < (0.99 if e else 0.6), "gpu": rng.random() < 0.99} for e in easy]

    def number(document: Any) -> int:
        return int(document["inputs"][0]["data"][0])

    cpu = Upstream(
        label=lambda document: 7 if right[number(document)]["cpu"] else 3,
        confidence=lambda document: 0.97 if easy[number(document)] else 0.4,
    )
    gpu = Upstream(
        label=lambda document: 7 if right[number(document)]["gpu"] else 3,
        headers=[(b"x-device-seconds", b"0.2")],
    )

    async def main() -> None:
        async with serving(cpu) as a, serving(gpu) as b:
            urls = {"http://127.0.0.1:9001": a, "http://127.0.0.1:9002": b}
            async with running(shown("oip", urls.items()), tmp_path) as tollway:
                spent, correct, dear_usd = [], [], 2.5 / 3600 / 8 / 0.6 * 0.2
                for at in range(600):
                    reply = await tollway.infer(float(at), "/v2/models/digits/infer")
                    assert reply.status_code == 200, reply.text
                    spent.append(float(reply.headers["x-tollway-cost-usd"]))
                    correct.append(right[at][reply.headers["x-tollway-backend"]])
                    told = {"decision": reply.headers["x-tollway-decision"], "label": 7}
                    assert (await tollway.feedback(told)).status_code == 202
        assert sum(spent[:300]) < 0.8 * 300 * dear_usd
        assert sum(spent[300:]) < 0.6 * 300 * dear_usd
        assert sum(correct) / 600 > 0.96

    run(main)
