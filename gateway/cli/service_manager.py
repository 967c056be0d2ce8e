"""What the gateway tells the service manager that started it: that it serves, and that it stops.

The protocol is systemd's (sd_notify(3)): a datagram of assignments to the Unix socket that
NOTIFY_SOCKET names. A name that begins with `@` is in the abstract namespace. Elsewhere the
variable is not set, and nothing is sent.
"""

import logging
import os
import socket

log = logging.getLogger(__name__)

VARIABLE = "NOTIFY_SOCKET"
READY = "READY=1"
STOPPING = "STOPPING=1"


def tell(state: str) -> None:
    """Send a state, if a service manager listens; a failure is logged and changes nothing."""
    address = os.environ.get(VARIABLE, "")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as one:
            one.setblocking(False)
            one.sendto(state.encode(), f"\0{address[1:]}" if address[0] == "@" else address)
    except OSError as exc:
        log.warning("the service manager was not told %s: %s", state, exc)
