"""The servers' endpoints: what Open Inference Protocol clients ask for, and what is counted."""

import asyncio

import pytest

from examples.digits.app import App
from tests.support.digits_fakes import Brightest, call, request

INFER = "/v2/models/brightest/infer"


def ask(path, body=b"", method="GET", app=None, headers=None):
    return asyncio.run(call(app or App(Brightest()), method, path, body, headers))


def test_an_inference_says_label_probabilities_and_device_seconds():
    got = ask(INFER, request(7, id="abc"), "POST")

    assert got.status == 200
    assert got.headers["x-device-seconds"] == "2.000000000"
    assert got.json["id"] == "abc"
    assert got.json["model_name"] == "brightest"
    label, probabilities = got.json["outputs"]
    assert label == {"name": "label", "datatype": "INT64", "shape": [1], "data": [7]}
    assert probabilities["shape"] == [1, 10]
    assert sum(probabilities["data"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("path", "status", "wanted"),
    [
        ("/v2", 200, {"extensions": ["binary_tensor_data"]}),
        ("/v2/health/live", 200, {"live": True}),
        ("/v2/health/ready", 200, {"ready": True}),
        ("/v2/models/brightest", 200, {"name": "brightest", "versions": ["1"]}),
        ("/v2/models/brightest/versions/1", 200, {"platform": "test"}),
        ("/v2/models/brightest/ready", 200, {"ready": True}),
        ("/v2/models/brightest/versions/1/ready", 200, {"ready": True}),
        ("/v2/models/digits", 200, {"name": "digits"}),
        ("/v2/models/brightest/versions/2", 404, {}),
        ("/v2/models/brightest/config", 404, {}),
        ("/v2/models/other", 404, {}),
        ("/", 404, {}),
    ],
)
def test_what_there_is_to_get(path, status, wanted):
    got = ask(path, app=App(Brightest(), aliases=("digits",)))

    assert got.status == status
    assert wanted.items() <= got.json.items()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v2/models/brightest/versions/1/infer", 200),
        ("POST", "/v2/models/brightest/versions/2/infer", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("GET", INFER, 405),
        ("POST", "/v2", 405),
    ],
)
def test_an_inference_needs_its_model_its_version_and_post(method, path, status):
    assert ask(path, request(1), method).status == status


def test_stats_count_inferences_images_and_device_seconds_and_nothing_else():
    app = App(Brightest())
    ask(INFER, request(1, 2), "POST", app)
    ask(INFER, b"{", "POST", app)
    ask("/v2", app=app)

    stats = ask("/stats", app=app).json

    assert (stats["calls"], stats["images"], stats["device_s"]) == (1, 2, 2.0)


def test_with_fail_every_it_fails_every_nth_and_does_not_count_it():
    app = App(Brightest(), fail_every=2)

    statuses = [ask(INFER, request(1), "POST", app).status for _ in range(4)]

    assert statuses == [200, 500, 200, 500]
    assert app.calls == 2


def test_a_request_too_large_is_refused():
    assert ask(INFER, b" " * ((8 << 20) + 1), "POST").status == 413
