"""Reloads of two hundred broken configurations: each applies as a whole or not at all."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.leaks import alive, come_back, comes_back, of_loop
from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, run, running, serving
from tests.support.reloading import File
from tollway.backends.http.pool import Http1Transport
from tollway.gateway.routing.plan import RoutePlan, Target

pytestmark = pytest.mark.integration

COUNT = 200
WORDS = ["nan", "inf", "-1", '""', "[]", "{}", "true", '"\\u0000"', "1e400", '"../../etc/passwd"']


def without_a_line(lines: list[str], rng: random.Random) -> list[str]:
    at = rng.randrange(len(lines))
    return lines[:at] + lines[at + 1 :]


def with_a_line_twice(lines: list[str], rng: random.Random) -> list[str]:
    at = rng.randrange(len(lines))
    return [*lines[: at + 1], *lines[at:]]


def with_another_value(lines: list[str], rng: random.Random) -> list[str]:
    at = rng.choice([n for n, line in enumerate(lines) if "=" in line])
    key = lines[at].partition("=")[0]
    return [*lines[:at], f"{key}= {rng.choice(WORDS)}", *lines[at + 1 :]]


def with_another_letter(lines: list[str], rng: random.Random) -> list[str]:
    text = "\n".join(lines)
    at = rng.randrange(len(text))
    return (text[:at] + rng.choice('x"[]{}=#.\n\x00é') + text[at + 1 :]).split("\n")


def cut(lines: list[str], rng: random.Random) -> list[str]:
    text = "\n".join(lines)
    return text[: rng.randrange(len(text))].split("\n")


MUTATIONS: list[Callable[[list[str], random.Random], list[str]]] = [
    without_a_line,
    with_a_line_twice,
    with_another_value,
    with_another_letter,
    cut,
]


def test_the_old_configuration_stays_in_force_if_the_new_one_is_invalid(tmp_path: Path) -> None:
    async def main() -> None:
        upstream = Upstream()
        async with serving(upstream) as a:
            sound = two_backends(a, a, more=budget("cap", "10.0"))
            async with running(sound, tmp_path) as tollway:
                file, rng = File(tollway, tmp_path), random.Random(7)
                over, came = asyncio.Event(), Counter[int]()
                await asyncio.gather(tollway.infer(), tollway.infer())
                await file.reload(sound)
                base, known = of_loop(), alive([Target, RoutePlan, Http1Transport])

                async def client() -> None:
                    while not over.is_set():
                        came[(await tollway.infer()).status_code] += 1

                clients = [asyncio.create_task(client()) for _ in range(2)]
                refused = taken = 0
                for n in range(COUNT):
                    text = "\n".join(MUTATIONS[n % 5](sound.split("\n"), rng))
                    before = tollway.gateway.settings
                    reply = await file.reload(text)
                    if reply.status_code == 422:
                        refused += 1
                        assert tollway.gateway.settings is before
                        for problem in reply.json()["problems"]:
                            assert problem["why"], text
                            assert problem["key"] or "TOML" in problem["why"], problem
                    else:  # what it says differs in nothing, or may be said
                        assert reply.status_code == 200, reply.text
                        taken += 1
                        assert (await file.reload(sound)).status_code == 200
                over.set()
                await asyncio.gather(*clients)
                assert refused > COUNT / 3
                assert taken > COUNT / 10
                # While one was taken its route could be called otherwise, or its budget be gone.
                assert came[200] > 0.9 * came.total()
                assert not {status for status in came if status >= 500} - {502, 503}
                # What was replaced waits for requests that may know it, then it is gone, with all.
                await file.reloader.close()
                await comes_back(of_loop, base, memory_mib=32)
                await come_back([Target, RoutePlan, Http1Transport], known)
                spent = (await tollway.get("/_tollway/spend"))["cost_nano"]
                assert spent == upstream.calls * 100_000

    run(main)
