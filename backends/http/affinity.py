"""Affinity: calls with the same key go to the same address, as long as that is not overloaded.

Theory of operation. Each pair of key and address has a number, and a key's calls go to the address
with the highest (rendezvous hashing; Thaler and Ravishankar 1998). All gateways compute the same
numbers, so they agree without talking, and if one of n addresses goes or comes, only one in n keys
moves. An address takes no more than a quarter above the mean of the running calls (consistent
hashing with bounded loads; Mirrokni, Thorup and Zadimoghaddam 2018): beyond that, a key's calls go
to its next address. So a popular key cannot overload one address, and its overflow too always goes
to the same one.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Protocol, TypeVar

from tollway.backends.json_path import compile_first
from tollway.backends.ports import WireProtocol
from tollway.backends.types import Call

KINDS = ("tenant", "prompt", "header:NAME", "body:PATH")
EXCESS = 1.25  # of the mean: keys stay, and no address is more than a quarter above it
FEW = 4  # running calls: fewer are no imbalance
PARTS = 2  # of a prompt: instructions and first message, which all turns of a conversation share

KeyOf = Callable[[Call], bytes]
"""Returns the key of a call; empty if it has none."""


class Loaded(Protocol):
    """An address with its running calls."""

    host: bytes
    busy: int


T = TypeVar("T", bound=Loaded)


def ranked(key: bytes, addresses: Sequence[T]) -> list[T]:
    """Return the addresses in the order in which a key prefers them (1 us each)."""
    return sorted(addresses, key=lambda one: _number(key, one.host), reverse=True)


def _number(key: bytes, host: bytes) -> bytes:
    return blake2b(key, digest_size=8, key=_seed(host)).digest()


@lru_cache(1024)
def _seed(host: bytes) -> bytes:
    return blake2b(host, digest_size=16).digest()


def chosen(key: bytes, addresses: Sequence[T]) -> T:
    """Return the address of a call: the first that a key prefers and that is not overloaded."""
    running = sum([one.busy for one in addresses])
    most = max(FEW, math.ceil(EXCESS * (running + 1) / len(addresses)))
    first = max(addresses, key=lambda one: _number(key, one.host))
    if first.busy < most:  # nearly always
        return first
    return next((one for one in ranked(key, addresses) if one.busy < most), first)


def key_reader(kind: str, wire: WireProtocol) -> KeyOf:
    """Return how the key of a call is read; ValueError if the kind is unknown or its path invalid.

    `tenant`: one key per tenant. `prompt`: the beginning of the prompt, and the tenant.
    `header:NAME` and `body:PATH`: what a field or a member of the body says, and the tenant.
    """
    if kind == "tenant":
        return lambda call: call.tenant.encode()
    if kind == "prompt":
        return lambda call: _of_prompt(wire, call)
    place, colon, name = kind.partition(":")
    if colon and name and place == "header":
        return _of_header(name.lower().encode())
    if colon and name and place == "body":
        return _of_body(name)
    raise ValueError(f"must be one of {', '.join(KINDS)}")


def _owned(call: Call, value: bytes) -> bytes:
    return call.tenant.encode() + b"\0" + value if value else b""


def _of_prompt(wire: WireProtocol, call: Call) -> bytes:
    parts = [part for part, _ in wire.prompt(call.payload)[:PARTS]]
    return _owned(call, repr(parts).encode() if parts else b"")


def _of_header(name: bytes) -> KeyOf:
    def read(call: Call) -> bytes:
        for field, value in call.headers:
            if field == name:
                return _owned(call, value)
        return b""

    return read


def _of_body(path: str) -> KeyOf:
    get = compile_first(path)

    def read(call: Call) -> bytes:
        try:
            value = get(call.payload.data)
        except (KeyError, IndexError, TypeError, ValueError):
            return b""
        if value is None or isinstance(value, dict | list):
            return b""
        return _owned(call, str(value).encode("utf-8", "surrogatepass"))

    return read
