"""BentoML's own client."""

import tempfile
from pathlib import Path

import bentoml
import numpy as np
from sides import TOO_LARGE, Side, raised, report, same, zipped

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
NS = "/ns"


def using(side: Side, call):
    with bentoml.SyncHTTPClient(side.url, timeout=60) as client:
        return call(client)


def infer(side: Side) -> object:
    said = side.post("/classify", {"rows": [[1, 2], [3, 4]]}).ok().seen
    return said, side.post("/shout", {"text": "h\xe9"}).ok().seen


def client(side: Side) -> object:
    rows = np.array([[1.0, 2.0]])
    return using(side, lambda one: [one.is_ready(), one.classify(rows=rows).tolist(),
                                    one.shout(text="abc")])  # fmt: skip


def streamed(side: Side) -> object:
    return using(side, lambda one: "".join(one.words(text="one two three")))


def files(side: Side) -> object:
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "a.png"
        image.write_bytes(PNG)
        copy = using(side, lambda one: Path(one.copy(image=image)).read_bytes())
    same(copy, PNG)
    return copy


def bad(side: Side) -> object:
    wrong = raised(lambda: using(side, lambda one: one.shout(text=[1])))
    return [side.post("/shout", {}).refused(400), side.post("/shout", b"{").seen,
            type(wrong).__name__, str(wrong).replace(side.url, "")]  # fmt: skip


def failure(side: Side) -> object:
    return side.post("/shout", {"text": "fail"}).refused(500)


def health(side: Side) -> object:
    paths = ("/healthz", "/livez", "/readyz", "/schema.json", "/docs.json")
    said = [side.call("GET", path).status for path in paths]
    return said, side.call("GET", "/schema.json").ok().document


def head(side: Side) -> object:
    return side.call("HEAD", "/schema.json").status


def prefixed(gateway: Side) -> None:
    same(gateway.post(f"{NS}/shout", {"text": "a"}).ok().body, b"A")
    gateway.call("GET", f"{NS}/schema.json").ok()


def own_errors(gateway: Side) -> None:
    reply = gateway.post("/shout", TOO_LARGE)
    same((reply.status, type(reply.document["error"])), (413, str))


def gzipped(gateway: Side) -> None:
    gateway.post("/shout", *zipped({"text": "a"})).ok()


report(
    {"JSON inference": infer, "its own client": client, "streams": streamed,
     "images, files, text": files, "errors of the server": bad, "text of a 500": failure,
     "health": health, "HEAD": head},
    {"path prefix": prefixed, "errors of the gateway": own_errors, "gzip": gzipped},
)  # fmt: skip
