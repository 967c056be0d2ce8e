"""Writes log lines without ever blocking on their reader.

A pipe that nobody reads is full after 64 KiB, and a further write then blocks forever: on the event
loop that would stop the gateway. There are two writers that do not block:

    Background   a queue and a thread that writes; lines that do not fit are dropped and counted
    Direct       writes what the kernel accepts without blocking and drops the rest. For the
                 supervisor, which must have no threads when it forks, and for the last lines of a
                 process that stops

The thread writes to the file descriptor, not to Python's stream: a stream is locked while a write
to it hangs, which would block the exit of the process too. Once there is room again, a line reports
how many lines were dropped.
"""

import os
import select
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TextIO

WAITING_BYTES_MAX = 4 << 20
"""About ten thousand request lines: one or two seconds of a process' throughput."""

BATCH_BYTES = 65_536  # what a pipe holds
PIPE_BYTES = 4096  # POSIX: what poll() calls writable takes this much without waiting (PIPE_BUF)
FLUSH_S = 2.0
"""How long a stopping process waits for its log's reader: well within supervisors' limits."""

Write = Callable[[bytes], None]


class Direct:
    """Writes what can be written without blocking."""

    # The mutable state is the count of lines that were dropped.

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.dropped = 0

    def put(self, line: str) -> None:
        """Write a line, or as much of it as is accepted without blocking."""
        data = encoded(line)
        number = descriptor(self._out)
        if number is None:
            self._out.write(data.decode())
            return
        try:
            for start in range(0, len(data), PIPE_BYTES):
                if not takes(number, 0):
                    self.dropped += 1
                    return
                os.write(number, data[start : start + PIPE_BYTES])
        except OSError:  # the reader is gone, or the disk is full
            self.dropped += 1


class Background:
    """Writes lines from its own thread, which starts with the first line."""

    # The mutable state is the queue, its size in bytes, the thread, and the count of lines that
    # were dropped. One lock guards all of it, since any thread may log.

    def __init__(
        self,
        out: TextIO,
        *,
        note: Callable[[int], str] = "{} log lines were dropped".format,
        bytes_max: int = WAITING_BYTES_MAX,
    ) -> None:
        """`note` returns the line that reports the number of dropped lines."""
        self._out = out
        self._note = note
        self._bytes_max = bytes_max
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed: Direct | None = None
        self.dropped = 0

    def put(self, line: str) -> None:
        """Queue a line, or count it as dropped (1 us; never blocks)."""
        data = encoded(line)
        with self._lock:
            if self._closed is not None:
                self._closed.put(line)
                return
            if self._waiting_bytes + len(data) > self._bytes_max:
                self.dropped += 1
                return
            self._waiting_bytes += len(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
        self._queue.put(data)

    def close(self, limit_s: float = FLUSH_S) -> None:
        """Write the queued lines, for at most `limit_s`; later lines are written directly."""
        with self._lock:
            if self._closed is not None:
                return
            self._closed = Direct(self._out)
            thread = self._thread
        if thread is not None:
            self._queue.put(None)
            thread.join(limit_s)

    # -- the thread

    def _run(self) -> None:
        write, reported = writer(self._out), 0
        ended = False
        while not ended:
            batch, ended = self._batch()
            data = b"".join(batch)
            missing = self.dropped - reported
            try:
                write(data)
                if missing:
                    write(encoded(self._note(missing)))
                    reported += missing
            except OSError:  # the reader is gone, or the disk is full: both may recover
                with self._lock:
                    self.dropped += len(batch)
            with self._lock:
                self._waiting_bytes -= len(data)

    def _batch(self) -> tuple[list[bytes], bool]:
        """Return the next lines, and whether they are the last; wait for the first."""
        batch: list[bytes] = []
        one = self._queue.get()
        size = 0
        while one is not None:
            batch.append(one)
            size += len(one)
            if size >= BATCH_BYTES:
                return batch, False
            try:
                one = self._queue.get_nowait()
            except Empty:
                return batch, False
        return batch, True


def encoded(line: str) -> bytes:
    """Return a line as bytes; characters that UTF-8 cannot encode are escaped."""
    return f"{line}\n".encode("utf-8", "backslashreplace")


def descriptor(out: TextIO) -> int | None:
    """Return a stream's file descriptor; None if it is in memory."""
    try:
        return out.fileno()
    except (OSError, ValueError):  # io.UnsupportedOperation is both
        return None


def takes(number: int, wait_ms: int | None) -> bool:
    """Return whether a write would not block, now or within `wait_ms` (None: no limit)."""
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    return bool(poll.poll(wait_ms))


def writer(out: TextIO) -> Write:
    """Return a function that writes all of its bytes to a stream, blocking if necessary."""
    number = descriptor(out)
    if number is None:

        def keep(data: bytes) -> None:
            out.write(data.decode())

        return keep

    def write(data: bytes) -> None:
        while data:
            try:
                data = data[os.write(number, data) :]
            except BlockingIOError:  # a parent may have left it non-blocking
                takes(number, None)

    return write
