"""Log lines are written by a thread, and nothing waits for their reader."""

import asyncio
import contextlib
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.configs import two_backends
from tests.support.harness import Upstream, inference, run, serving
from tests.support.http_client import http_client
from tests.support.process import ROOT, Process, free_port
from tollway.gateway.observability.log_writer import Background, Direct


@pytest.fixture
def pipe() -> Iterator[tuple[int, io.TextIOWrapper]]:
    """A pipe: the number of its end for reading, and a stream that writes to it."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as out:
        yield reading, out
        os.close(reading)


def fill(number: int) -> None:
    """Fill a pipe."""
    os.set_blocking(number, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(number, b"x" * 4096)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(number, b"x")
    os.set_blocking(number, True)


def read_all(number: int) -> bytes:
    """Return what a pipe holds."""
    os.set_blocking(number, False)
    held = b""
    with contextlib.suppress(BlockingIOError):
        while data := os.read(number, 1 << 20):
            held += data
    return held


def test_lines_come_whole_and_in_order(pipe: tuple[int, io.TextIOWrapper]) -> None:
    reading, out = pipe
    lines = Background(out)
    for n in range(500):
        lines.put(f"line {n} \udce9")
    lines.close()
    wanted = "".join(f"line {n} \\udce9\n" for n in range(500))
    assert read_all(reading).decode() == wanted
    assert lines.dropped == 0


def test_lines_beyond_the_queue_are_dropped_counted_and_reported(
    pipe: tuple[int, io.TextIOWrapper],
) -> None:
    reading, out = pipe
    fill(out.fileno())
    lines = Background(out, bytes_max=1000)
    for n in range(100):
        lines.put(f"line {n:94}")  # 100 bytes
    assert lines.dropped == 90
    told = read_all(reading)
    lines.close()
    found = (told + read_all(reading)).decode().lstrip("x").splitlines()
    assert len(found) == 11
    assert "90 log lines were dropped" in found
    assert lines.dropped == 90


def test_the_end_does_not_wait_for_a_reader_that_is_not_there(
    pipe: tuple[int, io.TextIOWrapper],
) -> None:
    reading, out = pipe
    fill(out.fileno())
    lines = Background(out)
    lines.put("waits")
    lines.close(limit_s=0.05)
    lines.put("too late")  # and does not wait either
    assert read_all(reading).strip(b"x") in {b"", b"waits\n"}


def test_a_direct_line_is_cut_or_dropped_where_there_is_no_room(
    pipe: tuple[int, io.TextIOWrapper],
) -> None:
    reading, out = pipe
    direct = Direct(out)
    direct.put("first")
    assert read_all(reading) == b"first\n"
    fill(out.fileno())
    direct.put("second")
    assert direct.dropped == 1
    read_all(reading)
    direct.put("third")
    assert read_all(reading) == b"third\n"


def test_a_reader_that_is_gone_costs_lines_and_nothing_else() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as out:
        lines, direct = Background(out), Direct(out)
        lines.put("nobody")
        lines.close()
        direct.put("nobody")
        assert (lines.dropped, direct.dropped) == (1, 1)


@pytest.mark.integration
@pytest.mark.parametrize("workers", [1, 2])
def test_a_log_that_nobody_reads_stops_neither_serving_nor_the_end(
    tmp_path: Path, workers: int
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    server = f'allow_anonymous = true\nlisten = "{url[7:]}"'
    more = '[log]\nrequests = "all"\n'
    reading, writing = os.pipe()
    fill(writing)

    async def main() -> None:
        async with serving(Upstream()) as a:
            file = tmp_path / "tollway.toml"
            text = two_backends(a, a, server=server, more=more, ledger="sqlite:///tollway.db")
            file.write_text(text)
            gateway = Process(file, "--workers", str(workers), stderr=writing)
            try:
                await gateway.ready(url)
                async with http_client(timeout=20) as client:
                    long = url + "/nowhere/" + "x" * 8000
                    for _ in range(30 * workers):
                        replies = await asyncio.gather(*(client.get(long) for _ in range(20)))
                        assert {reply.status_code for reply in replies} == {404}
                    path = url + "/v2/models/m/infer"
                    assert (await client.post(path, json=inference())).status_code == 200
                    metrics = (await client.get(url + "/metrics")).text
                (dropped,) = re.findall(r"^tollway_log_lines_dropped_total (\S+)$", metrics, re.M)
                assert float(dropped) > 0
                assert gateway.end(signal.SIGTERM) == 0
            finally:
                gateway.stop()

    try:
        run(main)
    finally:
        os.close(reading)
        os.close(writing)


def test_the_last_lines_of_a_process_are_written() -> None:
    """Logged by way of the logging module, by a process that ends at once."""
    text = (
        "import logging; from tollway.gateway.observability import log_format as logs; "
        "lines = logs.background('json'); logs.write('json', 'info', lines.put); "
        "[logging.getLogger('tollway.x').info('line %d', n) for n in range(2000)]; lines.close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr.count("\n") == 2000
    assert '"message":"line 1999"' in done.stderr
