"""MLflow's own scoring client, and the bodies that its documentation shows."""

import pandas as pd
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from sides import TOO_LARGE, Side, raised, report, same, within, zipped

INVOKE = "/invocations"
COLUMNS, ROW = ["a", "b", "c"], [1.5, 2.5, 3.0]
SPLIT = {"dataframe_split": {"columns": COLUMNS, "data": [ROW]}}


def bodies(side: Side) -> object:
    """Every form of JSON."""
    given = (
        SPLIT,
        {"dataframe_records": [dict(zip(COLUMNS, ROW, strict=True))]},
        {"instances": [ROW, ROW]},
        {"inputs": [ROW]},
        {"signature_name": "serving_default", "instances": [ROW]},
        {"dataframe_split": {"columns": COLUMNS, "data": [ROW] * 3}},
    )
    return [side.post(INVOKE, one).ok().seen for one in given]


def client(side: Side) -> object:
    host, port = side.address.split(":")
    asked = ScoringServerClient(host, int(port))
    asked.ping()
    frame = pd.DataFrame([ROW], columns=COLUMNS)
    return asked.get_version(), asked.invoke(frame).get_predictions().to_dict()


def nulls(side: Side) -> object:
    given = ([1.5, None, 3.0], [1.5, float("nan"), 3.0])
    said = [side.post(INVOKE, {"dataframe_split": {"columns": COLUMNS, "data": [row]}})
            for row in given]  # fmt: skip
    said += [side.post(INVOKE, {"inputs": [ROW], "params": {"mode": mode}})
             for mode in ("nan", "labels")]  # fmt: skip
    return [one.ok().seen for one in said]


def csv(side: Side) -> object:
    return side.post(INVOKE, b"a,b,c\n1.5,2.5,3\n", {"content-type": "text/csv"}).ok().seen


def chat(side: Side) -> object:
    return side.post(INVOKE, {"messages": [{"role": "user", "content": "hi"}]}).ok().seen


def bad(side: Side) -> object:
    """Two keys, no key, no JSON, a type that it does not take; and the client's exception."""
    frame = pd.DataFrame([["x"]], columns=["a"])
    host, port = side.address.split(":")
    wrong = raised(lambda: ScoringServerClient(host, int(port)).invoke(frame))
    return [
        side.post(INVOKE, {"inputs": [1], "instances": [1]}).refused(400),
        side.post(INVOKE, {"rows": 1}).refused(400),
        side.post(INVOKE, b"{", {"content-type": "application/json"}).refused(400),
        side.post(INVOKE, b"<a/>", {"content-type": "text/xml"}).refused(415),
        type(wrong).__name__,
    ]


def failure(side: Side) -> object:
    return side.post(INVOKE, {"inputs": [ROW], "params": {"mode": "fail"}}).seen


def health(side: Side) -> object:
    return [side.call("GET", path).ok().seen for path in ("/ping", "/health", "/version")]


def head(side: Side) -> object:
    """Return the statuses of HEAD, and of a method that the path does not have."""
    return [side.call(method, "/ping").status for method in ("HEAD", "POST")]


def prefixed(gateway: Side) -> None:
    gateway.post("/ns/invocations", SPLIT).ok()
    for path in ("/ns/ping", "/ns/version"):
        gateway.call("GET", path).ok()


def own_errors(gateway: Side) -> None:
    """The gateway's own refusals have MLflow's members."""
    reply = gateway.post(INVOKE, TOO_LARGE)
    same(reply.status, 413)
    same(type(reply.document["error_code"]), str)
    within("body", reply.document["message"])
    same(gateway.post("/nowhere", SPLIT).status, 404)


def gzipped(gateway: Side) -> None:
    """MLflow itself refuses it."""
    gateway.post(INVOKE, *zipped(SPLIT)).ok()


report(
    {"JSON inference": bodies, "its own client": client, "null and NaN": nulls,
     "errors of the server": bad, "text of a 500": failure, "csv": csv, "chat messages": chat,
     "health": health, "HEAD": head},
    {"path prefix": prefixed, "errors of the gateway": own_errors, "gzip": gzipped},
)  # fmt: skip
