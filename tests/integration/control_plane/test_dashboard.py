"""The dashboard in a real browser: its figures are the API's, and all come from the gateway."""

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from tests.support.configs import budget, two_backends
from tests.support.harness import Running, Upstream, run, running, serving
from tests.support.rollouts import rollout
from tests.support.until import until
from tollway.gateway.control_plane.dashboard import PAGE, POLICY
from tollway.gateway.control_plane.dashboard_data import wilson
from tollway.gateway.wiring.jobs import look

pytestmark = pytest.mark.integration


async def browsed(url: str) -> str:
    """Return the page's document as a browser has it after its first figures.

    On a busy machine the browser's own clock can run out before they are there: then try again.
    """
    chromium = shutil.which("chromium")
    assert chromium, "install it: apt-get install chromium"
    async with asyncio.timeout(60):
        while True:
            process = await asyncio.create_subprocess_exec(
                chromium,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--virtual-time-budget=5000",
                "--dump-dom",
                url,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            page = (await process.communicate())[0].decode()
            if 'data-value="' in page or '<form id="login">' in page:
                return page


def tile(page: str, title: str) -> float:
    found = re.search(
        rf'<div class="tile"><h2>{title}.*?<output[^>]*data-value="([^"]+)"', page, re.DOTALL
    )
    assert found, f"no tile {title} in {page[-2000:]}"
    return float(found[1])


async def traffic(tollway: Running) -> None:
    for number in range(30):
        reply = await tollway.infer(float(number), x_tollway_tags=f"team=t{number % 3}")
        if reply.status_code == 200:
            decision = reply.headers["x-tollway-decision"]
            quality = float(number % 5 != 0)
            await tollway.feedback({"decision": decision, "quality": quality})


async def spent_event(tollway: Running) -> None:
    """Wait for the event that a budget is spent: the ledger is updated off the request path."""

    async def is_told() -> bool:
        return "100% of the limit" in str(await tollway.get("/_tollway/events"))

    await until(is_told, every_s=0.05)


def test_the_page_shows_what_the_api_says(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            config = two_backends(
                a, b, more=budget("cap", "0.0025", more='window = "month"'), policy="cheapest"
            )
            async with running(config, tmp_path) as tollway:
                await traffic(tollway)
                await spent_event(tollway)
                page = await browsed(f"{tollway.url}/_tollway/dashboard?range=6h")
                told = await tollway.get("/_tollway/overview?range=6h")
                spent = await tollway.get("/_tollway/spend")
                (cap,) = (await tollway.get("/_tollway/budgets"))["budgets"]
        assert told["spend"]["usd"] == pytest.approx(0.0025)
        assert spent["cost_nano"] == told["since_start_nano"] == cap["spent_nano"] == 2_500_000
        assert tile(page, "Spend") == told["spend"]["usd"]
        assert tile(page, "Refused") == told["spend"]["over_budget"] == 5
        assert tile(page, "Accuracy") == pytest.approx(told["routes"][0]["accuracy"]) == 0.8
        assert f'data-value="{cap["spent_usd"]}"' in page
        assert [row["tag"] for row in told["tags"]] == ["team=t0", "team=t1", "team=t2"]
        assert "Drawn: cheap" in page
        assert "100% of the limit is spent" in page

    run(main)


def test_the_page_shows_a_rollout(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            criteria = '[{ metric = "error_rate", margin = 0.01 }, { metric = "quality" }]'
            more = rollout(b, "steps = [{ setWeight = 50 }]", criteria)
            async with running(two_backends(a, a, more=more), tmp_path) as tollway:
                await traffic(tollway)
                page = await browsed(f"{tollway.url}/_tollway/dashboard")
                (told,) = (await tollway.get("/_tollway/overview"))["rollouts"]
        assert (told["name"], told["phase"], told["weight"]) == ("next", "progressing", 0.5)
        assert "canary, next for cheap" in page
        assert "error rate 0 against 0" in page
        assert told["waiting"][0][:40] in page

    run(main)


def test_savings_accuracy_and_series_add_up(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            async with running(two_backends(a, b), tmp_path) as tollway:
                await traffic(tollway)
                told = await tollway.get("/_tollway/overview?range=1h&route=m")
                assert (await tollway.get("/_tollway/overview?route=none"))["spend"]["usd"] == 0
                wrong = await tollway.client.get(tollway.url + "/_tollway/overview?range=x")
                assert wrong.status_code == 400
        (route,) = told["routes"]
        # 30 requests at $0.0001, where always the most accurate would have been $0.001 each.
        assert route["savings"]["most_accurate"]["backend"] == "dear"
        assert route["savings"]["most_accurate"]["saved_share"] == pytest.approx(0.9)
        assert route["savings"]["best_fixed"]["backend"] == "cheap"
        assert route["savings"]["most_accurate"]["points"] == pytest.approx(0.8 - 0.99)
        assert route["savings"]["most_accurate"]["points_interval"][0] < 0.8 - 0.99
        assert "better_fixed" not in route["savings"]
        assert route["usd_per_correct"] == pytest.approx(0.003 / 24)
        assert sum(map(sum, told["series"]["spend_usd"].values())) == pytest.approx(0.003)
        assert sum(map(sum, told["series"]["requests"].values())) == 30
        low, high = route["accuracy_interval"]
        assert low < 0.8 < high
        assert [low, high] == pytest.approx(list(wilson(0.8, 30)))
        assert 0 < route["upstream_s"]["p50"] < 5

    run(main)


def test_figures_are_for_the_admin_key_and_the_page_brings_its_own(tmp_path: Path) -> None:
    server = 'allow_anonymous = true\nadmin_key = "0123456789abcdef"'

    async def main() -> None:
        async with serving(Upstream()) as a:
            async with running(two_backends(a, a, server=server), tmp_path) as tollway:
                page = await tollway.client.get(tollway.url + "/_tollway/dashboard")
                assert page.status_code == 200
                assert page.headers["content-security-policy"] == POLICY
                for path in ("overview", "live"):
                    refused = await tollway.client.get(f"{tollway.url}/_tollway/{path}")
                    assert refused.status_code == 401
                shown = await browsed(tollway.url + "/_tollway/dashboard")
                assert re.search(r'<main id="main" hidden', shown)
                assert "Enter the admin key" in shown

    run(main)


def test_the_page_needs_nothing_from_elsewhere() -> None:
    text = PAGE.decode().replace("http://www.w3.org/2000/svg", "")

    assert not re.search(r"https?://|//[a-z]+\.[a-z]+", text)
    assert "innerHTML" not in text
    assert "default-src 'none'" in POLICY
    assert "unsafe" not in POLICY


def test_wilsons_interval() -> None:
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_the_page_shows_replicas_if_backends_are_scaled(tmp_path: Path) -> None:
    async def main() -> None:
        scaled = '[[scaling]]\nname = "cheap"\nmin = 3\nmax = 9\ncalls_per_replica = 1\n'
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            text = two_backends(a, b, more=scaled + "replica_usd_per_hour = 3.6\n")
            async with running(text, tmp_path) as tollway:
                gateway, now_s = tollway.gateway, [1000.0]
                gateway.wall = gateway.scaler._wall = lambda: now_s[0]
                for now_s[0] in (1000.0, 1040.0, 1080.0):
                    await look(gateway)
                    await gateway.scaler.tick()
                (one,) = (await tollway.get("/_tollway/overview"))["replicas"]
                assert (one["recommended"], one["replica_s"]) == (3, 120.0)
                assert one["cost_usd"] == pytest.approx(0.12) and one["idle_share"] == 1.0
                page = await browsed(f"{tollway.url}/_tollway/dashboard")
                (row,) = re.findall(r'<section id="replicas".*?<tr><td><strong>cheap.*?</tr>', page)
                assert "$0.12 idle" in row and "100" in row

    run(main)


def test_the_page_shows_devices_if_there_are_any(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            text = two_backends(a, b, more='[[devices]]\nname = "gpu-7"\nusd_per_hour = 3.6\n')
            text = text.replace("price = { per_request_usd = 0.001 }", 'device = "gpu-7"')
            async with running(text, tmp_path) as tollway:
                await traffic(tollway)
                page = await browsed(f"{tollway.url}/_tollway/dashboard")
                (row,) = re.findall(r"<tr><td><strong>gpu-7</strong>.*?</tr>", page)
                assert "$3.60" in row
                assert re.search(r"\d\s?% of it idle time; charged \$", row)

    run(main)


def test_a_fixed_backend_that_would_have_done_better_is_in_a_banner(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            async with running(two_backends(a, b, policy="most_accurate"), tmp_path) as tollway:
                for number in range(10):
                    reply = await tollway.infer(float(number))
                    decision = reply.headers["x-tollway-decision"]
                    await tollway.feedback({"decision": decision, "quality": 0.0})
                told = await tollway.get("/_tollway/overview")
                page = await browsed(f"{tollway.url}/_tollway/dashboard")
        better = told["routes"][0]["savings"]["better_fixed"]
        assert better["points_interval"][1] < 0
        assert "A fixed backend would have done better" in page
        assert better["text"] in page
        assert "points of accuracy (" in page

    run(main)
