"""Features of the FastAPI application, under whichever server; see application.py."""

import json

from sides import JSON, TOO_LARGE, Side, form, report, same, within, zipped

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


def infer(side: Side) -> object:
    said = side.post("/predict", {"features": [1, 2]}).ok().seen
    return said, side.call("GET", "/query?q=h%C3%A9").ok().seen


def nulls(side: Side) -> object:
    """NaN both ways, and answers that are empty."""
    paths = ("/nan", "/empty/list", "/empty/text", "/empty/null")
    return [side.post(path, {"x": float("nan")}).ok().seen for path in paths]


def files(side: Side) -> object:
    """A form, raw bytes, url-encoded fields, an image, a text."""
    kinds = ("application/octet-stream", "application/x-www-form-urlencoded", "image/png")
    said = [side.post("/bytes", PNG, {"content-type": kind}).ok().seen for kind in kinds]
    said.append(side.post("/image", *form("cat.png", PNG)).ok().seen)
    said += [side.post(path, {}).ok().seen for path in ("/png", "/text")]
    return [*said, side.post("/bytes", b"").ok().seen[2].partition(',"type"')[0]]


def csv(side: Side) -> object:
    kind = {"content-type": "text/csv"}
    return side.post("/bytes", b"1,2\n", kind).ok().seen, side.post("/csv", b"1\n", kind).ok().seen


def streamed(side: Side) -> object:
    return side.post("/events", {}).ok().seen


def bad(side: Side) -> object:
    """404, 405, 415 and 422, in the server's words."""
    return [
        side.post("/nowhere", {}).refused(404),
        side.call("DELETE", "/predict").refused(405),
        side.post("/strict", {}).refused(415),
        side.post("/predict", {"x": 1}).refused(422),
        side.post("/predict", b"{", JSON).refused(422),
    ]


def failure(side: Side) -> object:
    said = side.post("/predict", {"features": [666]}).refused(500)
    within("the model fell over", said)
    return said


def health(side: Side) -> object:
    paths = ("/health", "/ping", "/info", "/openapi.json", "/docs")
    return [side.call("GET", path).ok().seen for path in paths]


def head(side: Side) -> object:
    reply = side.call("HEAD", "/health").ok()
    return reply.body, reply.headers["content-length"]


def gzipped(gateway: Side) -> None:
    """The application itself does not decode it."""
    gateway.post("/predict", *zipped({"features": [1]})).ok()


def embedded(side: Side) -> object:
    """The vectors and errors of TEI, through its preset."""
    base = "/tei" if side.is_gateway else ""
    texts = {"inputs": ["a", "b"]}
    return [side.post(f"{base}/embed", texts).ok().seen, side.call("GET", f"{base}/info").ok().seen,
            side.post(f"{base}/embed", {"inputs": []}).refused(422)]  # fmt: skip


def invoked(side: Side) -> object:
    """A container of SageMaker, through its preset: any path of the gateway is /invocations."""
    path = "/sagemaker" if side.is_gateway else "/invocations"
    return side.post(path, b"1,2\n", {"content-type": "text/csv"}).ok().seen


def prefixed(gateway: Side) -> None:
    gateway.post("/ns/predict", {"features": [1]}).ok()
    gateway.call("GET", "/ns/health").ok()


def own_errors(gateway: Side) -> None:
    """In the shape that the preset has."""
    same(gateway.post("/predict", TOO_LARGE).status, 413)
    told = json.loads(gateway.post("/tei/embed", TOO_LARGE).body)
    same((type(told["error"]), type(told["error_type"])), (str, str))


def asked() -> None:
    report(
        {"JSON inference": infer, "null and NaN": nulls, "errors of the server": bad,
         "text of a 500": failure, "streams": streamed, "csv": csv, "images, files, text": files,
         "health": health, "HEAD": head, "TEI's preset": embedded, "SageMaker's preset": invoked},
        {"path prefix": prefixed, "errors of the gateway": own_errors, "gzip": gzipped},
    )  # fmt: skip
