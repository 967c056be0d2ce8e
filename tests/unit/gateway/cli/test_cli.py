import io
import json
import os
import subprocess
import sys
import threading
import tomllib
import types
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tollway.backends.money import format_usd
from tollway.gateway.cli import main as cli
from tollway.gateway.cli import terminal
from tollway.gateway.security.keys import hash_key, is_key
from tollway.gateway.settings import Settings, parse

EXAMPLE = Path(__file__).parents[4] / "deploy" / "tollway.example.toml"

BUDGET = {
    "name": "acme-daily",
    "scope": {"tenant": "acme"},
    "window": "day",
    "enforcement": "hard",
    "limit_nano": 10_000_000_000,
    "limit_usd": 10.0,
    "spent_nano": 1_234_567_891,
    "spent_usd": 1.234567891,
    "held_nano": 0,
    "overdraft_nano": 0,
    "held_usd": 0.0,
    "free_nano": 8_765_432_109,
    "free_usd": 8.765432109,
    "used": 0.1234567891,
}
DECISION = {
    "id": "abc.1.wxyz",
    "time": 1_790_000_000.5,
    "route": "digits",
    "tenant": "acme",
    "tags": {"environment": "staging"},
    "story": ["Drawn: digits-cpu.", "Called digits-cpu: status 200."],
    "cost_nano": 100_000,
}


class ControlPlane(BaseHTTPRequestHandler):
    """Answers like a gateway's control plane, to the key `admin`."""

    def do_GET(self) -> None:
        known: dict[str, Any] = {
            "/_tollway/budgets": {"budgets": [BUDGET]},
            "/_tollway/budgets/acme-daily": BUDGET,
            "/_tollway/decisions/abc.1.wxyz": DECISION,
        }
        if self.headers["authorization"] != "Bearer admin":
            self.answer(401, {"title": "Unauthorized", "detail": "send the admin key"})
        elif self.path in known:
            self.answer(200, known[self.path])
        else:
            self.answer(404, {"title": "No decision", "detail": f"none at {self.path}"})

    def do_POST(self) -> None:
        assert self.path == "/_tollway/budgets/acme-daily"
        change = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if change.get("billed_usd", "0") not in ("0", "0.002"):
            self.answer(400, {"title": "Bad change", "detail": "billed_usd: not an amount"})
        else:
            self.answer(200, {**BUDGET, "change": change})

    def answer(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *told: Any) -> None:
        pass


@pytest.fixture
def gateway_url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), ControlPlane)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def leaves(parser: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for name, inner in action.choices.items():
                yield from leaves(inner, (*words, name))


@pytest.mark.parametrize("words", [w for w in leaves(cli._parser()) if w != ("demo",)])
def test_every_command_explains_itself(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.main([*words, "--help"], {})
    assert exited.value.code == 0
    assert " ".join(("tollway", *words)) in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [[], ["serv"], ["serve"], ["explain"], ["budgets"], ["keys"], ["keys", "new", "-x"]]
)
def test_a_wrong_command_line_is_code_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.main(words, {})
    assert exited.value.code == terminal.USAGE


def test_the_example_is_accepted_and_what_is_printed_is_the_same_configuration(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["check-config", str(EXAMPLE)], {}) == terminal.OK
    printed = capsys.readouterr().out
    hidden = printed.replace("(hidden)", f"sha256:{'0' * 64}")
    again = parse(hidden, {}, folder=EXAMPLE.parent)
    expected = parse(EXAMPLE.read_text(), {}, folder=EXAMPLE.parent)
    assert again == expected
    assert "digits-gpu (gpu): $0.0001447 a device-second" in printed


def test_what_check_config_prints_holds_no_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secrets = {
        "TOLLWAY_SERVER__ADMIN_KEY": "canary-admin-key-4711",
        "TOLLWAY_PEPPER": "canary-pepper-4712",
        "TOLLWAY_TENANTS__ACME__KEY_HASH": hash_key("canary", "canary-pepper-4712"),
    }
    for form in ([], ["--json"]):
        assert cli.main(["check-config", str(EXAMPLE), *form], secrets) == terminal.OK
    printed = capsys.readouterr().out
    assert not [secret for secret in secrets.values() if secret in printed]
    assert "admin_key" in printed


def test_check_config_as_json_is_the_effective_configuration(
    capsys: pytest.CaptureFixture[str],
) -> None:
    environ = {"TOLLWAY_BACKENDS__DIGITS_GPU__URL": "http://gpu-1:9002"}
    assert cli.main(["check-config", str(EXAMPLE), "--json"], environ) == terminal.OK
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True
    assert told["settings"]["backends"][2]["url"] == "http://gpu-1:9002"
    assert told["settings"]["budgets"][0]["limit_usd"] == 10.0


BROKEN = EXAMPLE.read_text().replace("0.97", "1.2").replace('"hard"', '"hart"')


def test_all_problems_are_listed_with_code_2_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "broken.toml"
    file.write_text(BROKEN)
    for command in ("check-config", "serve"):
        assert cli.main([command, str(file)], {}) == terminal.USAGE
        said = capsys.readouterr().err
        assert said.splitlines() == [
            "broken.toml: routes[0].accuracy_floor = 1.2: must be at most 1; write it like 0.97",
            'broken.toml: budgets[0].enforcement = "hart": must be one of hard, expected, soft; '
            "did you mean 'hard'?",
        ]


def test_problems_can_be_had_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "broken.toml"
    file.write_text(BROKEN)
    assert cli.main(["check-config", str(file), "--json"], {}) == terminal.USAGE
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert told["problems"][0] == {
        "source": "broken.toml",
        "key": "routes[0].accuracy_floor",
        "value": "1.2",
        "why": "must be at most 1; write it like 0.97",
    }


def test_a_file_that_is_not_there_is_a_problem_of_the_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check-config", str(tmp_path / "none.toml")], {}) == terminal.USAGE
    assert "No such file" in capsys.readouterr().err


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """What `serve` was called with, instead of serving it."""
    calls: list[Settings] = []
    serving = types.ModuleType("tollway.gateway.cli.serve")

    def serve(read: Callable[[], Settings], note: str = "") -> int:
        calls.append(read())
        return terminal.OK

    monkeypatch.setattr(serving, "serve", serve, raising=False)
    monkeypatch.setitem(sys.modules, "tollway.gateway.cli.serve", serving)
    return calls


def test_serve_takes_the_file_and_the_listener_given(served: list[Settings]) -> None:
    assert cli.main(["serve", str(EXAMPLE)], {}) == terminal.OK
    assert cli.main(["serve", str(EXAMPLE), "--listen", "127.0.0.1:0"], {}) == terminal.OK
    assert cli.main(["serve", str(EXAMPLE), "--workers", "3"], {}) == terminal.OK
    assert [settings.server.listen for settings in served][:2] == ["127.0.0.1:8080", "127.0.0.1:0"]
    assert [settings.server.workers for settings in served] == [1, 1, 3]


def test_workers_cannot_share_a_ledger_in_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"TOLLWAY_LEDGER__URL": "memory://"}
    command = ["serve", str(EXAMPLE), "--workers", "2"]
    assert cli.main(command, environ) == terminal.USAGE
    assert "cannot be shared by server.workers = 2" in capsys.readouterr().err


