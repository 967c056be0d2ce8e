"""A static model of embeddings that knows three words."""

import json
import struct
from pathlib import Path

import numpy as np
import tokenizers

from tollway.gateway.features.embedding import NUMBERS


def model(folder: Path, numbers: int = NUMBERS, kind: str = "F32") -> Path:
    """Write a static model of three words."""
    words = {"red": 0, "blue": 1, "[UNK]": 2}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(folder / "tokenizer.json"))
    table = np.zeros((3, numbers), dtype="<f4" if kind == "F32" else "<f2")
    table[0, 0] = table[1, 1] = table[2, 2] = 1.0
    told = {"dtype": kind, "shape": list(table.shape), "data_offsets": [0, table.nbytes]}
    head = json.dumps({"__metadata__": {}, "embedding.weight": told}).encode()
    data = struct.pack("<Q", len(head)) + head + table.tobytes()
    (folder / "model.safetensors").write_bytes(data)
    return folder
