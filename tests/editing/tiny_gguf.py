"""A small random Llama in a GGUF file, as the package gguf writes it."""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, quants
from tokenizers.pre_tokenizers import ByteLevel

WIDTH, INNER, BLOCKS, HEADS, KV_HEADS = 64, 96, 2, 4, 2
MERGES = ["t h", "th e", "Ġ the", "i n", "Ġ in"]


def write_gguf(path: Path, *, add_bos: bool = False, seed: int = 0) -> Path:
    """Write a model of 2 blocks × 64 with 4-bit weights, whose vocabulary is bytes and a few merges."""
    tokens = ["<|endoftext|>", *sorted(ByteLevel.alphabet()), *(pair.replace(" ", "") for pair in MERGES)]
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(BLOCKS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * (len(tokens) - 1))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(add_bos)
    random = np.random.default_rng(seed)

    def add(name: str, *shape: int) -> None:
        values = random.normal(0, 0.2, shape).astype(np.float32)
        kind = GGMLQuantizationType.Q4_1
        writer.add_tensor(name, quants.quantize(values, kind), raw_dtype=kind)

    def add_norm(name: str) -> None:
        writer.add_tensor(name, random.normal(1, 0.1, WIDTH).astype(np.float32))

    add("token_embd.weight", len(tokens), WIDTH)
    add_norm("output_norm.weight")
    for block in range(BLOCKS):
        add_norm(f"blk.{block}.attn_norm.weight")
        add_norm(f"blk.{block}.ffn_norm.weight")
        add(f"blk.{block}.attn_q.weight", WIDTH, WIDTH)
        for name in ("attn_k", "attn_v"):
            add(f"blk.{block}.{name}.weight", WIDTH * KV_HEADS // HEADS, WIDTH)
        add(f"blk.{block}.attn_output.weight", WIDTH, WIDTH)
        for name in ("ffn_gate", "ffn_up"):
            add(f"blk.{block}.{name}.weight", INNER, WIDTH)
        add(f"blk.{block}.ffn_down.weight", WIDTH, INNER)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
