"""MLServer, with Triton's client, which its own command line uses, and raw calls."""

import numpy as np
import oip
import tritonclient.http as triton
from sides import Side, raised, report

STREAM = "/v2/models/echo/infer_stream"
ECHO = "/v2/models/echo/infer"


def client(side: Side) -> object:
    """Triton's client, as far as MLServer takes it."""
    with triton.InferenceServerClient(side.address) as asked:
        x = triton.InferInput("x", [1, 4], "FP32")
        x.set_data_from_numpy(np.array([[6.8, 2.8, 4.8, 1.4]], np.float32), binary_data=False)
        label = triton.InferRequestedOutput("predict", binary_data=False)
        reply = asked.infer(side.model, [x], outputs=[label], request_id="q7")
        found = [asked.is_server_live(), asked.is_server_ready(), asked.is_model_ready(side.model)]
        return [*found, reply.as_numpy("predict").tolist(), reply.get_response()["id"]]


def binary(side: Side) -> object:
    with triton.InferenceServerClient(side.address) as asked:
        x = triton.InferInput("x", [1, 4], "FP32")
        x.set_data_from_numpy(np.array([[6.8, 2.8, 4.8, 1.4]], np.float32), binary_data=True)
        label = triton.InferRequestedOutput("predict", binary_data=False)
        said = asked.infer(side.model, [x], outputs=[label], request_id="q7")
        return said.as_numpy("predict").tolist()


def nulls(side: Side) -> object:
    """Null for NaN, 1.0 as an integer, the limits of integers, a shape of -1."""
    bodies = (
        oip.tensor([1, None, 3], [3]),
        oip.tensor([1.0, 2.0], [2], "INT64"),
        oip.tensor([2**63 - 1, -(2**63)], [2], "INT64"),
        oip.tensor([1, 2], [-1]),
        oip.tensor(["a", None], [2], "BYTES"),
    )
    return [side.post(ECHO, one).ok().seen for one in bodies]


def bad(side: Side) -> object:
    """A wrong type, a wrong shape, NaN as a literal, no columns that the model knows."""
    return [
        side.post(ECHO, oip.tensor([1], [1], "fp32")).refused(422),
        side.post(ECHO, oip.tensor([float("nan")], [1])).refused(422)[0],
        side.post(oip.INFER, oip.tensor([1, 2], [1, 2])).seen,
        str(raised(lambda: triton.InferenceServerClient(side.address).infer("nobody", [])))[:5],
    ]


def failure(side: Side) -> object:
    return side.post(ECHO, oip.tensor([1], [1]) | {"parameters": {"fail": True}}).refused(500)


def streamed(side: Side) -> object:
    return side.post(STREAM, oip.tensor([1], [1])).ok().seen


report(
    {"JSON inference": oip.infer, "its own client": client, "binary tensors": binary,
     "null and NaN": nulls, "errors of the server": bad, "text of a 500": failure,
     "streams": streamed, "metadata": oip.metadata, "ready": oip.ready, "name asked for": oip.name,
     "gzip": oip.gzipped},
    oip.OF_THE_GATEWAY,
)  # fmt: skip
