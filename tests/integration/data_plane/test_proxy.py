"""The data plane forwards requests and replies unchanged, except for the gateway's fields."""

import asyncio
import socket
from pathlib import Path

import orjson
import pytest

from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, inference, run, running, serving
from tests.support.until import until
from tollway.gateway.security.keys import hash_key, new_key

pytestmark = pytest.mark.integration


def test_status_body_fields_query_and_path_go_through_and_tollways_own_are_added(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        cheap, dear = Upstream(headers=[(b"x-model", b"v3"), (b"connection", b"close")]), Upstream()
        async with serving(cheap) as a, serving(dear) as b:
            async with running(two_backends(a, b), tmp_path) as tollway:
                reply = await tollway.infer(path="/v2/models/m/infer?verbose=1", x_mine="kept")
        assert reply.status_code == 200
        assert reply.content == cheap.answer(orjson.dumps(inference()))
        assert reply.headers["x-model"] == "v3"
        assert reply.headers["x-tollway-backend"] == "cheap"
        assert reply.headers["x-tollway-cost-usd"] == "0.000100000"
        assert reply.headers["x-tollway-reason"]
        assert "gateway;dur=" in reply.headers["server-timing"]
        assert "tollway-" in reply.headers["via"]
        method, path, headers, body = cheap.requests[0]
        assert (method, path) == ("POST", b"/v2/models/small/infer")
        assert orjson.loads(body) == inference()
        assert headers[b"x-mine"] == b"kept"
        assert headers[b"host"] == a.removeprefix("http://").encode()
        assert b"tollway-" in headers[b"via"]
        assert not [name for name in headers if name.startswith(b"x-tollway")]

    run(main)


def test_a_version_in_the_path_goes_through(tmp_path: Path) -> None:
    async def main() -> None:
        cheap, dear = Upstream(), Upstream()
        async with serving(cheap) as a, serving(dear) as b:
            async with running(two_backends(a, b), tmp_path) as tollway:
                assert (
                    await tollway.infer(path="/v2/models/m/versions/2/infer")
                ).status_code == 200
        assert cheap.requests[0][1] == b"/v2/models/small/versions/2/infer"

    run(main)


def test_model_metadata_and_readiness_are_served_under_the_routes_name(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        dear = Upstream(body=orjson.dumps({"name": "large", "platform": "torch", "inputs": []}))
        async with serving(Upstream()) as a, serving(dear) as b:
            async with running(two_backends(a, b), tmp_path) as tollway:
                told = await tollway.get("/v2/models/m")
                ready = await tollway.client.get(tollway.url + "/v2/models/m/ready")
        assert (told["name"], told["platform"]) == ("m", "torch")
        assert ready.status_code == 200
        assert dear.requests[0][:2] == ("GET", b"/v2/models/large")

    run(main)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"inputs": 3}', b"\xff"])
def test_an_invalid_request_is_a_400_in_the_protocols_format_and_reaches_no_backend(
    tmp_path: Path, body: bytes
) -> None:
    async def main() -> None:
        cheap, dear = Upstream(), Upstream()
        async with serving(cheap) as a, serving(dear) as b:
            async with running(two_backends(a, b), tmp_path) as tollway:
                reply = await tollway.client.post(tollway.url + "/v2/models/m/infer", content=body)
        assert reply.status_code == 400
        assert reply.headers["content-type"] == "application/problem+json"
        problem = reply.json()
        assert problem["error"] == problem["detail"] != ""
        assert cheap.calls + dear.calls == 0

    run(main)


def test_a_path_of_no_route_is_a_404_problem(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, running(two_backends(a, a), tmp_path) as tollway:
            reply = await tollway.client.get(tollway.url + "/v1/nothing")
        assert (reply.status_code, reply.json()["title"]) == (404, "No route")

    run(main)


def test_a_body_above_the_limit_is_a_413_and_reaches_no_backend(tmp_path: Path) -> None:
    async def main() -> None:
        cheap = Upstream()
        server = "allow_anonymous = true\nmax_body_bytes = 2048"
        async with (
            serving(cheap) as a,
            running(two_backends(a, a, server=server), tmp_path) as tollway,
        ):
            reply = await tollway.client.post(
                tollway.url + "/v2/models/m/infer", content=b"x" * 2049
            )
        assert reply.status_code == 413
        assert cheap.calls == 0

    run(main)


def test_keys_decide_who_calls_what(tmp_path: Path) -> None:
    keys = {name: new_key() for name in ("acme", "narrow", "admin")}
    tenants = "".join(
        f'[[tenants]]\nname = "{name}"\nkey_hash = "{hash_key(keys[name])}"\n{routes}\n'
        for name, routes in (("acme", ""), ("narrow", 'routes = ["other"]'))
    )
    other = """
[[routes]]
name = "other"
path = "/other"
protocol = "oip"
backends = ["dear"]
policy = "cheapest"
"""

    async def main() -> None:
        server = f'admin_key_hash = "{hash_key(keys["admin"])}"'
        async with serving(Upstream()) as a:
            config = two_backends(a, a, server=server, more=other + tenants)
            async with running(config, tmp_path) as tollway:
                seen = []
                for key in (None, "tw_wrong", keys["acme"], keys["narrow"], keys["admin"]):
                    headers = {"Authorization": f"Bearer {key}"} if key else {}
                    reply = await tollway.infer(**headers)
                    seen.append(reply.status_code)
                    assert ("www-authenticate" in reply.headers) == (reply.status_code == 401)
                assert seen == [401, 401, 200, 403, 401]
                spend = [
                    (
                        await tollway.client.get(
                            tollway.url + "/_tollway/spend",
                            headers={"Authorization": f"Bearer {key}"},
                        )
                    ).status_code
                    for key in (keys["acme"], keys["admin"])
                ]
                assert spend == [401, 200]

    run(main)


def test_no_key_reaches_a_backend(tmp_path: Path) -> None:
    async def main() -> None:
        cheap = Upstream()
        async with serving(cheap) as a, running(two_backends(a, a), tmp_path) as tollway:
            await tollway.infer(Authorization="Bearer sk-someone")
        assert b"authorization" not in cheap.requests[0][2]

    run(main)


def test_a_clients_own_ceiling_is_kept(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            config = two_backends(a, b, policy="most_accurate")
            async with running(config, tmp_path) as tollway:
                free = await tollway.infer()
                capped = await tollway.infer(x_tollway_max_cost_usd="0.0005")
                nothing = await tollway.infer(x_tollway_max_cost_usd="0.00000001")
        assert free.headers["x-tollway-backend"] == "dear"
        assert capped.headers["x-tollway-backend"] == "cheap"
        assert (nothing.status_code, nothing.json()["title"]) == (402, "Cost ceiling")

    run(main)


def test_amounts_are_hidden_from_clients_on_request(tmp_path: Path) -> None:
    async def main() -> None:
        server = "allow_anonymous = true\nhide_amounts = true"
        async with serving(Upstream()) as a:
            config = two_backends(a, a, server=server, more=budget("cap", "0.0001"))
            async with running(config, tmp_path) as tollway:
                reply, refused = await tollway.infer(), await tollway.infer()
        assert reply.status_code == 200 and "x-tollway-cost-usd" not in reply.headers
        assert refused.status_code == 402
        assert not [name for name in refused.json() if name.endswith("_usd")]
        assert "$" not in refused.text

    run(main)


def test_a_client_that_leaves_is_charged_for_what_it_began(tmp_path: Path) -> None:
    async def main() -> None:
        cheap = Upstream(hold=asyncio.Event())
        async with serving(cheap) as a:
            config = two_backends(a, a, more=budget("cap", "1.0"))
            async with running(config, tmp_path) as tollway:
                host, port = tollway.url.removeprefix("http://").split(":")
                body = orjson.dumps(inference())
                head = "POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\n"
                head += f"Content-Length: {len(body)}\r\n\r\n"
                with socket.create_connection((host, int(port))) as client:
                    client.sendall(head.encode() + body)
                    await until(lambda: cheap.calls)
                assert cheap.hold is not None
                cheap.hold.set()

                async def cost_nano() -> int:
                    return int((await tollway.get("/_tollway/spend"))["cost_nano"])

                await until(cost_nano)
                (status,) = (await tollway.get("/_tollway/budgets"))["budgets"]
                assert status["spent_nano"] == 100_000

    run(main)
