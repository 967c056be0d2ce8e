"""A bill above its reservation is charged and shown in every view."""

from pathlib import Path
from typing import Any

import orjson
from prometheus_client.parser import text_string_to_metric_families

from tests.support.configs import budget, one_model
from tests.support.harness import Running, Upstream, run, running, serving
from tests.support.until import until
from tollway.backends.money import format_usd

PRICE = "{ input_usd_per_mtok = 0, output_usd_per_mtok = 10.0 }"
TOKENS = orjson.dumps(
    {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "four"}}],
        "usage": {"prompt_tokens": 0, "completion_tokens": 30_000},
    }
)


async def overdraft(tollway: Running) -> Any:
    told = (await tollway.get("/_tollway/events"))["events"]
    return next((event for event in told if event["kind"] == "overdraft"), None)


def test_a_bill_above_what_was_held_is_seen_everywhere(tmp_path: Path) -> None:
    async def main() -> None:
        more = budget("cap", "0.05", more='window = "month"\ncarry_overdraft = true')
        async with (
            serving(Upstream(body=TOKENS)) as url,
            running(one_model(url, price=PRICE, more=more), tmp_path) as tollway,
        ):
            asked = {
                "model": "m",
                "max_tokens": 10,
                "messages": [{"role": "user", "content": "two and two?"}],
            }
            path = f"{tollway.url}/v1/chat/completions"
            reply = await tollway.client.post(path, json=asked)
            assert reply.status_code == 200
            assert reply.headers["x-tollway-cost-usd"] == "0.300000000"
            refused = await tollway.client.post(path, json=asked)
            assert refused.status_code == 402

            (cap,) = (await tollway.get("/_tollway/budgets"))["budgets"]
            assert (cap["spent_nano"], cap["overdraft_nano"]) == (300_000_000, 250_000_000)
            # Told to the ledger within a tenth of a second.
            event = await until(lambda: overdraft(tollway))
            assert (event["about"], event["details"]["amount_nano"]) == ("cap", 250_000_000)
            metrics = (await tollway.client.get(tollway.url + "/metrics")).text
            samples = {
                (sample.name, sample.labels.get("budget")): sample.value
                for family in text_string_to_metric_families(metrics)
                for sample in family.samples
            }
            assert samples["tollway_budget_overdraft_usd", "cap"] == 0.25
            assert samples["tollway_ledger_up", None] == 1.0
            decision = await tollway.get(
                f"/_tollway/decisions/{reply.headers['x-tollway-decision']}"
            )
            (attempt,) = decision["attempts"]
            held_nano = attempt["reserved_nano"]["cap"]
            assert 0 < held_nano <= 50_000_000
            assert decision["story"][-1].endswith(
                f"to cap (reserved {format_usd(held_nano)}, exceeded by "
                f"{format_usd(300_000_000 - held_nano)})."
            )

    run(main)
