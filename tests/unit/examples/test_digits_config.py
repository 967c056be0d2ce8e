"""The demo runs on the configuration that is shown."""

from examples.digits import budget, config
from examples.digits.stage import CONFIG, MODELS
from tollway.gateway.security.keys import verify
from tollway.gateway.settings import load

URLS = {name: f"http://127.0.0.1:{port}" for port, name in enumerate(MODELS, 20001)}


def test_only_addresses_are_changed(tmp_path):
    written = load(config.write(CONFIG, tmp_path, URLS), {})
    shown = load(CONFIG, {})

    assert {backend.name: backend.url for backend in written.backends} == URLS
    assert written.server.listen == "127.0.0.1:0"
    assert written.routes == shown.routes
    assert written.budgets == shown.budgets


def test_a_run_has_its_own_ledger_and_journal(tmp_path):
    written = load(config.write(CONFIG, tmp_path, URLS), {})

    assert written.ledger.url == f"sqlite:///{tmp_path}/tollway.db"
    assert written.journal.dir.is_relative_to(tmp_path)
    assert written.state.dir.is_relative_to(tmp_path)


def test_prices_are_a_factor_of_ten_apart():
    assert config.prices(CONFIG) == {
        "digits-rules": 0.00001,
        "digits-cpu": 0.0001,
        "digits-large": 0.001,
    }


def test_the_budgets_tenant_is_who_the_demo_calls_as():
    (tenant,) = load(CONFIG, {}).tenants

    assert tenant.name == budget.NAME
    assert verify(budget.KEY, tenant.hashes[0])
