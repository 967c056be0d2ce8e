"""An authority that signs certificates, by openssl."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


def openssl(*words: object) -> None:
    program = shutil.which("openssl")
    assert program, "this test needs the program openssl: apt-get install openssl"
    subprocess.run([program, *map(str, words)], check=True, capture_output=True)


CA = """
[ca]
default_ca = own
[own]
database = index
rand_serial = yes
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
"""


KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Authority:
    """A certificate authority."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir()
        (self.folder / "index").touch()
        (self.folder / "ca.cnf").write_text(CA.replace("= index", f"= {self.folder}/index"))
        made = ("-out", self.cert, "-keyout", self.folder / "ca.key", "-days", 2)
        openssl("req", "-x509", *KEY, "-subj", f"/CN={self.folder.name}", *made)

    @property
    def cert(self) -> Path:
        return self.folder / "ca.pem"

    def sign(self, name: str, *, san: str = "IP:127.0.0.1", year: int = 2000) -> tuple[Path, Path]:
        """Return a new certificate and its key; it holds from 2000 to the end of `year`."""
        cert, key, asked = (self.folder / f"{name}.{kind}" for kind in ("pem", "key", "csr"))
        alt = ("-addext", f"subjectAltName={san}")
        openssl("req", "-new", *KEY, *alt, "-subj", f"/CN={name}", "-keyout", key, "-out", asked)
        holds = ("-startdate", "20000101000000Z", "-enddate", f"{year}1231235959Z")
        by = ("-cert", self.cert, "-keyfile", self.folder / "ca.key")
        ca = ("ca", "-batch", "-notext", "-config", self.folder / "ca.cnf")
        openssl(*ca, *by, *holds, "-outdir", self.folder, "-in", asked, "-out", cert)
        return cert, key
