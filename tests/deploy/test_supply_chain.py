"""The bill of materials, and the check for known vulnerabilities, against the lock."""

import json
import subprocess
import sys
import tomllib
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


def script(name: str, *arguments: object) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def locked() -> dict[tuple[str, str], dict[str, Any]]:
    entries = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    return {(one["name"], one["version"]): one for one in entries if one["name"] != "tollway"}


def test_the_bill_of_materials_lists_every_locked_file_with_its_hash(tmp_path: Path) -> None:
    assert script("sbom", "--all", tmp_path / "all.json") == (0, "")
    document = json.loads((tmp_path / "all.json").read_text())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    listed = {
        (part["name"], part["version"]): {
            (file["url"], f"sha256:{file['hashes'][0]['content']}")
            for file in part["externalReferences"]
        }
        for part in document["components"]
    }
    assert listed == {
        key: {
            (file["url"], file["hash"])
            for file in (*one.get("wheels", ()), one.get("sdist"))
            if file
        }
        for key, one in locked().items()
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert document["metadata"]["component"]["version"] == project["version"]


def test_the_bill_of_materials_of_a_lock_is_the_same_each_time_and_without_tools(
    tmp_path: Path,
) -> None:
    code, text = script("sbom")
    assert code == 0
    assert script("sbom", tmp_path / "again.json")[0] == 0
    assert (tmp_path / "again.json").read_text() == text
    scopes = {part["name"]: part["scope"] for part in json.loads(text)["components"]}
    assert {scopes[name] for name in ("starlette", "numpy", "h2", "pydantic")} == {"required"}
    assert {scopes[name] for name in ("redis", "ray", "polars")} == {"optional"}
    assert not {"pytest", "ruff", "hypothesis", "cyclonedx-python-lib"} & set(scopes)


def test_a_lock_with_a_file_without_a_hash_is_refused(tmp_path: Path) -> None:
    text = (ROOT / "uv.lock").read_text()
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (tmp_path / "uv.lock").write_text(text.replace('hash = "sha256:', 'hash = "md5:', 1))
    code, said = script("sbom", "--lock", tmp_path / "uv.lock")
    assert code == 1
    assert "a file without a SHA-256" in said


def entry(events: list[dict[str, str]], name: str = "Starlette", **more: Any) -> dict[str, Any]:
    affected: dict[str, Any] = {"package": {"ecosystem": "PyPI", "name": name}}
    affected["ranges"] = [{"type": "ECOSYSTEM", "events": events}]
    affected["versions"] = more.pop("versions", [])
    now = datetime.now(UTC).isoformat()
    return {"id": "PYSEC-1", "modified": now, "affected": [affected], "summary": "bad", **more}


def database(folder: Path, *entries: Any) -> Path:
    path = folder / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, one in enumerate(entries):
            archive.writestr(f"{number}.json", json.dumps(one))
    return path


[STARLETTE] = [version for name, version in locked() if name == "starlette"]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (entry([{"introduced": "0"}]), 1),
        (entry([{"introduced": "0"}, {"fixed": "9999"}]), 1),
        (entry([{"introduced": "0"}, {"last_affected": STARLETTE}]), 1),
        (entry([{"fixed": STARLETTE}, {"introduced": "0"}]), 0),
        (entry([{"introduced": "0"}, {"fixed": "0.1"}, {"introduced": "9999"}]), 0),
        (entry([{"introduced": "0"}, {"fixed": "0.1"}, {"introduced": "0.2"}]), 1),
        (entry([], versions=["no version", STARLETTE]), 1),
        (entry([{"introduced": "0"}], name="starlette-x"), 0),
        (entry([{"introduced": "0"}], withdrawn="2026-01-01T00:00:00Z"), 0),
        (entry([{"introduced": "0"}], modified="2021-07-17T00:00:00Z"), 1),
        (entry([], modified="2021-07-17T00:00:00Z"), 3),
        ("not an entry", 3),
        ({"id": "x"}, 3),
    ],
)
def test_a_locked_version_is_found_in_a_database(tmp_path: Path, given: Any, code: int) -> None:
    status, said = script("vulnerabilities", database(tmp_path, given))
    assert status == code, said
    assert (f"starlette {STARLETTE} (required): PYSEC-1: bad" in said) is (code == 1)


def test_without_a_database_the_check_says_that_it_cannot_tell(tmp_path: Path) -> None:
    for arguments in (
        (),
        (tmp_path / "none.zip",),
        (database(tmp_path),),
        (tmp_path / "pyproject",),
    ):
        code, said = script("vulnerabilities", *arguments)
        assert code == 3
        assert said.startswith("unknown: ")
