"""What users install: the wheel, from a checkout and from an sdist, beside packages of any name.

Builds with hatchling from PyPI, as pip does. The environments get the dependencies of the one that
runs the tests, by a .pth file, so that only Tollway itself is installed.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.until import until_now

ROOT = Path(__file__).parents[2]
PACKAGES = ("gateway", "policies", "backends", "simulations", "reports", "gameday")
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TOLLWAY"))
} | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
BUILDER = "hatchling>=1.27"
CONFIG = """
[server]
allow_anonymous = true
[ledger]
url = "memory://"
[[backends]]
name = "cpu"
kind = "cpu"
url = "http://127.0.0.1:1"
protocol = "oip"
price = { per_request_usd = 0.001 }
[[routes]]
name = "m"
path = "/v2/models/m/infer"
protocol = "oip"
backends = ["cpu"]
policy = "cheapest"
"""

pytestmark = pytest.mark.integration


class Environment:
    """A virtual environment that sees the test environment's dependencies."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=True, symlinks=True)
        self.bin = folder / "bin"
        (self.site,) = folder.glob("lib/python*/site-packages")
        self._dependencies = self.site / "dependencies.pth"

    def run(self, *command: str | Path, cwd: Path, status: int = 0) -> str:
        """Run a program of the environment; return what it wrote to stdout."""
        program, *arguments = command
        done = subprocess.run(
            [self.bin / program, *arguments],
            cwd=cwd,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    def pip(self, *arguments: str | Path) -> None:
        """Run pip, which sees this environment alone; then let it see the dependencies again."""
        self._dependencies.unlink(missing_ok=True)
        self.run("python", "-m", "pip", *arguments, "-q", cwd=self.bin)
        # A folder named in a .pth file is searched for modules, but its own .pth files are ignored:
        # an editable Tollway of the test environment stays out.
        others = [path for path in sys.path if path.endswith("site-packages")]
        self._dependencies.write_text("\n".join(others) + "\n")

    def install(self, *what: str | Path) -> None:
        """Install Tollway itself, without its dependencies."""
        self.pip("install", "--no-deps", "--no-build-isolation", *what)


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    made = Environment(tmp_path_factory.mktemp("builder"))
    made.pip("install", BUILDER)
    return made


@pytest.fixture(scope="module")
def sdist(builder: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    builder.run("python", "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    (found,) = folder.glob("tollway-*.tar.gz")
    return found


def wheel_from(builder: Environment, source: Path, folder: Path) -> Path:
    builder.pip("wheel", "--no-deps", "--no-build-isolation", "-w", folder, source)
    (found,) = folder.glob("tollway-*.whl")
    return found


@pytest.fixture(scope="module")
def wheel(builder: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel_from(builder, ROOT, tmp_path_factory.mktemp("wheel"))


def contents(wheel: Path) -> dict[str, int]:
    """Return the checksum of each file of a wheel, but for its own list of them."""
    with zipfile.ZipFile(wheel) as archive:
        return {one.filename: one.CRC for one in archive.infolist() if "RECORD" not in one.filename}


def test_the_wheel_installs_one_importable_name(wheel: Path) -> None:
    names = contents(wheel)
    assert {name.split("/")[0] for name in names} == {
        "tollway",
        f"tollway-{version('tollway')}.dist-info",
    }
    assert [name for name in names if name.endswith((".pth", ".pyc"))] == []
    assert {name.split("/")[1] for name in names if name.count("/") > 1} > set(PACKAGES)


def test_the_wheel_has_every_module_and_all_package_data(wheel: Path) -> None:
    wanted = {
        f"tollway/{path.relative_to(ROOT)}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    wanted |= {
        str(path.relative_to(ROOT))
        for pattern in ("*.py", "py.typed", "api/*.py")
        for path in (ROOT / "tollway").glob(pattern)
    }
    assert {name for name in contents(wheel) if name.startswith("tollway/")} == wanted
    data = {name.rpartition("/")[2] for name in wanted if not name.endswith(".py")}
    assert {"redis.lua", "page.html", "page.css", "page.js", "steady.toml", "py.typed"} <= data


def test_a_wheel_from_the_sdist_is_the_same(
    builder: Environment, sdist: Path, wheel: Path, tmp_path: Path
) -> None:
    # An sdist has no links: its tollway/ holds the few files that are there.
    with tarfile.open(sdist) as archive:
        assert all(one.isfile() for one in archive.getmembers())
    assert contents(wheel_from(builder, sdist, tmp_path)) == contents(wheel)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel, beside packages of others with the names that Tollway's folders have."""
    made = Environment(tmp_path_factory.mktemp("installed"))
    made.install(wheel)
    for name in ("reports", "policies", "gateway"):
        package = made.site / name
        package.mkdir()
        (package / "__init__.py").write_text("raise ImportError('the package of somebody else')\n")
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder, with a configuration and a package of the user's own."""
    (tmp_path / "backends").mkdir()
    (tmp_path / "backends" / "__init__.py").write_text("raise ImportError('the user\\'s own')\n")
    (tmp_path / "tollway.toml").write_text(CONFIG)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("tollway --version", f"tollway {version('tollway')}\n"),
        ("python -m tollway --version", f"tollway {version('tollway')}\n"),
        ("tollway check-config tollway.toml", "cpu"),
        ("tollway report --help", "usage: tollway report"),
        ("tollway simulate --help", "usage: tollway simulate"),
        ("tollway simulate run --list", "steady"),
    ],
)
def test_commands_work_beside_packages_of_the_same_names(
    installed: Environment, folder: Path, command: str, said: str
) -> None:
    assert said in installed.run(*command.split(), cwd=folder)


def test_the_python_api_works_beside_packages_of_the_same_names(
    installed: Environment, folder: Path
) -> None:
    program = "import tollway; print(tollway.__file__, *map(tollway.__getattr__, tollway._MODULES))"
    path = installed.run("python", "-c", program, cwd=folder).split()[0]
    assert Path(path).is_relative_to(installed.site)


def test_an_installed_gateway_serves(installed: Environment, folder: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve = [installed.bin / "tollway", "serve", "tollway.toml", "--listen", f"127.0.0.1:{port}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(serve, cwd=folder, env=ENVIRONMENT, stdout=log, stderr=log)
        try:
            until_now(lambda: livez(port) or process.poll() is not None, within_s=60)
            assert process.poll() is None, (folder / "log").read_text()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
            process.wait()


def livez(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            return re.match(rb"HTTP/1.1 200 ", connection.recv(64)) is not None
    except OSError:
        return False


def test_an_editable_installation_imports_the_checkout(
    builder: Environment, tmp_path: Path
) -> None:
    builder.install("--editable", ROOT)
    try:
        program = "import tollway.reports as one; print(one.__file__)"
        path = Path(builder.run("python", "-c", program, cwd=tmp_path).strip())
        assert path.resolve() == ROOT / "reports" / "__init__.py"
        assert builder.run("tollway", "--version", cwd=tmp_path).startswith("tollway ")
    finally:
        builder.pip("uninstall", "-y", "tollway")
