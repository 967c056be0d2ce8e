"""Writes dashboards/tollway.json; --check says whether it is current.

    python deploy/grafana/generate.py

A panel is a title, a unit and its expressions; rows lay them out. The figures are those of
docs/monitoring.md, and budgets are a maximum over gateways where spend is a sum.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "dashboards" / "tollway.json"
WIDTH, HEIGHT = 24, 8
SOURCE = {"type": "prometheus", "uid": "${source}"}
RATE = "$__rate_interval"


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel: its expressions by legend; `kind` and `unit` are Grafana's names."""

    title: str
    unit: str
    lines: dict[str, str]
    kind: str = "timeseries"
    text: str = ""


def share(part: str, whole: str, by: str) -> str:
    """Return a PromQL ratio of two counters' rates."""
    return f"sum by ({by}) (rate({part}[{RATE}])) / (sum by ({by}) (rate({whole}[{RATE}])) > 0)"


def quantile(q: float, metric: str, by: str) -> str:
    """Return a quantile of a histogram."""
    return f"histogram_quantile({q}, sum by (le, {by}) (rate({metric}_bucket[{RATE}])))"


def spend(by: str) -> str:
    """Return dollars per hour, by a label."""
    return f'sum by ({by}) (rate(tollway_cost_usd_total{{route=~"$route"}}[{RATE}])) * 3600'


