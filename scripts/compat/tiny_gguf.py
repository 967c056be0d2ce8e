"""Writes a tiny model with random weights for llama-server: tiny_gguf.py FILE

It has Llama's architecture and a vocabulary of bytes and some words. It needs the package gguf.
"""

import sys

import gguf
import numpy as np

CONTEXT, WIDTH, HEADS, LAYERS, FEED_FORWARD = 8192, 64, 4, 2, 128
WORDS = ["hello", "you", "the", "sun", "and", "rain", "in", "Rome", "is", "was", "sea", "old"]
CONTROL = ["<unk>", "<s>", "</s>"]
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
UNSAID = -8.0  # the logit, about, of tokens that are no readable text: 2 is a usual one


def vocabulary() -> tuple[list[str], list[int]]:
    """Return the texts of the tokens, and their types."""
    kind = gguf.TokenType
    words = [space + word for word in WORDS for space in ("▁", "")]
    letters = [chr(code) for code in range(33, 127)] + ["▁"]
    texts = CONTROL + [f"<0x{byte:02X}>" for byte in range(256)] + words + letters
    types = [kind.UNKNOWN, kind.CONTROL, kind.CONTROL] + [kind.BYTE] * 256
    return texts, types + [kind.NORMAL] * (len(texts) - len(types))


def main(path: str) -> None:
    rng = np.random.default_rng(1)
    texts, types = vocabulary()

    def weights(rows: int, columns: int) -> np.ndarray:
        drawn = rng.standard_normal((rows, columns)) / np.sqrt(columns)
        return drawn.astype(np.float32)

    out = gguf.GGUFWriter(path, "llama")
    out.add_name("tiny random")
    out.add_context_length(CONTEXT)
    out.add_embedding_length(WIDTH)
    out.add_block_count(LAYERS)
    out.add_feed_forward_length(FEED_FORWARD)
    out.add_head_count(HEADS)
    out.add_head_count_kv(HEADS)
    out.add_rope_dimension_count(WIDTH // HEADS)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(len(texts))
    out.add_file_type(gguf.LlamaFileType.ALL_F32)
    out.add_tokenizer_model("llama")
    out.add_token_list(texts)
    out.add_token_scores([-float(rank) for rank in range(len(texts))])
    out.add_token_types(types)
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_unk_token_id(0)
    out.add_chat_template(TEMPLATE)
    tokens, head = weights(len(texts), WIDTH) * 8, weights(len(texts), WIDTH) * 2
    tokens[:, 0] = 8.0  # one dimension is always there: by it a token is made unlikely
    head[:, 0] = 0.0
    head[[index for index, kind in enumerate(types) if kind != gguf.TokenType.NORMAL], 0] = UNSAID
    out.add_tensor("token_embd.weight", tokens)
    out.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    out.add_tensor("output.weight", head)
    for layer in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            out.add_tensor(f"blk.{layer}.{name}.weight", np.ones(WIDTH, np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            out.add_tensor(f"blk.{layer}.{name}.weight", weights(WIDTH, WIDTH))
        for name in ("ffn_gate", "ffn_up"):
            out.add_tensor(f"blk.{layer}.{name}.weight", weights(FEED_FORWARD, WIDTH))
        out.add_tensor(f"blk.{layer}.ffn_down.weight", weights(WIDTH, FEED_FORWARD))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


if __name__ == "__main__":
    main(sys.argv[1])
