"""LitServe, whose generated client posts JSON to /predict."""

from sides import TOO_LARGE, Side, form, report, same, zipped


def infer(side: Side) -> object:
    return side.post("/predict", {"input": [1, 2]}).ok().seen


def bad(side: Side) -> object:
    """404, 405, and bodies that it cannot read."""
    return [side.post("/nowhere", {}).refused(404), side.call("PUT", "/predict").refused(405),
            side.post("/predict", b"{", {"content-type": "application/json"}).seen,
            side.post("/predict", *form("a.png", b"x")).status]  # fmt: skip


def failure(side: Side) -> object:
    return side.post("/predict", {"input": [666]}).refused(500)


def health(side: Side) -> object:
    return [side.call("GET", path).ok().seen for path in ("/health", "/openapi.json", "/docs")]


def head(side: Side) -> object:
    return side.call("HEAD", "/health").status


def gzipped(gateway: Side) -> None:
    gateway.post("/predict", *zipped({"input": [1]})).ok()


def prefixed(gateway: Side) -> None:
    gateway.post("/ns/predict", {"input": [1]}).ok()


def own_errors(gateway: Side) -> None:
    same(gateway.post("/predict", TOO_LARGE).status, 413)


report(
    {"JSON inference": infer, "errors of the server": bad, "text of a 500": failure,
     "health": health, "HEAD": head},
    {"path prefix": prefixed, "errors of the gateway": own_errors, "gzip": gzipped},
)  # fmt: skip
