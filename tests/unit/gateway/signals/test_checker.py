"""What the program that checks texts makes of hostile schemas, and when it ends."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tollway.gateway.signals.checker import check
from tollway.gateway.signals.local_hooks import CHECKER, PATTERN_HELLO

HOSTILE = {"pattern": "(a+)+$", "text": "a" * 60 + "b"}


def test_a_reference_to_a_file_or_a_server_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text("{}")
    for reference in (file.as_uri(), "http://127.0.0.1:9/schema", "#/nope"):
        schema = {"$ref": reference}
        assert check({"schema": schema, "text": "1"}) == {"score": None}


def test_a_reference_into_the_schema_or_to_a_specification_is_followed() -> None:
    own = {"$ref": "#/$defs/n", "$defs": {"n": {"type": "number"}}}
    assert check({"schema": own, "text": "1"}) == {"score": 1.0}
    assert check({"schema": own, "text": '"x"'}) == {"score": 0.0}
    known = {"$ref": "https://json-schema.org/draft/2020-12/schema"}
    assert check({"schema": known, "text": '{"type": 5}'}) == {"score": 0.0}


def test_a_line_that_fails_does_not_end_the_program() -> None:
    lines: list[Any] = [
        {"schema": {"$ref": "http://[no"}, "text": "1"},
        {"schema": {"$ref": "#/nope"}, "text": "1"},
        {"pattern": "(", "text": "a"},
        [],
        {"pattern": "é", "text": "é"},
    ]
    done = subprocess.run(
        CHECKER,
        input="".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode(),
        stdout=subprocess.PIPE,
        env={"LC_ALL": "POSIX"},
        check=True,
    )
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(replies) == len(lines)
    assert replies[1] == {"id": None, "score": None}
    assert "error" in replies[3]
    assert replies[4] == {"id": None, "score": 1.0}


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_it_ends_with_the_gateway_even_in_an_expression_that_does_not() -> None:
    asked = "".join(json.dumps(line) + "\n" for line in (PATTERN_HELLO, HOSTILE)).encode()
    parent = f"""
import subprocess
child = subprocess.Popen({CHECKER!r}, stdin=subprocess.PIPE)
child.stdin.write({asked!r})
child.stdin.flush()
child.wait()
"""
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, start_new_session=True
    ) as gateway:
        assert gateway.stdout is not None
        try:
            assert gateway.stdout.readline()  # the first answer: it has begun
            gateway.kill()
            rest, _ = gateway.communicate(timeout=60)  # ends when nobody has the pipe any more
            assert rest == b""
        except subprocess.TimeoutExpired:
            os.killpg(gateway.pid, signal.SIGKILL)
            raise
