"""The settings of devices, and their errors."""

import pytest

from tollway.gateway import settings as config
from tollway.gateway.settings import hard_bounds
from tollway.gateway.settings.errors import ConfigError

TEXT = """
[server]
allow_anonymous = true
[ledger]
url = "memory://"
[[devices]]
name = "gpu"
{device}
[[backends]]
name = "b"
kind = "gpu"
protocol = "oip"
url = "http://127.0.0.1:9"
{backend}
[[routes]]
name = "r"
path = "/x"
protocol = "oip"
backends = ["b"]
"""
HOUR = "usd_per_hour = 2.5"
ON_GPU = 'device = "gpu"'


def parse(device: str = HOUR, backend: str = ON_GPU) -> config.Settings:
    return config.parse(TEXT.format(device=device, backend=backend), {})


def test_a_device_has_defaults_and_its_backend_no_price() -> None:
    settings = parse()
    terms = settings.devices[0].terms
    assert (terms.idle, terms.slots, terms.least) == ("by-use", 1.0, 0.05)
    assert settings.backends[0].price == {}
    assert hard_bounds.notes(settings) == []
    assert settings.effective()["devices"][0]["usd_per_hour"] == 2.5


def test_the_address_of_a_price_is_hidden_because_it_may_have_a_key() -> None:
    settings = parse('price_url = "http://prices.example.com/?key=hush"')
    assert "hush" not in str(settings.effective())


def test_a_device_can_be_overridden_from_the_environment() -> None:
    text = TEXT.format(device=HOUR, backend=ON_GPU)
    settings = config.parse(text, {"TOLLWAY_DEVICES__GPU__USD_PER_HOUR": "0.37"})
    assert str(settings.devices[0].usd_per_hour) == "0.37"


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("", "usd_per_hour: is missing"),
        ("usd_per_hour = 0", "usd_per_hour"),
        (f'{HOUR}\nprice_file = "x"', "is set beside usd_per_hour"),
        (f'{HOUR}\nprice_json = "a"', "applies only to price_url and price_file"),
        ('price_file = "x"\nprice_json = "a"\nprice_metric = "b"', "is set beside price_json"),
        ('price_file = "x"\nprice_metric = "b{c}"', "write it like node_gpu_hourly_cost"),
        ('price_url = "http://169.254.169.254/price"', "link-local or metadata address"),
        (f'{HOUR}\nidle = "last"', "idle"),
        (f"{HOUR}\nmin_utilization = 0", "min_utilization"),
    ],
)
def test_a_wrong_device_stops_the_start(device: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(device)


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ('device = "gpus"', "is not a device; did you mean 'gpu'"),
        (f"{ON_GPU}\nprice = {{ per_request_usd = 1 }}", "is set beside device"),
        ("price = { per_request_usd = 1 }", "is the device of no backend"),
        ("", "price: is missing"),
        (f'{ON_GPU}\ndevice_time = {{ source = "triton" }}', "url: is missing"),
        (f'{ON_GPU}\ndevice_time = {{ source = "header" }}', "header: is missing"),
        (
            f'{ON_GPU}\nreplicas = ["http://a:1"]\ndevice_time = {{ source = "oip" }}',
            "is polled from one server, but the backend has replicas",
        ),
        (
            f'{ON_GPU}\ndevice_time = {{ source = "header", header = "x", url = "http://a" }}',
            "does not apply to source",
        ),
        (
            f'{ON_GPU}\ndevice_time = {{ source = "metric", metric = "9", url = "http://a" }}',
            "begins with no metric's name",
        ),
        (f'{ON_GPU}\ndevice_time = {{ source = "oip", unit = "ms" }}', "does not apply to source"),
    ],
)
def test_a_wrong_use_of_a_device_stops_the_start(backend: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(backend=backend)


def test_counters_that_are_polled_need_a_device_and_fields_of_replies_do_not() -> None:
    priced = 'price = { device_usd_per_hour = 2.5 }\ndevice_time = { source = "%s" }'
    with pytest.raises(ConfigError, match="name its device"):
        parse(backend=priced % "oip")
    text = TEXT.replace('[[devices]]\nname = "gpu"\n{device}\n', "")
    field = priced.replace('"%s"', '"header", header = "x-ms", unit = "ms"')
    clock = config.parse(text.format(backend=field), {}).backends[0].device_time
    assert clock is not None
    assert clock.unit_s == 0.001
