"""Starts and stops servers of a digits model, so that as many run as are wanted.

    python -m examples.digits.scale --dir servers --replicas 3 --ports 9101 9102 9103 9104

Server number n listens on the n-th port; its process id and its output are files in the folder.
A server that is no longer wanted says at /v2/health/ready that it is not ready, answers for
`--drain` seconds, and then ends when its requests have. The command returns when the wanted
servers listen and the others have ended, so it can be run again at any time.
"""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

STARTS_WITHIN_S, ENDS_WITHIN_S, LOOK_S = 120.0, 60.0, 0.05


def main() -> None:
    """Read the command line; start and stop servers."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.digits.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dir", type=Path, required=True, help="folder of process ids and logs")
    parser.add_argument("--replicas", type=int, required=True)
    parser.add_argument("--ports", type=int, nargs="+", required=True)
    parser.add_argument("--model", default="rules")
    parser.add_argument("--delay-ms", type=float, default=0, help="wait before each inference")
    parser.add_argument("--drain", type=float, default=6, help="seconds (default: %(default)s)")
    chosen = parser.parse_args()
    if not 0 <= chosen.replicas <= len(chosen.ports):
        parser.error(f"--replicas must be from 0 to the number of ports, {len(chosen.ports)}")
    chosen.dir.mkdir(parents=True, exist_ok=True)
    wanted, rest = chosen.ports[: chosen.replicas], chosen.ports[chosen.replicas :]
    options = ["--model", chosen.model, "--delay-ms", str(chosen.delay_ms)]
    started = {
        port: start(chosen.dir, port, options)
        for port in wanted
        if running(chosen.dir, port) is None
    }
    for port in wanted:
        wait_until_it_listens(chosen.dir, port, started.get(port))
    stop(chosen.dir, [port for port in rest if running(chosen.dir, port)], chosen.drain)
    print(f"{len(wanted)} servers run")


def running(folder: Path, port: int) -> int | None:
    """Return the process id of a port's server, if it runs."""
    try:
        pid = int((folder / f"{port}.pid").read_text())
        command = Path("/proc", str(pid), "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    # Process ids are used again.
    return pid if b"examples.digits.serve" in command and str(port).encode() in command else None


def start(folder: Path, port: int, options: list[str]) -> subprocess.Popen[bytes]:
    """Start a server, in a session of its own: whoever ends this command does not end it."""
    command = [sys.executable, "-m", "examples.digits.serve", "--port", str(port), *options]
    with (folder / f"{port}.log").open("wb") as output:
        process = subprocess.Popen(  # it outlives this command
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    (folder / f"{port}.pid").write_text(str(process.pid))
    return process


def wait_until_it_listens(folder: Path, port: int, process: subprocess.Popen[bytes] | None) -> None:
    """Return once a server accepts connections; exit with the end of its output if it does not.

    `process`: the server, if this command has started it.
    """
    until_s = time.monotonic() + STARTS_WITHIN_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            # What has just been started shows no command line for a moment.
            gone = running(folder, port) is None if process is None else process.poll() is not None
            if gone or time.monotonic() > until_s:
                log = (folder / f"{port}.log").read_text(errors="replace")
                sys.exit(f"the server of port {port} did not start: {log[-500:]}")
            time.sleep(LOOK_S)
        else:
            return


def stop(folder: Path, ports: list[int], drain_s: float) -> None:
    """Have servers tell that they are not ready, wait, and end them."""
    pids = {port: running(folder, port) for port in ports}
    for sent, pause_s in ((signal.SIGUSR1, drain_s), (signal.SIGTERM, 0.0)):
        for pid in pids.values():
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.kill(pid, sent)
        if pids:
            time.sleep(pause_s)
    until_s = time.monotonic() + ENDS_WITHIN_S
    while any(running(folder, port) for port in ports):
        if time.monotonic() > until_s:
            sys.exit("some servers did not end")
        time.sleep(LOOK_S)
    for port in ports:
        (folder / f"{port}.pid").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
