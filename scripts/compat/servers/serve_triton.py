"""Triton on the CPU with its Python backend: serve_triton.py PORT FOLDER.

The wheel of nvidia-pytriton carries the server, its libraries and a stub of the backend for each
version of Python. The stub needs the shared library of Python.
"""

import os
import shutil
import sys
import sysconfig
from importlib.metadata import distribution
from pathlib import Path

CONFIG = """
name: "small"
backend: "python"
max_batch_size: 8
input [
  { name: "x" data_type: TYPE_FP32 dims: [ 4 ] },
  { name: "words" data_type: TYPE_STRING dims: [ 1 ] optional: true }
]
output [
  { name: "sum" data_type: TYPE_FP32 dims: [ 1 ] },
  { name: "words" data_type: TYPE_STRING dims: [ 1 ] }
]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""
STREAMED = """
name: "words"
backend: "python"
max_batch_size: 0
model_transaction_policy { decoupled: true }
input [ { name: "text_input" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "text_output" data_type: TYPE_STRING dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""
SMALL = '''
import numpy as np
import triton_python_backend_utils as triton


class TritonPythonModel:
    """Sums each row; returns the words it was sent; fails for a row that begins with 666."""

    def execute(self, requests):
        return [self.reply(one) for one in requests]

    def reply(self, request):
        x = triton.get_input_tensor_by_name(request, "x").as_numpy()
        words = triton.get_input_tensor_by_name(request, "words")
        if (x[:, 0] == 666).any():
            error = triton.TritonError("the model fell over")
            return triton.InferenceResponse([], error=error)
        said = words.as_numpy() if words else np.full((len(x), 1), b"", object)
        return triton.InferenceResponse([
            triton.Tensor("sum", x.sum(1, keepdims=True)), triton.Tensor("words", said)])
'''
WORDS = '''
import numpy as np
import triton_python_backend_utils as triton


class TritonPythonModel:
    """Streams the words of a text, one a response."""

    def execute(self, requests):
        for request in requests:
            text = triton.get_input_tensor_by_name(request, "text_input").as_numpy()[0].decode()
            sender = request.get_response_sender()
            for word in text.split():
                output = triton.Tensor("text_output", np.array([word.encode()], object))
                sender.send(triton.InferenceResponse([output]))
            sender.send(flags=triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
'''


def main(port: str, folder: Path) -> None:
    found = distribution("nvidia-pytriton")
    home = Path(found.locate_file("pytriton/tritonserver"))
    for name, config, code in (("small", CONFIG, SMALL), ("words", STREAMED, WORDS)):
        (folder / "models" / name / "1").mkdir(parents=True)
        (folder / "models" / name / "config.pbtxt").write_text(config)
        (folder / "models" / name / "1" / "model.py").write_text(code)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copytree(home / "backends" / "python", folder / "backends" / "python")
    stub = home / "python_backend_stubs" / python / "triton_python_backend_stub"
    shutil.copy(stub, folder / "backends" / "python")
    libraries = [str(found.locate_file("nvidia_pytriton.libs")), sysconfig.get_config_var("LIBDIR")]
    os.environ["LD_LIBRARY_PATH"] = ":".join(libraries)
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    server = str(home / "bin" / "tritonserver")
    options = ["--model-repository", folder / "models", "--backend-directory", folder / "backends",
               "--http-address", "127.0.0.1", "--http-port", port, "--allow-grpc", "false",
               "--allow-metrics", "false"]  # fmt: skip
    os.execv(server, [server, *map(str, options)])


main(sys.argv[1], Path(sys.argv[2]))
