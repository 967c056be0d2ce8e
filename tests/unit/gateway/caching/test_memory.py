"""The memory of kept answers is bounded, and tenants do not evict each other's."""

from tests.support.kept_answers import entry
from tollway.gateway.caching.memory import MemoryCache


def key(number: int) -> bytes:
    return b"%d" % number


def test_the_least_recently_used_entry_goes_first() -> None:
    memory = MemoryCache(bytes_max=1 << 20, entries_max=3)
    for number in range(3):
        memory.put(key(number), entry())
    assert memory.get(key(0)) is not None
    memory.put(key(3), entry())
    assert [number for number in range(4) if memory.get(key(number))] == [0, 2, 3]
    assert memory.evicted == 1


def test_the_bytes_are_bounded_and_add_up() -> None:
    memory = MemoryCache(bytes_max=20_000, entries_max=100)
    for number in range(50):
        memory.put(key(number % 7), entry(b"x" * (100 * number)))
        assert memory.size_bytes <= 20_000
    held = [one for number in range(7) if (one := memory.get(key(number))) is not None]
    assert memory.size_bytes == sum(one.size_bytes for one in held) == memory.held_by("t")
    for number in range(7):
        memory.drop(key(number))
    assert (len(memory), memory.size_bytes, memory.held_by("t")) == (0, 0, 0)


def test_what_is_larger_than_all_memory_is_not_kept() -> None:
    memory = MemoryCache(bytes_max=5000, entries_max=100)
    memory.put(b"k", entry(b"x" * 5000))
    assert (len(memory), memory.size_bytes) == (0, 0)


def test_a_tenant_that_floods_the_memory_evicts_its_own_entries() -> None:
    memory = MemoryCache(bytes_max=1 << 20, entries_max=10)
    for number in range(4):
        memory.put(key(number), entry(tenant="small"))
    for number in range(100, 200):
        memory.put(key(number), entry(tenant="large"))
    assert all(memory.get(key(number)) for number in range(4))
    memory.put(key(6), entry(tenant="third"))  # a newcomer takes from the largest
    assert all(memory.get(key(number)) for number in range(4))
    assert memory.get(key(6)) is not None
