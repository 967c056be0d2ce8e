"""Container, Compose and systemd files, as far as they can be checked without an engine."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.deploy.monitors import DEPLOY, ROOT, document
from tollway.gateway import settings

COMPOSE = document(DEPLOY / "compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
CONTAINERFILE = (DEPLOY / "Containerfile").read_text().replace("\\\n", " ")
ENVIRONMENT = {"TOLLWAY_SERVER__ADMIN_KEY": "a-key-for-this-test-only"}
LISTENS = {"redis": 6379, "prometheus": 9090, "alertmanager": 9093, "grafana": 3000}
"""Where the official images listen, unless told otherwise."""


def compose_settings() -> settings.Settings:
    return settings.load(DEPLOY / "tollway.compose.toml", ENVIRONMENT)


def listens(service: str) -> int:
    """Return the port that a service listens on inside its container."""
    if service == "gateway":
        (command,) = re.findall(r"^CMD (\[.*\])$", CONTAINERFILE, re.MULTILINE)
        return int(re.findall(r"0\.0\.0\.0:(\d+)", command)[0])
    command = SERVICES[service].get("command", [])
    return int(command[command.index("--port") + 1]) if "--port" in command else LISTENS[service]


# -- the services among themselves


def test_every_service_says_how_to_know_that_it_is_well() -> None:
    lacking = [name for name, service in SERVICES.items() if "healthcheck" not in service]
    assert lacking == ["gateway"] and "HEALTHCHECK" in CONTAINERFILE  # its image says it


def test_services_that_are_waited_for_exist() -> None:
    for service in SERVICES.values():
        assert set(service.get("depends_on", {})) <= set(SERVICES)


def test_every_mounted_path_and_volume_exists() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source, target = volume.split(":")[:2]
            assert target.startswith("/")
            if source.startswith("."):
                assert (DEPLOY / source).exists(), source
            else:
                assert source in COMPOSE["volumes"]


def test_ports_are_published_to_this_machine_only_and_lead_to_a_listener() -> None:
    published = {}
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            address, outside, inside = port.split(":")
            assert (address, int(inside)) == ("127.0.0.1", listens(name))
            published[name] = int(outside)
    assert sorted(published) == ["alertmanager", "gateway", "grafana", "prometheus"]


def test_what_the_configurations_call_is_a_service_that_listens_there() -> None:
    config = compose_settings()
    called = [urlsplit(backend.url or "") for backend in config.backends]
    called.append(urlsplit(config.ledger.url))
    prometheus = document(DEPLOY / "prometheus" / "prometheus.yml")
    watched = [
        *prometheus["scrape_configs"][0]["static_configs"][0]["targets"],
        *prometheus["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"],
    ]
    called += [urlsplit(f"//{target}") for target in watched]
    for url in called:
        assert url.port == listens(str(url.hostname)), url


def test_the_model_servers_serve_the_models_that_the_gateway_asks_for() -> None:
    for backend in compose_settings().backends:
        command = SERVICES[str(urlsplit(backend.url or "").hostname)]["command"]
        assert backend.model == f"digits-{command[command.index('--model') + 1]}"


def test_no_secret_stands_in_a_file() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("KEY|PASSWORD|SECRET|TOKEN", name):
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), name
    assert "admin_key" not in (DEPLOY / "tollway.compose.toml").read_text().replace("admin key", "")


@pytest.mark.integration
def test_the_commands_of_the_model_servers_are_understood() -> None:
    from examples.digits.serve import main  # noqa: F401 - it is there to be run

    for service in SERVICES.values():
        if service.get("image") == "tollway-digits":
            done = subprocess.run(
                [sys.executable, "-m", "examples.digits.serve", *service["command"], "--help"],
                cwd=ROOT,
                capture_output=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr


# -- the image


def steps(stage: str) -> list[tuple[str, str]]:
    """Return the (instruction, rest) of a stage."""
    (text,) = re.findall(rf"^FROM \S+ AS {stage}$(.*?)(?=^FROM |\Z)", CONTAINERFILE, re.M | re.S)
    found = re.findall(r"^([A-Z]+) +(.*)$", text, re.MULTILINE)
    return [(one, rest) for one, rest in found]


@pytest.mark.parametrize("stage", ["build", "demo"])
def test_what_is_copied_is_there_and_not_left_out_of_the_context(stage: str) -> None:
    let_in = (ROOT / ".containerignore").read_text().splitlines()
    for instruction, rest in steps(stage):
        if instruction == "COPY":
            *sources, _ = rest.split()
            for source in sources:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in let_in, source


def test_every_package_of_the_wheel_is_in_the_image() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    copied = {rest for instruction, rest in steps("build") if instruction == "COPY"}
    folders = {*wheel["targets"]["wheel"]["sources"], "tollway"}
    assert {f"{name} {name}" for name in folders} <= copied


def test_the_image_runs_without_root_and_keeps_its_state_in_its_volume() -> None:
    told = dict(steps("gateway"))
    assert told["USER"] == "10001"
    config = settings.load(DEPLOY / "tollway.compose.toml", {**ENVIRONMENT, **image_environment()})
    for folder in (config.journal.dir, config.state.dir):
        assert folder.is_relative_to(told["VOLUME"])


def image_environment() -> dict[str, str]:
    (line,) = [rest for one, rest in steps("gateway") if one == "ENV"]
    return dict(re.findall(r"(TOLLWAY_\w+)=(\S+)", line))


def test_the_packages_of_the_image_are_those_of_the_lock_with_their_hashes() -> None:
    lock = blocks(ROOT / "requirements.lock")
    image = blocks(DEPLOY / "requirements.txt")
    assert {name: lock.get(name) for name in image} == image
    assert {"redis", "opentelemetry-sdk", "starlette", "numpy"} <= {
        name.split("==")[0] for name in image
    }


def test_the_packages_of_the_demo_are_those_of_the_lock_with_their_hashes() -> None:
    lock, demo = blocks(ROOT / "requirements.lock"), blocks(ROOT / "requirements-demo.lock")
    assert {name: lock.get(name) for name in demo} == demo
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["demo"]]
    names = {re.match(r"[\w-]+", one)[0] for one in asked}  # type: ignore[index]
    assert names <= {name.split("==")[0] for name in demo}
    assert not {"ray", "pytest"} & {name.split("==")[0] for name in demo}


def blocks(path: Path) -> dict[str, list[str]]:
    """Return the hashes by pinned package."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            name = line.split(" ")[0]
            found[name] = []
        elif "--hash=" in line:
            found[name].append(line.strip(" \\"))
    return found