def test_the_demo_gets_what_follows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[list[str]] = []
    demo = types.ModuleType("examples.digits.demo")
    monkeypatch.setattr(demo, "main", told.append, raising=False)
    monkeypatch.setattr("importlib.import_module", lambda name: demo)
    assert cli.main(["demo", "--keep", "--json", "x"], {}) == terminal.OK
    assert told == [["--keep", "--json", "x"]]


def test_without_a_checkout_the_demo_says_where_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'examples'")

    monkeypatch.setattr("importlib.import_module", missing)
    assert cli.main(["demo"], {}) == terminal.FAILED
    assert "scripts/demo in a checkout" in capsys.readouterr().err


def test_a_new_key_comes_with_its_hash(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["keys", "new", "--json"], {}) == terminal.OK
    made = json.loads(capsys.readouterr().out)
    assert is_key(made["key"])
    assert made["key_hash"] == hash_key(made["key"])
    assert cli.main(["keys", "new"], {"TOLLWAY_PEPPER": "salt"}) == terminal.OK
    key, hashed = (line.split()[1] for line in capsys.readouterr().out.splitlines())
    assert hashed == hash_key(key, "salt")


@pytest.mark.parametrize(
    ("typed", "code", "said"),
    [
        ("my-own-key\n", terminal.OK, hash_key("my-own-key")),
        ("", terminal.USAGE, "no key on stdin"),
        ("tw_cut", terminal.FAILED, "incomplete or mistyped"),
    ],
)
def test_a_key_is_hashed_from_stdin(
    typed: str,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert cli.main(["keys", "hash"], {}) == code
    printed = capsys.readouterr()
    assert said in printed.out + printed.err


def test_budgets_are_listed_to_the_nano_dollar(
    gateway_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["budgets", "list", "--url", gateway_url, "--key", "admin"], {}) == terminal.OK
    head, row = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["BUDGET", "WINDOW", "ENFORCED", "LIMIT"]
    figures = "$10.00 $1.234567891 $0.00 $8.765432109 $0.00 12.3%"
    assert row.split() == ["acme-daily", "day", "hard", *figures.split()]


def test_a_budget_is_shown_by_name_and_a_wrong_name_is_told(
    gateway_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"TOLLWAY_URL": gateway_url, "TOLLWAY_KEY": "admin"}
    assert cli.main(["budgets", "show", "acme-daily", "--json"], environ) == terminal.OK
    assert json.loads(capsys.readouterr().out) == BUDGET
    assert cli.main(["budgets", "show", "acme-daily"], environ) == terminal.OK
    assert "spent          $1.234567891" in capsys.readouterr().out
    assert cli.main(["budgets", "show", "acme"], environ) == terminal.FAILED
    assert "none at /_tollway/budgets/acme" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "asked"), [([], {}), (["--billed", "0.002"], {"billed_usd": "0.002"})]
)
def test_a_release_names_the_lease_the_reason_and_what_was_billed_if_that_is_known(
    more: list[str], asked: dict[str, str], gateway_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"TOLLWAY_URL": gateway_url, "TOLLWAY_KEY": "admin"}
    words = ["budgets", "release", "acme-daily", "w.1", "--who", "ann", "--why", "invoice 7"]
    assert cli.main([*words, *more, "--json"], environ) == terminal.OK
    change = json.loads(capsys.readouterr().out)["change"]
    by = {"action": "release", "lease": "w.1", "who": "ann", "why": "invoice 7"}
    assert change == {**by, **asked}


