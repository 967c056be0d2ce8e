"""Malformed, ambiguous and unusual requests, and how the listener answers each.

After http-garden's and h1spec's lists, rewritten. Each is what one client sends on one
connection; where a gateway and something before or behind it could read it as a different number of
requests, `SMUGGLED` is the path of the request that must never be seen.
"""

HOST = b"Host: a\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


def get(target: bytes = b"/", fields: bytes = HOST, version: bytes = b"HTTP/1.1") -> bytes:
    return b"GET " + target + b" " + version + b"\r\n" + fields + b"\r\n"


def post(fields: bytes, body: bytes = b"", host: bytes = HOST) -> bytes:
    return b"POST / HTTP/1.1\r\n" + host + fields + b"\r\n" + body


CL = b"Content-Length: "
TE = b"Transfer-Encoding: "
CHUNKED = TE + b"chunked\r\n"
LAST = b"0\r\n\r\n"

REFUSED: dict[str, tuple[bytes, int]] = {
    # Two ways to say where a body ends
    "length and chunked": (post(CL + b"5\r\n" + CHUNKED, LAST + SMUGGLED), 400),
    "chunked and length": (post(CHUNKED + CL + b"5\r\n", LAST + SMUGGLED), 400),
    "two lengths, different": (post(CL + b"0\r\n" + CL + b"35\r\n", SMUGGLED), 400),
    "two lengths, the same": (post(CL + b"0\r\n" + CL + b"0\r\n", SMUGGLED), 400),
    "a list of lengths": (post(CL + b"0, 35\r\n", SMUGGLED), 400),
    "a list of one length": (post(CL + b"0, 0\r\n", SMUGGLED), 400),
    # Lengths
    "length +0": (post(CL + b"+0\r\n", SMUGGLED), 400),
    "length -1": (post(CL + b"-1\r\n", SMUGGLED), 400),
    "length 0x23": (post(CL + b"0x23\r\n", SMUGGLED), 400),
    "length 1_0": (post(CL + b"1_0\r\n", SMUGGLED), 400),
    "length 1e1": (post(CL + b"1e1\r\n", SMUGGLED), 400),
    "length empty": (post(CL + b"\r\n", SMUGGLED), 400),
    "length abc": (post(CL + b"abc\r\n", SMUGGLED), 400),
    "length 2^64": (post(CL + b"18446744073709551616\r\n", SMUGGLED), 400),
    "length 2^63": (post(CL + b"9223372036854775808\r\n", SMUGGLED), 413),
    "length 3.0": (post(CL + b"3.0\r\n", b"abc"), 400),
    "length with a space inside": (post(CL + b"3 5\r\n", SMUGGLED), 400),
    "length with a nul": (post(CL + b"0\x00\r\n", SMUGGLED), 400),
    "length of arabic digits": (post(CL + "٣".encode() + b"\r\n", SMUGGLED), 400),
    "length above the limit": (post(CL + b"70000000\r\n"), 413),
    # Transfer codings
    "coding identity": (post(TE + b"identity\r\n", SMUGGLED), 501),
    "coding gzip": (post(TE + b"gzip\r\n", SMUGGLED), 501),
    "coding gzip, chunked": (post(TE + b"gzip, chunked\r\n", LAST + SMUGGLED), 501),
    "coding chunked, gzip": (post(TE + b"chunked, gzip\r\n", LAST + SMUGGLED), 400),
    "coding chunked, identity": (post(TE + b"chunked, identity\r\n", LAST + SMUGGLED), 400),
    "coding ,chunked": (post(TE + b",chunked\r\n", LAST + SMUGGLED), 501),
    "coding chunked,": (post(TE + b"chunked,\r\n", LAST + SMUGGLED), 400),
    "coding chunked twice in a list": (post(TE + b"chunked, chunked\r\n", LAST + SMUGGLED), 400),
    "coding chunked twice": (post(CHUNKED + CHUNKED, LAST + SMUGGLED), 400),
    "coding xchunked": (post(TE + b"xchunked\r\n", LAST + SMUGGLED), 501),
    "coding chunkedx": (post(TE + b"chunkedx\r\n", LAST + SMUGGLED), 501),
    "coding quoted": (post(TE + b'"chunked"\r\n', LAST + SMUGGLED), 501),
    "coding with a parameter": (post(TE + b"chunked;a=b\r\n", LAST + SMUGGLED), 501),
    "coding with a vertical tab": (post(TE + b"\x0bchunked\r\n", LAST + SMUGGLED), 400),
    "coding with a nul": (post(TE + b"chunked\x00\r\n", LAST + SMUGGLED), 400),
    "coding empty": (post(TE + b"\r\n", LAST + SMUGGLED), 400),
    "coding folded": (post(TE + b"\r\n chunked\r\n", LAST + SMUGGLED), 400),
    "coding, a space before the colon": (
        post(b"Transfer-Encoding : chunked\r\n", LAST + SMUGGLED),
        400,
    ),
    "coding in HTTP/1.0": (
        b"POST / HTTP/1.0\r\n" + HOST + CHUNKED + b"\r\n" + LAST + SMUGGLED,
        400,
    ),
    # Chunks
    "chunk size 0x": (post(CHUNKED, b"0x3\r\nabc\r\n" + LAST), 400),
    "chunk size negative": (post(CHUNKED, b"-3\r\nabc\r\n" + LAST), 400),
    "chunk size plus": (post(CHUNKED, b"+3\r\nabc\r\n" + LAST), 400),
    "chunk size empty": (post(CHUNKED, b"\r\nabc\r\n" + LAST), 400),
    "chunk size 2^64": (post(CHUNKED, b"10000000000000003\r\nabc\r\n" + LAST), 400),
    "chunk size with a space before": (post(CHUNKED, b" 3\r\nabc\r\n" + LAST), 400),
    "chunk size with a space after": (post(CHUNKED, b"3 \r\nabc\r\n" + LAST), 400),
    "chunk size with an underscore": (post(CHUNKED, b"0_3\r\nabc\r\n" + LAST), 400),
    "chunk ends with a bare LF": (post(CHUNKED, b"3\nabc\n0\n\n"), 400),
    "chunk data without an end": (post(CHUNKED, b"3\r\nabc0\r\n\r\n"), 400),
    "chunk data longer than its size": (post(CHUNKED, b"3\r\nabcd\r\n" + LAST), 400),
    "chunk with a wrong end": (post(CHUNKED, b"3\r\nabcXX0\r\n\r\n" + SMUGGLED), 400),
    "chunk extension with a bare CR": (post(CHUNKED, b"3;a\rb\r\nabc\r\n" + LAST), 400),
    "chunk extension with a bare LF": (post(CHUNKED, b"3;\nabc\r\n" + LAST + SMUGGLED), 400),
    "last chunk 00 with a bare LF": (post(CHUNKED, b"3\r\nabc\r\n00\n\r\n" + SMUGGLED), 400),
    "chunked above the limit": (
        post(CHUNKED, b"4000\r\n" + b"x" * 0x4000 + b"\r\n" + b"4000\r\n" + b"x" * 0x4000),
        413,
    ),
    # Host
    "no host": (get(fields=b"X: y\r\n"), 400),
    "two hosts": (get(fields=HOST + HOST), 400),
    "two hosts, different": (get(fields=HOST + b"host: b\r\n"), 400),
    "host empty": (get(fields=b"Host:\r\n"), 400),
    "host with a path": (get(fields=b"Host: a/b\r\n"), 400),
    "host with a fragment": (get(fields=b"Host: a/#@b\r\n"), 400),
    "host with a query": (get(fields=b"Host: a?b\r\n"), 400),
    "host with a user": (get(fields=b"Host: u@a\r\n"), 400),
    "host with a space": (get(fields=b"Host: a b\r\n"), 400),
    "host with a comma": (get(fields=b"Host: a, b\r\n"), 400),
    "host with a bad port": (get(fields=b"Host: a:80x\r\n"), 400),
    "host with a huge port": (get(fields=b"Host: a:1234567\r\n"), 400),
    "host in raw utf-8": (get(fields="Host: é\r\n".encode()), 400),
    "host with an open bracket": (get(fields=b"Host: [::1\r\n"), 400),
    # Targets
    "target with a fragment": (get(b"/a#b"), 400),
    "target without a slash": (get(b"a"), 400),
    "target !": (get(b"!"), 400),
    "target * of a GET": (get(b"*"), 400),
    "target with a space": (get(b"/a b"), 400),
    "target in raw utf-8": (get("/é".encode()), 400),
    "target with a control": (get(b"/\x01"), 400),
    "target with a nul": (get(b"/\x00"), 400),
    "target of another scheme": (get(b"file:///etc/passwd"), 400),
    "target ftp": (get(b"ftp://a/"), 400),
    "target with a user": (get(b"http://u@a/"), 400),
    "target without a host": (get(b"http:///x"), 400),
    "target with a bad host": (get(b"http://a%20b/"), 400),
    "target authority": (get(b"a:80"), 400),
    "target empty": (b"GET  HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    # Methods and versions
    "method CONNECT": (b"CONNECT a:80 HTTP/1.1\r\n" + HOST + b"\r\n" + SMUGGLED, 501),
    "method TRACE": (b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    "method PURGE": (b"PURGE / HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    "method unknown": (b"FOO / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "method in lower case": (b"get / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "version 0.9": (b"GET /\r\n\r\n", 505),
    "version 0.9, said": (get(version=b"HTTP/0.9"), 505),
    "version 2.0": (get(version=b"HTTP/2.0"), 505),
    "version 1.2": (get(version=b"HTTP/1.2"), 400),
    "version 4.1": (get(version=b"HTTP/4.1"), 400),
    "version 1.10": (get(version=b"HTTP/1.10"), 400),
    "version in lower case": (get(version=b"http/1.1"), 400),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    # Lines and fields
    "bare LF": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "bare LF after a field": (get(fields=b"X: y\nHost: a\r\n"), 400),
    "bare CR in a field": (get(fields=HOST + b"X: a\rb\r\n"), 400),
    "nul in a field": (get(fields=HOST + b"X: a\x00b\r\n"), 400),
    "nul in a name": (get(fields=HOST + b"X\x00: a\r\n"), 400),
    "folded field": (get(fields=HOST + b"X: a\r\n b\r\n"), 400),
    "folded first field": (get(fields=b" Host: a\r\n" + HOST), 400),
    "a space before the colon": (get(fields=HOST + b"X : a\r\n"), 400),
    "a space in a name": (get(fields=HOST + b"X Y: a\r\n"), 400),
    "a field without a name": (get(fields=HOST + b": a\r\n"), 400),
    "a field without a colon": (get(fields=HOST + b"X\r\n"), 400),
    "utf-8 in a name": (get(fields=HOST + "é: a\r\n".encode()), 400),
    "another expectation": (post(b"Expect: 200-ok\r\n" + CL + b"0\r\n"), 417),
    # Sizes
    "101 fields": (get(fields=HOST + b"X: y\r\n" * 100), 431),
    "10,000 fields": (get(fields=HOST + b"X: y\r\n" * 10_000), 431),
    "64 KB of fields, no end": (get(fields=HOST + (b"X: %01000d\r\n" % 1) * 64)[:-2], 431),
    "a field of 33 KiB": (get(fields=HOST + b"X: " + b"y" * 33_792 + b"\r\n"), 431),
    "a field of 1 MiB": (get(fields=HOST + b"X: " + b"y" * (1 << 20) + b"\r\n"), 431),
    "a target of 9 KiB": (get(b"/" + b"a" * 9_216), 414),
    "a target of 1 MiB": (get(b"/" + b"a" * (1 << 20)), 414),
    "a trailer without end": (post(CHUNKED, b"0\r\nX: " + b"y" * (1 << 20)), 431),
}
"""name -> (what is sent, the status of the one reply)."""

CLOSE = b"Connection: close\r\n"

SERVED: dict[str, tuple[bytes, bytes, bytes]] = {
    "a plain GET": (get(b"/a", HOST + CLOSE), b"/a", b""),
    "HTTP/1.0 without a host": (get(b"/a", b"", b"HTTP/1.0"), b"/a", b""),
    "empty lines before the request": (b"\r\n\r\n" + get(b"/a", HOST + CLOSE), b"/a", b""),
    "what is encoded stays so": (
        get(b"/%2e%2e/%2F%00?%20", HOST + CLOSE),
        b"/%2e%2e/%2F%00",
        b"",
    ),
    "an encoded tilde stays so": (get(b"/%7Ea%20b?%20", HOST + CLOSE), b"/%7Ea%20b", b""),
    "two slashes are a path": (get(b"//evil/x", HOST + CLOSE), b"//evil/x", b""),
    "a host with a port": (get(b"/a", b"Host: a.b-c:8080\r\n" + CLOSE), b"/a", b""),
    "a host of IPv6": (get(b"/a", b"Host: [::1]:80\r\n" + CLOSE), b"/a", b""),
    "an absolute target": (get(b"http://evil/x?y", HOST + CLOSE), b"/x", b""),
    "an absolute target without a path": (get(b"HTTP://evil?y", HOST + CLOSE), b"/", b""),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", b"*", b""),
    "a length": (post(CL + b"3\r\n" + CLOSE, b"abc"), b"/", b"abc"),
    "a length with zeros": (post(CL + b"003\r\n" + CLOSE, b"abc"), b"/", b"abc"),
    "chunks": (post(CHUNKED + CLOSE, b"1\r\na\r\n2;x=y\r\nbc\r\n" + LAST), b"/", b"abc"),
    "Chunked": (post(TE + b"Chunked \r\n" + CLOSE, b"3\r\nabc\r\n" + LAST), b"/", b"abc"),
    "an offer of h2c, with a length": (
        post(b"Connection: Upgrade, close\r\nUpgrade: h2c\r\n" + CL + b"3\r\n", b"abc"),
        b"/",
        b"abc",
    ),
    "an offer of h2c, in chunks": (
        post(b"Connection: Upgrade, close\r\nUpgrade: h2c\r\n" + CHUNKED, b"3\r\nabc\r\n" + LAST),
        b"/",
        b"abc",
    ),
    "an offer of TLS": (
        get(b"/tls", HOST + b"Connection: Upgrade, close\r\nUpgrade: TLS/1.2\r\n"),
        b"/tls",
        b"",
    ),
    "100 fields": (get(b"/a", HOST + CLOSE + b"X: y\r\n" * 98), b"/a", b""),
    "a field of 31 KiB": (get(b"/a", HOST + CLOSE + b"X: " + b"y" * 31_744 + b"\r\n"), b"/a", b""),
}
"""name -> (what is sent, the raw path and the body that the application sees)."""
