"""The dashboard: one self-contained page.

The style and the script are embedded, and the content security policy allows them by their hashes.
Nothing else runs, and the page fetches only this gateway's own figures.
"""

import base64
import hashlib
from importlib.resources import files


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _page() -> tuple[bytes, str]:
    folder = files(__name__)
    html, style, script = (
        folder.joinpath(name).read_text("utf-8") for name in ("page.html", "page.css", "page.js")
    )
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return html.replace("/*style*/", style).replace("/*script*/", script).encode(), policy


PAGE, POLICY = _page()
"""The page and its content security policy."""
