"""`tollway gameday`: its output, its schedule of faults, and the errors it reports."""

import asyncio
import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tollway.gameday import commands, plan
from tollway.gameday.faults import NOTHING, parse
from tollway.gateway.cli import main as cli
from tollway.gateway.cli import terminal

TO = ["--to", "127.0.0.1:1"]


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "tollway", "gameday", *options]


@pytest.mark.integration
def test_faults_read_from_stdin_are_injected_and_each_change_is_printed() -> None:
    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.read(100))
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command("--to", f"127.0.0.1:{port}", "--stdin"), stdin=pipe, stdout=pipe
        )
        assert process.stdin is not None
        assert process.stdout is not None
        told = process.stdout

        async def ask() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", listening)
            writer.write(b"hallo")
            said = await reader.read()
            writer.close()
            await writer.wait_closed()
            return said

        async with asyncio.timeout(30):
            first = (await told.readline()).decode()
            listening = int(first.partition("127.0.0.1:")[2].partition(" ")[0])
            for words, heard in (("cut=2", b"ha"), ("lag=1s", b"ha"), ("none", b"hallo")):
                process.stdin.write(f"{words}\n".encode())
                said = (await told.readline()).decode()
                assert ("unknown fault" if "lag" in words else "open)") in said
                assert await ask() == heard
            process.send_signal(signal.SIGTERM)
            assert (await told.readline()).endswith(b"ended: 3 connections, 2 cut\n")
            assert await process.wait() == terminal.OK
            process.stdin.close()
        server.close()

    asyncio.run(main())


@pytest.mark.integration
def test_a_plan_injects_its_faults_at_their_times(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    strikes = [("0ms", 'for = "100ms"\n', "hang"), ("200ms", "", "cut=3,share=0.5")]
    file.write_text(
        "".join(f'[[strike]]\nat = "{at}"\n{ends}fault = "{f}"\n' for at, ends, f in strikes)
    )
    ran = subprocess.run(
        command(*TO, "--plan", str(file), "--end", "1s"),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    lines = [line.partition("Z  ")[2] for line in ran.stdout.splitlines()]
    assert lines[1:] == [
        "injected: hang (0 connections open)",
        "no faults (0 connections open)",
        "injected: cut=3,share=0.5 (0 connections open)",
        "ended: no connections",
    ]


@pytest.mark.parametrize("address", ["127.0.0.1:8001", "[::1]:8001", "redis.internal:6379"])
def test_addresses_are_read_as_they_are_written(address: str) -> None:
    host, port = commands.arguments(["--to", address, "--stdin"]).to
    assert commands.written((host, port)) == address
    assert "[" not in host


def test_faults_strike_again_and_again_or_once() -> None:
    again = plan.repeated(parse("hang"), 5.0, 60.0)
    assert [next(again).at_s for _ in range(3)] == [60.0, 120.0, 180.0]
    assert list(plan.repeated(NOTHING, 5.0, None)) == [plan.Strike(0.0, NOTHING, 5.0)]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ([], "the following arguments are required: --to"),
        (["--to", "8001"], "'8001': write HOST:PORT"),
        (["--to", "h:99999"], "write HOST:PORT"),
        (TO, "give exactly one of --fault, --plan and --stdin"),
        ([*TO, "--fault", "hang", "--stdin"], "exactly one of"),
        ([*TO, "--fault", "lag=1s"], "unknown fault 'lag'"),
        ([*TO, "--fault", "hang", "--for", "5"], "write a time with its unit"),
        ([*TO, "--fault", "hang", "--every", "0s"], "the time must be above 0"),
        ([*TO, "--fault", "hang", "--every", "5s"], "--every needs --for"),
        ([*TO, "--fault", "hang", "--every", "5s", "--for", "5s"], "must be shorter than --every"),
        ([*TO, "--stdin", "--every", "5s"], "--every and --for need --fault"),
        ([*TO, "--plan", "nowhere.toml"], "No such file"),
    ],
)
def test_an_invalid_command_line_is_refused_with_the_reason(
    options: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.suppress(SystemExit):
        assert cli.main(["gameday", *options]) == terminal.USAGE
    assert why in capsys.readouterr().err


STRIKE = '[[strike]]\nat = "1s"\nfor = "5s"\nfault = "hang"\n'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "must contain .* tables"),
        ("strike = 1", "must contain .* tables"),
        ("strike = [1]", "strike 1: write"),
        ("[[strike]]\nat = 1\n", 'strike 1: at must be text, such as at = "10s"'),
        ('[[strike]]\nwhen = "1s"\n', "strike 1: unknown key 'when'; the keys are: at, for, fault"),
        ('[[strike]]\nat = "1s"\n', "strike 1: at and fault are required"),
        (STRIKE + STRIKE.replace("hang", "lag"), "strike 2: unknown fault 'lag'"),
        (STRIKE + STRIKE, "the strike at 1s overlaps the one at 1s"),
        (STRIKE + STRIKE.replace('"1s"', '"3s"'), "overlaps the one at 3s \\(hang\\)"),
        ("strike", "nonsense|Expected"),
    ],
)
def test_an_invalid_plan_is_refused_with_place_and_reason(
    text: str, why: str, tmp_path: Path
) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(text)
    with pytest.raises(plan.BadPlan, match=why):
        plan.load(file)


def test_strikes_are_in_the_order_of_their_times(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(STRIKE.replace('"1s"', '"9s"') + STRIKE)
    assert [strike.at_s for strike in plan.load(file)] == [1.0, 9.0]


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["gameday", "--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert "--fault drop --every 60s --for 5s" in told
    assert "[[strike]]" in told
