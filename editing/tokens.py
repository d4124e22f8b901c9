"""From text to token ids: prompts, answers, and where a subject ends.  All of it works on ids, never on string surgery."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import transformers
from torch import Tensor

from editing.errors import TokenizationError
from editing.families import HeadKind

TEXTS_AT_ONCE = 256
"""A tokenizer's own tables are far larger than the ids that are kept."""


class Rows(NamedTuple):
    """Right-padded token rows."""

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


class PromptFormat:
    """How a tokenizer writes prompts and answers.

    A decoder's answer follows its prompt after one space, an encoder-decoder's stands by itself, and a classifier's is
    the number of its class.  With ``chat`` a prompt is a user's message in the tokenizer's chat template, and the
    answer begins the assistant's reply.

    Raises:
        TokenizationError: ``chat`` is asked for and the tokenizer has no chat template.
    """

    def __init__(
        self,
        tokenizer: "transformers.PreTrainedTokenizerBase",
        *,
        head: HeadKind = "causal",
        labels: Mapping[str, int] | None = None,
        chat: bool = False,
    ) -> None:
        self._tokenizer, self._head, self._labels, self.chat = tokenizer, head, dict(labels or {}), chat
        if chat and not getattr(tokenizer, "chat_template", None):
            raise TokenizationError(
                "the tokenizer has no chat template; expected one, because chat: true was asked for; use an instruction-"
                "tuned model, or chat: false"
            )

    def prompts(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the ids of each text, special tokens included."""
        return self._ids([self._wrapped(text)[0] for text in texts])

    def plain(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text that begins at the start of text, outside of any chat template.

        Raises:
            TokenizationError: It has none.
        """
        ids = tuple(self._tokenizer(text)["input_ids"])
        begin = next((i for i in (self._tokenizer.bos_token_id, self._tokenizer.eos_token_id) if i is not None), None)
        if not ids and begin is None:
            raise TokenizationError(
                "the tokenizer has neither a start-of-text nor an end-of-text token, so nothing can be sampled from an empty "
                "start; give context_starts"
            )
        return ids or (begin,)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids)))

    def continuation(self, head: str, tail: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the ids of a text and of what follows it letter by letter, spaces at the border being the latter's.

        An empty text is the start-of-text token.
        """
        kept = head.rstrip(" ")
        if not kept:
            start = self.plain("")[:1]
            return start, self._alone(head + tail)
        (before,), (whole,) = self._ids([kept]), self._ids([head + tail])
        return before, whole[len(before) :]

    def decode_answer(self, ids: Sequence[int]) -> str:
        """Return an answer's ids as text; a classifier's is the name of its class."""
        if self._head == "classifier":
            names = {number: name for name, number in self._labels.items()}
            return "".join(names[i] for i in ids)
        return self.decode(ids)

    def answers(self, prompts: Sequence[str], answers: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the ids of each answer as they continue its prompt.

        In a decoder, prompt and answer are tokenised together and the prompt's ids are cut off; where joining them
        changes the prompt's own ids, the answer is tokenised by itself.

        Raises:
            TokenizationError: An answer has no tokens, one that the tokenizer does not know, or names no class.
        """
        if self._head == "classifier":
            return [(self._class_of(answer),) for answer in answers]
        if self._head == "seq2seq":
            found = [tuple(ids) for ids in self._tokenizer(list(answers))["input_ids"]]
        else:
            found = self._continuations(prompts, answers)
        for answer, ids in zip(answers, found, strict=True):
            self._check_known(answer, ids)
        return found

    def joins(self, prompts: Sequence[str], answers: Sequence[str]) -> list[bool]:
        """Return whether each answer leaves its prompt's own ids as they are when both are tokenised together."""
        if self._head != "causal":
            return [True] * len(prompts)
        wrapped = [self._wrapped(prompt)[0] for prompt in prompts]
        space = "" if self.chat else " "
        joined = self._ids([f"{prompt}{space}{answer}" for prompt, answer in zip(wrapped, answers, strict=True)])
        heads = self._ids(wrapped)
        return [_goes_on(head, whole) for head, whole in zip(heads, joined, strict=True)]

    def lookups(self, texts: Sequence[str], ends: Sequence[int]) -> list[Prompt]:
        """Return each text's ids and the position of the token that holds the character before ``ends``.

        Raises:
            TokenizationError: That token cannot be told (checked by decoding the ids up to it).
        """
        wrapped = [self._wrapped(text) for text in texts]
        full = [text for text, _ in wrapped]
        stops = [start + end for (_, start), end in zip(wrapped, ends, strict=True)]
        wholes = self._ids(full)
        heads = self._ids([text[:end] for text, end in zip(full, stops, strict=True)])
        return [
            Prompt(whole, len(head) - 1 if whole[: len(head)] == head else self._search(text, end, whole))
            for text, end, whole, head in zip(full, stops, wholes, heads, strict=True)
        ]

    def _wrapped(self, text: str) -> tuple[str, int]:
        """Return the text as the model reads it, and where the given text begins in it."""
        if not self.chat:
            return text, 0
        message = [{"role": "user", "content": text}]
        full = str(self._tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))
        start = full.find(text.strip())
        if start < 0:
            raise TokenizationError(
                f"the chat template does not repeat the message {text!r} letter by letter; found {full!r}; use another "
                "template, or chat: false"
            )
        return full, start - (len(text) - len(text.lstrip()))

    def _ids(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        # A chat template writes the special tokens itself.
        out: list[tuple[int, ...]] = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            part = list(texts[start : start + TEXTS_AT_ONCE])
            out += [tuple(ids) for ids in self._tokenizer(part, add_special_tokens=not self.chat)["input_ids"]]
        return out

    def _continuations(self, prompts: Sequence[str], answers: Sequence[str]) -> list[tuple[int, ...]]:
        wrapped = [self._wrapped(prompt)[0] for prompt in prompts]
        space = "" if self.chat else " "
        heads = self._ids(wrapped)
        if () in heads:
            raise TokenizationError(
                f"the prompt {prompts[heads.index(())]!r} has no tokens in this tokenizer; expected at least one"
            )
        joined = self._ids([f"{prompt}{space}{answer}" for prompt, answer in zip(wrapped, answers, strict=True)])
        return [
            whole[len(head) :] if _goes_on(head, whole) else self._alone(f"{space}{answer}")
            for head, whole, answer in zip(heads, joined, answers, strict=True)
        ]

    def _alone(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _class_of(self, answer: str) -> int:
        if answer not in self._labels:
            raise TokenizationError(
                f"the answer {answer!r} is no class of this classifier; expected one of {sorted(self._labels)}"
            )
        return self._labels[answer]

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


def _goes_on(head: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Return whether the ids of a prompt with its answer begin with the prompt's own."""
    return len(whole) > len(head) and whole[: len(head)] == head
