"""Calls with a key stay on one address, all processes agree on it, and none is overloaded."""

from collections import Counter
from dataclasses import dataclass

import orjson
import pytest

from tollway.backends.http.affinity import EXCESS, FEW, chosen, key_reader, ranked
from tollway.backends.protocols.registry import protocol
from tollway.backends.types import Call


@dataclass
class Address:
    host: bytes
    busy: int = 0


def addresses(count: int) -> list[Address]:
    return [Address(b"10.0.0.%d:80" % number) for number in range(count)]


KEYS = [b"user-%d" % number for number in range(3000)]


def test_keys_are_spread_evenly_and_all_processes_agree() -> None:
    five = addresses(5)
    homes = Counter(chosen(key, five).host for key in KEYS)
    assert all(520 < count < 680 for count in homes.values())
    assert chosen(b"user-1", addresses(5)[::-1]).host == chosen(b"user-1", five).host
    # As another machine, and a later version, must compute it.
    assert [one.host[7:8] for one in ranked(b"user-1", five)] == [b"1", b"2", b"4", b"3", b"0"]


def test_one_in_n_keys_moves_when_an_address_goes() -> None:
    five = addresses(5)
    moved = [key for key in KEYS if chosen(key, five) is not chosen(key, five[:4])]
    assert moved == [key for key in KEYS if chosen(key, five) is five[4]]


def test_no_address_is_far_above_the_mean_whatever_the_keys() -> None:
    five = addresses(5)
    for number in range(1000):
        chosen(b"popular" if number % 2 else KEYS[number], five).busy += 1
    assert max(one.busy for one in five) <= EXCESS * 200 + 1
    assert sum(one.busy for one in five) == 1000


def test_few_calls_are_no_imbalance() -> None:
    five = addresses(5)
    home = chosen(b"k", five)
    for _ in range(FEW):
        assert chosen(b"k", five) is home
        home.busy += 1
    assert chosen(b"k", five) is ranked(b"k", five)[1]


def call(document: object, tenant: str = "t", **headers: str) -> Call:
    fields = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    made = Call(b"POST", b"/v1/chat/completions", fields, orjson.dumps(document), tenant=tenant)
    made.payload = protocol("openai").parse(made)
    return made


def chat(*texts: str) -> dict[str, object]:
    roles = ("system", "user", "assistant", "user")
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    return {"model": "m", "messages": messages, "user": "u"}


def test_all_turns_of_a_conversation_have_one_key() -> None:
    read = key_reader("prompt", protocol("openai"))
    assert read(call(chat("be brief", "hi"))) == read(call(chat("be brief", "hi", "yes", "and?")))
    assert read(call(chat("be brief", "hi"))) != read(call(chat("be brief", "ho")))
    assert read(call(chat("be brief", "hi"))) != read(call(chat("be brief", "hi"), "other"))


def test_keys_are_read_from_fields_bodies_and_tenants() -> None:
    wire = protocol("openai")
    made = call(chat("a", "b"), x_session_id="s")
    assert key_reader("tenant", wire)(made) == b"t"
    assert key_reader("header:X-Session-Id", wire)(made) == b"t\0s"
    assert key_reader("body:user", wire)(made) == b"t\0u"
    for kind in ("header:x-other", "body:nothing", "body:messages"):
        assert key_reader(kind, wire)(made) == b""


@pytest.mark.parametrize("kind", ["", "session", "header:", "body:a[", "cookie:x"])
def test_an_unknown_kind_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        key_reader(kind, protocol("openai"))
