"""The demo's command line: imports only the standard library, so that --help is immediate."""

import argparse
from pathlib import Path

CONCURRENCY = 16
WHAT = """\
Run three real model servers behind a gateway and measure what routing saves.

The models read handwritten digits at $0.00001, $0.0001 and $0.001 per answer. The same requests go
through the gateway, which learns from the true labels, and then to each model alone. All results
are measured: spend by the gateway's ledger and by the servers' own counts, accuracy on images that
no model was trained on.
"""
MORE = """\
The first run installs about 600 MB into .venv (a minute on a fast line) and trains the models
(seconds). Then it takes two to three minutes. It listens on 127.0.0.1 only, on free ports.

examples:
  scripts/demo                      run everything
  scripts/demo --quick              send a fifth of the requests: half a minute
  scripts/demo --keep               leave it running; the last lines have the dashboard's address
  scripts/demo --json table.json    write the table for programs

afterwards (the last lines name DIR):
  .venv/bin/tollway explain ID --url URL                     explain how a request was routed
  .venv/bin/pip install -e '.[simulate]'                     install what the next line needs
  .venv/bin/tollway simulate replay DIR/.tollway/journal --route digits
                                                             estimate the cost of other policies
"""


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/demo",
        description=WHAT,
        epilog=MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--keep", action="store_true", help="leave gateway and models running")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table as JSON")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="write the chart as PNG")
    parser.add_argument("--quick", action="store_true", help="send a fifth of the requests")
    parser.add_argument("--requests", type=int, metavar="N", help="number of requests each way")
    parser.add_argument("--concurrency", type=int, default=CONCURRENCY, help="(%(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the order of requests (%(default)s)"
    )
    folders = {"--dir": (".tollway/demo", "its files"), "--models": (".tollway/digits", "models")}
    for option, (default, what) in folders.items():
        parser.add_argument(
            option, type=Path, default=Path(default), help=f"folder of {what} (%(default)s)"
        )
    return parser


if __name__ == "__main__":
    parser().print_help()
