"""The arithmetic: turns what paired rounds measured into rows and their ratios to nginx."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Round:
    """One load on one contestant. Latencies in ms; CPU (user + sys) in us a request.

    `calls`: requests that reached the upstream for each request of a client.
    """

    requests_per_s: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    errors: int
    calls: float


@dataclass(frozen=True, slots=True)
class Row:
    """One contestant in one case: the medians of its rounds; `errors` is their sum.

    `x_nginx_cpu` and `x_nginx_p50` are medians of the ratios of the paired rounds, which a change
    of the machine's other work between rounds does not affect as it does the quotients of the
    medians. `of_nginx` is 1 / `x_nginx_cpu`: the share of nginx's requests that the same CPU
    serves. In a cascade nginx's CPU counts once for each upstream call. `load_average`: of the
    machine in the last minute, this benchmark included.
    """

    name: str
    case: str
    connections: int
    requests_per_s: float
    cpu_us: float
    of_nginx: float
    x_nginx_cpu: float
    p50_ms: float
    p99_ms: float
    x_nginx_p50: float
    errors: int
    calls: float
    rss_mib: float
    load_average: float


def in_turns(names: Sequence[str], rounds: int, measure: Callable[[str], T]) -> dict[str, list[T]]:
    """Measure the contestants in turns, A B A B ..., so that each round has one of each."""
    found: dict[str, list[T]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            found[name].append(measure(name))
    return found


def row(
    name: str,
    case: str,
    connections: int,
    rounds: Sequence[Round],
    nginx: Sequence[Round],
    *,
    per_call: bool = False,
    rss_mib: float = 0.0,
    load_average: float = 0.0,
) -> Row:
    """Return the row of a contestant from its rounds and nginx's, which are paired by position.

    `per_call`: compare with nginx's CPU for as many requests as the contestant makes calls.
    ValueError if the rounds are not pairs.
    """
    pairs = list(zip(rounds, nginx, strict=True))
    x_cpu = median(
        one.cpu_us / (base.cpu_us * (one.calls if per_call else 1.0)) for one, base in pairs
    )
    return Row(
        name=name,
        case=case,
        connections=connections,
        requests_per_s=median(one.requests_per_s for one in rounds),
        cpu_us=median(one.cpu_us for one in rounds),
        of_nginx=1.0 / x_cpu,
        x_nginx_cpu=x_cpu,
        p50_ms=median(one.p50_ms for one in rounds),
        p99_ms=median(one.p99_ms for one in rounds),
        x_nginx_p50=median(one.p50_ms / base.p50_ms for one, base in pairs),
        errors=sum(one.errors for one in rounds),
        calls=median(one.calls for one in rounds),
        rss_mib=rss_mib,
        load_average=load_average,
    )
