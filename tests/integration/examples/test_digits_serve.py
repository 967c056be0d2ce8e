"""The servers as processes, called by Triton's client."""

import asyncio
import socket
import urllib.request

import numpy as np
import pytest
import tritonclient.http as triton

from examples.digits import processes, train
from examples.digits.data import halves

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    arguments = ["-m", "examples.digits.serve", "--model", "rules", "--dir", str(folder)]
    running = asyncio.run(processes.start("rules", arguments, folder / "log"))
    yield running
    running.stop()


@pytest.fixture
def client(server):
    client = triton.InferenceServerClient(server.url.removeprefix("http://"))
    yield client
    client.close()


def test_a_server_states_its_name(client, server):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits-rules")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert client.get_model_metadata("digits")["inputs"][0]["shape"] == [-1, 64]
    assert server.heading().startswith("digits-rules on ")


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_tritonclient_gets_the_models_answer_in_every_form(client, binary_in, binary_out):
    images = halves()[1].images[:5]
    tensor = triton.InferInput("image", [5, 64], "FP32")
    tensor.set_data_from_numpy(images, binary_data=binary_in)
    outputs = [
        triton.InferRequestedOutput(name, binary_data=binary_out)
        for name in ("label", "probabilities")
    ]

    reply = client.infer("digits", [tensor], model_version="1", outputs=outputs, request_id="r7")

    wanted = train.get("rules").read(images).probabilities
    assert reply.get_response()["id"] == "r7"
    assert np.allclose(reply.as_numpy("probabilities"), wanted, atol=1e-6)
    assert reply.as_numpy("label").tolist() == wanted.argmax(axis=1).tolist()


def test_the_servers_count_is_the_number_of_its_requests(client, server):
    def calls():
        with urllib.request.urlopen(f"{server.url}/stats") as reply:
            return int(reply.read().partition(b'"calls": ')[2].partition(b",")[0])

    before = calls()
    tensor = triton.InferInput("image", [1, 64], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 64), dtype=np.float32))
    for _ in range(3):
        client.infer("digits-rules", [tensor])

    assert calls() == before + 3


def test_a_program_that_does_not_start_says_why(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = ["-m", "examples.digits.serve", "--model", "rules", "--port", port]

        with pytest.raises(RuntimeError, match=r"(?i)rules ended with 1.*in use"):
            asyncio.run(processes.start("rules", arguments, tmp_path / "log"))