@pytest.mark.integration
def test_the_steps_of_the_image_make_a_gateway_that_runs(tmp_path: Path) -> None:
    """Replay the build stage in a folder (copies, installations), then run the command."""
    venv = tmp_path / "opt"
    source = tmp_path / "src"
    source.mkdir()
    told = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    # Compiling every package takes longer than installing it, and shows nothing.
    told |= {"PATH": f"{venv}/bin:{told['PATH']}", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    told |= {"PIP_NO_COMPILE": "1"}
    for instruction, rest in steps("build"):
        if instruction == "COPY":
            *sources, target = rest.split()
            for one in sources:
                to = source / target if target != "./" else source / Path(one).name
                if (ROOT / one).is_dir():
                    ignored = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(ROOT / one, to, symlinks=True, ignore=ignored)  # as COPY does
                else:
                    shutil.copy(ROOT / one, to)
        elif instruction == "RUN":
            command = rest.replace("/opt/tollway", str(venv))
            command = re.sub(r"^python ", f"{sys.executable} ", command)
            done = subprocess.run(
                command,
                shell=True,
                cwd=source,
                env=told,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    entry = [venv / "bin" / "tollway", "check-config", DEPLOY / "tollway.compose.toml"]
    done = subprocess.run(
        entry, cwd=tmp_path, env=told | ENVIRONMENT, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.integration
def test_the_command_of_the_image_is_understood() -> None:
    told = dict(steps("gateway"))
    command = re.findall(r'"([^"]+)"', told["ENTRYPOINT"] + told["CMD"])[1:]
    done = subprocess.run(
        [sys.executable, "-m", "tollway", *command, "--help"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# -- systemd


def test_the_unit_is_good_by_systemd(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    assert analyze, "this test needs systemd-analyze: apt-get install systemd"
    program = tmp_path / "tollway"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "tollway.service"
    text = (DEPLOY / "tollway.service").read_text()
    unit.write_text(text.replace("/opt/tollway/bin/tollway", str(program)))
    done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_is_confined() -> None:
    """The default of a unit is 9.6, and nobody is kept from the network or from the program."""
    analyze = shutil.which("systemd-analyze")
    assert analyze, "this test needs systemd-analyze: apt-get install systemd"
    command = [analyze, "security", "--offline=true", "--no-pager", DEPLOY / "tollway.service"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (exposure,) = re.findall(r"exposure level for tollway.service: ([0-9.]+)", done.stdout)
    assert float(exposure) <= 1.2, done.stdout


def test_a_reload_checks_the_configuration_that_is_started() -> None:
    unit = (DEPLOY / "tollway.service").read_text()
    lines = dict.fromkeys(re.findall(r"^Exec(\w+)=(.*)$", unit, re.M))
    check = "/opt/tollway/bin/tollway check-config /etc/tollway/tollway.toml"
    assert [*lines] == [
        ("StartPre", check),
        ("Start", "/opt/tollway/bin/tollway serve /etc/tollway/tollway.toml"),
        ("Reload", check),
        ("Reload", "/bin/kill -HUP $MAINPID"),
    ]


def test_the_unit_gives_more_time_to_stop_than_the_gateway_takes() -> None:
    (stop_s,) = re.findall(
        r"^TimeoutStopSec=(\d+)$", (DEPLOY / "tollway.service").read_text(), re.M
    )
    drain_s = compose_settings().server.drain_s
    assert int(stop_s) > drain_s
    assert int(SERVICES["gateway"]["stop_grace_period"].removesuffix("s")) > drain_s
