"""MLServer, MLflow and Triton themselves, with their own clients, directly and through the gateway.

scripts/_servers installs them, each in an environment of its own, the first time that a test needs
them; scripts/compat-servers lists what is asked.
"""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[3] / "scripts"
HOME = Path(os.environ.get("MODEL_SERVERS", Path.home() / ".cache" / "tollway-compat"))

INSTALLATION_S = 600  # the three are about 700 MB: that takes a minute, or several over a slow line
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


def install(name: str) -> None:
    """Install a server if its environment is missing or old; one process of the tests at a time."""
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / "tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(
            [SCRIPTS / "_servers", name],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=INSTALLATION_S,
        )
