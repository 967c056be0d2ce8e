"""MLflow scoring through a whole gateway: answers, device seconds, labels, errors."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.harness import Running, Upstream, run, running, serving

pytestmark = pytest.mark.integration

CONFIG = """
[server]
allow_anonymous = true

[ledger]
url = "memory://"

[[backends]]
name = "trees"
kind = "cpu"
protocol = "mlflow"
url = "{url}"
price = {{ device_usd_per_hour = 3.6 }}

[[routes]]
name = "score"
path = "/invocations"
protocol = "mlflow"
backends = ["trees"]
context = {{ numeric = ["dataframe_split.data[0]"] }}
score = {{ exact = "predictions" }}

[[budgets]]
name = "all"
limit_usd = {limit}
"""
ROW = {"dataframe_split": {"columns": ["a", "b"], "data": [[1.0, 2.0]]}}


async def ask(tollway: Running, document: Any) -> Any:
    return await tollway.client.post(f"{tollway.url}/invocations", json=document)


def model() -> Upstream:
    told = {"predictions": ["spam"], "usage": {"device_s": 0.002}}
    return Upstream(body=orjson.dumps(told))


def test_a_prediction_is_charged_by_its_seconds_and_scored_by_its_label(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(model()) as url:
            async with running(CONFIG.format(url=url, limit="1.0"), tmp_path) as tollway:
                reply = await ask(tollway, ROW)
                assert reply.json()["predictions"] == ["spam"]
                # 3.6 dollars an hour are a thousandth of a dollar a second.
                assert reply.headers["x-tollway-cost-usd"] == "0.000002000"
                decision = reply.headers["x-tollway-decision"]
                taught = await tollway.feedback({"decision": decision, "label": "spam"})
                assert taught.status_code == 202
                (label,) = (await tollway.get(f"/_tollway/decisions/{decision}"))["feedback"]
                assert (label["label"], label["quality"]) == ("spam", 1.0)

    run(main)


@pytest.mark.parametrize(
    ("limit", "document", "status", "code"),
    [
        ("0.000000001", ROW, 402, "RESOURCE_EXHAUSTED"),
    ],
)
def test_a_refusal_is_of_the_shape_that_mlflows_clients_read(
    limit: str, document: Any, status: int, code: str, tmp_path: Path
) -> None:
    async def main() -> None:
        upstream = model()
        async with serving(upstream) as url:
            async with running(CONFIG.format(url=url, limit=limit), tmp_path) as tollway:
                refused = await ask(tollway, document)
                assert refused.status_code == status
                assert (refused.json()["error_code"], upstream.calls) == (code, 0)
                assert refused.json()["message"]

    run(main)
