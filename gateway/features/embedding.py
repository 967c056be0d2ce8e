"""Embeds texts by a static model: the mean of its tokens' vectors, in this process.

A static model is a table of one vector for each token, distilled from a language model (wordllama,
model2vec). The mean of a text's vectors says what it is about in 64 numbers, without a network and
within a fraction of a millisecond. The vectors of wordllama are trained so that their first numbers
carry most (Matryoshka representation learning, Kusupati et al. 2022), so the first 64 are used.
"""

import json
import struct
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tollway.policies.types import EMBEDDING

NUMBERS = EMBEDDING
WORDLLAMA = "wordllama"
TOKENS_MAX = 512  # of these characters, in scripts with a token for each
CHARS_MAX = 2_048  # of a text, before it is split into tokens: that takes half a millisecond
MEMO_MAX = 4_096  # texts whose embeddings are cached, such as system prompts; 4 MB
SCALE = 2.0  # norm of an embedding: the order of the numbers beside it
_KINDS: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "F64": np.dtype("<f8"),
}
Vector = NDArray[np.float32]


class NoModel(ValueError):  # noqa: N818 - reads as what happened
    """A static model that cannot be loaded; the message says why."""


class StaticEmbedding:
    """Embeds texts."""

    # The mutable state is a cache of the latest embeddings.

    def __init__(self, tokenizer: Path, table: Path) -> None:
        """`tokenizer`: a file of the `tokenizers` library; `table`: a safetensors file.

        Raises NoModel if one cannot be used.
        """
        try:
            import tokenizers  # noqa: PLC0415 - an extra

            self._tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer))
        except ModuleNotFoundError as exc:
            raise NoModel("embeddings need the extra: pip install 'tollway[embeddings]'") from exc
        except Exception as exc:  # the library raises plain Exceptions
            raise NoModel(f"{tokenizer} is no tokenizer: {exc}") from exc
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(TOKENS_MAX)
        self._table = _vectors(table)[:, :NUMBERS].astype(np.float32)
        if self._table.shape[1] < NUMBERS:
            raise NoModel(f"{table} has {self._table.shape[1]} numbers a token, below {NUMBERS}")
        self._memo: dict[str, tuple[float, ...]] = {}

    def __call__(self, text: str) -> tuple[float, ...]:
        """Return the embedding of a text, with norm SCALE; zeros for a text without tokens."""
        head = text[:CHARS_MAX]
        known = self._memo.get(head)
        if known is None:
            if len(self._memo) >= MEMO_MAX:
                self._memo.clear()
            known = self._memo[head] = self._embed(head)
        return known

    def _embed(self, text: str) -> tuple[float, ...]:
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        ids = [token for token in ids if token < len(self._table)]
        if not ids:
            return (0.0,) * NUMBERS
        mean = self._table[ids].mean(axis=0)
        norm = float(np.sqrt(mean.dot(mean))) or 1.0
        return tuple((mean * (SCALE / norm)).round(5).tolist())


def load(name: str) -> StaticEmbedding:
    """Load `wordllama`, whose package has its weights, or a folder with a static model.

    The folder has `tokenizer.json` and one `*.safetensors`. Raises NoModel.
    """
    if name == WORDLLAMA:
        found = find_spec(WORDLLAMA)
        if found is None or not found.submodule_search_locations:
            raise NoModel("embeddings need the extra: pip install 'tollway[embeddings]'")
        folder = Path(found.submodule_search_locations[0])
        tokenizer = folder / "tokenizers" / "l2_supercat_tokenizer_config.json"
        return StaticEmbedding(tokenizer, folder / "weights" / "l2_supercat_256.safetensors")
    folder = Path(name)
    tables = sorted(folder.glob("*.safetensors"))
    if not (folder / "tokenizer.json").is_file() or len(tables) != 1:
        raise NoModel(f"{folder} must have tokenizer.json and one *.safetensors file")
    return StaticEmbedding(folder / "tokenizer.json", tables[0])


def _vectors(path: Path) -> NDArray[Any]:
    """Return the largest table of a safetensors file, tokens x numbers. Raises NoModel.

    The format: eight bytes of the length of a JSON head, the head, and the arrays.
    """
    try:
        data = path.read_bytes()
        (size,) = struct.unpack("<Q", data[:8])
        head = json.loads(data[8 : 8 + size])
        tables = {
            name: told
            for name, told in head.items()
            if name != "__metadata__" and len(told["shape"]) == 2
        }
        told = max(tables.values(), key=lambda one: one["shape"][0])
        start, end = told["data_offsets"]
        array = data[8 + size + start : 8 + size + end]
        flat: NDArray[Any] = np.frombuffer(array, dtype=_KINDS[told["dtype"]])
        return flat.reshape(told["shape"])
    except (OSError, ValueError, KeyError, TypeError, struct.error) as exc:
        raise NoModel(f"{path} is no table of vectors: {type(exc).__name__}: {exc}") from exc
