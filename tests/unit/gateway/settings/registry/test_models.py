import pytest

from tests.support.configs import two_backends
from tollway.gateway.settings import ConfigError, Settings, parse
from tollway.gateway.settings.registry.template import BadVersion, place

REGISTRY = '[registry]\nkind = "folder"\n'
MODEL = '[[models]]\nname = "m"\nbackend = "cheap"\n'


def loaded(more: str, backend: str = "") -> Settings:
    text = two_backends("http://127.0.0.1:1", "http://127.0.0.1:2", more=more, backend=backend)
    return parse(text, {})


def test_a_version_fills_the_port_the_path_and_the_name() -> None:
    found = place(
        "digits",
        "3",
        url="http://gpu-1:{port}/serving/{version}",
        model="{model}-v{version}",
        ports=(9100, 9109),
    )
    assert (found.url, found.model) == ("http://gpu-1:9102/serving/3", "digits-v3")


def test_after_the_last_port_comes_the_first() -> None:
    ports = [
        place("m", str(number), url="http://h:{port}", model=None, ports=(9100, 9101)).url
        for number in (1, 2, 3)
    ]
    assert ports == ["http://h:9100", "http://h:9101", "http://h:9100"]


@pytest.mark.parametrize(
    ("version", "url"),
    [
        ("2@evil.example", "http://h:1/{version}"),
        ("../admin", "http://h:1/{version}"),
        ("a b", "http://h:1/{version}"),
        ("", "http://h:1/{version}"),
        ("1" * 65, "http://h:1/{version}"),
        ("evil.example", "http://v{version}.models:1"),
        ("v2", "http://v{version}.models:1"),
        ("v2", "http://h:{port}"),
    ],
)
def test_a_version_cannot_choose_an_address(version: str, url: str) -> None:
    with pytest.raises(BadVersion):
        place("m", version, url=url, model=None, ports=(1000, 1001) if "{port}" in url else None)


def test_digits_may_be_in_a_host_name() -> None:
    found = place("m", "12", url="http://v{version}.models:8000", model=None, ports=None)
    assert found.url == "http://v12.models:8000"


# Each: what stands in the file, and what is said about it.
REFUSED = [
    (MODEL + 'model = "v{version}"', "need a registry that names their versions"),
    (REGISTRY + MODEL, "one of them must differ between versions"),
    (REGISTRY + MODEL + 'url = "http://h:{port}"', "models[0].ports: is missing, for {port}"),
    (REGISTRY + MODEL + 'model = "v{tag}"', "has the unknown field {tag}"),
    (REGISTRY + MODEL + 'url = "http://169.254.169.254/{version}"', "link-local or metadata"),
    (REGISTRY + MODEL + 'model = "v"\nports = [1, 2]', "is not used: url has no {port}"),
    (
        REGISTRY + MODEL + 'url = "http://h:{port}"\nports = [9, 8]',
        "must be two ports, the first below the last",
    ),
    (
        REGISTRY + MODEL.replace("cheap", "cheep") + 'model = "v{version}"',
        "models[0].backend = \"cheep\": is not a backend; did you mean 'cheap'?",
    ),
    ('[registry]\nkind = "mlflow"', "registry.url: is missing"),
    (
        '[registry]\nkind = "folder"\nurl = "http://h:1"',
        'applies only to kind = "mlflow"; remove it',
    ),
    (
        REGISTRY + MODEL + 'model = "v{version}"\nload = { oip = true, command = ["x"] }',
        "is set beside oip; remove one of them",
    ),
]


@pytest.mark.parametrize(("more", "why"), REFUSED)
def test_a_model_that_cannot_be_served_is_refused(more: str, why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        loaded(more)
    assert why in str(refused.value)


def test_a_backend_with_replicas_has_versions_by_name_only() -> None:
    replicas = 'replicas = ["http://127.0.0.1:7"]'
    by_name = REGISTRY + MODEL + 'model = "v{version}"'
    assert loaded(by_name, replicas).models
    with pytest.raises(ConfigError, match="has replicas, and a version has one address"):
        loaded(by_name + '\nurl = "http://127.0.0.1:8/{version}"', replicas)


def test_the_version_that_a_registry_names_is_what_a_backend_serves() -> None:
    text = two_backends(
        "http://127.0.0.1:1",
        "http://127.0.0.1:2",
        more=REGISTRY + MODEL + 'model = "v{version}"',
    )
    found = parse(text, {}, versions={"cheap": {"url": "http://127.0.0.1:9", "model": "v2"}})
    assert (found.backends[0].url, found.backends[0].model) == ("http://127.0.0.1:9", "v2")
    assert found.backends[1].model == "large"
