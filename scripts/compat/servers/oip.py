"""Features of every server of the Open Inference Protocol, asked as its users do."""

import json
from typing import Any

from sides import TOO_LARGE, Reply, Side, same, within, zipped

INFER = "/v2/models/MODEL/infer"


def tensor(data: Any, shape: list[int], datatype: str = "FP32", name: str = "x") -> dict[str, Any]:
    """Return a request with one input."""
    one = {"name": name, "shape": shape, "datatype": datatype, "data": data}
    return {"id": "q7", "inputs": [one]}


ROW = tensor([6.8, 2.8, 4.8, 1.4], [1, 4])


def infer(side: Side) -> Any:
    """Flat and nested data, one row and three."""
    nested = tensor([[6.8, 2.8, 4.8, 1.4], [5, 3, 1, 0.2]], [2, 4])
    return [side.post(INFER, one).ok().seen for one in (ROW, nested)]


def name(side: Side) -> None:
    """The reply has the name that was asked for."""
    same(side.post(INFER, ROW).ok().document["model_name"], side.model)
    same(side.call("GET", "/v2/models/MODEL").ok().document["name"], side.model)


def metadata(side: Side) -> Any:
    return side.call("GET", "/v2/models/MODEL").ok().seen


def ready(side: Side) -> Any:
    """Live, ready, the model's readiness, and that of a model that is not there."""
    paths = ("/v2/health/live", "/v2/health/ready", "/v2/models/MODEL/ready")
    said = [side.call("GET", path).ok().status for path in paths]
    return [*said, side.call("GET", "/v2/models/nobody/ready").status // 100]


def gzipped(side: Side) -> Any:
    return side.post(INFER, *zipped(ROW)).ok().seen


def index(gateway: Side) -> None:
    """Only the names that clients know are listed, and they are ready."""
    listed = gateway.post("/v2/repository/index", {}).ok().document
    within(gateway.model, [one["name"] for one in listed])
    same({one["state"] for one in listed}, {"READY"})
    same("small" in [one["name"] for one in listed], False)


def prefixed(gateway: Side) -> None:
    """A path before /v2 belongs to the gateway."""
    reply = gateway.post("/ns/v2/models/ns-MODEL/infer", ROW).ok()
    same(reply.document["model_name"], f"ns-{gateway.model}")
    for path in ("/ns/v2/models/ns-MODEL", "/ns/v2/models/ns-MODEL/ready", "/ns/v2/health/live"):
        gateway.call("GET", path).ok()


def administered(gateway: Side) -> None:
    """Nobody loads models, maps memory or changes traces through the gateway."""
    for path in ("/v2/repository/models/MODEL/load", "/v2/repository/models/MODEL/unload",
                 "/v2/systemsharedmemory/region/r/register", "/v2/trace/setting"):  # fmt: skip
        refusal(gateway.post(path, {}), 403)


def own_errors(gateway: Side) -> None:
    """The gateway's own refusals are in the protocol's shape."""
    refusal(gateway.post("/v2/models/nobody/infer", ROW), 404)
    refusal(gateway.post(INFER, TOO_LARGE), 413)
    refusal(gateway.post(INFER, b"{"), 400)


def refusal(reply: Reply, status: int) -> None:
    same(reply.status, status)
    same(type(json.loads(reply.body)["error"]), str)


OF_THE_GATEWAY = {
    "index of models": index,
    "administration refused": administered,
    "path prefix": prefixed,
    "errors of the gateway": own_errors,
}
