"""A BentoML service: serve_bentoml.py PORT FOLDER."""

import os
import sys
from pathlib import Path

SERVICE = """
from collections.abc import Generator
from pathlib import Path
from typing import Annotated

import bentoml
import numpy as np
from bentoml.validators import ContentType


@bentoml.service
class Small:
    @bentoml.api
    def classify(self, rows: np.ndarray) -> np.ndarray:
        return rows.sum(axis=1)

    @bentoml.api
    def shout(self, text: str) -> str:
        if text == "fail":
            raise RuntimeError("the model fell over")
        return text.upper()

    @bentoml.api
    def words(self, text: str) -> Generator[str, None, None]:
        yield from text.split()

    @bentoml.api
    def copy(self, image: Path) -> Annotated[Path, ContentType("image/png")]:
        return image
"""


def main(port: str, folder: Path) -> None:
    (folder / "service.py").write_text(SERVICE)
    os.chdir(folder)
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    serve = ["serve", "service:Small", "--host", "127.0.0.1", "--port", port]
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", *serve])


main(sys.argv[1], Path(sys.argv[2]))
