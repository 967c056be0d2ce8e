"""Our histograms count like those of Prometheus' own client."""

import random

from prometheus_client import CollectorRegistry, Histogram

from tollway.gateway.observability.histogram import Buckets

BOUNDS = (0.00005, 0.001, 0.25, 1, 10)


def test_it_counts_as_prometheus_own_client_does():
    rng, ours = random.Random(1), Buckets(BOUNDS)
    theirs = Histogram("t_seconds", "A time", buckets=BOUNDS, registry=CollectorRegistry())
    for value in (*BOUNDS, 0.0, 11.0, *[rng.expovariate(1.0) for _ in range(200)]):
        ours.observe(value)
        theirs.observe(value)
    (family,) = theirs.collect()
    told = [one for one in family.samples if one.name == "t_seconds_bucket"]
    assert [(bound, count) for bound, count, _ in ours.cumulative()] == [
        (float(one.labels["le"]), one.value) for one in told
    ]
    assert told[-1].value == 207
    assert [ours.sum] == [one.value for one in family.samples if one.name == "t_seconds_sum"]


def test_a_bucket_keeps_its_newest_trace():
    buckets = Buckets(BOUNDS)
    buckets.observe(0.1, {"trace_id": "old"})
    buckets.observe(0.2, {"trace_id": "new"})
    buckets.observe(0.2)
    buckets.observe(0.7)
    seen = {bound: seen[:2] for bound, _, seen in buckets.cumulative() if seen}
    assert seen == {0.25: ({"trace_id": "new"}, 0.2)}
