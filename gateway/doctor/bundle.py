"""Bundles: one archive with what a person needs who is to help, and no secrets."""

import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path

from tollway.gateway.doctor.finding import Finding
from tollway.gateway.security.private_files import FILE_MODE, opener

Part = Callable[[], str]


def write(
    path: Path, findings: Sequence[Finding], configuration: str, parts: Mapping[str, Part]
) -> list[str]:
    """Write an archive, readable by its owner alone; return why parts are missing.

    `configuration`: the one in effect, without secrets. `parts`: further files by name; one that
    raises OSError, ValueError or LookupError is left out.
    """
    missing = []
    with (
        open(path, "wb", opener=opener) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        os.fchmod(file.fileno(), FILE_MODE)  # one that is overwritten has the mode that it had
        archive.writestr("findings.json", _json([finding.document() for finding in findings]))
        archive.writestr("configuration.toml", configuration)
        archive.writestr("packages.txt", _packages())
        for name, made in parts.items():
            try:
                archive.writestr(name, made())
            except (OSError, ValueError, LookupError) as exc:
                missing.append(f"{name}: {exc}")
    return missing


def _json(document: object) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _packages() -> str:
    installed = {f"{one.metadata['Name']}=={one.version}\n" for one in distributions()}
    return "".join(sorted(installed, key=str.lower))
