"""Calls a gateway with Triton's own HTTP client, unchanged; prints the replies as JSON.

A program of its own, because the client runs on gevent.
"""

import json
import sys

import numpy as np
import tritonclient.http as triton


def main(address: str) -> None:
    client = triton.InferenceServerClient(address)
    told = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready("digits"),
        "name": client.get_model_metadata("digits")["name"],
        "server": client.get_server_metadata()["name"],
    }
    pixels = np.tile(np.arange(64, dtype=np.float32) % 17, (3, 1))
    for binary in (True, False):
        tensor = triton.InferInput("image", [3, 64], "FP32")
        tensor.set_data_from_numpy(pixels, binary_data=binary)
        wanted = [
            triton.InferRequestedOutput("label", binary_data=binary),
            triton.InferRequestedOutput("probabilities", binary_data=binary),
        ]
        result = client.infer("digits", [tensor], outputs=wanted, request_id="q7")
        told[f"binary={binary}"] = {
            "id": result.get_response()["id"],
            "labels": result.as_numpy("label").tolist(),
            "sums": result.as_numpy("probabilities").sum(axis=1).round(3).tolist(),
        }
    try:
        client.infer(
            "digits",
            [
                triton.InferInput("image", [1, 64], "FP32").set_data_from_numpy(
                    np.zeros((1, 64), np.float32), binary_data=False
                )
            ],
            model_version="",
        )
        client.infer("no-such-model", [tensor])
    except triton.InferenceServerException as exc:
        told["error"] = exc.message()
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1])
