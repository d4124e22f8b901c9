"""From text to token ids: prompts, answers, and where a subject ends.  All of it works on ids, never on string surgery."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from editing.errors import TokenizationError


class Rows(NamedTuple):
    """Padded token rows; right-padded unless :func:`align_rows` made them."""

    ids: Tensor
    """int64 [row, token]"""
    mask: Tensor
    """int64 [row, token], 1 at real tokens"""


class Prompt(NamedTuple):
    """A tokenised prompt and the position of its subject's last token."""

    ids: tuple[int, ...]
    lookup: int


def pad_rows(sequences: Sequence[Sequence[int]]) -> Rows:
    """Return the sequences as right-padded rows.  Padding is masked, so its id (0) never matters."""
    width = max(len(sequence) for sequence in sequences)
    ids = torch.zeros(len(sequences), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence, dtype=torch.int64)
        mask[row, : len(sequence)] = 1
    return Rows(ids, mask)


def align_rows(sequences: Sequence[Sequence[int]], at: Sequence[int]) -> tuple[Rows, int]:
    """Return the sequences as rows, padded on both sides so that position ``at`` of each is in one column; and the column."""
    column = max(at)
    rows = pad_rows([(0,) * (column - position) + tuple(ids) for ids, position in zip(sequences, at, strict=True)])
    for row, position in enumerate(at):
        rows.mask[row, : column - position] = 0
    return rows, column


class PromptFormat:
    """How a tokenizer writes prompts and answers: BOS as the tokenizer adds it, the answer after one space."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    @property
    def recipe(self) -> dict[str, object]:
        """What determines the ids besides the tokenizer's files; part of a run's identity."""
        return {"special_tokens": "as the tokenizer adds them", "answer": "after one space", "template": None}

    def prompts(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the ids of each text, special tokens included."""
        return [tuple(ids) for ids in self._tokenizer(list(texts))["input_ids"]]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids)))

    def answers(self, prompts: Sequence[str], answers: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the ids of each answer as they continue its prompt.

        Prompt and answer are tokenised together and the prompt's ids are cut off; where joining them changes the
        prompt's own ids, the answer is tokenised by itself with a leading space.

        Raises:
            TokenizationError: An answer has no tokens, or one that the tokenizer does not know.
        """
        heads = self.prompts(prompts)
        joined = self.prompts([f"{prompt} {answer}" for prompt, answer in zip(prompts, answers, strict=True)])
        out = []
        for head, whole, answer in zip(heads, joined, answers, strict=True):
            stable = len(whole) > len(head) and whole[: len(head)] == head
            ids = whole[len(head) :] if stable else self._alone(answer)
            self._check_known(answer, ids)
            out.append(ids)
        return out

    def lookups(self, texts: Sequence[str], ends: Sequence[int]) -> list[Prompt]:
        """Return each text's ids and the position of the token that holds the character before ``ends``.

        Raises:
            TokenizationError: That token cannot be told (checked by decoding the ids up to it).
        """
        wholes = self.prompts(texts)
        heads = self.prompts([text[:end] for text, end in zip(texts, ends, strict=True)])
        return [
            Prompt(whole, len(head) - 1 if whole[: len(head)] == head else self._search(text, end, whole))
            for text, end, whole, head in zip(texts, ends, wholes, heads, strict=True)
        ]

    def _search(self, text: str, end: int, ids: tuple[int, ...]) -> int:
        # The subject's last token reaches beyond the subject ("Rome" + "'s"): the first id that completes it.
        wanted = text[:end].strip()
        for position in range(len(ids)):
            if wanted in self._tokenizer.decode(list(ids[: position + 1])):
                return position
        raise TokenizationError(
            f"the subject's last token is not to be found in {text!r}: decoding {list(ids)} never gives {wanted!r}; "
            "check that the tokenizer keeps the text's characters (case, accents, spaces)"
        )

    def _alone(self, answer: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(f" {answer}", add_special_tokens=False)["input_ids"])

    def _check_known(self, answer: str, ids: tuple[int, ...]) -> None:
        if not ids:
            raise TokenizationError(
                f"the answer {answer!r} has no tokens in this tokenizer; expected at least one; use another answer"
            )
        unknown = self._tokenizer.unk_token_id
        if unknown is not None and unknown in ids:
            raise TokenizationError(
                f"the tokenizer does not know the answer {answer!r}: its ids {list(ids)} hold the unknown token "
                f"{self._tokenizer.unk_token!r} ({unknown}); expected known tokens only; use another answer or model"
            )