ROWS: dict[str, list[Panel]] = {
    "Money": [
        Panel("Spend", "currencyUSD", {"per hour": spend("job")}, "stat", "Dollars per hour, now."),
        Panel(
            "Spend today",
            "currencyUSD",
            {"24 hours": 'sum(increase(tollway_cost_usd_total{route=~"$route"}[1d]))'},
            "stat",
            text="Dollars in the last 24 hours, of all gateways.",
        ),
        Panel(
            "Budgets used",
            "percentunit",
            {"{{budget}} ({{window}})": "max by (budget, window) (tollway_budget_used_ratio)"},
            "bargauge",
            text=(
                "Spent and held money as a share of each budget's limit. The gateways share "
                "budgets, so this is the highest of them, not their sum."
            ),
        ),
        Panel(
            "Budgets: spent",
            "currencyUSD",
            {
                "{{budget}} spent": "max by (budget) (tollway_budget_spent_usd)",
                "{{budget}} held": "max by (budget) (tollway_budget_held_usd)",
                "{{budget}} limit": "max by (budget) (tollway_budget_limit_usd)",
            },
            text="Spent and held money beside the limit of each budget, in its present window.",
        ),
        Panel(
            "Burn rate",
            "none",
            {
                "{{budget}} 1h": "tollway:budget_burn:ratio_1h",
                "{{budget}} 6h": "tollway:budget_burn:ratio_6h",
            },
            text="1 spends exactly the limit in the window.",
        ),
        Panel(
            "Spend per hour by backend",
            "currencyUSD",
            {"{{backend}}": spend("backend")},
            text="Dollars per hour by the backend that was called, audits included.",
        ),
        Panel(
            "Spend per hour by tenant",
            "currencyUSD",
            {"{{tenant}}": spend("tenant")},
            text="Dollars per hour by the tenant who asked.",
        ),
        Panel(
            "Spend compared with the usual",
            "currencyUSD",
            {
                "{{name}}": 'tollway:cost:usd_per_hour{of="route"}',
                "{{name}} usual": 'tollway:cost:usd_per_hour_usual{of="route"}',
            },
            text=(
                "Dollars per hour of each route beside the mean of the same hour on earlier "
                "days. Without a day of history there is no usual."
            ),
        ),
        Panel(
            "Cost per request",
            "currencyUSD",
            {
                "{{route}}": "sum by (route) "
                f'(rate(tollway_cost_usd_total{{route=~"$route"}}[{RATE}]))'
                f" / (sum by (route) (rate(tollway_requests_total[{RATE}])) > 0)"
            },
            text="Dollars for each request, whether it was answered or not.",
        ),
    ],
    "Decisions": [
        Panel(
            "Share of calls by backend",
            "percentunit",
            {
                "{{backend}}": "sum by (backend) "
                f'(rate(tollway_attempts_total{{route=~"$route"}}[{RATE}])) / scalar('
                f'sum(rate(tollway_attempts_total{{route=~"$route"}}[{RATE}])) > 0)'
            },
            text="Share of all calls that each backend received.",
        ),
        Panel(
            "Accuracy and floor",
            "percentunit",
            {
                "{{route}}": "sum by (route) (increase(tollway_answer_quality_total[1h]))"
                " / (sum by (route) (increase(tollway_answers_total[1h])) > 0)",
                "{{route}} floor": "max by (route) (tollway_accuracy_floor)",
            },
            text=(
                "Mean quality of the answers that got feedback in the last hour, beside the floor "
                "of routes that have one."
            ),
        ),
        Panel(
            "Decisions by reason",
            "ops",
            {
                "{{reason}}": "sum by (reason) "
                f'(rate(tollway_decisions_total{{route=~"$route"}}[{RATE}]))'
            },
            text=(
                "Why backends were chosen: best for the objective, explored, or changed by a "
                "budget. Decisions per second."
            ),
        ),
        Panel(
            "Shadow price",
            "none",
            {"{{route}}": "max by (route) (tollway_shadow_price)"},
            text="The quality that one more dollar would buy.",
        ),
        Panel(
            "Exploration",
            "percentunit",
            {"{{route}}": "tollway:explored:ratio_rate1h"},
            text="Its expected extra cost, as a share of spend.",
        ),
        Panel(
            "Feedback",
            "ops",
            {"{{outcome}}": f"sum by (outcome) (rate(tollway_feedback_total[{RATE}]))"},
            text=(
                "Labels per second, by what became of them. Without feedback a route learns "
                "nothing."
            ),
        ),
    ],
    "Estimates": [
        Panel(
            "Estimated share of cost",
            "percentunit",
            {"{{backend}}": "tollway:cost_estimated:ratio_rate1h"},
            text=(
                "Share of an hour's cost that was charged by quotes, because replies had no usage."
            ),
        ),
        Panel(
            "Quotes relative to cost",
            "percentunit",
            {"{{backend}}": share("tollway_quoted_usd_total", "tollway_cost_usd_total", "backend")},
            text=(
                "Quoted dollars for each dollar charged. 100 % is exact; above it, quotes are "
                "too high."
            ),
        ),
        Panel(
            "Calls within their ceiling",
            "percentunit",
            {"{{backend}}": "min by (backend) (tollway_estimate_ceiling_coverage_ratio)"},
            text="Share of calls that cost no more than was reserved for them.",
        ),
    ],
    "Devices": [
        Panel(
            "Device use",
            "percentunit",
            {"{{device}}": "max by (device) (tollway_device_utilization_ratio)"},
            text="Learned share of a device's time in which it works.",
        ),
        Panel(
            "Idle share of prices",
            "percentunit",
            {"{{backend}}": "max by (backend) (tollway_device_idle_ratio)"},
            text="Share of the price of calls that pays for a device's idle time.",
        ),
        Panel(
            "Cost of devices",
            "currencyUSD",
            {
                "{{device}}, cost": "sum by (device) "
                f"(rate(tollway_device_bill_usd_total[{RATE}])) * 3600",
                "{{device}}, charged": "sum by (device) "
                f"(rate(tollway_device_charged_usd_total[{RATE}])) * 3600",
            },
            text="Dollars per hour, and what calls are charged of them.",
        ),
    ],
    "Operation": [
        Panel(
            "Requests by outcome",
            "reqps",
            {
                "{{outcome}}": "sum by (outcome) "
                f'(rate(tollway_requests_total{{route=~"$route"}}[{RATE}]))'
            },
            text=(
                "Requests per second: answered, answered by a fallback, refused by a budget, "
                "failed."
            ),
        ),
        Panel(
            "Backend latency, p95",
            "s",
            {"{{backend}}": quantile(0.95, "tollway_upstream_duration_seconds", "backend")},
            text="Time until a backend's reply is complete; 95 % of calls took less.",
        ),
        Panel(
            "Gateway overhead, p95",
            "s",
            {"{{route}}": quantile(0.95, "tollway_gateway_duration_seconds", "route")},
            text="Time in the gateway, without the backends' time.",
        ),
        Panel(
            "Failed calls",
            "percentunit",
            {
                "{{backend}}": share(
                    "tollway_attempt_errors_total", "tollway_attempts_total", "backend"
                )
            },
            text="Share of each backend's calls that failed.",
        ),
        Panel(
            "Backends up",
            "none",
            {"{{backend}}": "min by (backend) (tollway_backend_up)"},
            text=(
                "1: calls go to the backend. 0: its circuit breaker is open at one gateway at "
                "least."
            ),
        ),
        Panel(
            "Ledger and journal",
            "none",
            {
                "ledger {{instance}}": "tollway_ledger_up",
                "journal backlog, bytes {{instance}}": "tollway_journal_waiting_bytes",
            },
            text=(
                "1: the ledger answers. Beside it the bytes of the journal that are not on disk "
                "yet."
            ),
        ),
    ],
}


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row, members in ROWS.items():
        place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
        panels.append({"type": "row", "title": row, "gridPos": place, "panels": []})
        y += 1
        width = WIDTH // 3
        for n, panel in enumerate(members):
            place = {"x": n % 3 * width, "y": y + n // 3 * HEIGHT, "w": width, "h": HEIGHT}
            panels.append(drawn(panel, place))
        y += -(-len(members) // 3) * HEIGHT
    return {
        "uid": "tollway",
        "title": "Tollway",
        "schemaVersion": 39,
        "tags": ["tollway"],
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": [SOURCES, ROUTES]},
        "panels": [{"id": number, **panel} for number, panel in enumerate(panels, 1)],
    }


SOURCES = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
ROUTES = {
    "name": "route",
    "label": "Route",
    "type": "query",
    "datasource": SOURCE,
    "query": "label_values(tollway_attempts_total, route)",
    "includeAll": True,
    "allValue": ".*",
    "multi": True,
    "current": {"text": "All", "value": "$__all"},
    "refresh": 2,
}


def drawn(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    """Return one panel as Grafana reads it."""
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + n), "datasource": SOURCE, "expr": expr, "legendFormat": legend}
            for n, (legend, expr) in enumerate(panel.lines.items())
        ],
    }


def main() -> int:
    """Write the file, or check it."""
    text = json.dumps(dashboard(), indent=1) + "\n"
    if "--check" in sys.argv[1:]:
        current = FILE.exists() and FILE.read_text() == text
        if not current:
            sys.exit(f"{FILE} is not current: python deploy/grafana/generate.py")
        return 0
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
