"""The messages agree with those of Triton's client, and leave protobuf's default pool alone."""

import pytest
from google.protobuf import descriptor_pool
from tritonclient.grpc import model_config_pb2, service_pb2

from tollway.gateway.grpc_listener.schema import DATA_TYPES, MESSAGES, PACKAGE, Schema

SCHEMA = Schema()


def theirs(name: str):
    outer, _, inner = name.partition(".")
    for module in (service_pb2, model_config_pb2):
        if outer in module.DESCRIPTOR.message_types_by_name:
            found = module.DESCRIPTOR.message_types_by_name[outer]
            return found.nested_types_by_name[inner] if inner else found
    raise AssertionError(f"Triton has no message {name}")


def shape(field) -> tuple:
    """Return what of a field decides how it is encoded."""
    inner, enum = field.message_type, field.enum_type
    of = inner.full_name if inner else enum.full_name if enum else ""
    oneof = field.containing_oneof
    return field.number, field.type, of, field.is_repeated, oneof.name if oneof else ""


@pytest.mark.parametrize("name", MESSAGES)
def test_every_field_is_encoded_as_tritons_client_encodes_it(name: str) -> None:
    ours = getattr(SCHEMA, name.replace(".", "_")).DESCRIPTOR
    mine = {field.name: shape(field) for field in ours.fields}
    same = {field.name: shape(field) for field in theirs(name).fields if field.name in mine}
    assert mine == same


def test_requests_lack_no_field() -> None:
    for name in MESSAGES:
        if name.startswith("ModelInfer") or name.endswith("Request"):
            ours = getattr(SCHEMA, name.replace(".", "_")).DESCRIPTOR
            assert {f.name for f in ours.fields} == {f.name for f in theirs(name).fields}


def test_data_types_are_tritons() -> None:
    enum = model_config_pb2.DESCRIPTOR.enum_types_by_name["DataType"]
    assert {value.name: value.number for value in enum.values} == DATA_TYPES


def test_the_messages_are_in_a_pool_of_their_own() -> None:
    default = descriptor_pool.Default().FindMessageTypeByName(f"{PACKAGE}.ModelInferRequest")
    assert SCHEMA.ModelInferRequest.DESCRIPTOR is not default


@pytest.mark.parametrize("document", [{"models": 1}, {"models": [7]}, {"models": [{"name": {}}]}])
def test_a_document_that_does_not_fit_is_an_error(document: object) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        SCHEMA.parsed("RepositoryIndexResponse", document)
