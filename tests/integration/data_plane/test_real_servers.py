"""MLServer, MLflow and Triton themselves, with their own clients, directly and through the gateway.

scripts/_servers installs them, each in an environment of its own, the first time that a test needs
them; scripts/compat-servers lists what is asked.
"""

import subprocess
import sys

import pytest

from tests.support.model_servers import INSTALLATION_S, SCRIPTS, install

PATIENCE_S = 160

# Above both, so that the server is stopped, and the error says which of the two took too long.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(INSTALLATION_S + PATIENCE_S + 20)]


@pytest.mark.parametrize("name", ["mlserver", "mlflow", "triton"])
def test_a_real_server_gives_its_clients_the_same_through_the_gateway(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with capfd.disabled():  # what is installed is shown while it is
        install(name)
    asked = subprocess.Popen(
        [sys.executable, SCRIPTS / "compat-servers", name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        table, differs = asked.communicate(timeout=PATIENCE_S)
    finally:
        asked.terminate()  # in case it takes longer: it stops its server
    assert asked.returncode == 0, differs
    assert table.count("| yes |") >= 12, table
