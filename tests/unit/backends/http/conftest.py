"""A certificate for servers of these tests."""

import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate of 127.0.0.1, and its key."""
    openssl = shutil.which("openssl")
    assert openssl, "this test needs the program openssl: apt-get install openssl"
    folder = tmp_path_factory.mktemp("tls")
    made = ["-keyout", folder / "key", "-out", folder / "cert", "-subj", "/CN=x", "-days", "2"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    name = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([openssl, "req", "-x509", *kind, *name, *made], check=True, capture_output=True)
    return folder / "cert", folder / "key"
