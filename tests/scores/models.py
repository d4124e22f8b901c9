"""Small models with a real vocabulary: byte-level BPE trained here on generated text, random weights."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from editing.factworld.world import World
from tests.scores.published import WRITERS

END = "<|endoftext|>"


def texts(root: Path) -> list[str]:
    """Sentences of the fact world, and all generated benchmark files: what a vocabulary of English, digits and signs needs."""
    for name, write in WRITERS.items():
        write(root / name, 24)
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.suffix != ".gz")
    return [*World().corpus(300), *(path.read_text(encoding="utf-8") for path in files)]


def byte_level_bpe(corpus: list[str], size: int = 1200) -> PreTrainedTokenizerFast:
    """As GPT-2's: bytes merged to words that begin with a space, no start-of-text token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=END)


def grown_lm(root: Path, *, context: int = 1024) -> Path:
    """Write a small random GPT-2 with such a vocabulary as an ordinary folder; return its path."""
    tokenizer = byte_level_bpe(texts(root / "texts"))
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=context,
        n_embd=48,
        n_layer=3,
        n_head=4,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(root / "model")
    tokenizer.save_pretrained(root / "model")
    return root / "model"
