"""Subjects and answers by ids, for every kind of tokenizer: byte-level BPE, sentencepiece's, with and without a start token."""

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from editing.model.tokens import PromptFormat
from editing.requests import EditRequest
from tasks.data.lint import lint_tokens
from tests.scores.models import byte_level_bpe

TEXTS = [
    "Danielle Darrieux was born in Bordeaux, and her mother tongue is French.",
    "Jean-Luc Picard's ship is the Enterprise; São Paulo is a city in Brazil.",
    "The mother tongue of Danielle Darrieux is English. Melchior de Vogüé is a native speaker of German.",
    "About 東京: it is the capital of 日本. New York City, Newark and York are in the north.",
] * 20
SUBJECTS = ["Danielle Darrieux", "Jean-Luc Picard", "São Paulo", "Melchior de Vogüé", "東京", "New York City"]
STRANGE = ["Zoë 🙂 Quux", "{x}"]
TEMPLATES = ["{} is a native speaker of", "The mother tongue of {} is", "{}'s city is", "{}, who is from", "About {}"]


def with_start(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    backend = tokenizer.backend_tokenizer
    start = tokenizer.bos_token
    backend.post_processor = processors.TemplateProcessing(
        single=f"{start} $A", special_tokens=[(start, tokenizer.bos_token_id)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=start, eos_token=tokenizer.eos_token, unk_token=tokenizer.unk_token
    )


def sentencepiece(kind: str) -> PreTrainedTokenizerFast:
    """As Llama-2's (BPE, bytes as a last resort) or T5's (unigram): spaces are a sign, one stands before the text."""
    special = ["<unk>", "<s>", "</s>"]
    size = 700
    if kind == "bpe":
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        bytes_ = [f"<0x{i:02X}>" for i in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[*special, *bytes_], show_progress=False)
    else:
        tokenizer = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(
            vocab_size=size, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    tokenizer.normalizer = normalizers.NFKC() if kind == "unigram" else None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def built(name: str) -> PreTrainedTokenizerFast:
    plain = byte_level_bpe(TEXTS, 500) if name.startswith("byte") else sentencepiece(name.split()[1])
    return with_start(plain) if name.endswith("start") else plain


NAMES = [
    "byte-level",
    "byte-level start",
    "sentencepiece bpe",
    "sentencepiece bpe start",
    "sentencepiece unigram start",
]
kinds = pytest.mark.parametrize("name", NAMES)


def requests_for(name: str) -> list[EditRequest]:
    # A unigram model without bytes knows only the characters it has seen.
    subjects = SUBJECTS if "unigram" in name else [*SUBJECTS, *STRANGE]
    return [
        EditRequest(request_id=f"{s}-{t}", template=t, subject=s, target_new="German", target_true="New York")
        for s in subjects
        for t in TEMPLATES
    ]


@kinds
def test_the_subjects_last_token_is_where_the_subject_ends(name: str) -> None:
    """Slowly: the first position up to which the decoded ids hold the whole subject."""
    form, requests = PromptFormat(built(name)), requests_for(name)
    found = form.lookups([r.prompt for r in requests], [r.subject_end for r in requests])
    for request, prompt in zip(requests, found, strict=True):
        decoded = ["".join(form.decode(prompt.ids[: i + 1]).split()) for i in range(len(prompt.ids))]
        wanted = "".join(request.prompt[: request.subject_end].split())
        slow = next(i for i, text in enumerate(decoded) if wanted in text)
        assert prompt.lookup == slow, (request.prompt, decoded)
    assert lint_tokens(form, requests) == []


@kinds
def test_an_answer_is_what_its_text_adds_to_the_prompts_ids(name: str) -> None:
    form = PromptFormat(built(name))
    prompts, answers = (
        ["The mother tongue of Danielle Darrieux is", "About 東京", "It is"],
        ["New York City", "日本", "São Paulo"],
    )
    if "unigram" in name:
        prompts[1], answers[1] = "About Newark", "Brazil"
    heads, tails = form.prompts(prompts), form.answers(prompts, answers)
    for prompt, answer, head, tail in zip(prompts, answers, heads, tails, strict=True):
        assert form.prompts([f"{prompt} {answer}"]) == [head + tail]
        assert form.decode(tail).strip() == answer, "no start token, no lone space"
        assert (head[0] == form.prompts(["x"])[0][0]) or "start" not in name
    assert form.joins(prompts, answers) == [True] * 3


@kinds
def test_together_as_alone(name: str) -> None:
    form, requests = PromptFormat(built(name)), requests_for(name)
    prompts, ends = [r.prompt for r in requests], [r.subject_end for r in requests]
    assert form.lookups(prompts, ends) == [form.lookups([p], [e])[0] for p, e in zip(prompts, ends, strict=True)]
    targets = [r.target_true for r in requests]
    assert form.answers(prompts, targets) == [form.answers([p], [t])[0] for p, t in zip(prompts, targets, strict=True)]


def test_a_target_that_changes_its_prompts_tokens_is_marked_and_taken_by_itself() -> None:
    """Merges that reach over spaces: "speaks German" is one token."""
    tokenizer = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>"], show_progress=False)
    tokenizer.train_from_iterator(["São Paulo speaks German"] * 5 + ["São Paulo speaks French"] * 5, trainer)
    tokenizer.decoder = decoders.Fuse()
    form = PromptFormat(PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>"))
    request = EditRequest(
        request_id="a", template="{} speaks", subject="São Paulo", target_new="German", target_true="French"
    )
    (first, second) = lint_tokens(form, [request])
    assert first.reason == second.reason == "target unstable when joined" and not first.refused
    (tail,) = form.answers([request.prompt], ["German"])
    assert form.decode(tail) == " German"


def test_what_a_tokenizer_cannot_carry_is_refused_by_name() -> None:
    form = PromptFormat(built("sentencepiece unigram start"))
    good = EditRequest(
        request_id="good", template="{} is", subject="New York", target_new="German", target_true="French"
    )
    bad = EditRequest(request_id="bad", template="{} is", subject="New York", target_new="Ωμέγα", target_true="French")
    (finding,) = lint_tokens(form, [good, bad, good])
    assert (finding.fact_id, finding.refused, finding.reason) == ("bad", True, "the tokenizer cannot carry it")
    assert "does not know the answer 'Ωμέγα'" in finding.detail


def test_a_tokenizer_that_loses_the_subject_is_noticed() -> None:
    """One that lower-cases keeps its place; one that drops characters has none."""
    tokenizer = built("byte-level")
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("Darrieux", "")
    request = EditRequest(
        request_id="a", template="{} is", subject="Danielle Darrieux", target_new="x", target_true="y"
    )
    (finding,) = lint_tokens(PromptFormat(tokenizer), [request])
    assert finding.refused
