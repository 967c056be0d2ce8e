"""A FastAPI application as people write them before their models."""

from fastapi import FastAPI, File, HTTPException, Request, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from pydantic import BaseModel

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
app = FastAPI()


class Item(BaseModel):
    features: list[float]


@app.get("/health")
@app.head("/health")
def health():
    return {"status": "ok"}


@app.post("/predict")
def predict(item: Item):
    if item.features and item.features[0] == 666:
        return PlainTextResponse("the model fell over", 500)
    return {"prediction": [sum(item.features)]}


@app.post("/image")
async def image(file: UploadFile = File()):  # noqa: B008
    return {"label": "cat", "name": file.filename, "bytes": len(await file.read())}


@app.post("/bytes")
async def raw(request: Request):
    kind = request.headers.get("content-type")
    return {"label": "cat", "bytes": len(await request.body()), "type": kind}


@app.post("/empty/{kind}")
def empty(kind: str):
    return {"list": [], "text": {"result": ""}, "null": {"label": None, "confidence": 0.9}}[kind]


@app.post("/strict")
def strict():
    raise HTTPException(415, "send image/png")


@app.post("/nan")
def nan():
    return Response('{"prediction": 1, "spread": NaN}', media_type="application/json")


@app.post("/png")
def png():
    return Response(PNG, media_type="image/png")


@app.post("/text")
def text():
    return PlainTextResponse("setosa")


@app.post("/csv")
def csv():
    return PlainTextResponse("0.12,0.88\n", media_type="text/csv")


@app.post("/events")
def events():
    lines = (f'data: {{"token": {at}}}\n\n' for at in range(3))
    return StreamingResponse(lines, media_type="text/event-stream")


@app.get("/query")
def query(q: str = ""):
    return {"label": len(q)}


@app.post("/embed")
async def embed(request: Request):
    """Answer as TEI does: a vector for each text, and its own shape of errors."""
    inputs = (await request.json()).get("inputs")
    if not inputs:
        error = {"error": "`inputs` cannot be empty", "error_type": "Empty"}
        return JSONResponse(error, 422)
    return [[0.1, 0.2, 0.3] for _ in inputs]


@app.get("/info")
def info():
    return {"model_id": "tiny", "max_client_batch_size": 32}


@app.get("/ping")
def ping():
    return Response("\n", media_type="application/json")


@app.post("/invocations")
async def invocations(request: Request):
    return PlainTextResponse(await request.body(), media_type="text/csv")
