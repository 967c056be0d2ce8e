"""Azure's paths, in front of any backend and behind the gateway."""

import pytest

from tollway.backends.errors import BadRequest
from tollway.backends.protocols.openai.protocol import OpenAI
from tollway.backends.types import Call

CHAT = b"chat/completions"
DEPLOYED = b"/openai/deployments/gpt/" + CHAT
OLD = b"?api-version=2023-05-15"
NEW = "2024-10-21"
SENT = b"?api-version=2024-10-21"


@pytest.mark.parametrize(
    ("version", "base", "target", "sent"),
    [
        # A client of Azure, and a server that is none.
        (None, b"", DEPLOYED + OLD, b"/v1/chat/completions"),
        (None, b"/v1", DEPLOYED + OLD, b"/v1/chat/completions"),
        (
            None,
            b"/base",
            b"/azure" + DEPLOYED + OLD + b"&x=1",
            b"/base/azure/v1/chat/completions?x=1",
        ),
        (None, b"", b"/openai/v1/responses", b"/v1/responses"),
        (None, b"", b"/openai/files?x=1&api-version=1", b"/v1/files?x=1"),
        # A client of OpenAI, and a server that is none of Azure.
        (None, b"", b"/v1/chat/completions", b"/v1/chat/completions"),
        (None, b"/v1", b"/v1/chat/completions?x=1", b"/v1/chat/completions?x=1"),
        # Any client, and a deployment of Azure with a version.
        (NEW, b"", b"/v1/chat/completions", b"/openai/deployments/large/chat/completions" + SENT),
        (NEW, b"", DEPLOYED + OLD, b"/openai/deployments/large/chat/completions" + SENT),
        (
            NEW,
            b"/openai",
            b"/v1/embeddings?x=1",
            b"/openai/deployments/large/embeddings" + SENT + b"&x=1",
        ),
        (
            NEW,
            b"/openai/v1",
            b"/openai/v1/images/edits",
            b"/openai/deployments/large/images/edits" + SENT,
        ),
        (NEW, b"", b"/v1/responses", b"/openai/responses" + SENT),
        (NEW, b"", b"/v1/files/f/content", b"/openai/files/f/content" + SENT),
        # Any client, and Azure without a version.
        ("", b"", b"/v1/chat/completions", b"/openai/v1/chat/completions"),
        ("", b"/openai/v1", b"/v1/responses?x=1", b"/openai/v1/responses?x=1"),
        ("", b"", b"/openai/v1/files?api-version=preview", b"/openai/v1/files?api-version=preview"),
        ("", b"", DEPLOYED + OLD, b"/openai/deployments/large/chat/completions" + OLD),
    ],
)
def test_a_path_is_written_as_the_backend_has_it(
    version: str | None, base: bytes, target: bytes, sent: bytes
) -> None:
    wire = OpenAI(api_version=version)
    call = Call(b"POST", target, [], b'{"model":"gpt","messages":[1],"input":[1]}')
    payload = wire.parse(call)
    assert wire.readdress(call, base, "large", payload)[0] == sent


def test_the_deployment_is_the_model_and_is_named_in_the_body_too() -> None:
    wire = OpenAI()
    call = Call(b"POST", DEPLOYED + OLD, [], b'{"messages":[{"role":"user","content":"hi"}]}')
    payload = wire.parse(call)
    assert wire.model(call, payload) == "gpt"
    for name, expected in ((None, "gpt"), ("large", "large")):
        assert wire.readdress(call, b"", name, payload)[1] == {"model": expected}
    other = Call(b"POST", DEPLOYED, [], b'{"model":"other","messages":[{"role":"user"}]}')
    assert wire.model(other, wire.parse(other)) == "gpt"


def test_without_a_deployment_a_body_names_the_model() -> None:
    with pytest.raises(BadRequest, match="model"):
        OpenAI().parse(Call(b"POST", b"/openai/v1/chat/completions", [], b'{"messages":[1]}'))


def test_a_deployments_name_is_encoded_in_a_path() -> None:
    wire = OpenAI(api_version=NEW)
    call = Call(b"POST", b"/v1/completions", [], b'{"model":"a/b ?","prompt":"hi"}')
    target, _ = wire.readdress(call, b"", None, wire.parse(call))
    assert target == b"/openai/deployments/a%2Fb%20%3F/completions" + SENT
