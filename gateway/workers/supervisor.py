"""The supervisor: keeps N workers running behind one address.

Theory of operation. The supervisor binds and forks, and serves nothing itself. It has one thread
and no event loop, so that a fork copies a process at rest. All workers share the modules that were
imported before the fork. Each worker listens on the address with its own socket (SO_REUSEPORT), and
the kernel distributes connections evenly. The supervisor keeps these sockets open, so that the
connections of a worker that died wait for its replacement.

    slot      worker reports ready        worker ends                       stopping
    starting  ready                       stop all (at the first start)     told to drain
    ready     -                           empty, due after a pause          told to drain
    empty     -                           -                                 stays empty

The pause doubles while the workers of a slot die young, so that a crash loop does not exhaust the
machine. When the supervisor is gone, the workers see the end of a pipe and drain: no worker is left
running.
"""

import contextlib
import gc
import logging
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

log = logging.getLogger(__name__)

PAUSE_S = 0.1  # short, because the connections of a killed worker wait
PAUSE_MAX_S = 5.0
YOUNG_S = 10.0  # a worker that dies younger than this makes its successor wait longer
GRACE_S = 10.0  # beyond the drain: to settle, save and hand back
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP)

OK, FAILED = 0, 1


@dataclass(frozen=True, slots=True)
class Start:
    """The parameters of a worker: its index, and the pipes to and from the supervisor.

    A byte written to `ready_fd` reports that it serves; end of file on `alive_fd`, that the
    supervisor is gone.
    """

    index: int
    ready_fd: int
    alive_fd: int


@dataclass(slots=True)
class _WorkerSlot:
    index: int
    pid: int = 0
    since_s: float = 0.0
    due_s: float = 0.0
    pause_s: float = PAUSE_S
    ready: bool = False


