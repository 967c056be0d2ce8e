"""MLServer with its sklearn runtime and a custom one: serve_mlserver.py PORT FOLDER."""

import json
import os
import sys
from pathlib import Path

import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

CUSTOM = '''
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceResponse, ResponseOutput


class Echo(MLModel):
    """Returns its inputs; streams their words; fails if it is asked to."""

    async def load(self):
        return True

    async def predict(self, payload):
        if getattr(payload.parameters, "fail", False):
            raise ValueError("the model fell over")
        outputs = [ResponseOutput(name=one.name, shape=one.shape, datatype=one.datatype,
                                  data=one.data, parameters=one.parameters)
                   for one in payload.inputs]
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=outputs)

    async def predict_stream(self, payloads):
        async for payload in payloads:
            for word in ("one", "two", "three"):
                output = StringCodec.encode_output("text", [word])
                yield InferenceResponse(model_name=self.name, id=payload.id, outputs=[output])
'''


def main(port: int, folder: Path) -> None:
    x, y = load_iris(return_X_y=True)
    models = {"small": "mlserver_sklearn.SKLearnModel", "echo": "custom.Echo"}
    for name, implementation in models.items():
        (folder / name).mkdir(parents=True)
        settings = {"name": name, "implementation": implementation,
                    "parameters": {"uri": "./model.joblib", "version": "v1"}}  # fmt: skip
        (folder / name / "model-settings.json").write_text(json.dumps(settings))
    joblib.dump(LogisticRegression(max_iter=500).fit(x, y), folder / "small" / "model.joblib")
    (folder / "echo" / "custom.py").write_text(CUSTOM)
    ports = {"http_port": port, "grpc_port": port + 1, "metrics_port": port + 2}
    # No pool of worker processes: streams need that.
    (folder / "settings.json").write_text(
        json.dumps({"host": "127.0.0.1", "parallel_workers": 0, "gzip_enabled": False, **ports})
    )
    os.chdir(folder)
    os.execv(sys.executable, [sys.executable, "-m", "mlserver.cli.main", "start", "."])


main(int(sys.argv[1]), Path(sys.argv[2]))
