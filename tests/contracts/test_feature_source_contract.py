"""The contract of `Source`, run over every implementation."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.harness import serving
from tests.support.postgres_server import PostgresServer, postgres_server
from tollway.backends.http.factory import open_transport
from tollway.gateway.features.online.model import Source, SourceError
from tollway.gateway.features.sources.feast import FeastSource
from tollway.gateway.features.sources.function import FunctionSource, load
from tollway.gateway.features.sources.sqlite import SqliteSource
from tollway.gateway.features.sources.table import SourceTable

ROWS = {"1": {"spend": 12.5, "tier": "gold"}, "2": {"spend": None, "tier": "free"}}
COLUMNS = {"spend": "total_spend", "tier": "tier"}
TABLE = "CREATE TABLE users (user_id INTEGER PRIMARY KEY, total_spend REAL, tier TEXT)"

SourceTest = Callable[[Source], Awaitable[None]]


def table() -> SourceTable:
    return SourceTable("users", "user_id", COLUMNS, integer_keys=True, is_writable=True)


@asynccontextmanager
async def own_sqlite(folder: Path, server: Any) -> AsyncIterator[Source]:
    source = SqliteSource(folder / "own" / "features.db", "user")
    for key, values in ROWS.items():
        await source.put(key, values)
    yield source


@asynccontextmanager
async def sqlite_table(folder: Path, server: Any) -> AsyncIterator[Source]:
    with sqlite3.connect(folder / "users.db") as db:
        db.execute(TABLE)
        rows = [(int(key), one["spend"], one["tier"]) for key, one in ROWS.items()]
        db.executemany("INSERT INTO users VALUES (?, ?, ?)", rows)
    db.close()
    yield SqliteSource(folder / "users.db", "user", table())


@asynccontextmanager
async def postgres(folder: Path, server: PostgresServer) -> AsyncIterator[Source]:
    from tollway.gateway.features.sources.postgres import PostgresSource

    await server.execute("DROP TABLE IF EXISTS users", TABLE.replace("REAL", "DOUBLE PRECISION"))
    # A busy machine may take seconds for what takes a millisecond.
    patient = {"connect_timeout_s": 60.0, "acquire_timeout_s": 60.0, "query_timeout_s": 60.0}
    source = PostgresSource(server.url, table(), pool_min=1, pool_max=3, **patient)
    for key, values in ROWS.items():
        await source.put(key, values)
    yield source


@asynccontextmanager
async def feast(folder: Path, server: Any) -> AsyncIterator[Source]:
    async with serving(feature_server) as url:
        yield FeastSource(
            url,
            open_transport(url),
            join_key="user_id",
            features={"spend": "user_stats:spend", "tier": "user_stats:tier"},
            integer_keys=True,
        )


async def feature_server(scope: Any, receive: Any, send: Any) -> None:
    """Answer as Feast's feature server does (its documentation's example, with two entities)."""
    asked = orjson.loads((await receive())["body"])
    assert (scope["method"], scope["path"]) == ("POST", "/get-online-features")
    assert asked["features"] == ["user_stats:spend", "user_stats:tier"]
    ids = asked["entities"]["user_id"]
    results = [{"values": ids, "statuses": ["PRESENT"] * len(ids)}]
    for name in ("spend", "tier"):
        values = [ROWS.get(str(one), {}).get(name) for one in ids]
        statuses = ["NOT_FOUND" if value is None else "PRESENT" for value in values]
        results.append({"values": values, "statuses": statuses})
    document = {"metadata": {"feature_names": ["user_id", "spend", "tier"]}, "results": results}
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": orjson.dumps(document)})


@asynccontextmanager
async def function(folder: Path, server: Any) -> AsyncIterator[Source]:
    yield FunctionSource(load(f"{__name__}:looked_up") if "." in __name__ else looked_up)


@asynccontextmanager
async def coroutine_function(folder: Path, server: Any) -> AsyncIterator[Source]:
    async def later(keys: Sequence[str]) -> Any:
        return looked_up(keys)

    yield FunctionSource(later)


def looked_up(keys: Sequence[str]) -> Any:
    return {key: ROWS[key] for key in keys if key in ROWS}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


SOURCES = [
    own_sqlite,
    sqlite_table,
    function,
    coroutine_function,
    pytest.param(feast, marks=pytest.mark.integration),
    pytest.param(postgres, marks=pytest.mark.integration),
]


@pytest.fixture(params=SOURCES, ids=lambda made: made.__name__)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[SourceTest], None]:
    made = request.param
    server = request.getfixturevalue("server") if made is postgres else None

    def run(test: SourceTest) -> None:
        async def main() -> None:
            async with made(tmp_path, server) as source:
                try:
                    await test(source)
                finally:
                    await source.aclose()

        asyncio.run(main())

    return run


def soon() -> float:
    return asyncio.get_running_loop().time() + 30


def test_known_entities_are_found_and_others_are_left_out(
    run: Callable[[SourceTest], None],
) -> None:
    async def test(source: Source) -> None:
        found = await source.fetch(["1", "3", "2"], soon())
        assert {key: values.get("tier") for key, values in found.items()} == {
            "1": "gold",
            "2": "free",
        }
        assert found["1"]["spend"] == 12.5
        assert found["2"].get("spend") is None

    run(test)


def test_keys_that_the_source_cannot_have_are_unknown(run: Callable[[SourceTest], None]) -> None:
    async def test(source: Source) -> None:
        odd = ["", "x' OR 1=1 --", "99999999999999999999999", "a\0b", "ü"]
        assert await source.fetch(odd, soon()) == {}
        assert set(await source.fetch([*odd, "1"], soon())) == {"1"}

    run(test)


def test_many_look_ups_at_once_are_answered(run: Callable[[SourceTest], None]) -> None:
    async def test(source: Source) -> None:
        found = await asyncio.gather(*(source.fetch(["1"], soon()) for _ in range(40)))
        assert all(set(one) == {"1"} for one in found)

    run(test)


def test_a_source_is_written_and_erased_or_says_that_it_cannot_be(
    run: Callable[[SourceTest], None],
) -> None:
    async def test(source: Source) -> None:
        if not source.is_writable:
            with pytest.raises(SourceError):
                await source.put("1", {"tier": "silver"})
            return
        await source.put("1", {"spend": 1.5, "tier": "silver"})
        await source.put("4", {"tier": "new"})
        found = await source.fetch(["1", "4"], soon())
        assert (found["1"]["spend"], found["1"]["tier"]) == (1.5, "silver")
        assert found["4"]["tier"] == "new"
        assert [await source.erase("1"), await source.erase("1")] == [1, 0]
        assert set(await source.fetch(["1", "2"], soon())) == {"2"}

    run(test)


def test_what_connections_do_is_a_number(run: Callable[[SourceTest], None]) -> None:
    async def test(source: Source) -> None:
        await source.fetch(["1"], soon())
        assert all(value >= 0 for value in source.gauges().values())

    run(test)
