"""The metrics of caches."""

from collections.abc import Iterator, Mapping

from tollway.backends.money import to_usd
from tollway.gateway.observability.families import Metric, counter, gauge
from tollway.gateway.routing.cached.caching_driver import CachingDriver
from tollway.gateway.routing.plan import RoutePlan


def caches(routes: Mapping[str, RoutePlan], driver: CachingDriver) -> Iterator[Metric]:
    """Yield the look-ups, the savings and the sizes, if any route has a cache."""
    plans = {name: route.cache for name, route in routes.items() if route.cache is not None}
    if not plans:
        return
    yield counter(
        "tollway_cache_lookups",
        "Requests of routes with a cache, by what the look-up has come to",
        ["route", "result"],
        (
            ([name, result], count)
            for name, plan in plans.items()
            for result, count in plan.counts.lookups.items()
        ),
    )
    yield counter(
        "tollway_cache_stores",
        "Answers that were to be cached, by result",
        ["route", "result"],
        (
            ([name, result], count)
            for name, plan in plans.items()
            for result, count in plan.counts.stores.items()
        ),
    )
    yield counter(
        "tollway_cache_saved_usd",
        "What fresh calls were quoted, in dollars, for requests answered from the cache",
        ["route"],
        (([name], to_usd(plan.counts.saved_nano)) for name, plan in plans.items()),
    )
    yield counter(
        "tollway_cache_refreshes",
        "Answers fetched again in the background",
        ["route"],
        (([name], plan.counts.refreshes) for name, plan in plans.items()),
    )
    memory, remote = driver.memory, driver.remote
    yield gauge("tollway_cache_entries", "Answers in memory", [], [([], len(memory))])
    yield gauge("tollway_cache_bytes", "Memory of the answers", [], [([], memory.size_bytes)])
    yield counter("tollway_cache_evictions", "Answers evicted", [], [([], memory.evicted)])
    if remote is not None:
        yield counter(
            "tollway_cache_remote_lookups",
            "Look-ups in the second tier, by result",
            ["result"],
            [(["hit"], remote.hits), (["miss"], remote.misses), (["error"], remote.errors)],
        )
