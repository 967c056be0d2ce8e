"""The arithmetic of the throughput benchmark: turns, ratios, paces, and what is read from text."""

import asyncio
import json
import os
import time
from dataclasses import replace

import pytest

from benchmarks import soak
from benchmarks.throughput import cases, contestants, labels, stream_upstream
from benchmarks.throughput.load import request_bytes
from benchmarks.throughput.machine import pgo_of
from benchmarks.throughput.processes import cpu_clock
from benchmarks.throughput.rows import Round, in_turns, row

NGINX = Round(requests_per_s=9000.0, cpu_us=10.0, p50_ms=0.1, p99_ms=0.3, errors=0, calls=1.0)


def rounds(*cpu_us: float, calls: float = 1.0) -> list[Round]:
    """Return rounds that differ in their CPU."""
    return [replace(NGINX, cpu_us=one, calls=calls) for one in cpu_us]


def test_contestants_are_measured_in_turns() -> None:
    order: list[str] = []

    def measure(name: str) -> int:
        order.append(name)
        return len(order)

    found = in_turns(["nginx", "Tollway"], 3, measure)

    assert order == ["nginx", "Tollway"] * 3
    assert found == {"nginx": [1, 3, 5], "Tollway": [2, 4, 6]}


def test_a_ratio_is_the_median_of_the_pairs_and_not_of_the_sums() -> None:
    # Other work doubled the CPU of the second round, of both: each pair still has a ratio of 4.
    made = row("Tollway", "oip", 32, rounds(40.0, 80.0, 40.0), rounds(10.0, 20.0, 10.0))

    assert made.x_nginx_cpu == 4.0
    assert made.of_nginx == 0.25
    assert made.cpu_us == 40.0


def test_one_disturbed_round_does_not_change_a_row() -> None:
    made = row("Tollway", "oip", 32, rounds(40.0, 900.0, 44.0), rounds(10.0, 10.0, 10.0))

    assert made.x_nginx_cpu == pytest.approx(4.4)
    assert made.cpu_us == 44.0


def test_a_cascade_is_compared_with_nginx_for_as_many_calls() -> None:
    own = rounds(60.0, 60.0, 60.0, calls=1.5)

    made = row("Tollway", "cascade", 32, own, rounds(10.0, 10.0, 10.0), per_call=True)
    plain = row("Tollway", "oip", 32, own, rounds(10.0, 10.0, 10.0))

    assert made.x_nginx_cpu == pytest.approx(4.0)
    assert made.calls == 1.5
    assert plain.x_nginx_cpu == pytest.approx(6.0)


def test_the_latency_of_one_connection_is_a_ratio_of_the_same_rounds() -> None:
    own = [replace(NGINX, p50_ms=one) for one in (0.2, 0.6, 0.2)]
    base = [replace(NGINX, p50_ms=one) for one in (0.1, 0.3, 0.1)]

    assert row("Tollway", "oip", 1, own, base).x_nginx_p50 == pytest.approx(2.0)


def test_nginx_is_once_itself() -> None:
    made = row("nginx", "oip", 1, [NGINX] * 3, [NGINX] * 3)

    assert (made.x_nginx_cpu, made.of_nginx, made.x_nginx_p50) == (1.0, 1.0, 1.0)


def test_errors_are_added_up() -> None:
    own = [replace(NGINX, errors=one) for one in (0, 2, 5)]

    assert row("Tollway", "oip", 1, own, [NGINX] * 3).errors == 7


def test_rounds_without_a_partner_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        row("Tollway", "oip", 1, rounds(1.0), rounds(1.0, 2.0))


@pytest.mark.parametrize(("connections", "every_ms"), [(1, 1), (32, 8), (128, 32)])
def test_the_events_of_all_streams_together_have_one_rate(connections: int, every_ms: int) -> None:
    assert cases.every_ms(connections) == every_ms
    assert connections * 1000 / every_ms <= cases.STREAM_EVENTS_PER_S
    assert cases.STREAM.paced(connections).headers["x-every-ms"] == f"{every_ms}"
    assert cases.STREAM.least_s(connections) * 1000 >= 3 * cases.EVENTS * every_ms


