"""The command actuator: real programs, their output, their time limit, what they cannot see."""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.support.until import until
from tollway.gateway.scaling.actuators.command import OUTPUT_BYTES_MAX, CommandActuator, filled
from tollway.gateway.scaling.actuators.port import Change, Outcome

pytestmark = pytest.mark.integration

CHANGE = Change("c-1", "gpu", 2, 3, "spike", "why")
LIMIT_S = 100.0


def applied(*words: str, timeout_s: float = LIMIT_S, **more: object) -> Outcome:
    one = CommandActuator(words, timeout_s=timeout_s, **more)  # type: ignore[arg-type]
    return asyncio.run(one.apply(CHANGE))


def runs(process: Path) -> bool:
    """Return whether a folder of /proc is that of a process which has not ended."""
    try:
        return "zombie" not in (process / "status").read_text()
    except FileNotFoundError:
        return False


def test_arguments_are_filled_in_and_no_shell_reads_them() -> None:
    found = applied("echo", "{backend}={replicas}", "$(id); {before} {other} {reason} {id}")
    assert found == Outcome("", "gpu=3 $(id); 2 {other} spike c-1")
    assert filled("{x}", {"backend": "{replicas}"}) == "{x}"


def test_the_program_gets_the_change_and_no_secret() -> None:
    environ = {"PATH": "/usr/bin:/bin", "TOLLWAY_PEPPER": "secret", "KUBECONFIG": "/k"}
    found = applied("env", environ=environ, passed=["KUBECONFIG"])
    lines = set(found.output.splitlines())
    assert {"TOLLWAY_REPLICAS=3", "TOLLWAY_BEFORE=2", "KUBECONFIG=/k"} <= lines
    assert "secret" not in found.output


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["sh", "-c", "echo no quota >&2; exit 3"], "exit status 3"),
        (["sh", "-c", "kill -9 $$"], "was ended by signal 9"),
        (["/does/not/exist"], "/does/not/exist cannot be started: No such file or directory"),
    ],
)
def test_failures_say_what_happened(words: list[str], problem: str) -> None:
    assert applied(*words).problem == problem


def test_of_much_output_the_end_is_kept_without_control_characters() -> None:
    program = r"import sys; sys.stdout.write('x' * 300_000 + '\x1b[31mlast\n')"
    found = applied(sys.executable, "-c", program)
    assert found.problem == "" and found.output.endswith("x[31mlast")
    assert len(found.output) <= OUTPUT_BYTES_MAX


def test_a_program_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    async def main() -> None:
        pid = tmp_path / "pid"
        script = f"sleep 1000 & echo $! > {pid}.new; mv {pid}.new {pid}; echo begun; wait"
        one = CommandActuator(["sh", "-c", script], timeout_s=LIMIT_S)
        task = asyncio.create_task(one.apply(CHANGE))
        await until(pid.exists)
        child = Path("/proc", pid.read_text().strip())
        assert runs(child)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not runs(child))

    asyncio.run(main())


def test_a_time_limit_ends_it() -> None:
    found = applied("sleep", "1000", timeout_s=0.05)
    assert found.problem == "took longer than 0.05 s and was ended"


def test_a_server_that_is_left_running_does_not_hold_up_the_change(tmp_path: Path) -> None:
    async def main() -> None:
        script = f"sleep 1000 & echo $! > {tmp_path}/pid; echo started"
        one = CommandActuator(["sh", "-c", script], timeout_s=LIMIT_S)
        assert await one.apply(CHANGE) == Outcome("", "started")
        child = (tmp_path / "pid").read_text().strip()
        process = await asyncio.create_subprocess_exec("kill", child)
        assert await process.wait() == 0

    asyncio.run(main())
