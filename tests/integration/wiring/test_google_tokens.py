"""A backend at Vertex AI: access tokens by google-auth, against a token server on this machine."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

import orjson
import pytest

from tests.support.harness import Running, run, running, serving
from tests.support.scripted import Asked, Said, Scripted, document
from tollway.gateway.security.google_tokens import AHEAD_S, GoogleToken
from tollway.gateway.settings.errors import ConfigError
from tollway.gateway.wiring.jobs import renew_tokens

pytestmark = pytest.mark.integration

CONFIG = """
[server]
allow_anonymous = true

[ledger]
url = "memory://"

[[backends]]
name = "vertex"
kind = "api"
protocol = "gemini"
url = "{url}/v1/projects/p/locations/eu/publishers/google"
auth = {{ google_file = "{file}" }}
price = {{ input_usd_per_mtok = 1, output_usd_per_mtok = 10 }}

[[routes]]
name = "gemini"
path = "/{{version}}/models/*"
protocol = "gemini"
backends = ["vertex"]
"""
ASK = {"contents": [{"parts": [{"text": "hi"}]}]}
PATH = "/v1beta/models/gemini-2.5-flash:generateContent"


def service_account(folder: Path, token_uri: str) -> Path:
    """Write the file of a service account with a key of its own."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = folder / "account.json"
    account = {
        "type": "service_account",
        "client_email": "gateway@p.iam.gserviceaccount.com",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "token_uri": token_uri,
    }
    path.write_bytes(orjson.dumps(account))
    return path


class Tokens:
    """A token server, in a thread: the gateway waits for its first token before it serves."""

    def __init__(self) -> None:
        self.given = 0
        self.refuses = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers["content-length"])).decode()
                assert parse_qs(form)["assertion"]
                outer.given += not outer.refuses
                said = {"access_token": f"token-{outer.given}", "expires_in": 3600}
                self.send_response(400 if outer.refuses else 200)
                self.send_header("content-type", "application/json")
                self.end_headers()
                self.wfile.write(orjson.dumps({"error": "no"} if outer.refuses else said))

            def log_message(self, *args: Any) -> None:
                return None

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/token"

    def vertex(self, asked: Asked) -> Said:
        """Answer as Vertex AI does: it accepts the newest token alone."""
        if asked.headers["authorization"] != f"Bearer token-{self.given}":
            return document({"error": {"code": 401, "status": "UNAUTHENTICATED"}}, 401)
        candidate = {"content": {"parts": [{"text": "Hi!"}]}, "finishReason": "STOP"}
        used = {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}
        return document({"candidates": [candidate], "usageMetadata": used})


@pytest.fixture
def tokens() -> Iterator[Tokens]:
    made = Tokens()
    thread = Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture
def play(tmp_path: Path, tokens: Tokens) -> Callable[..., None]:
    def started(part: Callable[[Running, Scripted], Any]) -> None:
        async def main() -> None:
            model = Scripted(tokens.vertex)
            async with serving(model) as url:
                file = service_account(tmp_path, tokens.url)
                async with running(CONFIG.format(url=url, file=file), tmp_path) as on:
                    await part(on, model)

        run(main)

    return started


async def ask(on: Running) -> int:
    return int((await on.client.post(on.url + PATH, json=ASK)).status_code)


def credential(on: Running) -> Any:
    return on.gateway.backends["vertex"].credential


def let_end(on: Running, left_s: float) -> None:
    """Have the token end soon."""
    end = datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=left_s)
    credential(on)._secret._credentials.expiry = end


def test_calls_bear_a_token_that_is_renewed_before_its_end(
    play: Callable[..., None], tokens: Tokens
) -> None:
    async def part(on: Running, model: Scripted) -> None:
        assert await ask(on) == 200
        assert model.asked[0].target == (
            "/v1/projects/p/locations/eu/publishers/google/models/gemini-2.5-flash:generateContent"
        )
        await renew_tokens(on.gateway)
        assert tokens.given == 1
        let_end(on, AHEAD_S - 1)
        await renew_tokens(on.gateway)
        assert tokens.given == 2
        credential(on)._look_at_s = 0.0  # it looks once a second
        assert await ask(on) == 200
        assert model.asked[-1].headers["authorization"] == "Bearer token-2"
        assert not on.gateway.events.newest()

    play(part)


def test_while_no_token_is_to_be_had_the_last_one_is_used_and_people_are_told_once(
    play: Callable[..., None], tokens: Tokens
) -> None:
    async def part(on: Running, model: Scripted) -> None:
        tokens.refuses = True
        let_end(on, 1)
        for _ in range(3):
            await renew_tokens(on.gateway)
        assert await ask(on) == 200
        (event,) = on.gateway.events.newest()
        assert event["kind"] == "credential_unreadable"
        assert "token-1" not in event["text"]
        tokens.refuses = False
        await renew_tokens(on.gateway)
        credential(on)._look_at_s = 0.0
        assert await ask(on) == 200
        assert model.asked[-1].headers["authorization"] == "Bearer token-2"

    play(part)


def test_a_start_without_a_token_says_why(tmp_path: Path, tokens: Tokens) -> None:
    tokens.refuses = True

    async def main() -> None:
        toml = CONFIG.format(url="http://127.0.0.1:9", file=service_account(tmp_path, tokens.url))
        with pytest.raises(ConfigError, match=r"auth\.google_file: no access token"):
            async with running(toml, tmp_path):
                raise AssertionError("it started")

    run(main)


def test_a_file_that_is_no_credential_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("{}")
    for one in (path, tmp_path / "missing.json"):
        with pytest.raises(ValueError, match="no access token"):
            GoogleToken(one).read({})
