"""A rollout `next` of the backend `cheap`, and what tests do with it."""

from typing import Any

from tests.support.harness import Running

CRITERIA = """
[{ metric = "error_rate", tolerance = 0.001, margin = 0.2 },
 { metric = "quality", tolerance = 0.005, margin = 0.3 }]"""


def rollout(url: str, more: str = "", criteria: str = CRITERIA, start: str = "auto") -> str:
    return f"""
[[rollouts]]
name = "next"
backend = "cheap"
candidate = {{ url = "{url}" }}
criteria = {" ".join(criteria.split())}
start = "{start}"
{more}
"""


async def serve(tollway: Running, count: int, *, right: int = 1, **headers: str) -> list[str]:
    """Make requests with labels; return which backends answered."""
    answered = []
    for number in range(count):
        reply = await tollway.infer(float(number), **headers)
        assert reply.status_code == 200, reply.text
        answered.append(reply.headers["x-tollway-backend"])
        decision = reply.headers["x-tollway-decision"]
        fed = await tollway.feedback({"decision": decision, "label": right})
        assert fed.status_code == 202, fed.text
    return answered


async def status(tollway: Running) -> Any:
    await tollway.gateway.rollouts.tick()
    return await tollway.get("/_tollway/rollouts/next")


async def act(tollway: Running, action: str) -> Any:
    document = {"action": action, "who": "kim", "why": "a test"}
    return await tollway.client.post(f"{tollway.url}/_tollway/rollouts/next", json=document)
