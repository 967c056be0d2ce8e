"""Joined values: what the encoder gets, what the journal keeps, and what backends are sent."""

import asyncio
import json
from dataclasses import replace

import orjson
import pytest

from tests.support import virtual
from tests.support.feature_sources import (
    USER,
    ScriptedSource,
    call,
    joined,
    lookup,
    route,
)
from tollway.backends.sliced_json import LARGE_BYTES, slices
from tollway.backends.types import Document
from tollway.gateway.features.extractor import FeatureExtractor
from tollway.gateway.features.online.join import Joined, Member, MemberTaken, Onward, RouteFeatures
from tollway.gateway.features.online.model import ABSENT, FRESH, LATE, NO_ENTITY

ANN = {"spend": 12.5, "tier": "gold", "note": "likes tea"}
DEFAULTS = {"spend": 0.0, "tier": "free", "note": ""}


def test_values_in_memory_are_joined_without_waiting() -> None:
    async def main() -> None:
        one = lookup(ScriptedSource({"ann": ANN}))
        many = route(one)
        await joined(many, call())
        found = many.join(call(), asyncio.get_running_loop().time())
        assert isinstance(found, Joined)
        assert (found.numbers, found.texts, found.categories) == (
            [12.5],
            ["likes tea"],
            ["user.tier=gold"],
        )

    virtual.run(main())


def test_the_journal_keeps_values_version_age_and_mark_but_no_key() -> None:
    async def main() -> None:
        one = lookup(ScriptedSource({"ann": ANN}, delay_s=0.002))
        await joined(route(one), call())
        await asyncio.sleep(7)
        row = (await joined(route(one), call())).row()
        assert row == {
            "user": {
                "mark": FRESH,
                "version": "v1",
                "entity": one.digest("ann"),
                "age_s": 7.002,
                "values": ANN,
            }
        }
        assert "ann" not in json.dumps(row)

    virtual.run(main())


def test_defaults_are_marked_by_their_cause_and_visible_to_the_policy() -> None:
    async def main() -> None:
        slow = route(lookup(ScriptedSource({"ann": ANN}, delay_s=1.0)))
        unknown = route(lookup(ScriptedSource({})))
        cases = [(slow, call(), LATE), (unknown, call(), ABSENT), (slow, call(None), NO_ENTITY)]
        for one, asked, mark in cases:
            found = await joined(one, asked)
            assert found.row()["user"]["mark"] == mark
            assert found.row()["user"]["values"] == DEFAULTS
            assert "user=?" in found.categories

    virtual.run(main())


def test_joined_numbers_have_fixed_places_whatever_the_document_has() -> None:
    async def main() -> None:
        one = route(lookup(ScriptedSource({"ann": {"spend": 3.0}, "bob": {"spend": 1.0}})))
        extract = FeatureExtractor(numeric=("x",), span=(0, 1), joined=1)
        for _ in range(50):
            for user, numbers in (("ann", [0.1, 0.9]), ("bob", [0.2]), ("ann", [])):
                asked = call(user, data={"x": numbers})
                context = extract(asked, await joined(one, asked))
                assert len(context.dense) == 3
        # Of the last two, the first is from outside, and the rest from the document.
        assert context.dense[0] > 0
        saved = FeatureExtractor(numeric=("x",), span=(0, 1), joined=1)
        saved.load(extract.save())
        assert saved.save() == extract.save()

    virtual.run(main())


def test_backends_get_the_values_and_never_what_a_client_wrote_in_their_place() -> None:
    async def main() -> None:
        one = lookup(ScriptedSource({"ann": {**ANN, "note": "grüßt"}}))
        onward = Onward("parameters.user", b"x-user-features")
        body = b'{"parameters": {"n": 12345678901234567890123, "user": "forged"}, "x": 1}'
        asked = call("ann", body=body, data=orjson.loads(body))
        asked.headers.append((b"x-user-features", b"forged"))
        await joined(route(one, onward=onward), asked)
        values = {**ANN, "note": "grüßt"}
        assert json.loads(dict(asked.headers)[b"x-user-features"]) == values
        assert dict(asked.headers)[b"x-user-features"].isascii()
        assert json.loads(asked.body)["parameters"]["user"] == values
        assert b"12345678901234567890123" in asked.body
        assert asked.payload.data["parameters"]["user"] == values

    virtual.run(main())


