"""The demo's command line: imports only the standard library, so that --help is immediate."""

import argparse
from pathlib import Path

CONCURRENCY = 16
WHAT = """\
Three real model servers, a gateway in front of them, thousands of requests: what is saved?

The models read handwritten digits at $0.00001, $0.0001 and $0.001 an answer. The same requests go
through the gateway, which learns from the true labels, and then to each model alone. Everything
that is shown is measured: spend from the gateway's ledger and from the servers' own counts,
accuracy from images that no model was trained on.
"""
MORE = """\
The first run installs about 600 MB into .venv (a minute on a fast line) and trains the models
(seconds). Then it takes two to three minutes. It listens on 127.0.0.1 only, on free ports.

examples:
  scripts/demo                      all of it
  scripts/demo --quick              a fifth of the requests: half a minute
  scripts/demo --keep               leave it running: the dashboard's address is in the last lines
  scripts/demo --json table.json    the table, for programs

afterwards, with the folder that the last lines name as DIR:
  .venv/bin/tollway explain ID --url URL                     why a request went where it went
  .venv/bin/pip install -e '.[simulate]'                     what the next line needs
  .venv/bin/tollway simulate replay DIR/.tollway/journal --route digits
                                                             what other choices would have cost
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
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="write the PNG there")
    parser.add_argument("--quick", action="store_true", help="a fifth of the requests")
    parser.add_argument("--requests", type=int, metavar="N", help="how many to send each way")
    parser.add_argument("--concurrency", type=int, default=CONCURRENCY, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the traffic's order (%(default)s)")
    folders = {"--dir": (".tollway/demo", "its files"), "--models": (".tollway/digits", "models")}
    for option, (default, what) in folders.items():
        parser.add_argument(
            option, type=Path, default=Path(default), help=f"folder of {what} (%(default)s)"
        )
    return parser


if __name__ == "__main__":
    parser().print_help()
