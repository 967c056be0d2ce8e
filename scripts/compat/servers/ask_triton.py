"""Triton, with tritonclient.http."""

import numpy as np
import oip
import tritonclient.http as triton
from sides import Side, raised, report, within
from tritonclient.utils import np_to_triton_dtype

ROWS = np.array([[6.8, 2.8, 4.8, 1.4], [5, 3, 1, 0.2]], np.float32)
WORDS = np.array([[b"\xff\xd8\x00"], ["h\xe9".encode()]], object)


def inputs(rows, binary, words=None, name="x"):
    given = [(name, rows)] + ([] if words is None else [("words", words)])
    made = []
    for label, data in given:
        one = triton.InferInput(label, list(data.shape), np_to_triton_dtype(data.dtype))
        one.set_data_from_numpy(data, binary_data=binary)
        made.append(one)
    return made


def asked(side: Side, rows=ROWS, binary=True, replied=True, words=None, **more):
    wanted = [triton.InferRequestedOutput(one, binary_data=replied) for one in ("sum", "words")]
    with triton.InferenceServerClient(side.address) as client:
        sent = inputs(rows, binary, words)
        reply = client.infer(side.model, sent, outputs=wanted, request_id="q7", **more)
        return reply.as_numpy("sum").tolist(), reply.as_numpy("words").tolist(), reply_id(reply)


def reply_id(reply):
    return reply.get_response()["id"]


def client(side: Side) -> object:
    words = np.array([["a"], ["b"]], object)
    return [asked(side, binary=False, replied=False, words=words),
            asked(side, model_version="1"), asked(side, parameters={"my": 7})]  # fmt: skip


def binary(side: Side) -> object:
    """Both ways, mixed, text that is no UTF-8, compressed both ways."""
    return [asked(side, words=WORDS), asked(side, replied=False), asked(side, binary=False),
            asked(side, request_compression_algorithm="gzip"),
            asked(side, request_compression_algorithm="deflate",
                  response_compression_algorithm="gzip")]  # fmt: skip


def nulls(side: Side) -> object:
    """NaN in binary; null and NaN in JSON get the server's own refusal or answer."""
    said = [str(asked(side, np.full((1, 4), np.nan, np.float32)))]
    for row in ([1, None, 3, 4], [1, float("nan"), 3, 4]):
        said.append(side.post(oip.INFER, oip.tensor(row, [1, 4])).seen)
    return said


def bad(side: Side) -> object:
    """A wrong type, shape, input and version, and no JSON: the client raises what it would."""
    said = [
        raised(lambda: asked(side, np.ones((1, 3), np.float32))),
        raised(lambda: asked(side, np.ones((1, 4), np.int64))),
        raised(lambda: asked(side, np.ones((99, 4), np.float32))),
    ]
    with triton.InferenceServerClient(side.address) as one:
        said.append(raised(lambda: one.infer(side.model, inputs(ROWS, True, name="y"))))
        said.append(raised(lambda: one.infer(side.model, inputs(ROWS, True), model_version="9")))
    return [(type(one).__name__, side.unnamed(str(one))) for one in said]


def failure(side: Side) -> object:
    wrong = raised(lambda: asked(side, np.full((1, 4), 666, np.float32)))
    within("the model fell over", wrong)
    return type(wrong).__name__, side.unnamed(str(wrong))


def metadata(side: Side) -> object:
    with triton.InferenceServerClient(side.address) as one:
        said = one.get_model_metadata(side.model), one.get_model_config(side.model)
        return side.unnamed(str(said))


def statistics(side: Side) -> object:
    """Their form, and that they count; the counts differ by then."""
    with triton.InferenceServerClient(side.address) as one:
        (found,) = one.get_inference_statistics(side.model)["model_stats"]
        return side.unnamed(found["name"]), found["inference_count"] > 0, sorted(found)


def generate(side: Side) -> object:
    """Triton's generate extension: a stream of events, and what it does not take."""
    body = {"text_input": "one two three"}
    said = side.post("/v2/models/words/generate_stream", body).ok()
    within("three", said.body)
    one = side.post("/v2/models/words/generate", {"text_input": "one"}).ok()
    return said.seen, one.seen, side.post("/v2/models/words/generate", {"text": 1}).seen


report(
    {"JSON inference": oip.infer, "its own client": client, "binary tensors": binary,
     "null and NaN": nulls, "errors of the server": bad, "text of a 500": failure,
     "streams": generate, "metadata": metadata, "statistics": statistics, "ready": oip.ready,
     "name asked for": oip.name, "gzip": oip.gzipped},
    oip.OF_THE_GATEWAY,
)  # fmt: skip
