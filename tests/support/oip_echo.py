"""A model server that returns its inputs: the Open Inference Protocol with binary tensors.

Written from the protocol's text, apart from the code under test.
"""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Echo:
    """The server. An output is binary where its input was; that it was asked for is asserted.

    `json_only`: it does not know binary tensors, as MLServer. `hold`: it waits for that before it
    replies. `status` and `error` refuse every inference.
    """

    json_only: bool = False
    hold: asyncio.Event | None = None
    status: int = 200
    error: str = ""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    documents: list[dict[str, Any]] = field(default_factory=list)
    heads: list[dict[bytes, bytes]] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = dict(scope["headers"])
        if scope["path"].endswith("/infer"):
            self.heads.append(headers)
            status, fields, reply = await self.infer(headers, body)
        else:
            status, fields, reply = 200, [], json.dumps(self.described(scope["path"])).encode()
        head = [(b"content-type", b"application/json"), *fields, *self.headers]
        head.append((b"content-length", b"%d" % len(reply)))
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": reply})

    async def infer(
        self, headers: dict[bytes, bytes], body: bytes
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        length = len(body)
        if not self.json_only:
            length = int(headers.get(b"inference-header-content-length", length))
        request, rest = json.loads(body[:length]), body[length:]
        self.documents.append(request)
        if self.hold is not None:
            await self.hold.wait()
        if self.status != 200:
            return self.status, [], json.dumps({"error": self.error}).encode()
        asked = {one["name"]: one.get("parameters", {}) for one in request.get("outputs", ())}
        default = request.get("parameters", {}).get("binary_data_output", False)
        outputs, raws = [], []
        for tensor in request["inputs"]:
            output = {key: tensor[key] for key in ("name", "shape", "datatype")}
            size = tensor.get("parameters", {}).get("binary_data_size")
            if size is None:
                output["data"] = tensor["data"]
            else:
                raw, rest = rest[:size], rest[size:]
                assert asked.get(tensor["name"], {}).get("binary_data", default)
                raws.append(raw)
                output["parameters"] = {"binary_data_size": size}
            outputs.append(output)
        reply = {
            "model_name": "echo",
            "model_version": "3",
            "id": request.get("id"),
            "parameters": request.get("parameters", {}),
            "outputs": outputs,
        }
        head = json.dumps(reply).encode()
        if not raws:
            return 200, [], head
        return 200, [(b"inference-header-content-length", b"%d" % len(head))], head + b"".join(raws)

    def described(self, path: str) -> dict[str, Any]:
        """Return what Triton tells of a model, by its path."""
        if path.endswith("/config"):
            tensor = {"name": "x", "data_type": "TYPE_FP32", "dims": ["-1"]}
            return {"name": "echo", "max_batch_size": 8, "input": [tensor], "unheard_of": {"a": 1}}
        if path.endswith("/stats"):
            took = {"count": 3, "ns": 4500}
            stats = {"name": "echo", "version": "3", "inference_count": 3}
            return {"model_stats": [{**stats, "inference_stats": {"success": took}}]}
        tensor = {"name": "x", "datatype": "FP32", "shape": [-1]}
        return {"name": "echo", "versions": ["3"], "platform": "echo", "inputs": [tensor]}
