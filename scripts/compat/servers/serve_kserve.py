"""KServe's Python server, with its V1 and V2 protocols: serve_kserve.py PORT FOLDER."""

import sys

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression


class Iris(Model):
    """Classifies flowers; fails for a row that is all zeros."""

    def __init__(self, name):
        super().__init__(name)
        self.model = LogisticRegression(max_iter=500).fit(*load_iris(return_X_y=True))
        self.ready = True

    def load(self):
        return True

    async def predict(self, payload, headers=None, response_headers=None):
        v2 = isinstance(payload, InferRequest)
        x = payload.inputs[0].as_numpy() if v2 else np.array(payload["instances"], float)
        if not x.any():
            raise RuntimeError("the model fell over")
        labels = self.model.predict(x).astype(np.int64)
        if not v2:
            return {"predictions": labels.tolist()}
        output = InferOutput(name="label", shape=list(labels.shape), datatype="INT64")
        binary = bool(payload.parameters and payload.parameters.get("binary_data_output"))
        output.set_data_from_numpy(labels, binary_data=binary)
        return InferResponse(response_id=payload.id or "none", model_name=self.name,
                             infer_outputs=[output])  # fmt: skip

    async def explain(self, payload, headers=None):
        return {"explanations": [[1, 2]]}


def main(port: int) -> None:
    sys.argv[1:] = []  # ModelServer reads it
    server = ModelServer(http_port=port, enable_grpc=False, access_log_format=None)
    server.start([Iris("small")])


if __name__ == "__main__":
    main(int(sys.argv[1]))
