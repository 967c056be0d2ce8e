"""A reload keeps what a cache has, and drops what the new settings would answer differently."""

from pathlib import Path

import pytest

from tests.support.configs import two_backends
from tests.support.harness import Upstream, run, running, serving
from tollway.gateway import settings as config
from tollway.gateway.wiring.reload import Reloader

pytestmark = pytest.mark.integration

CACHE = "cache = { ttl_s = 3600, early = 0, fresh_share = 0 }"


def test_a_reload_keeps_the_answers_and_their_counts_unless_what_answers_changes(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        cheap = Upstream()
        async with serving(cheap) as a, serving(Upstream()) as b:
            text = two_backends(a, b, policy="lagrangian", route=CACHE)
            async with running(text, tmp_path) as tollway:

                async def reload(text: str) -> None:
                    new = config.parse(text, {}, folder=tmp_path)
                    await Reloader(tollway.gateway, lambda: new).reload()

                first = await tollway.infer(1.0)
                decision = {"decision": first.headers["x-tollway-decision"], "quality": 1.0}
                await tollway.feedback(decision)
                assert (await tollway.infer(1.0)).headers["x-tollway-cache"] == "hit"
                await reload(text.replace("ttl_s = 3600", "ttl_s = 600"))
                assert (await tollway.infer(1.0)).headers["x-tollway-cache"] == "hit"
                plan = tollway.gateway.routes["m"].cache
                assert plan is not None
                assert (plan.ttl_s, plan.counts.lookups["hit"]) == (600.0, 2)
                assert tollway.gateway.routes["m"].policy.version == 1
                await reload(text.replace('model = "small"', 'model = "other"'))
                assert (await tollway.infer(1.0)).headers["x-tollway-cache"] == "miss"
                await reload(text.replace(CACHE, ""))  # what was learned goes on without a cache
                assert "x-tollway-cache" not in (await tollway.infer(1.0)).headers
                assert tollway.gateway.routes["m"].policy.version == 1
                await reload(text)
                assert tollway.gateway.routes["m"].policy.version == 1

    run(main)
