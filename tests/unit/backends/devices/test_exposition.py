"""Reading one figure out of Prometheus' text format."""

import pytest

from tollway.backends.devices.clocks import SOURCES, from_metrics, from_statistics
from tollway.backends.devices.exposition import Selector, parse_selector, total

# Written after the servers' documentation: names, labels and units are theirs, figures are not.
TRITON = """\
# HELP nv_inference_request_success Number of successful inference requests, all batch sizes
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="digits",version="1"} 40
# HELP nv_inference_compute_infer_duration_us Cumulative compute inference duration in microseconds
# TYPE nv_inference_compute_infer_duration_us counter
nv_inference_compute_infer_duration_us{model="digits",version="1"} 1500000
nv_inference_compute_infer_duration_us{model="digits",version="2"} 250000.0
nv_inference_compute_infer_duration_us{model="other",version="1"} 9
# HELP nv_gpu_utilization GPU utilization rate [0.0 - 1.0)
# TYPE nv_gpu_utilization gauge
nv_gpu_utilization{gpu_uuid="GPU-4f7c"} 0.31
"""
VLLM = """\
# HELP vllm:request_inference_time_seconds Histogram of time spent in RUNNING phase for request.
# TYPE vllm:request_inference_time_seconds histogram
vllm:request_inference_time_seconds_bucket{engine="0",le="0.3",model_name="org/model"} 3.0
vllm:request_inference_time_seconds_bucket{engine="0",le="+Inf",model_name="org/model"} 5.0
vllm:request_inference_time_seconds_count{engine="0",model_name="org/model"} 5.0
vllm:request_inference_time_seconds_sum{engine="0",model_name="org/model"} 12.75
"""
KSERVE = """\
# TYPE request_predict_seconds histogram
request_predict_seconds_bucket{le="0.005",model_name="digits"} 2.0
request_predict_seconds_count{model_name="digits"} 2.0
request_predict_seconds_sum{model_name="digits"} 0.5
request_predict_seconds_created{model_name="digits"} 1.7e+09
"""
OPENCOST = """\
# HELP node_gpu_hourly_cost node_gpu_hourly_cost hourly cost for each gpu on this node
# TYPE node_gpu_hourly_cost gauge
node_gpu_hourly_cost{instance="gpu-1",instance_type="g5.xlarge",provider_id="aws:///a/i-0"} 1.006
node_gpu_hourly_cost{instance="gpu-2",instance_type="g5.xlarge",provider_id="aws:///a/i-1"} 0.37
"""


@pytest.mark.parametrize(
    ("text", "selector", "value"),
    [
        (OPENCOST, 'node_gpu_hourly_cost{instance="gpu-2"}', 0.37),
        (OPENCOST, 'node_gpu_hourly_cost{ instance = "gpu-1", instance_type="g5.xlarge", }', 1.006),
        (OPENCOST, "node_gpu_hourly_cost", 1.376),
        ("a 1\na_total 2\n", "a", 1.0),
        ("a 1 1700000000000\n", "a", 1.0),
        ('a_total{x="y"} 7 # {trace_id="1"} 1.0 17.5\n', "a_total", 7.0),
        ('a{x="\\"q\\" \\\\ \\n}"} 3\n', 'a{x="\\"q\\" \\\\ \\n}"}', 3.0),
        ("a{} 4\r\n", "a{}", 4.0),
    ],
)
def test_a_selector_adds_up_the_samples_that_have_its_labels(
    text: str, selector: str, value: float
) -> None:
    assert total(text, parse_selector(selector)) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (OPENCOST, "has no sample a"),
        ('a{b="x"} 1\n', 'has no sample a{b="c"}'),
        ('a{b="c"} NaN\n', "no finite number"),
        ('a{b="c"} +Inf\n', "no finite number"),
        ('a{b="c"}\n', "no finite number"),
        ('a{b="c" 1\n', "malformed"),
        ('a{b="c"} 1 2 3\n', "no finite number"),
    ],
)
def test_what_is_not_there_or_is_no_number_is_an_error(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=r"\S") as refused:
        total(text, Selector("a", (("b", "c"),) if "b=" in text else ()))
    assert why in str(refused.value)


@pytest.mark.parametrize("text", ["", "{}", "9a", 'a{b="c"', "a{b=c}", 'a{b="c"} x', 'a{"b"="c"}'])
def test_a_selector_that_is_none_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write it like"):
        parse_selector(text)


@pytest.mark.parametrize(
    ("server", "text", "model", "seconds"),
    [
        ("triton", TRITON, "digits", 1.75),
        ("vllm", VLLM, "org/model", 12.75),
        ("kserve", KSERVE, "digits", 0.5),
    ],
)
def test_the_counters_of_servers_are_read_in_seconds(
    server: str, text: str, model: str, seconds: float
) -> None:
    source = SOURCES[server]
    read = from_metrics(Selector(source.metric, ((source.label, model),)), source.unit)
    assert read(text.encode()) == pytest.approx(seconds)


def test_statistics_count_executions_rather_than_the_requests_in_them() -> None:
    # One batch of four in 8 ms: each of its requests waited for all of it.
    body = b"""{"model_stats": [{"name": "digits", "version": "1",
        "inference_stats": {"compute_infer": {"count": 4, "ns": 32000000}},
        "batch_stats": [{"batch_size": 4, "compute_infer": {"count": 1, "ns": 8000000}}]}]}"""
    assert from_statistics(body) == pytest.approx(0.008)
    assert from_statistics(body.replace(b"batch_stats", b"other")) == pytest.approx(0.032)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"model_stats": []}', b'{"model_stats": [{"batch_stats": [1]}]}']
)
def test_statistics_without_a_duration_are_an_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        from_statistics(body)
