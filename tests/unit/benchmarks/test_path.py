"""A request costs the gateway a bounded number of function calls."""

import asyncio
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "benchmarks"))

from path import CASES, opened, profiled  # noqa: E402


# Unlike a time, the count does not depend on the machine. Today: about 335 and 640, five of them
# for roots and exponentials of exploration. On a busy machine more periodic jobs run meanwhile.
@pytest.mark.integration
@pytest.mark.alone
@pytest.mark.parametrize(("case", "calls_max"), [("oip", 350), ("chat", 670)])
def test_a_request_makes_few_calls(case: str, calls_max: float, tmp_path: Path) -> None:
    async def counted() -> float:
        sent, _ = CASES[case]
        async with opened(str(tmp_path), case=sent) as gateway:
            _, calls = await profiled(gateway, 500, sent)
        return calls

    assert asyncio.run(counted()) < calls_max
