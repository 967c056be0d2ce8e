"""Triton's own client for gRPC, unchanged, through a gateway to a model server that speaks REST."""

import asyncio
import contextlib
import queue
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as threaded
import tritonclient.grpc.aio as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.contracts.wire_server import Wire, wire_server
from tests.support.configs import budget, two_backends
from tests.support.harness import Running, run, running, serving
from tests.support.oip_echo import Echo
from tests.support.until import until
from tollway.gateway.security.keys import hash_key

pytestmark = pytest.mark.integration

GRPC = '[grpc]\nlisten = "127.0.0.1:0"\n'
KEY = "tw_a_key_for_tests_of_grpc"
BUDGET = budget("all", "1")
CHEAP_NANO = 100_000


@dataclass
class Stage:
    """A gateway over an echo server, and Triton's client of it."""

    gateway: Running
    model: Echo
    client: Any
    address: str


@contextlib.asynccontextmanager
async def stage(folder: Path, more: str = "", url: str = "", **config: str) -> AsyncIterator[Stage]:
    """`url`: another model server."""
    model = Echo()
    async with serving(model) as echo:
        toml = two_backends(url or echo, url or echo, more=GRPC + more, **config)
        async with running(toml, folder) as gateway:
            assert gateway.gateway.grpc is not None
            address = gateway.gateway.grpc.address
            client = triton.InferenceServerClient(address)
            try:
                yield Stage(gateway, model, client, address)
            finally:
                await client.close()


def tensor(array: Any, datatype: str, of: Any = triton) -> Any:
    return of.InferInput("x", list(array.shape), datatype).set_data_from_numpy(array)


ONE = np.array([[1.5, 2.0, 0.0, -1.0]])

ARRAYS = {
    "BOOL": np.array([True, False]),
    **{
        f"{sign}INT{bits}": np.array([info.min, 1, info.max], info.dtype)
        for bits in (8, 16, 32, 64)
        for sign, kind in (("", f"i{bits // 8}"), ("U", f"u{bits // 8}"))
        for info in [np.iinfo(kind)]
    },
    "FP16": np.array([0.5, np.inf, np.nan], np.float16),
    "FP32": np.array([0.1, -np.inf, np.nan], np.float32),
    "FP64": np.array([0.1, 1e300, np.nan]),
    "BYTES": np.array(["héllo".encode(), b"\xff\x00", b""], np.object_),
}


@pytest.mark.parametrize("named", [True, False], ids=["outputs", "no outputs"])
def test_tensors_of_every_datatype_come_back_bit_for_bit(tmp_path: Path, named: bool) -> None:
    async def main() -> None:
        async with stage(tmp_path) as on:
            for datatype, array in ARRAYS.items():
                outputs = [triton.InferRequestedOutput("x")] if named else None
                result = await on.client.infer(
                    "m", [tensor(array, datatype)], outputs=outputs, request_id="q7"
                )
                reply = result.get_response()
                assert reply.id == "q7"
                assert reply.model_name == "m", "the name that the client asked for"
                assert reply.outputs[0].datatype == datatype
                assert result.as_numpy("x").dtype == array.dtype
                np.testing.assert_array_equal(result.as_numpy("x"), array)

    run(main)


def test_bfloats_come_back_bit_for_bit(tmp_path: Path) -> None:
    # Triton's client needs another library for them, so this is the message that it makes.
    async def main() -> None:
        async with stage(tmp_path) as on, grpc.aio.insecure_channel(on.address) as channel:
            request = service_pb2.ModelInferRequest(model_name="m")
            request.inputs.add(name="x", datatype="BF16", shape=[2])
            request.raw_input_contents.append(b"\x00\x3f\xc0\x7f")

            reply = await service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)

            assert list(reply.raw_output_contents) == [b"\x00\x3f\xc0\x7f"]

    run(main)


def test_a_server_without_binary_tensors_gets_json(tmp_path: Path) -> None:
    async def main() -> None:
        for models in ('["m"]', '["*"]'):
            async with stage(tmp_path, f"json_models = {models}\n") as on:
                on.model.json_only = True
                texts = np.array(["héllo".encode(), b""], np.object_)
                small = np.array([0.1, 2.0], np.float32)
                for datatype, array in {**ARRAYS, "BYTES": texts, "FP32": small}.items():
                    if not datatype.startswith("FP") or datatype == "FP32":
                        result = await on.client.infer("m", [tensor(array, datatype)])
                        np.testing.assert_array_equal(result.as_numpy("x"), array)
                assert all("data" in one["inputs"][0] for one in on.model.documents)

    run(main)


