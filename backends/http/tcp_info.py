"""What the kernel knows of a TCP connection: which bytes its peer has acknowledged."""

import asyncio
import socket
import struct

_TCP_INFO_BYTES = 216  # struct tcp_info of linux/tcp.h, up to tcpi_bytes_retrans
_U64 = struct.Struct("=Q")


def unheard(transport: asyncio.BaseTransport | None) -> int:
    """Return how many of the bytes sent the peer had not received when it closed.

    A FIN acknowledges what came before it, so bytes not acknowledged then arrived too late to be
    acted on. (A RST acknowledges nothing.) 0 if the kernel does not report it: Linux does since
    4.19.
    """
    option = getattr(socket, "TCP_INFO", None)
    end = None if transport is None else transport.get_extra_info("socket")
    if option is None or end is None:
        return 0
    try:
        info = end.getsockopt(socket.IPPROTO_TCP, option, _TCP_INFO_BYTES)
    except OSError:  # not a socket of TCP
        return 0
    if len(info) < _TCP_INFO_BYTES:
        return 0
    acknowledged, sent, repeated = (_U64.unpack_from(info, at)[0] for at in (120, 200, 208))
    return max(0, int(sent - repeated - (acknowledged - 1)))  # the SYN was acknowledged too
