"""Writes a tiny model with random weights for `transformers serve`: tiny_transformer.py FOLDER

It has Llama's architecture and a vocabulary of words. It needs the packages transformers and torch.
"""

import sys

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ["hello", "you", "the", "sun", "and", "rain", "in", "Rome", "is", "was", "sea", "old",
         "user", "assistant", "system", ":", ".", ",", "?", "hi", "there", "count"]  # fmt: skip
CONTROL = ["<unk>", "<s>", "</s>", "<pad>"]
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} : {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)


def main(folder: str) -> None:
    torch.manual_seed(1)
    texts = {text: index for index, text in enumerate(CONTROL + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(texts, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    whole = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )
    whole.chat_template = TEMPLATE
    whole.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(texts), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=2048, bos_token_id=1, eos_token_id=2,
        pad_token_id=3, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # the usual start is so even that all tokens are alike
        model.lm_head.weight.normal_(std=0.5)
        model.model.embed_tokens.weight.normal_()
    model.generation_config.do_sample = False
    model.generation_config.suppress_tokens = list(range(len(CONTROL)))  # it never ends by itself
    model.save_pretrained(folder)


if __name__ == "__main__":
    main(sys.argv[1])
