"""KServe's own client, V1 and V2."""

import asyncio

import numpy as np
import oip
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from sides import Side, raised, report, same, zipped

ROW = np.array([[6.8, 2.8, 4.8, 1.4]], np.float32)
INSTANCES = {"instances": ROW.tolist()}
PREDICT = "/v1/models/MODEL:predict"


def run(side: Side, protocol: str, call):
    async def main():
        client = InferenceRESTClient(RESTConfig(protocol=protocol, timeout=60, retries=0))
        return await call(client)

    return asyncio.run(main())


def request(side: Side, binary: bool, row=ROW) -> InferRequest:
    one = InferInput("x", list(row.shape), "FP32")
    one.set_data_from_numpy(row, binary_data=binary)
    return InferRequest(model_name=side.model, infer_inputs=[one], request_id="q7")


def v2(side: Side, binary: bool, row=ROW) -> object:
    reply = run(side, "v2", lambda client: client.infer(
        side.url, request(side, binary, row), model_name=side.model))  # fmt: skip
    return reply.model_name == side.model, reply.id, reply.outputs[0].as_numpy().tolist()


def v1(side: Side) -> object:
    """Predict, explain, the status of a model, the list, and a server's error."""
    calls = (
        lambda one: one.infer(side.url, INSTANCES, model_name=side.model),
        lambda one: one.explain(side.url, side.model, INSTANCES),
        lambda one: one.is_model_ready(side.url, side.model),
        lambda one: one.is_server_live(side.url),
    )
    said = [run(side, "v1", call) for call in calls]
    listed = side.call("GET", "/v1/models").ok().document["models"]
    same(side.model in listed, True)
    bad = side.post(PREDICT, {"rows": 1}).seen
    return [*said, side.call("GET", "/v1/models/MODEL").ok().seen, bad,
            side.post(PREDICT, {"instances": [[0, 0, 0, 0]]}).refused(500)]  # fmt: skip


def health(side: Side) -> object:
    """Checked by the client; raises for a model that is not there on both sides."""
    said = [
        run(side, "v2", lambda one: one.is_server_live(side.url)),
        run(side, "v2", lambda one: one.is_server_ready(side.url)),
        run(side, "v2", lambda one: one.is_model_ready(side.url, side.model)),
    ]
    return [*said, oip.ready(side)]


def nulls(side: Side) -> object:
    bodies = ([6.8, None, 4.8, 1.4], [6.8, float("nan"), 4.8, 1.4])
    return [side.post(oip.INFER, oip.tensor(one, [1, 4])).seen for one in bodies]


def bad(side: Side) -> object:
    """A wrong type, a wrong shape, no inputs; and the client's exception."""
    wrong = raised(lambda: v2(side, False, np.ones((1, 3), np.float32)))
    return [
        side.post(oip.INFER, oip.tensor([1, 2, 3, 4], [1, 4], "fp32")).seen,
        side.post(oip.INFER, oip.tensor([1, 2, 3, 4], [1, 7])).seen,
        type(wrong).__name__, str(wrong).partition(" for url")[0],
    ]  # fmt: skip


def failure(side: Side) -> object:
    return side.post(oip.INFER, oip.tensor([0, 0, 0, 0], [1, 4])).refused(500)


def gzipped(gateway: Side) -> None:
    """KServe itself does not decode it."""
    gateway.post(PREDICT, *zipped(INSTANCES)).ok()
    gateway.post(oip.INFER, *zipped(oip.ROW)).ok()


report(
    {"JSON inference": oip.infer, "its own client": lambda side: v2(side, False),
     "binary tensors": lambda side: v2(side, True), "null and NaN": nulls,
     "errors of the server": bad, "text of a 500": failure, "metadata": oip.metadata,
     "ready": health, "name asked for": oip.name, "V1 protocol": v1},
    {**oip.OF_THE_GATEWAY, "gzip": gzipped},
)  # fmt: skip
