"""The Helm chart: rendered by Helm, and the same objects as those of kustomize."""

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.support.kubernetes import (
    KUBERNETES,
    ROOT,
    Object,
    Objects,
    by_name,
    kustomized,
    validate,
    with_components,
)

helm_python = pytest.importorskip("helm_python", reason="its wheels are for Linux on x86-64")

CHART = ROOT / "deploy" / "helm" / "tollway"
REPLICAS = {"redis": {"enabled": True}, "autoscaling": {"enabled": True}}
SCALED = {"backend": "digits-gpu", "target": "digits-gpu", "min": 1, "max": 8, "fallback": 4}
MONITORED = {"monitoring": {"enabled": True}, "scaledBackends": [SCALED]}
HELMS_LABELS = ("app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "helm.sh/chart")


def rendered(values: dict[str, Any], *, release: str = "tollway") -> Objects:
    """Return what Helm makes of the chart; raises helm_python.HelmError."""
    with helm_python.Chart.load(CHART) as chart:
        chart.validate_schema(values)
        files = chart.render(values, name=release, namespace="tollway")
    return by_name("\n---\n".join(files.values()))


def plain(value: Any) -> Any:
    """Return a value without Helm's labels."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items() if key not in HELMS_LABELS}
    return [plain(one) for one in value] if isinstance(value, list) else value


def comparable(objects: Objects) -> Objects:
    """Return objects without what either tool adds by itself.

    That is: labels of Helm; a namespace, which Helm takes from the command; the hash of the
    configuration, in a name or in an annotation; and the pull policy that is the default.
    """
    found = {}
    for (kind, _), one in objects.items():
        if kind == "Namespace":
            continue
        other: Object = plain(copy.deepcopy(one))
        other["metadata"].pop("namespace", None)
        if kind == "ConfigMap":
            other["metadata"]["name"] = "-".join(other["metadata"]["name"].split("-")[:2])
            other["data"] = {key: text.rstrip("\n") for key, text in other["data"].items()}
        if kind == "StatefulSet":
            template = other["spec"]["template"]
            template["metadata"].pop("annotations", None)
            for container in template["spec"]["containers"]:
                container.pop("imagePullPolicy", None)
            for volume in template["spec"]["volumes"]:
                if "configMap" in volume:
                    volume["configMap"]["name"] = "tollway-config"
        found[kind, other["metadata"]["name"]] = other
    return found


def test_lint_finds_nothing_but_the_icon() -> None:
    report = helm_python.lint(CHART, REPLICAS | MONITORED, strict=True)
    assert report["errors"] == []
    assert [one["error"] for one in report["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize(
    ("values", "overlay", "components"),
    [
        ({}, "single", ()),
        (REPLICAS, "replicas", ()),
        (REPLICAS | MONITORED, "replicas", ("monitoring", "keda")),
    ],
    ids=["single", "replicas", "monitored"],
)
def test_the_chart_makes_the_objects_of_kustomize(
    tmp_path: Path, values: dict[str, Any], overlay: str, components: tuple[str, ...]
) -> None:
    made = rendered(values)
    expected = (
        with_components(tmp_path, overlay, *components)
        if components
        else kustomized(KUBERNETES / "overlays" / overlay)
    )
    assert comparable(made) == comparable(expected)
    for one in made.values():
        validate(one)


def test_every_value_reaches_an_object() -> None:
    values = {
        "image": {"repository": "here/tollway", "digest": "sha256:" + "a" * 64},
        "config": "# my own\n",
        "secretName": "my-secrets",
        "ledger": {"url": "rediss://redis.example.com:6380/0", "password": False},
        "storage": {"size": "50Gi", "className": "fast"},
        "replicas": 5,
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "podAnnotations": {"team": "inference"},
        "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:x"}},
        "networkPolicy": {"enabled": False},
        "terminationGracePeriodSeconds": 100,
        "preStopSeconds": 15,
    }
    objects = rendered(values, release="mine")
    for one in objects.values():
        validate(one)
    assert not [kind for kind, _ in objects if kind == "NetworkPolicy"]
    spec = objects["StatefulSet", "mine"]["spec"]
    pod = spec["template"]["spec"]
    [container] = pod["containers"]
    assert spec["replicas"] == 5
    assert container["image"] == f"here/tollway@sha256:{'a' * 64}"
    assert [one["name"] for one in container["env"]] == [
        "TOLLWAY_SERVER__ADMIN_KEY_FILE",
        "TOLLWAY_LEDGER__URL",
        "HTTPS_PROXY",
    ]
    assert container["lifecycle"]["preStop"]["sleep"]["seconds"] == 15
    assert pod["nodeSelector"] == {"disk": "ssd"} and pod["tolerations"][0]["key"] == "spot"
    assert spec["volumeClaimTemplates"][0]["spec"]["storageClassName"] == "fast"
    assert objects["ConfigMap", "mine-config"]["data"]["tollway.toml"].strip() == "# my own"


def test_the_gateway_can_follow_its_own_recommendation() -> None:
    own = SCALED | {"backend": "tollway", "target": "tollway", "kind": "StatefulSet"}
    objects = rendered({"redis": {"enabled": True}, "scaledBackends": [own]})
    target = objects["ScaledObject", "tollway"]["spec"]["scaleTargetRef"]
    assert target == {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "tollway"}
    assert (target["kind"], target["name"]) in objects
    validate(objects["ScaledObject", "tollway"])


def test_a_changed_configuration_changes_the_pods() -> None:
    def checksum(config: str) -> str:
        spec = rendered({"config": config})["StatefulSet", "tollway"]["spec"]
        found: str = spec["template"]["metadata"]["annotations"]["checksum/config"]
        return found

    assert checksum("a = 1") == checksum("a = 1") != checksum("a = 2")


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"replicas": 3}, "need a ledger that they share"),
        ({"autoscaling": {"enabled": True}}, "need a ledger that they share"),
        ({"replcas": 3}, "replcas"),
        ({"replicas": "three"}, "replicas"),
        ({"ledger": {"url": "redis://:password@redis:6379/0"}}, "url"),
        ({"scaledBackends": [{"backend": "x"}]}, "target"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"scaledBackends": [SCALED | {"kind": "DaemonSet"}]}, "kind"),
        ({"preStopSeconds": 0}, "preStopSeconds"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], why: str) -> None:
    with pytest.raises(helm_python.HelmError, match=why):
        rendered(values)
