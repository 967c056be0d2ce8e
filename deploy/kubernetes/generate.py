"""Writes the rules and the dashboard for Kubernetes from those shipped; --check tells if current.

    python deploy/kubernetes/generate.py

Kustomize and Helm read no files outside their folders, so each gets a copy: a PrometheusRule and a
dashboard for the component `monitoring`; the same and the example configuration for the chart.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[1]
MONITORING = DEPLOY / "kubernetes" / "components" / "monitoring"
CHART = DEPLOY / "helm" / "tollway" / "files"
NOTE = "# Written by deploy/kubernetes/generate.py from deploy/prometheus/.\n"
RULE = {
    "apiVersion": "monitoring.coreos.com/v1",
    "kind": "PrometheusRule",
    "metadata": {"name": "tollway", "labels": {"app.kubernetes.io/name": "tollway"}},
}


def groups() -> list[dict[str, Any]]:
    """Return the groups of all shipped rules."""
    return [
        group
        for name in ("rules.yml", "alerts.yml")
        for group in yaml.safe_load((DEPLOY / "prometheus" / name).read_text())["groups"]
    ]


def written(document: dict[str, Any]) -> str:
    """Return a document as YAML without folded text, which kustomize writes back as other text."""
    return NOTE + yaml.safe_dump(document, sort_keys=False, width=100, allow_unicode=True)


def files() -> dict[Path, str]:
    """Return each file's content."""
    dashboard = (DEPLOY / "grafana" / "dashboards" / "tollway.json").read_text()
    return {
        MONITORING / "prometheusrule.yaml": written(RULE | {"spec": {"groups": groups()}}),
        MONITORING / "tollway.json": dashboard,
        CHART / "rules.yaml": written({"groups": groups()}),
        CHART / "tollway.json": dashboard,
        CHART / "tollway.toml": (DEPLOY / "kubernetes" / "base" / "tollway.toml").read_text(),
    }


def main() -> int:
    """Write the files; with --check, say which are not current."""
    stale = {
        path: text
        for path, text in files().items()
        if not path.exists() or path.read_text() != text
    }
    for path, text in stale.items():
        if "--check" in sys.argv:
            sys.stderr.write(f"{path} is not current; run deploy/kubernetes/generate.py\n")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
