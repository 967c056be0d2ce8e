"""The messages of `inference.GRPCInferenceService`, built from a table when gRPC is configured.

The numbers and types of fields are those of the Open Inference Protocol and of Triton's extensions
of it. Descriptors are made from the table in a pool of their own, so that no generated code has to
match the installed protobuf, and a program may load Triton's own messages beside these. Fields
that no reply of a server can fill are left out: protobuf keeps unknown fields and ignores them.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message, message_factory

from tollway.gateway.grpc_listener.failures import INVALID_ARGUMENT, Failed

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

_PARAMETERS = "4 parameters map InferParameter"
_NAMED = ("1 name string", "2 version string")
_MODEL_SCHEDULING = (
    "11 dynamic_batching ModelDynamicBatching",
    "13 sequence_batching ModelSequenceBatching",
    "15 ensemble_scheduling ModelEnsembling",
)

MESSAGES: dict[str, tuple[str, ...]] = {
    "ServerLiveRequest": (),
    "ServerLiveResponse": ("1 live bool",),
    "ServerReadyRequest": (),
    "ServerReadyResponse": ("1 ready bool",),
    "ModelReadyRequest": _NAMED,
    "ModelReadyResponse": ("1 ready bool",),
    "ServerMetadataRequest": (),
    "ServerMetadataResponse": ("1 name string", "2 version string", "3 extensions * string"),
    "ModelMetadataRequest": _NAMED,
    "ModelMetadataResponse": (
        "1 name string",
        "2 versions * string",
        "3 platform string",
        "4 inputs * ModelMetadataResponse.TensorMetadata",
        "5 outputs * ModelMetadataResponse.TensorMetadata",
    ),
    "ModelMetadataResponse.TensorMetadata": (
        "1 name string",
        "2 datatype string",
        "3 shape * int64",
    ),
    # -- inferences
    "InferParameter": (
        "1 bool_param bool",
        "2 int64_param int64",
        "3 string_param string",
        "4 double_param double",
        "5 uint64_param uint64",
    ),
    "InferTensorContents": (
        "1 bool_contents * bool",
        "2 int_contents * int32",
        "3 int64_contents * int64",
        "4 uint_contents * uint32",
        "5 uint64_contents * uint64",
        "6 fp32_contents * float",
        "7 fp64_contents * double",
        "8 bytes_contents * bytes",
    ),
    "ModelInferRequest": (
        "1 model_name string",
        "2 model_version string",
        "3 id string",
        _PARAMETERS,
        "5 inputs * ModelInferRequest.InferInputTensor",
        "6 outputs * ModelInferRequest.InferRequestedOutputTensor",
        "7 raw_input_contents * bytes",
    ),
    "ModelInferRequest.InferInputTensor": (
        "1 name string",
        "2 datatype string",
        "3 shape * int64",
        _PARAMETERS,
        "5 contents InferTensorContents",
    ),
    "ModelInferRequest.InferRequestedOutputTensor": (
        "1 name string",
        "2 parameters map InferParameter",
    ),
    "ModelInferResponse": (
        "1 model_name string",
        "2 model_version string",
        "3 id string",
        _PARAMETERS,
        "5 outputs * ModelInferResponse.InferOutputTensor",
        "6 raw_output_contents * bytes",
    ),
    "ModelInferResponse.InferOutputTensor": (
        "1 name string",
        "2 datatype string",
        "3 shape * int64",
        _PARAMETERS,
        "5 contents InferTensorContents",
    ),
    "ModelStreamInferResponse": (
        "1 error_message string",
        "2 infer_response ModelInferResponse",
    ),
    # -- models: their repository, statistics and configuration
    "RepositoryIndexRequest": ("1 repository_name string", "2 ready bool"),
    "RepositoryIndexResponse": ("1 models * RepositoryIndexResponse.ModelIndex",),
    "RepositoryIndexResponse.ModelIndex": (
        "1 name string",
        "2 version string",
        "3 state string",
        "4 reason string",
    ),
    "ModelStatisticsRequest": _NAMED,
    "ModelStatisticsResponse": ("1 model_stats * ModelStatistics",),
    "ModelStatistics": (
        *_NAMED,
        "3 last_inference uint64",
        "4 inference_count uint64",
        "5 execution_count uint64",
        "6 inference_stats InferStatistics",
        "7 batch_stats * InferBatchStatistics",
    ),
    "StatisticDuration": ("1 count uint64", "2 ns uint64"),
    "InferStatistics": (
        "1 success StatisticDuration",
        "2 fail StatisticDuration",
        "3 queue StatisticDuration",
        "4 compute_input StatisticDuration",
        "5 compute_infer StatisticDuration",
        "6 compute_output StatisticDuration",
        "7 cache_hit StatisticDuration",
        "8 cache_miss StatisticDuration",
    ),
    "InferBatchStatistics": (
        "1 batch_size uint64",
        "2 compute_input StatisticDuration",
        "3 compute_infer StatisticDuration",
        "4 compute_output StatisticDuration",
    ),
    "ModelConfigRequest": _NAMED,
    "ModelConfigResponse": ("1 config ModelConfig",),
    "ModelConfig": (
        "1 name string",
        "2 platform string",
        "4 max_batch_size int32",
        "5 input * ModelInput",
        "6 output * ModelOutput",
        "8 default_model_filename string",
        *_MODEL_SCHEDULING,
        "14 parameters map ModelParameter",
        "17 backend string",
        "19 model_transaction_policy ModelTransactionPolicy",
        "25 runtime string",
    ),
    "ModelInput": (
        "1 name string",
        "2 data_type DataType",
        "4 dims * int64",
        "5 reshape ModelTensorReshape",
        "6 is_shape_tensor bool",
        "7 allow_ragged_batch bool",
        "8 optional bool",
    ),
    "ModelOutput": (
        "1 name string",
        "2 data_type DataType",
        "3 dims * int64",
        "4 label_filename string",
        "5 reshape ModelTensorReshape",
        "6 is_shape_tensor bool",
    ),
    "ModelTensorReshape": ("1 shape * int64",),
    "ModelParameter": ("1 string_value string",),
    "ModelTransactionPolicy": ("1 decoupled bool",),
    "ModelDynamicBatching": (
        "1 preferred_batch_size * int32",
        "2 max_queue_delay_microseconds uint64",
        "3 preserve_ordering bool",
    ),
    "ModelSequenceBatching": ("1 max_sequence_idle_microseconds uint64",),
    "ModelEnsembling": ("1 step * ModelEnsembling.Step",),
    "ModelEnsembling.Step": ("1 model_name string", "2 model_version int64"),
}
"""The fields of each message: number, name, `*` if repeated or `map` (from strings), and type."""

ONEOFS = {"InferParameter": "parameter_choice", "ModelConfig": "scheduling_choice"}
_IN_ONEOF = {"InferParameter": MESSAGES["InferParameter"], "ModelConfig": _MODEL_SCHEDULING}

_NUMBERS = "BOOL UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP16 FP32 FP64 STRING BF16"
DATA_TYPES = {"TYPE_INVALID": 0} | {
    f"TYPE_{name}": number for number, name in enumerate(_NUMBERS.split(), start=1)
}
"""The values of `DataType`, as configurations of models name them."""

_Field = descriptor_pb2.FieldDescriptorProto
_NAMES = "bool string bytes float double int32 int64 uint32 uint64"
_SCALARS: dict[str, Any] = {
    name: getattr(_Field, f"TYPE_{name.upper()}") for name in _NAMES.split()
}


class Schema:
    """The classes of the messages: `schema.ModelInferRequest(...)`."""

    def __init__(self) -> None:
        pool = descriptor_pool.DescriptorPool()
        pool.Add(_file())
        for name in MESSAGES:
            found = pool.FindMessageTypeByName(f"{PACKAGE}.{name}")
            setattr(self, name.replace(".", "_"), message_factory.GetMessageClass(found))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no message is called {name}")

    def read(self, name: str, raw: bytes) -> Any:
        """Return a message from the bytes of a client; Failed if they are not one."""
        try:
            return getattr(self, name).FromString(raw)
        except message.DecodeError as exc:
            raise Failed(INVALID_ARGUMENT, f"the bytes are no {PACKAGE}.{name}") from exc

    def parsed(self, name: str, document: Any) -> Any:
        """Return a message with the members of a JSON document; ValueError if they do not fit.

        Members that the message does not have are left out.
        """
        made = getattr(self, name)()
        try:
            json_format.ParseDict(document, made, ignore_unknown_fields=True)
        except (json_format.ParseError, TypeError, AttributeError) as exc:
            raise ValueError(str(exc)) from exc
        return made


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="tollway/inference.proto", package=PACKAGE, syntax="proto3"
    )
    types = file.enum_type.add(name="DataType")
    for name, number in DATA_TYPES.items():
        types.value.add(name=name, number=number)
    made: dict[str, Any] = {}
    for name, fields in MESSAGES.items():
        outer, inside, own = name.rpartition(".")
        made[name] = one = made[outer].nested_type.add() if inside else file.message_type.add()
        one.name = own
        if name in ONEOFS:
            one.oneof_decl.add(name=ONEOFS[name])
        for text in fields:
            field = _add(one, name, text)
            if text in _IN_ONEOF.get(name, ()):
                field.oneof_index = 0
    return file


def _add(one: Any, name: str, text: str) -> Any:
    """Add a field to a message."""
    number, field_name, *many, kind = text.split()
    field = one.field.add(name=field_name, number=int(number))
    field.label = _Field.LABEL_REPEATED if many else _Field.LABEL_OPTIONAL
    if many == ["map"]:
        kind = f"{name}.{_add_entry(one, field_name, kind)}"
    _give_type(field, kind)
    return field


def _add_entry(one: Any, field_name: str, kind: str) -> str:
    """Add the type of a map's entries to a message, and return its name."""
    entry = one.nested_type.add(name=f"{field_name.capitalize()}Entry")
    entry.options.map_entry = True
    for number, part, of in ((1, "key", "string"), (2, "value", kind)):
        _give_type(entry.field.add(name=part, number=number, label=_Field.LABEL_OPTIONAL), of)
    entry_name: str = entry.name
    return entry_name


def _give_type(field: Any, kind: str) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = _Field.TYPE_ENUM if kind == "DataType" else _Field.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{kind}"
