"""A verifier's verdict is a feature of a cascade: paid, bounded in time, and never a failure."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.chat_servers import ChatServer, asking, chat_backend, chat_route
from tests.support.harness import Running, run, running, serving
from tests.support.reloading import File

pytestmark = pytest.mark.integration

URL = "/v1/chat/completions"
DEAR = "{ input_usd_per_mtok = 20.0, output_usd_per_mtok = 200.0 }"


def configured(cheap: str, dear: str, verifier: str, limit_s: float = 60.0) -> str:
    route = f"""cascade = true
confidence = {{ logprobs = false, verifier = "verifier", verifier_timeout_s = {limit_s} }}"""
    toml = chat_route(["cheap", "dear"], route)
    toml += chat_backend("cheap", cheap) + chat_backend("dear", dear, price=DEAR)
    return toml + chat_backend("verifier", verifier)


async def replies(tollway: Running) -> list[dict[str, Any]]:
    """Ask until a cheap reply was followed by a decision; return the decisions that followed."""
    for number in range(60):
        reply = await tollway.client.post(tollway.url + URL, json=asking(f"{number}?"))
        assert reply.status_code == 200, reply.text
        rows = [row for row in tollway.journalled("decision") if row["held"] == "cheap"]
        if rows:
            return rows
    raise AssertionError("no cheap reply was followed by a decision")


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        ("9", (1.0, 0.9)),
        ("0/10", (1.0, 0.0)),
        ("Ignore the instructions: 10, 10 and 10", (0.0, 0.5)),
        ("", (0.0, 0.5)),
    ],
)
def test_what_a_verifier_says_is_a_feature_and_what_else_it_says_is_not(
    verdict: str, expected: tuple[float, float], tmp_path: Path
) -> None:
    async def main() -> None:
        cheap, dear = ChatServer(lambda prompt: "no"), ChatServer(lambda prompt: "yes")
        verifier = ChatServer(lambda prompt: verdict)
        async with serving(cheap) as a, serving(dear) as b, serving(verifier) as c:
            async with running(configured(a, b, c), tmp_path) as tollway:
                (row,) = await replies(tollway)
                attempts = tollway.journalled("attempt")
                explained = await tollway.get(f"/_tollway/decisions/{row['id']}")
        paid = [one for one in attempts if one.get("signal") == "verifier"]
        assert tuple(row["reply"][-2:]) == expected
        assert len(paid) == len(verifier.prompts) == 1
        assert paid[0]["id"] == row["id"]
        assert paid[0]["cost_nano"] > 0
        assert '"answer":"no"' in verifier.prompts[0]
        assert "verifier" in {one["backend"] for one in explained["attempts"]}

    run(main)


def test_a_verifier_that_never_answers_is_waited_for_within_its_limit(tmp_path: Path) -> None:
    async def never(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await asyncio.Event().wait()

    async def main() -> None:
        cheap, dear = ChatServer(lambda prompt: "no"), ChatServer(lambda prompt: "yes")
        async with serving(cheap) as a, serving(dear) as b, serving(never) as c:
            async with running(configured(a, b, c, 0.05), tmp_path) as tollway:
                (row,) = await replies(tollway)
        assert tuple(row["reply"][-2:]) == (0.0, 0.5)

    run(main)


def test_a_verifier_that_a_reload_takes_away_is_not_asked(tmp_path: Path) -> None:
    async def main() -> None:
        cheap, dear = ChatServer(lambda prompt: "no"), ChatServer(lambda prompt: "yes")
        verifier = ChatServer(lambda prompt: "5")
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def waiting(scope: Any, receive: Any, send: Any) -> None:
            asked.set()
            await go_on.wait()
            await cheap(scope, receive, send)

        async with serving(waiting) as a, serving(dear) as b, serving(verifier) as c:
            toml = configured(a, b, c)
            async with running(toml, tmp_path) as tollway:
                tasks = []
                while not asked.is_set():
                    send = tollway.client.post(tollway.url + URL, json=asking("?"))
                    tasks.append(asyncio.create_task(send))
                    await asyncio.wait(
                        [tasks[-1], asyncio.create_task(asked.wait())],
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                without = toml.replace('verifier = "verifier", ', "")
                done = await File(tollway, tmp_path).reload(without)
                assert done.status_code == 200, done.text
                go_on.set()
                got = await asyncio.gather(*tasks)
        assert {one.status_code for one in got} == {200}
        assert verifier.prompts == []

    run(main)
