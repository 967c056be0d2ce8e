"""The settings of batches, and their errors."""

import pytest

from tollway.gateway import settings as config
from tollway.gateway.settings.errors import ConfigError

TEXT = """
[server]
allow_anonymous = true
[ledger]
url = "memory://"
[[backends]]
name = "b"
kind = "gpu"
protocol = "{protocol}"
url = "http://127.0.0.1:9"
price = {{ device_usd_per_hour = 2.5 }}
batch = {batch}
[[routes]]
name = "r"
path = "/x"
protocol = "{protocol}"
backends = ["b"]
"""


def test_batches_have_defaults_and_leave_the_server_what_waiting_does_not_take() -> None:
    settings = config.parse(TEXT.format(protocol="oip", batch="{ target_ms = 50 }"), {})
    batch = settings.backends[0].batch
    assert batch is not None
    assert (batch.max_size, batch.max_wait_ms, batch.server_s) == (16, 3.0, 0.047)


@pytest.mark.parametrize(
    "protocol, batch, message",
    [
        ("oip", "{ max_size = 1 }", "max_size"),
        ("oip", "{ max_wait_ms = -1 }", "max_wait_ms"),
        ("oip", "{ max_wait_ms = 5, target_ms = 5 }", "nothing is left for the server"),
        (
            "openai",
            "{ max_size = 4 }",
            "applies only to servers of the protocols http, mlflow, oip, plain, tfserving",
        ),
        ("oip", "{ size = 4 }", "size"),
    ],
)
def test_wrong_batches_stop_the_start(protocol: str, batch: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.parse(TEXT.format(protocol=protocol, batch=batch), {})
