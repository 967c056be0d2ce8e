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
faults, several with commas:
  latency=200ms    what the server says arrives later
  jitter=50ms      and by a random time more, up to this
  rate=20kB        no more than that in a second
  slice=100        in pieces of at most so many bytes
  corrupt=0.001    that share of bytes has a bit turned over
  swallow=1        so many replies are carried to nobody, and their connections closed
  cut=100          the connection is closed after so many bytes of a reply; 0 without a number
  reset=100        reset, likewise
  hang             what is said is kept back until this is over: a process that is stopped
  drop             both sides are kept back, and who connects waits: a network that is parted
  refuse           nobody listens, and connections are reset: a process that was killed
and how they strike:
  side=replies     whose words: {", ".join(SIDES)} (what clients say is requests)
  share=0.1        of the connections

examples:
  tollway gameday --to 127.0.0.1:8001 --listen 127.0.0.1:9001 --fault latency=200ms,jitter=50ms
  tollway gameday --to 127.0.0.1:6379 --listen 127.0.0.1:6380 --fault drop --every 60s --for 5s
  tollway gameday --to 127.0.0.1:8001 --listen 127.0.0.1:9001 --plan gameday.toml
  tollway gameday --to 127.0.0.1:8001 --listen 127.0.0.1:9001 --stdin    (then type: hang)

a plan is TOML:
  [[strike]]
  at = "10s"
  for = "5s"
  fault = "reset=100,share=0.5"

What the address given with --listen hears goes to the one given with --to, so have the gateway
call that: as the url of a backend, or of the ledger. Each change is printed with its time. SIGTERM
and Ctrl-C end it, with exit code 0.
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
        parser.error("say what strikes, in one way: --fault, --plan or --stdin")
    if asked.fault is None and (asked.every, asked.for_) != (None, None):
        parser.error("--every and --for are for --fault; a plan says both for each strike")
    if asked.every is not None and (asked.for_ is None or asked.for_ >= asked.every):
        parser.error("faults strike again once they are over: give --for, shorter than --every")
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
        description="Stand between a gateway and what it calls, and let faults strike there.",
        epilog=f"{_HELP}\n{terminal.EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--to", type=_address, required=True, metavar="HOST:PORT", help="who is called"
    )
    parser.add_argument(
        "--listen",
        type=_address,
        default=("127.0.0.1", 0),
        metavar="HOST:PORT",
        help="where the gateway calls instead (a free port of 127.0.0.1)",
    )
    parser.add_argument("--fault", type=_faults, metavar="A=B,C", help="what strikes")
    parser.add_argument("--for", dest="for_", type=_duration, metavar="5s", help="for how long")
    parser.add_argument("--every", type=_duration, metavar="60s", help="how often")
    parser.add_argument("--plan", type=Path, metavar="FILE", help="what strikes when")
    parser.add_argument("--stdin", action="store_true", help="take faults from stdin, by line")
    parser.add_argument("--end", type=_duration, metavar="10m", help="end by itself after that")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random (%(default)s)")
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
        found = duration(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
    if found == 0:
        raise argparse.ArgumentTypeError("write a time above 0")
    return found


# -- running


async def _run(asked: argparse.Namespace, strikes: Iterable[plan.Strike]) -> None:
    async with FaultProxy(asked.to, asked.listen, seed=asked.seed) as proxy:
        _say(f"{written(proxy.address)} leads to {written(proxy.to)}; seed {asked.seed}")
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
    met = f"{proxy.open} connection{'' if proxy.open == 1 else 's'} open"
    _say(f"{'all is well' if faults == NOTHING else f'struck: {faults}'} ({met})")


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
