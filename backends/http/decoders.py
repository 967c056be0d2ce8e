"""Decoders of content codings (RFC 9110 8.4.1): gzip, deflate, zstd and br.

A decoder takes a piece of coded bytes and gives a bounded piece of decoded ones, so that neither a
large body nor a decompression bomb blocks other requests or takes memory. gzip and deflate are
in the standard library; zstd is from Python 3.14 on, else in the package `backports.zstd`; br is in
the package `brotli` (the extra `codings`).
"""

import sys
import zlib
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, Protocol

_ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
_WINDOW_LOG_MAX = 23  # 8 MiB, which RFC 9659 allows senders


class Decoder(Protocol):
    """Decodes one body."""

    @property
    def pending(self) -> bool:
        """Whether there is more output without more input."""

    @property
    def whole(self) -> bool:
        """Whether the data may end here."""

    def feed(self, data: bytes, most: int) -> bytes:
        """Return some `most` decoded bytes at most; ValueError if the data is damaged.

        While there is output `pending`, `data` must be empty.
        """


class Inflate:
    """gzip, of one member or several (RFC 1952), or deflate: in zlib's format, or raw.

    RFC 9110 8.4.1.2 notes that some servers send raw deflate without zlib's header.
    """

    # The mutable state is zlib's, of the current member, and the bytes that are still to be fed.
    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._zlib = zlib.decompressobj(31 if gzip else 15)
        self._begun = False
        self._rest = b""
        self.pending = False

    @property
    def whole(self) -> bool:
        """Whether the last member is complete, or none has begun."""
        return self._zlib.eof or not self._begun

    def feed(self, data: bytes, most: int) -> bytes:
        """Return at most `most` decoded bytes; ValueError if the data is damaged."""
        data = data or self._rest
        if self._zlib.eof and data:
            if not self._gzip:
                raise ValueError("bytes after the end of the deflated data")
            self._zlib = zlib.decompressobj(31)
        elif not self._begun and data and not self._gzip and data[0] & 0x0F != 8:
            self._zlib = zlib.decompressobj(-15)
        self._begun = self._begun or bool(data)
        try:
            out = self._zlib.decompress(data, most)
        except zlib.error as exc:
            raise ValueError(f"damaged: {exc}") from exc
        self._rest = self._zlib.unconsumed_tail or self._zlib.unused_data
        # zlib may have more output even after it has consumed all of its input.
        self.pending = bool(self._rest) or (len(out) == most and not self._zlib.eof)
        return out


class Unzstd:
    """zstd, of one frame or several (RFC 8878)."""

    # The mutable state is the library's, of the current frame, and the bytes after it.
    def __init__(self, zstd: Any) -> None:
        limits = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX}
        self._zstd = zstd
        self._begin: Callable[[], Any] = lambda: zstd.ZstdDecompressor(options=limits)
        self._frame = self._begin()
        self._begun = False
        self._rest = b""

    @property
    def pending(self) -> bool:
        """Whether there is more output without more input."""
        return bool(self._rest) or not (self._frame.needs_input or self._frame.eof)

    @property
    def whole(self) -> bool:
        """Whether the last frame is complete, or none has begun."""
        return self._frame.eof or not self._begun

    def feed(self, data: bytes, most: int) -> bytes:
        """Return at most `most` decoded bytes; ValueError if the data is damaged."""
        data = data or self._rest
        self._rest = b""
        if self._frame.eof:
            if not data:
                return b""
            self._frame = self._begin()
        self._begun = self._begun or bool(data)
        try:
            out: bytes = self._frame.decompress(data, most)
        except self._zstd.ZstdError as exc:
            raise ValueError(f"damaged: {exc}") from exc
        self._rest = self._frame.unused_data if self._frame.eof else b""
        return out


class Unbrotli:
    """br (RFC 7932)."""

    # The mutable state is the library's, and whether there may be more output.
    def __init__(self, brotli: Any) -> None:
        self._error = brotli.error
        self._stream = brotli.Decompressor()
        self._begun = False
        self.pending = False

    @property
    def whole(self) -> bool:
        """Whether the stream is complete, or has not begun."""
        return self._stream.is_finished() or not self._begun

    def feed(self, data: bytes, most: int) -> bytes:
        """Return some `most` decoded bytes at most; ValueError if the data is damaged."""
        if data and self._stream.is_finished():
            raise ValueError("bytes after the end of the data")
        self._begun = self._begun or bool(data)
        try:
            out: bytes = self._stream.process(data, output_buffer_limit=most)
        except self._error as exc:
            raise ValueError(f"damaged: {exc}") from exc
        # It may have more output even where it would take more input.
        self.pending = bool(out) and not self._stream.is_finished()
        return out


_MAKERS: dict[bytes, Callable[[], Decoder]] = {
    b"gzip": lambda: Inflate(gzip=True),
    b"x-gzip": lambda: Inflate(gzip=True),
    b"deflate": lambda: Inflate(gzip=False),
    b"zstd": lambda: Unzstd(import_module(_ZSTD)),
    b"br": lambda: Unbrotli(import_module("brotli")),
}


def decoder(coding: bytes) -> Decoder | None:
    """Return a new decoder; None if the coding is unknown or its library is not installed."""
    return _MAKERS[coding]() if coding in installed() else None


@cache
def installed() -> tuple[bytes, ...]:
    """Return the codings that can be decoded here."""
    found = []
    for coding, make in _MAKERS.items():
        try:
            make()
        except ImportError:
            continue
        found.append(coding)
    return tuple(found)