PAD = b"x" * LARGE_BYTES


def read_whole(body: bytes) -> Document:
    """Return a large body as the gateway reads it."""
    reading = slices(body, 200)
    while True:
        try:
            next(reading)
        except StopIteration as exc:
            read: Document = exc.value
            return read


@pytest.mark.parametrize(
    ("body", "binary", "is_refused"),
    [
        (b'{"parameters": {"user": 1}, "pad": "%b"}' % PAD, False, True),
        (b'{"parameters": {"us\\u0065r": 1}, "pad": "%b"}' % PAD, False, True),
        (b'{"parameters": {"user": 1}, "parameters": {}, "pad": "%b"}' % PAD, False, True),
        (b'{"parameters": {"other": 1}, "pad": "%b"}' % PAD, False, False),
        (b'{"pad": {"user": "%b"}}' % PAD, False, False),
        (b' {"parameters": {"user": 1}}\x00\xff{', True, True),
        (b'{"parameters": {"user": 1}, "parameters": {}}\x00\xff', True, True),
        (b'{"inputs": [{"parameters": {"user": 1}}]}\x00\xff', True, False),
    ],
)
def test_a_body_that_is_not_edited_may_not_have_the_member(
    body: bytes, binary: bool, is_refused: bool
) -> None:
    async def main() -> None:
        text = body.partition(b"\x00")[0]
        asked = call("ann", body=body, data=orjson.loads(text))
        if binary:
            asked.payload = replace(asked.payload, binary={"x": b"\x00\xff"})
        else:
            asked.document = read_whole(body)
        one = route(lookup(ScriptedSource({"ann": ANN})), onward=Onward("parameters.user"))
        if is_refused:
            with pytest.raises(MemberTaken, match=r"parameters\.user"):
                await joined(one, asked)
        else:
            await joined(one, asked)
        assert asked.body == body

    virtual.run(main())


def test_a_body_that_is_no_object_is_passed_on_as_it_came() -> None:
    async def main() -> None:
        one = route(lookup(ScriptedSource({"ann": ANN})), onward=Onward("user"))
        asked = call("ann", body=b"[1, 2]", data=[1, 2])
        await joined(one, asked)
        assert asked.body == b"[1, 2]"

    virtual.run(main())


def test_two_groups_join_in_the_order_of_the_route() -> None:
    async def main() -> None:
        first = lookup(ScriptedSource({"ann": {"spend": 1.0}}, delay_s=0.002))
        second = lookup(ScriptedSource({"ann": {"spend": 2.0}}, delay_s=1.0))
        loop = asyncio.get_running_loop()
        found = await joined(route(first, second), call())
        assert found.numbers == [1.0, USER.defaults[0]]
        assert [part.mark for part in found.parts] == [FRESH, LATE]
        assert loop.time() < 0.011

    virtual.run(main())


def test_a_candidate_is_tried_by_a_share_of_the_entities_and_always_by_the_same() -> None:
    async def main() -> None:
        users = [f"u{number}" for number in range(1000)]
        usual = lookup(ScriptedSource(dict.fromkeys(users, ANN)))
        tried = {**ANN, "spend": 99.0}
        group = replace(USER, version="v2")
        next_one = lookup(ScriptedSource(dict.fromkeys(users, tried)), group)
        entity = route(usual).members[0].entity
        member = Member(usual, entity, candidate=Member(next_one, entity), share=0.2)
        many = RouteFeatures([member], 1.0)
        rows = [(await joined(many, call(user))).row()["user"] for user in users]
        again = [(await joined(many, call(user))).row()["user"] for user in users]
        versions = [row["version"] for row in rows]
        assert versions == [row["version"] for row in again]
        assert 150 <= versions.count("v2") <= 250 and set(versions) == {"v1", "v2"}
        for row in (*rows, *again):
            assert row["values"]["spend"] == (99.0 if row["version"] == "v2" else 12.5)
        other = replace(
            member, candidate=Member(lookup(ScriptedSource(), replace(USER, version="v3")), entity)
        )
        assert [other.of(user) is member.of(user) for user in users] != [True] * 1000
        assert member.of(None) is member

    virtual.run(main())
