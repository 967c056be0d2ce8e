"""Slots are limited, shared, and given back."""

from contextlib import ExitStack

import pytest

from tollway.gateway.grpc_listener.failures import UNAVAILABLE, Failed
from tollway.gateway.grpc_listener.slots import CallSlots


def test_one_caller_leaves_slots_for_others_and_none_is_lost() -> None:
    slots = CallSlots(18)
    for _ in range(2):
        with ExitStack() as held:
            got = 0
            with pytest.raises(Failed) as caught:
                while True:
                    held.enter_context(slots.taken("one"))
                    got += 1
            assert 0 < got < 18
            assert caught.value.code == UNAVAILABLE
            assert (b"retry-after", b"1") in caught.value.trailers
            held.enter_context(slots.taken("other"))


def test_no_more_are_taken_than_there_are() -> None:
    slots = CallSlots(2)
    with slots.taken("a"), slots.taken("b"):
        with pytest.raises(Failed), slots.taken("c"):
            pass
    with slots.taken("c"):
        pass


def test_a_slot_comes_back_from_a_call_that_fails() -> None:
    slots = CallSlots(1)
    for _ in range(3):
        with pytest.raises(KeyError), slots.taken("a"):
            raise KeyError
