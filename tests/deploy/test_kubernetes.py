"""The objects for Kubernetes, as kubectl's kustomize makes them."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from redis import Redis
from redis.exceptions import AuthenticationError, ConnectionError

from tests.support.kubernetes import KUBERNETES, ROOT, Object, Objects, kustomized, validate
from tests.support.kubernetes import with_components as more
from tests.support.ports import free_port
from tests.support.until import until_now
from tollway.gateway import settings

OVERLAYS = ("single", "replicas")
FOLDERS = [KUBERNETES / "overlays" / name for name in OVERLAYS]
CONFIG = KUBERNETES / "base" / "tollway.toml"
GATEWAY = ("StatefulSet", "tollway")


def everything(folder: Path) -> Objects:
    """Return the overlay with Redis and every component."""
    return more(folder, "replicas", "monitoring", "keda")


def pods(objects: Objects) -> Iterator[tuple[str, Object]]:
    """Yield the (name, specification) of each kind of pod."""
    for (kind, name), one in objects.items():
        if kind == "StatefulSet":
            yield name, one["spec"]["template"]["spec"]


def served() -> settings.Settings:
    """Return the settings of the shipped configuration, without its secret files."""
    return settings.parse(CONFIG.read_text(), {}, folder=CONFIG.parent)


# -- the objects are valid


@pytest.mark.parametrize("folder", FOLDERS, ids=OVERLAYS)
def test_each_object_is_one_that_kubernetes_knows(folder: Path) -> None:
    for one in kustomized(folder).values():
        validate(one)


def test_objects_for_operators_are_ones_that_they_know(tmp_path: Path) -> None:
    objects = everything(tmp_path)
    assert {"ScaledObject", "ServiceMonitor", "PrometheusRule"} <= {kind for kind, _ in objects}
    for one in objects.values():
        validate(one)


def test_a_misspelt_key_is_noticed(tmp_path: Path) -> None:
    for kind, path in (("StatefulSet", "template"), ("ScaledObject", "triggers")):
        [one, *_] = [each for (of, _), each in everything(tmp_path).items() if of == kind]
        broken = one | {"spec": {**one["spec"], "misspelt": one["spec"][path]}}
        with pytest.raises(Exception, match="misspelt"):
            validate(broken)


def test_the_prometheus_rule_has_the_shipped_rules(tmp_path: Path) -> None:
    shipped = [
        group
        for name in ("rules.yml", "alerts.yml")
        for group in yaml.safe_load((ROOT / "deploy/prometheus" / name).read_text())["groups"]
    ]
    rule = everything(tmp_path)["PrometheusRule", "tollway"]
    assert rule["spec"]["groups"] == shipped


# -- they fit one another


@pytest.mark.parametrize("folder", FOLDERS, ids=OVERLAYS)
def test_all_selectors_select_their_pods_and_no_others(folder: Path) -> None:
    objects = kustomized(folder)
    labels = {
        name: one["spec"]["template"]["metadata"]["labels"]
        for (kind, name), one in objects.items()
        if kind == "StatefulSet"
    }
    for (kind, name), one in objects.items():
        spec = one.get("spec", {})
        selector = spec.get("podSelector") or spec.get("selector")
        if selector is None:
            continue
        wanted = selector.get("matchLabels", selector)
        meant = name.removesuffix("-pods")
        assert [pod for pod in labels if wanted.items() <= labels[pod].items()] == [meant], kind


@pytest.mark.parametrize("folder", FOLDERS, ids=OVERLAYS)
def test_everything_that_a_pod_mounts_or_names_is_there(folder: Path) -> None:
    objects = kustomized(folder)
    for name, pod in pods(objects):
        [container] = pod["containers"]
        claims = objects["StatefulSet", name]["spec"]["volumeClaimTemplates"]
        volumes = {one["name"] for one in pod["volumes"]}
        volumes |= {one["metadata"]["name"] for one in claims}
        assert {one["name"] for one in container["volumeMounts"]} == volumes
        assert not [one for one in container["volumeMounts"] if "subPath" in one]
        assert ("ServiceAccount", pod["serviceAccountName"]) in objects
        assert ("Service", objects["StatefulSet", name]["spec"]["serviceName"]) in objects
        ports = {one["name"] for one in container["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            for action in ("httpGet", "tcpSocket"):
                if action in container.get(probe, {}):
                    assert container[probe][action]["port"] in ports
        for volume in pod["volumes"]:
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in objects


def test_the_gateway_listens_where_its_service_and_its_probes_call() -> None:
    [container] = kustomized(FOLDERS[0])[GATEWAY]["spec"]["template"]["spec"]["containers"]
    assert served().server.listen == f"0.0.0.0:{container['ports'][0]['containerPort']}"
    service = kustomized(FOLDERS[0])["Service", "tollway"]["spec"]["ports"][0]
    assert service["targetPort"] == container["ports"][0]["name"]
    assert container["args"] == ["serve", "/etc/tollway/tollway.toml"]


@pytest.mark.parametrize("folder", FOLDERS, ids=OVERLAYS)
def test_what_the_gateway_writes_is_on_its_volume(folder: Path) -> None:
    pod = dict(pods(kustomized(folder)))["tollway"]
    [container] = pod["containers"]
    mounted = {one["name"]: Path(one["mountPath"]) for one in container["volumeMounts"]}
    config = served()
    database = Path(config.ledger.url.removeprefix("sqlite:///"))
    for path in (config.journal.dir, config.state.dir, database):
        assert path.is_relative_to(mounted["state"])
    gib = int(
        kustomized(folder)[GATEWAY]["spec"]["volumeClaimTemplates"][0]["spec"]["resources"][
            "requests"
        ]["storage"].removesuffix("Gi")
    )
    assert config.journal.keep_gb is not None and config.journal.keep_gb < gib / 2


@pytest.mark.parametrize("folder", FOLDERS, ids=OVERLAYS)
def test_secrets_are_mounted_where_the_gateway_reads_them(folder: Path) -> None:
    objects = kustomized(folder)
    pod = dict(pods(objects))["tollway"]
    [container] = pod["containers"]
    environment = {one["name"]: one["value"] for one in container["env"]}
    [secret] = [one["mountPath"] for one in container["volumeMounts"] if one["name"] == "secrets"]
    named = [value for name, value in environment.items() if name.endswith("_FILE")]
    named += [str(one.auth.bearer_file) for one in served().backends if one.auth is not None]
    assert named and all(Path(path).parent == Path(secret) for path in named)
    assert not [kind for kind, _ in objects if kind == "Secret"], "no secret stands in a file"


def test_the_variables_of_the_pods_are_settings(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    for name in ("admin-key", "ledger-password"):
        (folder / name).write_text("a-key-for-this-test-only")
    [container] = dict(pods(kustomized(FOLDERS[1])))["tollway"]["containers"]
    environment = {
        one["name"]: one["value"].replace("/run/secrets/tollway", str(folder))
        for one in container["env"]
    }
    read = settings.parse(CONFIG.read_text(), environment)
    assert read.ledger.password is not None and read.server.admin_key is not None
    url = urlsplit(read.ledger.url)
    service = kustomized(FOLDERS[1])["Service", str(url.hostname)]
    assert service["spec"]["ports"][0]["port"] == url.port


# -- they end and start as the gateway needs it


@pytest.mark.parametrize("folder", FOLDERS, ids=OVERLAYS)
def test_a_pod_gets_the_time_that_the_gateway_takes_to_end(folder: Path) -> None:
    pod = dict(pods(kustomized(folder)))["tollway"]
    [container] = pod["containers"]
    server = served().server
    before_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    settle_s = 10  # as the supervisor of workers allows
    assert (
        pod["terminationGracePeriodSeconds"]
        >= before_s + server.grace_s + server.drain_s + settle_s
    )


def test_a_dead_ledger_or_backend_restarts_no_gateway() -> None:
    [container] = dict(pods(kustomized(FOLDERS[0])))["tollway"]["containers"]
    probes = {name: container[name]["httpGet"]["path"] for name in container if "Probe" in name}
    assert probes == {
        "startupProbe": "/livez",
        "livenessProbe": "/livez",
        "readinessProbe": "/readyz",
    }


def test_replicas_share_a_ledger_and_one_alone_needs_none() -> None:
    for name, shared in (("single", False), ("replicas", True)):
        objects = kustomized(KUBERNETES / "overlays" / name)
        [container] = dict(pods(objects))["tollway"]["containers"]
        variables = {one["name"] for one in container["env"]}
        assert ("TOLLWAY_LEDGER__URL" in variables) is shared
        # With an autoscaler the number is its own: applying again must not set it back.
        assert ("replicas" in objects[GATEWAY]["spec"]) is not shared
        assert (("HorizontalPodAutoscaler", "tollway") in objects) is shared


# -- they are restricted


@pytest.mark.parametrize("folder", FOLDERS, ids=OVERLAYS)
def test_pods_are_restricted_by_the_pod_security_standard(folder: Path) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted."""
    allowed = {"configMap", "emptyDir", "secret"}
    for name, pod in pods(kustomized(folder)):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
        assert {key for volume in pod["volumes"] for key in volume} - {"name"} <= allowed
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert "memory" in container["resources"]["limits"]
    namespace = kustomized(folder)["Namespace", "tollway"]["metadata"]["labels"]
    assert namespace["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_user_is_that_of_the_image() -> None:
    text = (ROOT / "deploy" / "Containerfile").read_text()
    pod = dict(pods(kustomized(FOLDERS[0])))["tollway"]
    assert re.findall(r"^USER (\d+)", text, re.M)[-1] == str(pod["securityContext"]["runAsUser"])


def test_the_gateway_cannot_reach_the_credentials_of_its_node() -> None:
    policy = kustomized(FOLDERS[0])["NetworkPolicy", "tollway"]["spec"]
    blocks = [
        to["ipBlock"] for rule in policy["egress"] for to in rule.get("to", []) if "ipBlock" in to
    ]
    assert {"169.254.0.0/16"} <= {out for block in blocks for out in block["except"]}
    assert all("to" in rule for rule in policy["egress"])
    assert all("from" in rule for rule in policy["ingress"])


# -- they ask for what the gateway exports


def metrics() -> set[str]:
    """Return the names of the metrics, as docs/monitoring.md has them (it is tested)."""
    page = (ROOT / "docs" / "monitoring.md").read_text()
    return set(re.findall(r"^\| `(tollway_\w+)` \|", page, re.M))


def asked(value: Any) -> set[str]:
    """Return the metrics that an object names."""
    return set(re.findall(r"\btollway_\w+", yaml.safe_dump(value)))


def test_autoscalers_ask_for_metrics_that_the_gateway_exports(tmp_path: Path) -> None:
    objects = everything(tmp_path)
    named = {
        metric
        for (kind, _), one in objects.items()
        if kind in {"ScaledObject", "HorizontalPodAutoscaler"}
        for metric in asked(one["spec"])
    }
    assert named == {"tollway_backend_replicas_recommended"}
    assert named <= metrics()


def test_the_scaled_object_is_that_of_the_page_on_autoscaling(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "autoscaling.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    shown = next(yaml.safe_load(block) for block in blocks if "kind: ScaledObject" in block)
    made = everything(tmp_path)["ScaledObject", "digits-gpu"]["spec"]
    address = shown["spec"]["triggers"][0]["metadata"]["serverAddress"]
    made = made | {"triggers": [dict(one) for one in made["triggers"]]}
    made["triggers"][0]["metadata"] = made["triggers"][0]["metadata"] | {"serverAddress": address}
    assert made == shown["spec"]


@pytest.mark.integration
def test_the_redis_asks_for_the_password_of_the_secret_and_keeps_what_it_is_told(
    tmp_path: Path,
) -> None:
    """Run the container's command, in a folder of this machine."""
    [container] = dict(pods(kustomized(FOLDERS[1])))["tollway-redis"]["containers"]
    shell, option, script = container["command"]
    port = free_port()
    for name in ("data", "tmp", "secrets"):
        (tmp_path / name).mkdir()
    password = "a password of # two words"
    (tmp_path / "secrets" / "ledger-password").write_text(password + "\n")
    script = script.replace("/run/secrets/tollway", f"{tmp_path}/secrets")
    script = script.replace("/tmp/redis.conf", f"{tmp_path}/tmp/redis.conf")
    script = script.replace("/data", f"{tmp_path}/data").rstrip() + f" --port {port}\n"
    server = subprocess.Popen([shell, option, script], stdout=subprocess.DEVNULL)
    try:
        with Redis(port=port, password=password) as client:
            until_now(lambda: answers(client))
            assert client.config_get("appendonly") == {"appendonly": "yes"}
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        with Redis(port=port) as client, pytest.raises(AuthenticationError):
            client.ping()
        assert (tmp_path / "tmp" / "redis.conf").stat().st_mode & 0o077 == 0
    finally:
        server.terminate()
        assert server.wait(timeout=60) == 0, "the shell is replaced, so the signal arrives"


def answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except ConnectionError:
        return False


def test_the_job_is_that_of_the_alerts(tmp_path: Path) -> None:
    objects = everything(tmp_path)
    monitor = objects["ServiceMonitor", "tollway"]["spec"]
    service = objects["Service", "tollway"]["metadata"]["labels"]
    assert service[monitor["jobLabel"]] == "tollway"
    alerts = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text()
    assert set(re.findall(r'job="([^"]+)"', alerts)) == {"tollway"}
    selected = [
        name
        for (kind, name), one in objects.items()
        if kind == "Service"
        and monitor["selector"]["matchLabels"].items() <= one["metadata"]["labels"].items()
    ]
    assert selected == ["tollway"], "each pod is scraped once"


def test_the_example_of_kubernetes_is_as_good_as_the_others() -> None:
    document = tomllib.loads(CONFIG.read_text())
    assert document["server"]["grace_s"] > 0
    assert served().routes
