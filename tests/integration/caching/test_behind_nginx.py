"""A real caching proxy in front of a gateway: what it keeps, for whom, and what it does not."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.configs import one_model
from tests.support.harness import Running, run, running, serving
from tests.support.nginx import nginx
from tests.support.process import free_port
from tests.support.scripted import Asked, Said, Scripted
from tollway.gateway.security.keys import hash_key

pytestmark = pytest.mark.integration

PROXY = """
daemon off; pid {folder}/pid; error_log /dev/null; user root;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  proxy_cache_path {folder}/kept keys_zone=kept:1m max_size=10m;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass {upstream}; proxy_http_version 1.1; proxy_cache kept;
      proxy_cache_key $request_method$request_uri; proxy_cache_methods GET HEAD POST;
      proxy_set_header If-None-Match $http_if_none_match;
      add_header x-proxy $upstream_cache_status always;
    }}
  }}
}}
"""
CACHE = """
[routes.cache]
ttl_s = 600
early = 0
fresh_share = 0
client_max_age_s = 60
headers = ["x-variant"]
scope = "{scope}"
"""
TENANT = f"""
[[tenants]]
name = "acme"
key_hash = "{hash_key("acme")}"
"""


def answers(asked: Asked) -> Said:
    target = asked.target
    if "cookie" in target:
        return Said([b"1"], headers=[("set-cookie", "id=1")])
    if "private" in target:
        return Said([b"1"], headers=[("cache-control", "private")])
    if "fails" in target:
        return Said([b"no"], 500)
    variant = asked.headers.get("x-variant", "")
    return Said([f"{target} {asked.headers.get('accept-language', '')} {variant}".encode()])


@asynccontextmanager
async def proxied(folder: Path, scope: str) -> AsyncIterator[tuple[Running, Scripted, Any]]:
    """Run a gateway behind an nginx that caches, and yield how to ask the nginx."""
    server = Scripted(answers)
    async with serving(server) as url:
        text = one_model(
            url,
            protocol="http",
            path="/predict/*",
            price="{ per_request_usd = 0.001 }",
            route=CACHE.format(scope=scope),
            more=TENANT,
        )
        async with running(text, folder) as tollway:
            port = free_port()
            own = folder / "nginx"
            own.mkdir()
            config = PROXY.format(folder=own, port=port, upstream=tollway.url)
            with nginx(config, own, port):

                async def get(path: str, **headers: str) -> Any:
                    fields = {name.replace("_", "-"): value for name, value in headers.items()}
                    return await tollway.client.get(
                        f"http://127.0.0.1:{port}{path}", headers=fields
                    )

                yield tollway, server, get


def test_a_proxy_keeps_what_tenants_share_and_tells_the_variants_apart(tmp_path: Path) -> None:
    async def main() -> None:
        async with proxied(tmp_path, "route") as (tollway, _, get):
            first = await get("/predict/a")
            again = await get("/predict/a")
            assert (first.headers["x-proxy"], again.headers["x-proxy"]) == ("MISS", "HIT")
            assert again.content == first.content
            assert len(tollway.journalled("decision")) == 1  # the second never arrived
            for fields in ({"accept_language": "de"}, {"x_variant": "2"}, {"accept": "text/plain"}):
                other = await get("/predict/a", **fields)
                assert other.headers["x-proxy"] == "MISS"
                mine = await get("/predict/a", **fields)
                assert (mine.headers["x-proxy"], mine.content) == ("HIT", other.content)
            assert (await get("/predict/a")).content == first.content
            assert len(first.headers["vary"]) <= 128  # nginx keeps no answer with a longer one
            tag = first.headers["etag"]
            same = await get("/predict/a", if_none_match=tag)
            assert (same.status_code, same.content) == (304, b"")

    run(main)


@pytest.mark.parametrize("path", ["/predict/cookie", "/predict/private", "/predict/fails"])
def test_a_proxy_keeps_nothing_of_one_client_and_no_failure(path: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with proxied(tmp_path, "route") as (_, server, get):
            replies = [await get(path) for _ in range(3)]
            assert {reply.headers["x-proxy"] for reply in replies} <= {"MISS", "EXPIRED", "BYPASS"}
            assert len(server.asked) == 3

    run(main)


def test_a_proxy_keeps_no_answer_of_a_tenant(tmp_path: Path) -> None:
    async def main() -> None:
        async with proxied(tmp_path, "tenant") as (_, server, get):
            own = {"authorization": "Bearer acme"}
            replies = [await get("/predict/a", **own) for _ in range(3)]
            assert {reply.headers["x-proxy"] for reply in replies} == {"MISS"}
            assert replies[-1].headers["x-tollway-cache"] == "hit"
            assert (await get("/predict/a")).headers["x-tollway-cache"] == "miss"
            assert len(server.asked) == 2

    run(main)
