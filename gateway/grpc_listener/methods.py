"""The methods of `inference.GRPCInferenceService`, each as a call of the gateway's application.

A method gets its request and the caller, and returns its response and the metadata that goes with
it; it raises Failed for any other status. Nothing here knows grpcio.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from functools import partial
from typing import Any

import orjson

from tollway.backends.types import Headers
from tollway.gateway.grpc_listener import replies, requests
from tollway.gateway.grpc_listener.conversion import aside
from tollway.gateway.grpc_listener.exchange import Caller, Exchange
from tollway.gateway.grpc_listener.failures import (
    INTERNAL,
    INVALID_ARGUMENT,
    PERMISSION_DENIED,
    Failed,
    failed,
    trailers,
)
from tollway.gateway.grpc_listener.schema import Schema

Answer = tuple[Any, Headers]
Method = Callable[[Any, Caller], Awaitable[Answer]]

STREAM = "ModelStreamInfer"
REFUSED = (
    *("RepositoryModelLoad", "RepositoryModelUnload", "TraceSetting", "LogSettings"),
    *(
        f"{kind}SharedMemory{verb}"
        for kind in ("System", "Cuda")
        for verb in ("Status", "Register", "Unregister")
    ),
)
"""Methods that administer a model server: they change it for everybody."""

# Triton's: a client asks to be told which response of a stream is the last of its request.
_ASKS_FINAL, _IS_FINAL = "triton_enable_empty_final_response", "triton_final_response"


def refusal(name: str) -> Failed:
    """Return the refusal of a method that administers a server."""
    why = (
        f"{name} administers a model server (its models, shared memory, traces, logs), which the "
        "gateway never passes on; call the server itself"
    )
    return Failed(PERMISSION_DENIED, why)


class Methods:
    """The methods by their names."""

    def __init__(self, exchange: Exchange, schema: Schema, json_models: Collection[str]) -> None:
        """`json_models`: those whose servers know no binary tensors; `*` stands for all."""
        self._json_models = json_models
        self._exchange = exchange
        self._schema = schema
        self.unary: dict[str, Method] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._model_config,
            "ModelStatistics": self._model_statistics,
            "RepositoryIndex": self._repository_index,
            "ModelInfer": self._infer,
        }
        self.need_no_key = {self._live, self._ready}

    async def streamed(
        self, given: AsyncIterator[Any], caller: Callable[[], Caller]
    ) -> AsyncIterator[Any]:
        """Yield a response to each request of a stream, in their order.

        A request that fails is answered by a message, and the stream goes on (as Triton does). What
        an inference has as metadata is in the parameters of its response, because a stream has
        metadata once only.
        """
        async for request in given:
            wants_final = bool(request.parameters[_ASKS_FINAL].bool_param)
            del request.parameters[_ASKS_FINAL]
            try:
                inferred, fields = await self._infer(request, caller())
            except Failed as exc:
                made = self._schema.ModelStreamInferResponse(error_message=exc.details)
                made.infer_response.id = request.id
                fields = exc.trailers
            else:
                made = self._schema.ModelStreamInferResponse(infer_response=inferred)
            own = {name.decode(): value.decode("latin-1") for name, value in fields}
            replies.set_parameters(made.infer_response.parameters, own)
            if wants_final:
                replies.set_parameters(made.infer_response.parameters, {_IS_FINAL: True})
            yield made

    # ------------------------------------------------------------------ inferences

    async def _infer(self, request: Any, caller: Caller) -> Answer:
        try:
            as_json = request.model_name in self._json_models or "*" in self._json_models
            convert = partial(requests.inference, request, as_json=as_json)
            call = await aside(request.ByteSize(), convert)
        except ValueError as exc:
            raise Failed(INVALID_ARGUMENT, str(exc)) from exc
        status, headers, body = await self._exchange.ask(
            caller, "POST", call.path, call.headers, call.body
        )
        if status != 200:
            raise failed(status, headers, body)
        fields = trailers(headers)
        try:
            convert = partial(replies.inferred, self._schema, headers, body, raw=call.raw)
            return await aside(len(body), convert), fields
        except ValueError as exc:
            why = f"the backend's reply is not one of the protocol: {exc}"
            raise Failed(INTERNAL, why, fields) from exc

    # ------------------------------------------------------------------ the server

    async def _live(self, request: Any, caller: Caller) -> Answer:
        status, *_ = await self._exchange.ask(caller, "GET", b"/livez")
        return self._schema.ServerLiveResponse(live=status == 200), []

    async def _ready(self, request: Any, caller: Caller) -> Answer:
        status, *_ = await self._exchange.ask(caller, "GET", b"/readyz")
        return self._schema.ServerReadyResponse(ready=status == 200), []

    async def _server_metadata(self, request: Any, caller: Caller) -> Answer:
        return self._parsed("ServerMetadataResponse", await self._get(caller, b"/v2"))

    async def _repository_index(self, request: Any, caller: Caller) -> Answer:
        models = await self._get(caller, b"/v2/repository/index", "POST")
        if request.ready and isinstance(models, list):
            models = [one for one in models if one.get("state") == "READY"]
        return self._parsed("RepositoryIndexResponse", {"models": models})

    # ------------------------------------------------------------------ a model

    async def _model_ready(self, request: Any, caller: Caller) -> Answer:
        path = _path(request, "ready")
        status, headers, body = await self._exchange.ask(caller, "GET", path)
        if status not in (200, 503):
            raise failed(status, headers, body)
        return self._schema.ModelReadyResponse(ready=status == 200), []

    async def _model_metadata(self, request: Any, caller: Caller) -> Answer:
        return self._parsed("ModelMetadataResponse", await self._get(caller, _path(request)))

    async def _model_config(self, request: Any, caller: Caller) -> Answer:
        config = await self._get(caller, _path(request, "config"))
        return self._parsed("ModelConfigResponse", {"config": config})

    async def _model_statistics(self, request: Any, caller: Caller) -> Answer:
        path = _path(request, "stats") if request.name else b"/v2/models/stats"
        return self._parsed("ModelStatisticsResponse", await self._get(caller, path))

    async def _get(self, caller: Caller, path: bytes, method: str = "GET") -> Any:
        """Return the document at a path; Failed if there is none."""
        status, headers, body = await self._exchange.ask(caller, method, path)
        if status != 200:
            raise failed(status, headers, body)
        return orjson.loads(body)

    def _parsed(self, name: str, document: Any) -> Answer:
        try:
            return self._schema.parsed(name, document), []
        except ValueError as exc:
            raise Failed(INTERNAL, f"the backend's description does not fit: {exc}") from exc


def _path(request: Any, verb: str = "") -> bytes:
    if not request.name:
        raise Failed(INVALID_ARGUMENT, "name is empty")
    return requests.model_path(request.name, request.version, verb)
