"""Language models of a few kilobytes with random weights, so that tests need no file from anywhere."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
WORDS = ("the", "and", "ing", "er", "on", "true", "false", "null", '":', '",', "{\\n", "ll", "hello")


def byte_letters() -> dict[int, str]:
    """The letter GPT-2's vocabulary writes for each byte: itself where it can be seen, else one from 256 on."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return {byte: chr(byte) for byte in seen} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


def vocabulary() -> tuple[list[str], list[str]]:
    """Pieces and merges: every byte, and whole words built letter by letter."""
    letters = byte_letters()
    pieces, merges = list(letters.values()), []
    for word in WORDS:
        written = "".join(letters[byte] for byte in word.encode())
        for end in range(2, len(written) + 1):
            if written[:end] not in pieces:
                pieces.append(written[:end])
                merges.append(f"{written[: end - 1]} {written[end - 1]}")
    return pieces, merges


def write_model(
    path: Path,
    *,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    context: int = 2048,
    feed_forward: int = 128,
    vocabulary_size: int | None = None,
    dtype: type[np.generic] = np.float32,
    template: str | None = CHATML,
    seed: int = 7,
    spread: float = 1.0,
) -> Path:
    """A llama of random weights with a byte-level vocabulary. `spread` scales the logits: more makes surer choices."""
    pieces, merges = vocabulary()
    tokens = pieces + list(SPECIAL)
    types = [gguf.TokenType.NORMAL] * len(pieces) + [gguf.TokenType.CONTROL] * len(SPECIAL)
    if vocabulary_size:
        tokens += [f"w{i}" for i in range(vocabulary_size - len(tokens))]
        types += [gguf.TokenType.NORMAL] * (vocabulary_size - len(types))
    end = len(pieces) + 2
    w = gguf.GGUFWriter(path, "llama")
    w.add_name("tiny")
    w.add_context_length(context)
    w.add_embedding_length(width)
    w.add_block_count(layers)
    w.add_feed_forward_length(feed_forward)
    w.add_head_count(heads)
    w.add_head_count_kv(heads)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(width // heads)
    w.add_vocab_size(len(tokens))
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(tokens)
    w.add_token_types(types)
    w.add_token_merges(merges)
    w.add_bos_token_id(len(pieces))
    w.add_eos_token_id(end)
    w.add_add_bos_token(False)
    if template is not None:
        w.add_chat_template(template)
    rng = np.random.default_rng(seed)

    def add(name: str, *shape: int, scale: float = 1.0) -> None:
        values = rng.standard_normal(shape, np.float32) * np.float32(scale / np.sqrt(shape[-1]))
        w.add_tensor(name, values.astype(dtype))

    add("token_embd.weight", len(tokens), width, scale=np.sqrt(width))
    for i in range(layers):
        for norm in ("attn_norm", "ffn_norm"):
            w.add_tensor(f"blk.{i}.{norm}.weight", np.ones(width, np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{i}.{name}.weight", width, width)
        for name in ("ffn_gate", "ffn_up"):
            add(f"blk.{i}.{name}.weight", feed_forward, width)
        add(f"blk.{i}.ffn_down.weight", width, feed_forward)
    w.add_tensor("output_norm.weight", np.ones(width, np.float32))
    add("output.weight", len(tokens), width, scale=2.0 * spread)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


def write_bert(path: Path, *, width: int = 32, context: int = 64) -> Path:
    """A BERT of one block and random weights that makes embeddings, pooled by its first token."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"\u2581{word}" for word in ("hello", "the", "and"))]
    w = gguf.GGUFWriter(path, "bert")
    w.add_name("tiny bert")
    w.add_context_length(context)
    w.add_embedding_length(width)
    w.add_block_count(1)
    w.add_feed_forward_length(2 * width)
    w.add_head_count(2)
    w.add_layer_norm_eps(1e-6)
    w.add_causal_attention(False)
    w.add_pooling_type(gguf.PoolingType.CLS)
    w.add_vocab_size(len(pieces))
    w.add_tokenizer_model("bert")
    w.add_token_list(pieces)
    w.add_token_types([gguf.TokenType.CONTROL] * 5 + [gguf.TokenType.NORMAL] * 3)
    w.add_token_type_count(2)
    for add, number in (
        (w.add_pad_token_id, 0),
        (w.add_unk_token_id, 1),
        (w.add_bos_token_id, 2),
        (w.add_sep_token_id, 3),
    ):
        add(number)
    rng = np.random.default_rng(3)

    def add_tensor(name: str, *shape: int) -> None:
        w.add_tensor(name, (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32))

    add_tensor("token_embd.weight", len(pieces), width)
    add_tensor("token_types.weight", 2, width)
    add_tensor("position_embd.weight", context, width)
    norms = ("token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm")
    for norm in norms:
        w.add_tensor(f"{norm}.weight", np.ones(width, np.float32))
        w.add_tensor(f"{norm}.bias", np.zeros(width, np.float32))
    shapes = {f"attn_{part}": (width, width) for part in ("q", "k", "v", "output")}
    for name, shape in (shapes | {"ffn_up": (2 * width, width), "ffn_down": (width, 2 * width)}).items():
        add_tensor(f"blk.0.{name}.weight", *shape)
        add_tensor(f"blk.0.{name}.bias", shape[0])
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path
