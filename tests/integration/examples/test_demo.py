"""The demo from end to end: real servers, a real gateway, and figures that agree."""

import json
import os
import signal
import subprocess
import sys
import urllib.request

import pytest

from tollway.gateway.cli.main import main

pytestmark = pytest.mark.integration

REQUESTS = 300
# 300 requests are few, and a journal tells only of what was tried: try much, whatever it costs.
OPTIONS = "TOLLWAY_ROUTES__DIGITS__POLICY_OPTIONS__"
EXPLORES = {f"{OPTIONS}P_MIN": "0.33", f"{OPTIONS}EXPLORE_SHARE": "1.0"}
ARGUMENTS = [sys.executable, "-m", "examples.digits.demo", "--quick", "--requests", str(REQUESTS)]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    table = folder / "table.json"
    places = ["--dir", str(folder), "--models", str(folder / "models"), "--json", str(table)]
    done = subprocess.run(
        [*ARGUMENTS, *places, "--keep"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, **EXPLORES},
    )
    pids = [int(pid) for pid in done.stdout.rpartition("kill ")[2].split()]
    yield folder, done, json.loads(table.read_text()), pids
    for pid in pids:
        os.kill(pid, signal.SIGTERM)


def test_it_ends_well_and_shows_where_to_look(ran):
    folder, done, _, pids = ran

    assert done.returncode == 0, done.stdout + done.stderr
    assert "40 answered, 60 refused with 402" in done.stdout
    assert ": exact." in done.stdout
    assert "One decision explained" in done.stdout
    assert len(pids) == 4
    (picture,) = folder.glob("*/picture.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_table_says_what_happened(ran):
    rows = {row["name"]: row for row in ran[2]["rows"]}

    assert set(rows) == {
        "tollway",
        "digits-rules",
        "digits-cpu",
        "digits-large",
        "90/10",
        "hull",
    }
    assert all(row["requests"] == REQUESTS for row in rows.values())
    assert rows["digits-rules"]["spend_usd"] == pytest.approx(REQUESTS * 0.00001)
    assert rows["digits-large"]["spend_usd"] == pytest.approx(REQUESTS * 0.001)
    assert rows["digits-large"]["accuracy"] > rows["digits-cpu"]["accuracy"] > 0.9
    assert rows["tollway"]["spend_usd"] < rows["digits-large"]["spend_usd"]
    assert rows["hull"]["spend_usd"] == rows["tollway"]["spend_usd"]


def test_with_keep_everything_goes_on_serving(ran):
    for what, says in (("metrics", b"tollway_"), ("dashboard", b"<title>")):
        (line,) = [line for line in ran[1].stdout.splitlines() if line.strip().startswith(what)]

        with urllib.request.urlopen(line.split()[1]) as reply:
            assert says in reply.read()


def test_on_a_stop_the_demo_stops_what_it_started(tmp_path, ran):
    places = ["--dir", str(tmp_path), "--models", str(ran[0] / "models")]
    with subprocess.Popen([*ARGUMENTS, *places], stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "the gateway" in line:
                break
        demo.send_signal(signal.SIGTERM)
        rest = demo.stdout.read()

    assert "Stopped." in rest
    assert demo.returncode == 130
    address = line.split()[-1]
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{address}/livez")


def test_replay_of_its_journal_predicts_what_each_backend_gave(ran, tmp_path):
    folder, _, table, _ = ran
    (journal,) = folder.glob("*/.tollway/journal")
    told = tmp_path / "replay.json"
    asked = ["simulate", "replay", str(journal), "--route", "digits", "--json", str(told)]
    assert main(asked) == 0

    foretold = {one["label"]: one for one in json.loads(told.read_text())["policies"]}
    for row in table["rows"]:
        if row["name"] in {"digits-rules", "digits-cpu", "digits-large"}:
            one = foretold[f"fixed:arm={row['name']}"]
            quality, cost = one["quality"], one["cost_usd"]
            assert quality["low"] <= row["accuracy"] <= quality["high"]
            assert quality["high"] - quality["low"] < 0.5
            assert cost["value"] == pytest.approx(row["spend_usd"] / REQUESTS)
