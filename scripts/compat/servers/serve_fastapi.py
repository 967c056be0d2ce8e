"""FastAPI under uvicorn: serve_fastapi.py PORT FOLDER."""

import sys

import uvicorn
from application import app

uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
