"""The command line of game days: `tollway gameday`."""

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from tollway.gameday import plan
from tollway.gameday.faults import NOTHING, SIDES, Faults, duration, parse
from tollway.gameday.proxy import Address, FaultProxy
from tollway.gateway.cli import terminal

_HELP = f"""\
faults (combine several with commas):
  latency=200ms    delay replies by this time
  jitter=50ms      delay replies by a further random time, up to this
  rate=20kB        limit the throughput to this many bytes per second
  slice=100        deliver data in pieces of at most this many bytes
  corrupt=0.001    flip one bit in this share of the bytes
  swallow=1        discard this many replies and close their connections
  cut=100          close the connection after this many bytes of a reply (default: 0)
  reset=100        reset the connection after this many bytes of a reply (default: 0)
  hang             hold data back until the fault ends, as a stopped process does
  drop             pass no data either way and complete no new connection, as a network
                   partition does
  refuse           refuse new connections and reset open ones, as a killed process does
options of faults:
  side=replies     the direction that they apply to: {", ".join(SIDES)}
  share=0.1        the share of connections that they apply to (default: all)

examples:
  tollway gameday --to 127.0.0.1:8001 --listen 127.0.0.1:9001 --fault latency=200ms,jitter=50ms
  tollway gameday --to 127.0.0.1:6379 --listen 127.0.0.1:6380 --fault drop --every 60s --for 5s
  tollway gameday --to 127.0.0.1:8001 --listen 127.0.0.1:9001 --plan gameday.toml
  tollway gameday --to 127.0.0.1:8001 --listen 127.0.0.1:9001 --stdin    (then type: hang)

a plan is a TOML file; `at` counts from the start of the command:
  [[strike]]
  at = "10s"
  for = "5s"
  fault = "reset=100,share=0.5"

The proxy forwards connections from the --listen address to the --to address. Set the --listen
address as the url of a backend or of the ledger in the gateway's configuration. Each change of
faults is printed with its time. SIGTERM or Ctrl-C ends the proxy with exit code 0.
"""


def main(argv: Sequence[str]) -> int:
    """Run the proxy until it is stopped; raise SystemExit(2) if the command line is wrong."""
    asked = arguments(argv)
    try:
        strikes = _strikes(asked)
    except plan.BadPlan as exc:
        return terminal.fail(terminal.USAGE, str(exc))
    asyncio.run(_run(asked, strikes))
    return terminal.OK


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = _parser()
    asked = parser.parse_args(argv)
    if sum((asked.fault is not None, asked.plan is not None, asked.stdin)) != 1:
        parser.error("give exactly one of --fault, --plan and --stdin")
    if asked.fault is None and (asked.every, asked.for_) != (None, None):
        parser.error("--every and --for need --fault; in a plan, each strike has its own times")
    if asked.every is not None and (asked.for_ is None or asked.for_ >= asked.every):
        parser.error("--every needs --for, and --for must be shorter than --every")
    return asked


def _strikes(asked: argparse.Namespace) -> Iterable[plan.Strike]:
    if asked.plan is not None:
        return plan.load(asked.plan)
    if asked.fault is not None:
        return plan.repeated(asked.fault, asked.for_, asked.every)
    return ()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tollway gameday",
        description="Run a TCP proxy between a gateway and a server, and inject faults there.",
        epilog=f"{_HELP}\n{terminal.EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--to", type=_address, required=True, metavar="HOST:PORT", help="the server to forward to"
    )
    parser.add_argument(
        "--listen",
        type=_address,
        default=("127.0.0.1", 0),
        metavar="HOST:PORT",
        help="the proxy's own address (default: a free port of 127.0.0.1)",
    )
    parser.add_argument("--fault", type=_faults, metavar="A=B,C", help="faults to inject")
    parser.add_argument(
        "--for", dest="for_", type=_duration, metavar="5s", help="how long they last"
    )
    parser.add_argument("--every", type=_duration, metavar="60s", help="inject again this often")
    parser.add_argument("--plan", type=Path, metavar="FILE", help="a schedule of faults")
    parser.add_argument("--stdin", action="store_true", help="read faults from stdin, line by line")
    parser.add_argument("--end", type=_duration, metavar="10m", help="exit after this time")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    return parser


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (host and port.isascii() and port.isdigit() and int(port) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r}: write HOST:PORT, such as 127.0.0.1:8001")
    return host, int(port)


def _faults(text: str) -> Faults:
    try:
        return parse(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def _duration(text: str) -> float:
    try:
        parsed = duration(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
    if parsed == 0:
        raise argparse.ArgumentTypeError("the time must be above 0")
    return parsed


# -- running


async def _run(asked: argparse.Namespace, strikes: Iterable[plan.Strike]) -> None:
    async with FaultProxy(asked.to, asked.listen, seed=asked.seed) as proxy:
        _say(f"{written(proxy.address)} forwards to {written(proxy.to)}; seed {asked.seed}")
        acting = asyncio.create_task(_obey(proxy) if asked.stdin else _act(proxy, strikes))
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, acting.cancel)
        await asyncio.wait([acting], timeout=asked.end)
        acting.cancel()
        await asyncio.wait([acting])
        counts = ", ".join(f"{count} {name}" for name, count in sorted(proxy.counts.items()))
        _say(f"ended: {counts or 'no connections'}")
    if not acting.cancelled():
        acting.result()  # raises the error of that task, if any


async def _act(proxy: FaultProxy, strikes: Iterable[plan.Strike]) -> None:
    """Inject a plan's faults, each at its time."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    for strike in strikes:
        await asyncio.sleep(began_s + strike.at_s - loop.time())
        await _strike(proxy, strike.faults)
        if strike.for_s is not None:
            await asyncio.sleep(began_s + strike.at_s + strike.for_s - loop.time())
            await _strike(proxy, NOTHING)
    await asyncio.Event().wait()  # no faults from here on


async def _obey(proxy: FaultProxy) -> None:
    """Inject the faults read from stdin, one line at a time."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    try:
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    except ValueError as exc:
        raise OSError("--stdin reads a terminal or a pipe; for a file, write a --plan") from exc
    while line := await reader.readline():
        try:
            await _strike(proxy, parse(line.decode(errors="replace")))
        except ValueError as exc:
            _say(str(exc))
    await asyncio.Event().wait()


async def _strike(proxy: FaultProxy, faults: Faults) -> None:
    await proxy.strike(faults)
    affected = f"{proxy.open} connection{'' if proxy.open == 1 else 's'} open"
    _say(f"{'no faults' if faults == NOTHING else f'injected: {faults}'} ({affected})")


def written(address: Address) -> str:
    """Return an address as HOST:PORT."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _say(text: str) -> None:
    """Print a line with the time of day, for comparing with the gateway's own logs."""
    now_s = time.time()
    clock = time.strftime("%H:%M:%S", time.gmtime(now_s))
    terminal.say(f"{clock}.{int(now_s % 1 * 1000):03d}Z  {text}")
    sys.stdout.flush()