TYPED = {
    "BOOL": ("bool_contents", [True, False]),
    "INT8": ("int_contents", [-128, 127]),
    "INT64": ("int64_contents", [-(2**63), 2**63 - 1]),
    "UINT16": ("uint_contents", [0, 65535]),
    "UINT64": ("uint64_contents", [0, 2**64 - 1]),
    "FP32": ("fp32_contents", [0.5, -1.5]),
    "FP64": ("fp64_contents", [0.1, float("inf")]),
    "BYTES": ("bytes_contents", [b"text", b"\xff"]),
}


def test_typed_contents_come_back_typed(tmp_path: Path) -> None:
    async def main() -> None:
        async with stage(tmp_path) as on, grpc.aio.insecure_channel(on.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            for datatype, (field, elements) in TYPED.items():
                request = service_pb2.ModelInferRequest(model_name="m")
                made = request.inputs.add(name="x", datatype=datatype, shape=[2])
                getattr(made.contents, field).extend(elements)

                reply = await stub.ModelInfer(request)

                assert not reply.raw_output_contents
                assert list(getattr(reply.outputs[0].contents, field)) == elements

    run(main)


def test_parameters_pass_both_ways(tmp_path: Path) -> None:
    async def main() -> None:
        async with stage(tmp_path) as on:
            output = triton.InferRequestedOutput("x", class_count=2)
            result = await on.client.infer(
                "m",
                [tensor(ONE, "FP64")],
                outputs=[output],
                priority=3,
                parameters={"a": "text", "b": True, "c": 7},
            )

            [document] = on.model.documents
            assert document["parameters"] == {"priority": 3, "a": "text", "b": True, "c": 7}
            [asked] = document["outputs"]
            assert asked["parameters"] == {"classification": 2, "binary_data": True}
            given = result.get_response().parameters
            assert (given["a"].string_param, given["b"].bool_param) == ("text", True)
            assert given["c"].int64_param == 7

    run(main)


def test_a_call_is_routed_charged_and_journalled_as_over_rest(tmp_path: Path) -> None:
    async def main() -> None:
        async with stage(tmp_path, BUDGET) as on:
            metadata = (("x-tollway-tags", "team=ads"),)
            async with grpc.aio.insecure_channel(on.address) as channel:
                call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(
                    message(), metadata=metadata
                )
                await call
                told = dict(await call.trailing_metadata())

            assert told["x-tollway-backend"] == "cheap"
            assert told["x-tollway-cost-usd"] == "0.000100000"
            [row] = on.gateway.journalled("decision")
            assert row["id"] == told["x-tollway-decision"]
            assert row["tags"] == {"team": "ads"}
            [attempt] = on.gateway.journalled("attempt")
            assert attempt["cost_nano"] == CHEAP_NANO

    run(main)


def message(name: str = "m") -> Any:
    request = service_pb2.ModelInferRequest(model_name=name)
    request.inputs.add(name="x", datatype="FP64", shape=[1, 4]).contents.fp64_contents.extend(
        ONE[0]
    )
    return request


def test_the_server_and_its_models_describe_themselves(tmp_path: Path) -> None:
    async def main() -> None:
        async with stage(tmp_path) as on:
            client = on.client
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("m")
            assert (await client.get_server_metadata()).name == "tollway"
            metadata = await client.get_model_metadata("m")
            assert (metadata.name, metadata.inputs[0].datatype) == ("m", "FP32")
            config = (await client.get_model_config("m")).config
            assert (config.name, config.max_batch_size, config.input[0].dims) == ("m", 8, [-1])
            statistics = await client.get_inference_statistics("m")
            assert statistics.model_stats[0].inference_stats.success.ns == 4500
            index = await client.get_model_repository_index()
            assert [(one.name, one.state) for one in index.models] == [("m", "READY")]
            assert not on.gateway.journalled("decision"), "descriptions are free"

    run(main)


async def refusal(call: Any) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as caught:
        await call
    return caught.value.status().removeprefix("StatusCode."), caught.value.message()


def test_errors_have_their_status_and_reason(tmp_path: Path) -> None:
    async def main() -> None:
        async with stage(tmp_path) as on:
            infer, one = on.client.infer, [tensor(ONE, "FP64")]
            code, why = await refusal(infer("nobody", one))
            assert (code, "nobody" in why) == ("NOT_FOUND", True)
            shared = triton.InferInput("x", [1, 4], "FP64")
            shared.set_shared_memory("region", 32)
            code, why = await refusal(infer("m", [shared]))
            assert (code, "shared memory" in why) == ("INVALID_ARGUMENT", True)
            headers = {"x-tollway-max-cost-usd": "nothing"}
            code, why = await refusal(infer("m", one, headers=headers))
            assert (code, "max-cost" in why) == ("INVALID_ARGUMENT", True)
            on.model.status, on.model.error = 400, "unexpected shape for input 'x'"
            assert await refusal(infer("m", one)) == ("INVALID_ARGUMENT", on.model.error)
            on.model.status, on.model.error = 503, "no memory"
            code, why = await refusal(infer("m", one))
            assert code == "UNAVAILABLE"

    run(main)


def test_what_administers_a_server_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with stage(tmp_path) as on:
            client = on.client
            for call in (
                client.load_model("m"),
                client.unload_model("m"),
                client.get_system_shared_memory_status(),
                client.register_system_shared_memory("a", "/a", 8),
                client.unregister_cuda_shared_memory(),
                client.update_trace_settings("m", {}),
                client.get_log_settings(),
            ):
                code, why = await refusal(call)
                assert (code, "administers a model server" in why) == ("PERMISSION_DENIED", True)

    run(main)


def test_a_key_is_needed_in_either_field(tmp_path: Path) -> None:
    tenant = f'[[tenants]]\nname = "ads"\nkey_hash = "{hash_key(KEY, None)}"\n'

    async def main() -> None:
        async with stage(tmp_path, tenant, server="") as on:
            infer, one = on.client.infer, [tensor(ONE, "FP64")]
            code, why = await refusal(infer("m", one))
            assert (code, "Bearer KEY" in why) == ("UNAUTHENTICATED", True)
            assert (await refusal(infer("m", one, headers={"x-api-key": "other"})))[0] == code
            for headers in ({"authorization": f"Bearer {KEY}"}, {"x-api-key": KEY}):
                await infer("m", one, headers=headers)
            assert {row["tenant"] for row in on.gateway.journalled("decision")} == {"ads"}
            assert b"x-api-key" not in on.model.heads[-1]

    run(main)


def test_an_exhausted_budget_says_so_and_that_retrying_is_of_no_use(tmp_path: Path) -> None:
    async def main() -> None:
        hard = budget("all", "0.0002", more='enforcement = "hard"\nwindow = "lifetime"')
        async with stage(tmp_path, hard) as on, grpc.aio.insecure_channel(on.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            for _ in range(2):
                await stub.ModelInfer(message())
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ModelInfer(message())

            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            told = dict(caught.value.trailing_metadata())
            assert told["x-tollway-reason"] == "budget_exhausted"
            assert told["x-should-retry"] == "false"
            assert "all" in (caught.value.details() or "")
            assert len(on.model.documents) == 2

    run(main)


def test_a_deadline_ends_the_call_and_is_not_held_against_the_backend(tmp_path: Path) -> None:
    async def main() -> None:
        async with stage(tmp_path) as on:
            on.model.hold = asyncio.Event()
            one = [tensor(ONE, "FP64")]
            calls = [on.client.infer("m", one, client_timeout=0.2) for _ in range(6)]
            ended = await asyncio.gather(*map(refusal, calls))
            assert {code for code, _ in ended} == {"DEADLINE_EXCEEDED"}
            await until(lambda: len(on.gateway.gateway.recent) == len(calls))
            on.model.hold.set()
            # As many failures of its own would open the breaker.
            assert not on.gateway.gateway.backends["cheap"].breaker.is_open

    run(main)


def test_a_call_that_its_client_cancels_is_stopped_and_charged(tmp_path: Path) -> None:
    async def main() -> None:
        asked, closed = asyncio.Event(), asyncio.Event()

        async def hangs(wire: Wire) -> None:
            await wire.request()
            asked.set()
            await wire.gone()
            closed.set()

        async with wire_server(hangs) as model, stage(tmp_path, BUDGET, url=model.url) as on:
            call = asyncio.create_task(on.client.infer("m", [tensor(ONE, "FP64")]))
            await asyncio.wait_for(asked.wait(), 10)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            await asyncio.wait_for(closed.wait(), 10)
            await until(lambda: bool(on.gateway.gateway.recent))
            [attempt] = on.gateway.journalled("attempt")
            assert (attempt["error"], attempt["cost_nano"]) == ("client left", CHEAP_NANO)
            assert not on.gateway.gateway.backends["cheap"].breaker.is_open

    run(main)


def test_a_stream_answers_each_request_in_order_and_survives_an_error(tmp_path: Path) -> None:
    async def main() -> None:
        async with stage(tmp_path) as on:
            answers = await asyncio.to_thread(streamed, on.address, ("m", "nobody", "m"))

            (first, none), (_, error), (last, _) = answers
            assert none is None
            assert first.get_response().id == "q0"
            assert first.get_response().parameters["x-tollway-decision"].string_param
            assert "nobody" in str(error)
            assert last.as_numpy("x").tolist() == [2.0]
            assert last.get_response().parameters["triton_final_response"].bool_param
            assert on.model.documents[-1].get("parameters") == {"binary_data_output": True}

    run(main)


def streamed(address: str, models: Sequence[str]) -> list[tuple[Any, Any]]:
    """Ask for an inference of each model in one stream of the client with threads."""
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with threaded.InferenceServerClient(address) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for at, name in enumerate(models):
            client.async_stream_infer(
                name,
                [tensor(np.array([float(at)]), "FP64", of=threaded)],
                request_id=f"q{at}",
                enable_empty_final_response=True,
            )
        found = [answers.get(timeout=10) for _ in models]
        client.stop_stream()
    return found


def test_calls_and_streams_without_messages_end(tmp_path: Path) -> None:
    async def main() -> None:
        server = "allow_anonymous = true\nkeep_alive_s = 1"
        async with (
            stage(tmp_path, server=server) as on,
            grpc.aio.insecure_channel(on.address) as channel,
        ):
            service = "/inference.GRPCInferenceService"
            call = channel.stream_unary(f"{service}/ModelInfer")()
            stream = channel.stream_stream(f"{service}/ModelStreamInfer")()
            await stream.write(message().SerializeToString())
            await stream.read()
            assert await asyncio.wait_for(call.code(), 20) is grpc.StatusCode.DEADLINE_EXCEEDED
            assert await asyncio.wait_for(stream.code(), 20) is grpc.StatusCode.DEADLINE_EXCEEDED
            empty = channel.stream_unary(f"{service}/ModelInfer")()
            await empty.done_writing()
            assert await empty.code() is grpc.StatusCode.INVALID_ARGUMENT
            broken = channel.unary_unary(f"{service}/ModelInfer")(b"\xff")
            assert await broken.code() is grpc.StatusCode.INVALID_ARGUMENT

    run(main)


def test_a_caller_without_a_key_does_not_take_every_slot(tmp_path: Path) -> None:
    tenant = f'[[tenants]]\nname = "ads"\nkey_hash = "{hash_key(KEY, None)}"\n'

    async def main() -> None:
        async with stage(tmp_path, "max_calls = 18\n" + tenant) as on:
            async with grpc.aio.insecure_channel(on.address) as channel:
                opened = [
                    channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")()
                    for _ in range(20)
                ]
                codes = [asyncio.create_task(one.code()) for one in opened]
                await until(lambda: sum(code.done() for code in codes) == 20 - 17)
                ended = {code.result() for code in codes if code.done()}
                assert ended == {grpc.StatusCode.UNAVAILABLE}
                result = await on.client.infer(
                    "m", [tensor(ONE, "FP64")], headers={"x-api-key": KEY}
                )
                assert result.as_numpy("x").tolist() == ONE.tolist()
                for one in opened:
                    one.cancel()
                await asyncio.gather(*codes)

    run(main)


def test_a_caller_without_a_key_is_refused_before_its_message_is_read(tmp_path: Path) -> None:
    tenant = f'[[tenants]]\nname = "ads"\nkey_hash = "{hash_key(KEY, None)}"\n'

    async def main() -> None:
        async with stage(tmp_path, "max_calls = 18\n" + tenant, server="") as on:
            async with grpc.aio.insecure_channel(on.address) as channel:
                service = "/inference.GRPCInferenceService"
                silent = [channel.stream_stream(f"{service}/ModelStreamInfer")() for _ in range(20)]
                silent.append(channel.stream_unary(f"{service}/ModelInfer")())
                codes = await asyncio.wait_for(asyncio.gather(*[one.code() for one in silent]), 20)
                refused = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE}
                assert grpc.StatusCode.UNAUTHENTICATED in codes
                assert set(codes) <= refused
                result = await on.client.infer(
                    "m", [tensor(ONE, "FP64")], headers={"x-api-key": KEY}
                )
                assert result.as_numpy("x").tolist() == ONE.tolist()

    run(main)


def test_a_message_over_max_body_bytes_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        server = "allow_anonymous = true\nmax_body_bytes = 100_000"
        async with stage(tmp_path, server=server) as on:
            code, _ = await refusal(on.client.infer("m", [tensor(np.zeros(25_000), "FP64")]))
            assert code == "RESOURCE_EXHAUSTED"
            result = await on.client.infer("m", [tensor(np.zeros(12_000), "FP64")])
            assert len(result.as_numpy("x")) == 12_000

    run(main)