class Supervisor:
    """Runs `work` in each of `count` processes until told to stop."""

    # The mutable state is the slots, whether all were ready once, and whether it is stopping.

    def __init__(
        self,
        work: Callable[[Start], int],
        count: int,
        *,
        drain_s: float,
        on_ready: Callable[[], None],
        on_stop: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`work` serves and returns the exit code of its process. `on_ready` is called once, when
        all workers serve; `on_stop` just before the workers are told to drain.
        """
        self._work = work
        self._slots = [_WorkerSlot(index) for index in range(count)]
        self._drain_s = drain_s
        self._on_ready = on_ready
        self._on_stop = on_stop
        self._clock = clock
        self._announced = False
        self._signals: list[int] = []
        self._reload = False
        self._code = OK
        self._kill_at_s = float("inf")
        self._fds: list[int] = []

    def run(self) -> int:
        """Return once all workers are gone: 0 if they stopped as requested, else 1."""
        ready_r, ready_w = os.pipe()
        alive_r, alive_w = os.pipe()
        wake_r, wake_w = os.pipe()
        for fd in (wake_w, wake_r, ready_r):
            os.set_blocking(fd, False)
        self._fds = [ready_r, alive_w, wake_r, wake_w]  # not for workers, which close them
        with self._handling_signals(wake_w):
            gc.freeze()  # the collector does not write to frozen objects: their pages stay shared
            while self._step(ready_w, alive_r):
                select.select([wake_r, ready_r], [], [], self._patience_s())
                _drained(wake_r)
                self._read_ready(_drained(ready_r))
        for fd in (*self._fds, ready_w, alive_r):
            os.close(fd)
        return self._code

    @contextlib.contextmanager
    def _handling_signals(self, wake_fd: int) -> Iterator[None]:
        """Let signals wake the loop, with no other effect."""
        before = {one: signal.signal(one, self._note) for one in SIGNALS}
        fd = signal.set_wakeup_fd(wake_fd, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(fd)
            for one, handler in before.items():
                signal.signal(one, handler)

    def _note(self, number: int, frame: object) -> None:
        if number == signal.SIGHUP:
            self._reload = True
        elif number != signal.SIGCHLD:
            self._signals.append(number)

    # ------------------------------------------------------------------ steps of the loop

    def _step(self, ready_fd: int, alive_fd: int) -> bool:
        """Do the work that is due; return whether any worker is left."""
        now_s = self._clock()
        self._reap(now_s)
        if self._signals:
            self._stop(now_s)
        elif self._reload:
            self._signal(signal.SIGHUP)
        self._reload = False
        if self._stopping:
            if now_s >= self._kill_at_s:
                self._signal(signal.SIGKILL)
            return any(identity.pid for identity in self._slots)
        for identity in self._slots:
            if not identity.pid and now_s >= identity.due_s:
                self._start(identity, ready_fd, alive_fd, now_s)
        return True

    @property
    def _stopping(self) -> bool:
        return self._kill_at_s < float("inf")

    def _patience_s(self) -> float | None:
        """Return the time until the next work is due."""
        if self._stopping:
            return max(0.0, self._kill_at_s - self._clock())
        due = [identity.due_s for identity in self._slots if not identity.pid]
        return max(0.0, min(due) - self._clock()) if due else None

    def _start(self, identity: _WorkerSlot, ready_fd: int, alive_fd: int, now_s: float) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal before the worker has its own handlers must not be lost in the supervisor's.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pid = os.fork()
        if not pid:
            code = FAILED
            try:
                code = self._serve(Start(identity.index, ready_fd, alive_fd), held)
            finally:
                os._exit(code)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        identity.pid, identity.since_s, identity.ready = pid, now_s, False

    def _serve(self, start: Start, mask: Iterable[int]) -> int:
        """Run the worker in this process, after removing everything that the supervisor set up.

        `mask` is the signal mask to restore once the supervisor's handlers are removed.
        """
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # Ignored until the worker notes it: it has not read its configuration yet.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all of us
            for fd in self._fds:
                os.close(fd)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            return self._work(start)
        except SystemExit as exc:
            return exc.code if isinstance(exc.code, int) else FAILED
        except (
            BaseException
        ):  # this process must end here and not return into the supervisor's caller
            traceback.print_exc()
            return FAILED
        finally:
            sys.stdout.flush()
            sys.stderr.flush()

    def _read_ready(self, ready: bytes) -> None:
        """Record the workers that are ready."""
        for index in ready:
            self._slots[index].ready = True
        if not (self._announced or self._stopping) and all(
            identity.ready for identity in self._slots
        ):
            self._announced = True
            self._on_ready()

    def _reap(self, now_s: float) -> None:
        for identity in self._slots:
            if not identity.pid:
                continue
            pid, status = os.waitpid(identity.pid, os.WNOHANG)
            if pid:
                self._lost(identity, os.waitstatus_to_exitcode(status), now_s)

    def _lost(self, identity: _WorkerSlot, code: int, now_s: float) -> None:
        """Schedule a replacement after a pause; stop if no worker could start."""
        pid, identity.pid = identity.pid, 0
        if self._stopping:
            # A worker that is stopped before it serves has nothing to drain: the signal kills it.
            as_asked = code == OK or (code == -signal.SIGTERM and not identity.ready)
            self._code = self._code or (OK if as_asked else FAILED)
            return
        if not self._announced:
            log.error("worker %d could not start (exit code %d)", identity.index, code)
            self._code = FAILED
            self._stop(now_s)
            return
        young = now_s - identity.since_s < YOUNG_S
        identity.pause_s = min(PAUSE_MAX_S, 2 * identity.pause_s) if young else PAUSE_S
        identity.due_s = now_s + identity.pause_s
        log.error(
            "worker %d (process %d) exited with code %d; a replacement starts in %.1f s",
            identity.index,
            pid,
            code,
            identity.pause_s,
        )

    def _stop(self, now_s: float) -> None:
        """Tell the workers to drain; after a second SIGINT, to exit at once."""
        first = not self._stopping
        if first:
            self._kill_at_s = now_s + self._drain_s + GRACE_S
            self._on_stop()
            self._signal(signal.SIGTERM)
        elif signal.SIGINT in self._signals:
            self._signal(signal.SIGINT)
        self._signals.clear()

    def _signal(self, number: signal.Signals) -> None:
        for identity in self._slots:
            if identity.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(identity.pid, number)


def _drained(fd: int) -> bytes:
    """Return the bytes that can be read now."""
    with contextlib.suppress(BlockingIOError):
        return os.read(fd, 4096)
    return b""
