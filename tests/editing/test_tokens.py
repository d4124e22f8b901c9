"""Where subjects end and what answers are, decoded back, for ten kinds of tokenizer and texts in eight scripts."""

import sys
import unicodedata
from typing import NamedTuple

import pytest

from editing.errors import TokenizationError
from editing.model.tokens import PromptFormat
from tests.editing.tokenizer_kinds import END, KINDS, START, bare, cases, joins, tokenizer_of


class Tally(NamedTuple):
    """What was checked of one kind of tokenizer."""

    checked: int
    refused: int
    wrong: tuple[str, ...]


def check_positions(form: PromptFormat) -> Tally:
    """Look whether the subject's last token holds its last character, and not more of it stands before."""
    checked, refused, wrong = 0, 0, []
    for case in cases():
        try:
            (found,) = form.lookups([case.prompt], [case.end])
        except TokenizationError:
            refused += 1
            continue
        checked += 1
        up_to, before = _text(form, found.ids[: found.lookup + 1]), _text(form, found.ids[: found.lookup])
        wanted = bare(case.prompt[: case.end])
        if not up_to.startswith(wanted) or before.startswith(wanted) or found.ids[-1] in _specials(form):
            wrong.append(f"{case.prompt!r}: {up_to!r}")
    return Tally(checked, refused, tuple(wrong))


def check_answers(form: PromptFormat) -> Tally:
    """Look whether prompt and answer together say both, letter by letter."""
    checked, refused, wrong = 0, 0, []
    for case in cases():
        try:
            (head,), (tail,) = form.prompts([case.prompt]), form.answers([case.prompt], [case.answer])
        except TokenizationError:
            refused += 1
            continue
        checked += 1
        ended = {form._tokenizer.eos_token_id} & {*head, *tail}
        if _text(form, head + tail) != bare(f"{case.prompt} {case.answer}") or not tail or ended:
            wrong.append(f"{case.prompt!r} {case.answer!r}: {form.decode(head + tail)!r}")
    return Tally(checked, refused, tuple(wrong))


def check_joins(form: PromptFormat) -> Tally:
    """Look whether what follows a text cut anywhere has tokens, and says it letter by letter."""
    checked, refused, wrong = 0, 0, []
    for head, tail in joins():
        try:
            before, after = form.continuation(head, tail)
        except TokenizationError:
            refused += 1
            continue
        checked += 1
        ended = {form._tokenizer.eos_token_id} & {*before, *after}
        if not after or ended or not _says(form, before, after, head, tail):
            wrong.append(f"{head!r} {tail!r}: {form.decode(before)!r} {form.decode(after)!r}")
    return Tally(checked, refused, tuple(wrong))


def _says(form: PromptFormat, before: tuple[int, ...], after: tuple[int, ...], head: str, tail: str) -> bool:
    whole, wanted = form.decode(before + after), head + tail
    for token in (START, END):
        whole = whole.replace(token, "")
    return " ".join(_composed(whole).split()) == " ".join(_composed(wanted).split())


def _composed(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _text(form: PromptFormat, ids: tuple[int, ...]) -> str:
    return bare(form.decode(ids).replace(START, "").replace(END, ""))


def _specials(form: PromptFormat) -> set[int]:
    tokenizer = form._tokenizer
    return {tokenizer.bos_token_id, tokenizer.eos_token_id}


CHECKS = {"positions": check_positions, "answers": check_answers, "joins": check_joins}


@pytest.mark.parametrize("what", CHECKS)
@pytest.mark.parametrize("kind", KINDS)
def test_decoded_back(kind: str, what: str) -> None:
    tally = CHECKS[what](PromptFormat(tokenizer_of(kind)))
    assert not tally.wrong, tally.wrong[:5]
    assert tally.refused == 0
    assert tally.checked > 50


def table() -> None:
    """Write how many were checked, refused and wrong of each kind: ``python -m tests.editing.test_tokens``."""
    sys.stdout.write(f"{'kind':24}" + "".join(f"{name + ' checked / refused / wrong':>36}" for name in CHECKS) + "\n")
    for kind in KINDS:
        row = ""
        for check in CHECKS.values():
            tally = check(PromptFormat(tokenizer_of(kind)))
            row += f"{f'{tally.checked} / {tally.refused} / {len(tally.wrong)}':>36}"
        sys.stdout.write(f"{kind:24}{row}\n")


if __name__ == "__main__":
    table()