def test_only_streams_have_a_pace() -> None:
    assert cases.CHAT.paced(128) is cases.CHAT
    assert cases.CHAT.least_s(128) == 1


def test_the_upstream_of_streams_counts_the_events_that_it_wrote() -> None:
    async def run() -> bytes:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(stream_upstream.Upstream, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        async def ask(head: bytes, end: bytes) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head)
            reply = await (reader.readuntil(end) if end else reader.read())
            writer.close()
            return reply

        await ask(b"POST / HTTP/1.1\r\nx-every-ms: 0\r\ncontent-length: 0\r\n\r\n", b"0\r\n\r\n")
        counted = await ask(b"GET / HTTP/1.1\r\n\r\n", b"")
        server.close()
        return counted

    before = stream_upstream.Upstream.written
    counted = asyncio.run(run()).rpartition(b"\r\n\r\n")[2]
    assert int(counted) == before + cases.EVENTS


def test_a_stream_has_as_many_events_as_it_says() -> None:
    events = cases.events()

    assert len(events) == cases.EVENTS == 40
    assert events[-1] == "data: [DONE]\n\n"
    usage = json.loads(events[-2].removeprefix("data: "))["usage"]
    assert usage["completion_tokens"] == sum('"content"' in event for event in events)


@pytest.mark.parametrize("case", cases.CASES.values(), ids=lambda case: case.name)
def test_bodies_are_distinct_documents(case: cases.Case) -> None:
    assert len(set(case.bodies)) == len(case.bodies)
    for body in case.bodies:
        assert json.loads(body)
        assert "\0" not in body  # it separates them in the file that wrk reads


def test_a_case_for_another_model_differs_in_nothing_else() -> None:
    made = contestants.asking(cases.CHAT, "/elsewhere", "other")

    assert made.path == "/elsewhere"
    assert [json.loads(body) for body in made.bodies] == [
        {**json.loads(body), "model": "other"} for body in cases.CHAT.bodies
    ]


def test_a_request_on_the_wire_states_its_length() -> None:
    head, _, body = request_bytes(cases.SMALL, {"a": "b"}).partition(b"\r\n\r\n")

    assert head.startswith(b"POST /v2/models/x/infer HTTP/1.1\r\n")
    assert b"content-length: %d" % len(body) in head


def test_the_state_of_a_floor_is_read_from_the_metrics() -> None:
    lines = [
        'tollway_floor_share{route="other"} 0.1',
        'tollway_floor_share{route="floor"} 1.0',
        'tollway_floor_lower_bound{route="floor"} 0.88',
        'tollway_floor_guarded{route="floor"} 0.0',
    ]

    assert labels.floor_state("\n".join(lines), "floor", 3000) == labels.FloorState(
        share=1.0, lower_bound=0.88, guarded=False, labels=3000
    )
    with pytest.raises(SystemExit, match="tollway_floor_share"):
        labels.floor_state("", "floor", 0)


@pytest.mark.parametrize(
    ("config_args", "prefix", "pgo"),
    [
        ("'--enable-optimizations' '--with-lto'", "/usr/local", "yes"),
        ("'--enable-shared'", "/opt/python", "no"),
        ("'--prefix=/usr'", "/usr", "unknown"),  # Debian's rules run `make profile-opt`
    ],
)
def test_whether_python_was_optimized_is_not_guessed(
    config_args: str, prefix: str, pgo: str
) -> None:
    assert pgo_of(config_args, prefix) == pgo


def test_the_cpu_clock_is_that_of_the_process() -> None:
    before_s = time.process_time()
    read_s = time.clock_gettime(cpu_clock(os.getpid()))

    assert before_s <= read_s <= time.process_time()


def test_growth_counts_from_the_first_tenth() -> None:
    marks = [
        soak.Mark(requests, mib, descriptors=9, lag_p50_ms=0.0, lag_max_ms=0.0)
        for requests, mib in ((0, 80.0), (60, 90.0), (120, 95.0), (1000, 96.0))
    ]

    assert soak.growth(marks) == soak.Growth(1000, 80.0, 95.0, 1.0)
