"""Writes the demo's configuration for one run: tollway.toml with the addresses of this run."""

import tomllib
from pathlib import Path


def write(template: Path, folder: Path, urls: dict[str, str]) -> Path:
    """Write `tollway.toml` into a folder, with these backends' addresses and any free port.

    The ledger, the journal and what is learned are in the same folder, so a run begins cold.
    """
    text = template.read_text()
    document = tomllib.loads(text)
    for backend in document["backends"]:
        text = _replaced(text, f'url = "{backend["url"]}"', f'url = "{urls[backend["name"]]}"')
    listen = document["server"]["listen"]
    text = _replaced(text, f'listen = "{listen}"', 'listen = "127.0.0.1:0"')
    path = folder / "tollway.toml"
    path.write_text(text)
    return path


def prices(path: Path) -> dict[str, float]:
    """Return each backend's dollars a request, cheapest first, as a configuration file has them."""
    backends = tomllib.loads(path.read_text())["backends"]
    usd = {backend["name"]: float(backend["price"]["per_request_usd"]) for backend in backends}
    return dict(sorted(usd.items(), key=lambda item: item[1]))


def _replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"{old} should be there once"
    return text.replace(old, new)
