"""The callback shell hands over what goes wrong, and repeats nothing of it."""

from types import SimpleNamespace
from typing import Any

from tollway.gateway.data_plane.callback_shell import Progress
from tollway.gateway.listener.client import Client


def test_a_request_whose_recording_fails_is_not_recorded_again() -> None:
    failure, told, handed = RuntimeError("a sink is broken"), [], []

    def answered(state: Any, now_s: float) -> None:
        told.append(state)  # as the journal's rows, before another sink fails
        raise failure

    driver = SimpleNamespace(
        router=SimpleNamespace(next=lambda state, now_s: None),
        sinks=SimpleNamespace(answered=answered),
    )
    request = SimpleNamespace(tasks=set(), hand_over=handed.append)
    shell: Any = SimpleNamespace(driver=driver, go_on=handed.append)
    progress = Progress(shell, Client(), request, "acme")  # type: ignore[arg-type]
    state: Any = object()
    progress.state = state
    progress.advance(0.0)
    assert (told, len(handed)) == ([state], 1)
    assert progress.is_recorded and progress.error is failure
