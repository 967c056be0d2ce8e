"""GET routes tell browsers and CDNs how long they may keep an answer."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.configs import one_model
from tests.support.harness import run, running, serving
from tests.support.scripted import Asked, Said, Scripted

pytestmark = pytest.mark.integration

CACHE = """
[routes.cache]
ttl_s = 600
stale_s = 30
early = 0
fresh_share = 0
client_max_age_s = 60
scope = "{scope}"
"""


def config(url: str, scope: str) -> str:
    price, route = "{ per_request_usd = 0.001 }", CACHE.format(scope=scope)
    return one_model(url, protocol="http", path="/predict/*", price=price, route=route)


def answers(asked: Asked) -> Said:
    return Said([b'{"label": 1, "path": "%b"}' % asked.target.encode()])


@pytest.mark.parametrize(("scope", "whose"), [("route", "public"), ("tenant", "private")])
def test_an_answer_says_how_long_it_may_be_kept_and_by_whom(
    scope: str, whose: str, tmp_path: Path
) -> None:
    async def main() -> None:
        server, now_s = Scripted(answers), 1_000_000.0
        async with serving(server) as url:
            text = config(url, scope)
            async with running(text, tmp_path) as tollway:
                tollway.gateway.caching.wall = lambda: now_s
                path = tollway.url + "/predict/a?x=1"
                first = await tollway.client.get(path)
                now_s += 20.0
                again = await tollway.client.get(path)
                tag = {"if-none-match": first.headers["etag"]}
                same = await tollway.client.get(path, headers=tag)
                other = await tollway.client.get(path, headers={"if-none-match": '"x"'})
                now_s += 570.0
                old = await tollway.client.get(path)
                rows = tollway.journalled("attempt")
        assert len(server.asked) == 1
        assert "if-none-match" not in server.asked[0].headers
        stale = ", stale-while-revalidate=30"
        assert first.headers["cache-control"] == f"{whose}, max-age=60{stale}"
        assert (again.headers["age"], again.headers["cache-control"]) == (
            "20",
            f"{whose}, max-age=80{stale}",
        )
        assert again.headers["etag"] == first.headers["etag"]
        varies = {one.strip() for one in first.headers["vary"].split(",")}
        assert {"accept", "accept-encoding"} <= varies
        assert ("authorization" in varies) is (scope == "tenant")
        assert (same.status_code, same.content) == (304, b"")
        assert same.headers["etag"] == first.headers["etag"]
        assert "content-length" not in same.headers
        assert (other.status_code, other.content) == (200, first.content)
        # What is left of its life is less than the minute that clients may keep it.
        assert old.headers["cache-control"] == f"{whose}, max-age=600{stale}"
        assert old.headers["age"] == "590"
        assert [row["status"] for row in rows] == [200] * 5

    run(main)


def test_posts_and_errors_say_nothing(tmp_path: Path) -> None:
    def fails(asked: Asked) -> Said:
        return Said([b'{"error": 1}'], 404) if asked.method == "GET" else answers(asked)

    async def main() -> None:
        async with serving(Scripted(fails)) as url:
            text = config(url, "route")
            async with running(text, tmp_path) as tollway:
                replies: list[Any] = [
                    await tollway.client.get(tollway.url + "/predict/a"),
                    await tollway.client.post(tollway.url + "/predict/a", json={"x": 1}),
                ]
        assert [reply.status_code for reply in replies] == [404, 200]
        for reply in replies:
            assert "cache-control" not in reply.headers
            assert "etag" not in reply.headers

    run(main)


def test_what_a_backend_forbids_stands_and_all_that_matters_is_told(tmp_path: Path) -> None:
    def says(asked: Asked) -> Said:
        own = [("cache-control", "private, max-age=5")] if "own" in asked.target else []
        return Said([b'{"label": 1}'], headers=own)

    async def main() -> None:
        async with serving(Scripted(says)) as url:
            text = config(url, "route") + 'headers = ["x-region"]\n'
            async with running(text, tmp_path) as tollway:
                own = await tollway.client.get(tollway.url + "/predict/own")
                other = await tollway.client.get(tollway.url + "/predict/other")
        assert own.headers["cache-control"] == "private, max-age=5"
        assert "etag" not in own.headers
        varies = {one.strip() for one in other.headers["vary"].split(",")}
        assert {"accept-language", "x-region", "accept-encoding"} <= varies

    run(main)


def test_an_answer_that_depends_on_forwarded_credentials_is_private(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Scripted(answers)) as url:
            text = config(url, "route").replace(
                'policy = "cheapest"', 'policy = "cheapest"\nforward_headers = ["cookie"]'
            )
            async with running(text, tmp_path) as tollway:
                reply = await tollway.client.get(tollway.url + "/predict/a")
        assert reply.headers["cache-control"].startswith("private")
        assert "cookie" in reply.headers["vary"]

    run(main)
