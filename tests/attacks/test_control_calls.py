"""What a caller can write into the gateway's records, and what becomes of it there."""

import csv
import io
import json
from pathlib import Path

import pytest

from tests.attacks.http import ask, listening
from tests.support.configs import budget, capped_model, two_backends
from tests.support.harness import Upstream, inference, run, serving
from tollway.gateway.cli.main import main as tollway

pytestmark = pytest.mark.integration

JSON = {"Content-Type": "application/json"}
CAP = budget("cap", "5", more='window = "lifetime"')

REPEATED = [
    b'{"action":"limit","limit_usd":"1","limit_usd":"999","who":"x","why":"y"}',
    b'{"action":"limit","action":"credit","amount_usd":"9","who":"x","why":"y"}',
    b'{"action":"limit","limit_usd":"999","who":"x","wh\\u006f":"y","why":"y"}',
]
UNFIT = [
    ("who", "x" * 101),
    ("why", "x" * 1001),
    *(("who", f"root{odd}") for odd in ("\n", "\r\n", "\t", "\x1b[2J", "\0", "\u202e", "\u2028")),
    ("who", " "),
    ("why", "a\nb"),
    ("limit_usd", "9" * 300),
]


def test_a_change_of_a_budget_is_what_it_seems(tmp_path: Path) -> None:
    """No member twice, no name that fills the ledger or rewrites a terminal."""

    async def main() -> None:
        async with serving(Upstream()) as url:
            async with listening(two_backends(url, url, more=CAP), tmp_path) as (_, address):
                at = "/_tollway/budgets/cap"
                for body in REPEATED:
                    assert (await ask(address, at, body, JSON)).status == 400, body
                for key, text in UNFIT:
                    change = {"action": "limit", "limit_usd": "999", "who": "x", "why": "y"}
                    body = json.dumps({**change, key: text}).encode()
                    assert (await ask(address, at, body, JSON)).status == 422, (key, text)
                reply = await ask(address, at)
                assert reply.document["limit_usd"] == 5
                assert reply.document["changes"] == []

    run(main)


CHAT = b'{"messages":[{"role":"user","content":"hi"}],"model":"m","max_tokens":1%b}'
TWICE = [
    *(b',"max_tokens":1000000', b',"max_tok\\u0065ns":1000000', b',"model":"x"', b',"n":1,"n":100'),
    *(b',"stream":false,"stream":true', b',"messages":[{"role":"user","content":"ho"}]'),
    b',"service_tier":"flex","service_tier":"priority"',
]


def test_a_member_that_decides_money_is_there_once(tmp_path: Path) -> None:
    """The gateway reads the last one, and a backend may read the first."""

    async def main() -> None:
        upstream = Upstream()
        async with serving(upstream) as url:
            async with listening(capped_model(url, 1), tmp_path) as (_, address):
                for more in TWICE:
                    reply = await ask(address, "/v1/chat/completions", CHAT % more, JSON)
                    assert reply.status == 400, more
                    assert b"more than once" in reply.body
                assert upstream.calls == 0
                harmless = (
                    b',"tools":[{"type":"function","function":{"model":1,"n":2}}],"x":1,"x":2'
                )
                await ask(address, "/v1/chat/completions", CHAT % harmless, JSON)
                assert upstream.calls == 1

    run(main)


FORMULAS = ("=1+1", "+1", "-1", "@SUM(1)", "=HYPERLINK(0)", " =1")


def test_a_tag_is_no_formula_in_a_spreadsheet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        async with serving(Upstream()) as url:
            toml = two_backends(url, url)
            (tmp_path / "tollway.toml").write_text(toml)
            async with listening(toml, tmp_path) as (_, address):
                for value in FORMULAS:
                    body = json.dumps(inference()).encode()
                    tags = {"X-Tollway-Tags": f"team={value}, @x={value}", **JSON}
                    assert (await ask(address, "/v2/models/m/infer", body, tags)).status == 200

    run(main)
    for by in ("team", "@x"):
        assert tollway(["report", "tenants", str(tmp_path), "--by", by, "--format", "csv"], {}) == 0
        text = capsys.readouterr().out
        cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
        assert any("SUM(1)" in cell for cell in cells)
        assert [cell for cell in cells if cell.strip()[:1] in tuple("=+-@")] == []
