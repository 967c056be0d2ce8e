"""`mlflow models serve` with a Python function: serve_mlflow.py PORT FOLDER."""

import os
import sys
from pathlib import Path

import mlflow
from mlflow.models import ModelSignature
from mlflow.types import ParamSchema, ParamSpec

MODEL = '''
import mlflow
import numpy as np


class Odd(mlflow.pyfunc.PythonModel):
    """Sums the numbers of each row, or returns what the parameter `mode` asks for."""

    def predict(self, context, model_input, params=None):
        mode = (params or {}).get("mode", "")
        if mode == "fail":
            raise ValueError("the model fell over")
        if mode == "nan":
            return np.array([1.0, np.nan])
        if mode == "labels":
            return {"label": ["a"], "score": [0.1]}
        if isinstance(model_input, dict):
            return sorted(model_input)
        return np.nansum(np.asarray(model_input, float).reshape(len(model_input), -1), axis=1)


mlflow.models.set_model(Odd())
'''


def main(port: str, folder: Path) -> None:
    (folder / "code.py").write_text(MODEL)
    signature = ModelSignature(params=ParamSchema([ParamSpec("mode", "string", "")]))
    mlflow.pyfunc.save_model(folder / "model", python_model=str(folder / "code.py"),
                             signature=signature, pip_requirements=[])  # fmt: skip
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    serve = ["models", "serve", "-m", str(folder / "model"), "-p", port, "-h", "127.0.0.1",
             "--env-manager", "local", "--workers", "1"]  # fmt: skip
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", *serve])


main(sys.argv[1], Path(sys.argv[2]))
