"""Ten kinds of tokenizer that published models have, each trained on a few lines, and texts in eight scripts."""

import random
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

END, START, UNKNOWN = "<|end|>", "<s>", "<unk>"
SUBJECTS = {
    "Latin": ("Rome", "São Tomé", "the Äußere Ring", "O'Neill", "St. Louis", "R2-D2 3000", "ﬁnal ½"),
    "Greek": ("Αθήνα", "Άγιος Νικόλαος"),
    "Cyrillic": ("Москва", "Лев Толстой"),
    "Hebrew": ("ירושלים", "תל אביב"),
    "Arabic": ("القاهرة", "نجيب محفوظ"),
    "Devanagari": ("दिल्ली", "महात्मा गांधी"),
    "Han": ("北京", "東京タワー"),
    "Hangul": ("서울", "부산 광역시"),
}
TEMPLATES = (
    "{} is in",
    "The city of {} is in",
    "Where is {}",
    "{}'s name is",
    "We saw {}, which is in",
    "In {}。",
    "({}) of",
)
ANSWERS = tuple(name for names in SUBJECTS.values() for name in names[:2])
_NORMAL = "é is written e\u0301, and Å is \u212b."
CORPUS = [
    template.format(name) + " " + answer
    for template in TEMPLATES
    for names in SUBJECTS.values()
    for name in names
    for answer in ANSWERS[::3]
] + ["homet hometown own town hometowns", "1 22 333 4,444 R2-D2 2024-07-26", _NORMAL]


def _byte_level(*, prefix_space: bool = False, digits: bool = False, form: str | None = None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level]) if digits else byte_level
    )
    if form is not None:
        tokenizer.normalizer = {"NFC": normalizers.NFC, "NFKC": normalizers.NFKC}[form]()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=[END, START],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _byte_fallback() -> Tokenizer:
    """Return what sentencepiece's BPE of Llama 2 and Mistral becomes: spaces as a character, bytes for what is unknown."""
    trained = Tokenizer(models.BPE(unk_token=UNKNOWN))
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=[UNKNOWN, END, START], show_progress=False)
    trained.train_from_iterator([text for text in CORPUS if text.isascii()], trainer)
    vocab = trained.get_vocab()
    merges = [tuple(pair) for pair in _merges(trained)]
    for byte in range(256):
        vocab.setdefault(f"<0x{byte:02X}>", len(vocab))
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token=UNKNOWN, byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = trained.normalizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def _merges(tokenizer: Tokenizer) -> list[list[str]]:
    import json

    found: list[list[str]] = json.loads(tokenizer.to_str())["model"]["merges"]
    return found


def _unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.UnigramTrainer(
        vocab_size=700, special_tokens=[UNKNOWN, END, START], unk_token=UNKNOWN, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _surrounded(tokenizer: Tokenizer, single: str) -> Tokenizer:
    special = [(token, tokenizer.token_to_id(token)) for token in (START, END) if token in single]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
    return tokenizer


def _with_added() -> Tokenizer:
    tokenizer = _byte_level()
    tokenizer.add_tokens([AddedToken("Rome"), AddedToken("town is"), AddedToken("北京", normalized=False)])
    tokenizer.add_special_tokens([AddedToken("<|user|>", special=True)])
    return tokenizer


def _extended() -> Tokenizer:
    """Return a vocabulary that was extended by whole words with their spaces, as continued pre-training on a language does."""
    tokenizer = _byte_level()
    words = [" Москва", " Αθήνα", "서울", "ירושלים", "hometown"]
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words])
    return tokenizer


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": _byte_level,
    "BPE with byte fallback": _byte_fallback,
    "unigram": _unigram,
    "prefix space": lambda: _byte_level(prefix_space=True),
    "digits apart": lambda: _byte_level(digits=True),
    "start in front": lambda: _surrounded(_byte_level(), f"{START} $A"),
    "end behind": lambda: _surrounded(_byte_level(), f"$A {END}"),
    "NFC and NFKC": lambda: _byte_level(form="NFKC"),
    "added tokens": _with_added,
    "extended vocabulary": _extended,
}


@cache
def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    backend = KINDS[kind]()
    unknown = {"unk_token": UNKNOWN} if backend.token_to_id(UNKNOWN) is not None else {}
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=START, eos_token=END, pad_token=END, **unknown)


class Case(NamedTuple):
    """A prompt with its subject, and an answer."""

    script: str
    prompt: str
    start: int
    """Of the subject in the prompt."""
    end: int
    answer: str


def cases() -> Iterator[Case]:
    """Yield each subject in each template, with answers in turn."""
    answers = random.Random(0).sample(ANSWERS, len(ANSWERS))
    for number, (script, name, template) in enumerate(
        (script, name, template) for script, names in SUBJECTS.items() for name in names for template in TEMPLATES
    ):
        start = template.index("{}")
        yield Case(script, template.format(name), start, start + len(name), answers[number % len(answers)])


def joins() -> Iterator[tuple[str, str]]:
    """Yield texts cut anywhere: a prompt and what follows it letter by letter."""
    for text in (
        "The hometown of Rome",
        "Москва is in Αθήνα",
        "東京タワー 서울",
        "R2-D2 3000, ½",
        "town is own",
        "O'Neill's",
    ):
        for at in range(1, len(text)):
            yield text[:at], text[at:]


def bare(text: str) -> str:
    """Return a text without what a tokenizer may change: spaces, and how its characters are composed."""
    return "".join(unicodedata.normalize("NFKC", text).split())