def test_a_release_of_what_is_no_amount_fails_and_says_which(
    gateway_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"TOLLWAY_URL": gateway_url, "TOLLWAY_KEY": "admin"}
    words = ["budgets", "release", "acme-daily", "w.1", "--why", "x", "--billed", "much"]
    assert cli.main(words, environ) == terminal.FAILED
    assert "Bad change: billed_usd: not an amount" in capsys.readouterr().err


def test_a_decision_is_explained_in_sentences(
    gateway_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"TOLLWAY_URL": gateway_url, "TOLLWAY_KEY": "admin"}
    assert cli.main(["explain", "abc.1.wxyz"], environ) == terminal.OK
    assert capsys.readouterr().out.splitlines() == [
        "abc.1.wxyz  2026-09-21T14:13:20.500+00:00  route digits  tenant acme  environment=staging",
        "  Drawn: digits-cpu.",
        "  Called digits-cpu: status 200.",
        "  Total cost: $0.0001.",
    ]
    assert cli.main(["explain", "abc.1.wxyz", "--json"], environ) == terminal.OK
    assert json.loads(capsys.readouterr().out) == DECISION


@pytest.mark.parametrize(
    ("key", "id", "said"),
    [
        ("wrong-key-4711", "abc.1.wxyz", "Unauthorized: send the admin key"),
        ("admin", "none", "No decision: none at /_tollway/decisions/none"),
        ("admin", "../budgets?x", "none at /_tollway/decisions/..%2Fbudgets%3Fx"),
    ],
)
def test_a_refusal_by_the_gateway_is_exit_code_1_with_its_reason(
    key: str, id: str, said: str, gateway_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["explain", id, "--url", gateway_url, "--key", key], {}) == terminal.FAILED
    printed = capsys.readouterr().err
    assert said in printed
    assert "4711" not in printed


def test_no_gateway_is_code_3_and_says_how_to_name_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for url in ("http://127.0.0.1:1", "127.0.0.1:1", "ftp://127.0.0.1"):
        assert cli.main(["budgets", "list", "--url", url], {}) == terminal.UNREACHABLE
        assert "--url" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("nano", "said"),
    [
        (0, "$0.00"),
        (1, "$0.000000001"),
        (10**9, "$1.00"),
        (-1_500_000_000, "-$1.50"),
        (2**53 - 1, "$9007199.254740991"),
    ],
)
def test_dollars_are_written_exactly(nano: int, said: str) -> None:
    assert format_usd(nano) == said


@pytest.mark.integration
def test_a_reader_that_leaves_early_gets_no_traceback() -> None:
    script = "import sys; from tollway.gateway.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", script, "check-config", str(EXAMPLE)]
    environ = {"PYTHONPATH": str(EXAMPLE.parent.parent)}
    reader, writer = os.pipe()
    os.close(reader)
    ran = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False, env=environ)
    os.close(writer)
    assert (ran.returncode, ran.stderr) == (terminal.FAILED, b"")


def test_the_printed_configuration_is_toml(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check-config", str(EXAMPLE)], {}) == terminal.OK
    assert set(tomllib.loads(capsys.readouterr().out)) >= {"server", "backends", "routes"}


def test_check_config_notes_what_kubernetes_has_set(capsys: pytest.CaptureFixture[str]) -> None:
    environ = {"TOLLWAY_SERVICE_HOST": "10.96.0.7", "TOLLWAY_PORT": "tcp://10.96.0.7:8080"}
    assert cli.main(["check-config", str(EXAMPLE)], environ) == terminal.OK
    assert "# note: TOLLWAY_PORT and 1 more: set by Kubernetes" in capsys.readouterr().out
    assert cli.main(["check-config", str(EXAMPLE), "--json"], environ) == terminal.OK
    assert json.loads(capsys.readouterr().out)["notes"][0].startswith("TOLLWAY_PORT and 1 more")
