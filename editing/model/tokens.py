"""From text to token ids: prompts, answers, and where a subject ends.  All of it works on ids, never on string surgery."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor

from editing.errors import TokenizationError
from editing.model.chat import ChatFrame, Written
from editing.model.families import HeadKind

TEXTS_AT_ONCE = 256
"""A tokenizer's own tables are far larger than the ids that are kept."""
_ANCHORS = ("\n", ".", ",", ":", "a", "0", "。")
"""Characters behind which a text may be read as it stands in the middle of another."""


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
    answer begins the assistant's reply.  What a decoder's tokenizer puts behind a text is taken off: nothing follows an end.

    Args:
        chat: Whether prompts go through the tokenizer's chat template; or the template's variables.
        text_start: What stands in front of every text that a decoder reads, once: ``bos``, ``eos``, a token of the
            vocabulary, or ``none``: what the tokenizer itself puts there.
        n_rows: Rows of the model's embeddings, if they are known; no token may lie beyond them.

    Raises:
        TokenizationError: ``chat`` is asked for and the tokenizer has no chat template that can be used, or it lacks the token.
    """

    def __init__(
        self,
        tokenizer: "transformers.PreTrainedTokenizerBase",
        *,
        head: HeadKind = "causal",
        labels: Mapping[str, int] | None = None,
        chat: bool | Mapping[str, Any] = False,
        text_start: str = "none",
        n_rows: int | None = None,
    ) -> None:
        self._tokenizer, self._head, self._labels, self._n_rows = tokenizer, head, dict(labels or {}), n_rows
        self._frame = None
        if chat is not False:
            self._frame = ChatFrame(tokenizer, chat if isinstance(chat, Mapping) else {})
        self._before, self._behind = self._added() if head == "causal" else ((), ())
        self._start = self._start_token(text_start)
        self._beyond = n_rows is not None and max(tokenizer.get_vocab().values(), default=0) >= n_rows

    @property
    def chat(self) -> bool:
        return self._frame is not None

    @property
    def particulars(self) -> dict[str, Any]:
        """What prompts have that the model's files and its usual format do not tell: part of what results depend on."""
        found = dict(self._frame.particulars) if self._frame is not None else {}
        if self._start is not None:
            found["text_start"] = self._token(self._start)
        if self._behind:
            found["taken_off"] = [self._token(token) for token in self._behind]
        return found

    @property
    def begins(self) -> bool:
        """Whether a token stands in front of every text, the tokenizer's own or the one that was asked for."""
        return bool(self._before) or self._start is not None

    @property
    def oversized(self) -> bool:
        """Whether the tokenizer has tokens for which the model has no embedding, so that every text has to be looked at."""
        return self._beyond

    def prompts(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the ids of each text, special tokens included."""
        return self._ids([self._written(text).text for text in texts])

    def plain(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text that begins at the start of text, outside of any chat template.

        Raises:
            TokenizationError: It has none.
        """
        (ids,) = self._encoded([text], special=True)
        if ids:
            return ids
        begin = next((i for i in (self._tokenizer.bos_token_id, self._tokenizer.eos_token_id) if i is not None), None)
        if begin is None:
            raise TokenizationError(
                "the tokenizer has neither a start-of-text nor an end-of-text token, so nothing can be sampled from an empty "
                "start; give context_starts"
            )
        return (int(begin),)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids)))

    def continuation(self, head: str, tail: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the ids of a text and of what follows it letter by letter, spaces at the border being the latter's.

        An empty text is the start-of-text token.  Where a token would join both, what follows is tokenised by itself.

        Raises:
            TokenizationError: What follows has no tokens, or one that the tokenizer does not know.
        """
        kept = head.rstrip(" ")
        rest = head[len(kept) :] + tail
        if kept:
            (before,), (whole,) = self._ids([kept]), self._ids([head + tail])
        else:
            before, whole = self.plain("")[:1], ()
        return before, self._answer(before, whole, rest, tail)

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
            TokenizationError: An answer has no tokens, one that the tokenizer or the model does not know, or names no class.
        """
        if self._head == "classifier":
            return [(self._class_of(answer),) for answer in answers]
        if self._head == "seq2seq":
            found = self._encoded(answers, special=True)
            return [self._checked(ids, answer) for ids, answer in zip(found, answers, strict=True)]
        heads, joined = self._joined(prompts, answers)
        if () in heads:
            raise TokenizationError(
                f"the prompt {prompts[heads.index(())]!r} has no tokens in this tokenizer; expected at least one"
            )
        return [
            self._answer(head, whole, f"{self._space}{answer}", answer)
            for head, whole, answer in zip(heads, joined, answers, strict=True)
        ]

    def joins(self, prompts: Sequence[str], answers: Sequence[str]) -> list[bool]:
        """Return whether each answer leaves its prompt's own ids as they are when both are tokenised together."""
        if self._head != "causal":
            return [True] * len(prompts)
        return [_goes_on(head, whole) for head, whole in zip(*self._joined(prompts, answers), strict=True)]

    def check_answer(self, answer: str) -> None:
        """Refuse an answer that cannot be scored, whatever its prompt.

        Raises:
            TokenizationError: It has no tokens, one that the tokenizer or the model does not know, or names no class.
        """
        if self._head == "causal":
            self._checked(self._alone(f"{self._space}{answer}"), answer)
        else:
            self.answers([""], [answer])

    def lookups(self, texts: Sequence[str], ends: Sequence[int]) -> list[Prompt]:
        """Return each text's ids and the position of the token that holds the character before ``ends``.

        Raises:
            TokenizationError: That token cannot be told (checked by decoding the ids up to it).
        """
        written = [self._written(text) for text in texts]
        full = [text for text, _ in written]
        stops = [start + end for (_, start), end in zip(written, ends, strict=True)]
        wholes = self._ids(full)
        heads = self._ids([text[:end] for text, end in zip(full, stops, strict=True)])
        return [
            Prompt(whole, len(head) - 1 if head and whole[: len(head)] == head else self._search(text, end, whole))
            for text, end, whole, head in zip(full, stops, wholes, heads, strict=True)
        ]

    def _written(self, text: str) -> Written:
        """Return the text as the model reads it, and where the given text begins in it."""
        return Written(text, 0) if self._frame is None else self._frame.write(text)

    @property
    def _space(self) -> str:
        """What stands between a prompt and its answer."""
        return "" if self.chat else " "

    def _joined(
        self, prompts: Sequence[str], answers: Sequence[str]
    ) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
        """Return the ids of each prompt, and of each prompt with its answer."""
        written = [self._written(prompt).text for prompt in prompts]
        joined = self._ids([f"{text}{self._space}{answer}" for text, answer in zip(written, answers, strict=True)])
        return self._ids(written), joined

    def _ids(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        # A chat template writes the special tokens itself.
        return self._encoded(texts, special=not self.chat)

    def _encoded(self, texts: Sequence[str], *, special: bool) -> list[tuple[int, ...]]:
        """Return the ids of each text as the model reads it, from its start on."""
        kept = slice(None, -len(self._behind) if special and self._behind else None)
        out: list[tuple[int, ...]] = []
        for begin in range(0, len(texts), TEXTS_AT_ONCE):
            part = list(texts[begin : begin + TEXTS_AT_ONCE])
            found = [tuple(ids[kept]) for ids in self._tokenizer(part, add_special_tokens=special)["input_ids"]]
            for text, ids in zip(part, found, strict=True) if self._beyond else ():
                self._check_rows(ids, text)
            out += found
        if self._start is None:
            return out
        return [ids if ids[:1] == (self._start,) else (self._start, *ids) for ids in out]

    def _answer(self, head: tuple[int, ...], whole: tuple[int, ...], text: str, answer: str) -> tuple[int, ...]:
        """Return the ids of what follows a prompt: one guard for all answers.

        Args:
            head: Ids of the prompt.
            whole: Ids of the prompt and what follows it.
            text: What follows it.
            answer: What the messages call it.
        """
        return self._checked(whole[len(head) :] if _goes_on(head, whole) else self._alone(text, head), answer)

    def _alone(self, text: str, head: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Return the ids of a text by itself; where these would not follow ``head`` letter by letter, such that do.

        Many tokenizers put a space in front of what they read, which is wrong in the middle of a word: the text is then read
        behind a character that stays a token of its own.
        """
        (found,) = self._bare([text])
        wanted = self.decode(head) + text
        if self.decode(head + found) == wanted:
            return found
        for anchor in _ANCHORS:
            before, whole = self._bare([anchor, anchor + text])
            if _goes_on(before, whole) and self.decode(head + whole[len(before) :]) == wanted:
                return whole[len(before) :]
        return found

    def _bare(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        return [tuple(ids) for ids in self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    def _class_of(self, answer: str) -> int:
        if answer not in self._labels:
            raise TokenizationError(
                f"the answer {answer!r} is no class of this classifier; expected one of {sorted(self._labels)}, as "
                "config.json's id2label names them"
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

    def _checked(self, ids: tuple[int, ...], answer: str) -> tuple[int, ...]:
        """Return an answer's ids, if there are any and both tokenizer and model know each."""
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
        if self._beyond:
            self._check_rows(ids, answer)
        return ids

    def _check_rows(self, ids: tuple[int, ...], text: str) -> None:
        if self._n_rows is None or (highest := max(ids, default=0)) < self._n_rows:
            return
        raise TokenizationError(
            f"the tokenizer gives id {highest} ({self._token(highest)!r}) in {text!r}, the model has {self._n_rows} rows of "
            "embeddings; expected ids below that; resize the embeddings (model.resize_token_embeddings) and save the model, or "
            "take the model's own tokenizer",
            reason="token without an embedding",
        )

    def _added(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the special tokens that the tokenizer puts before and behind a text."""
        whole, (bare,) = tuple(self._tokenizer("a")["input_ids"]), self._bare(["a"])
        for at in range(len(whole) - len(bare) + 1):
            if bare and whole[at : at + len(bare)] == bare:
                return whole[:at], whole[at + len(bare) :]
        return (), ()

    def _start_token(self, wanted: str) -> int | None:
        """Return the token that is to stand in front of every text, None if the tokenizer is left to itself."""
        if wanted == "none":
            return None
        if self._head != "causal":
            raise TokenizationError(f"text_start is {wanted!r}; expected none: only texts of decoders have a start")
        known = {"bos": self._tokenizer.bos_token_id, "eos": self._tokenizer.eos_token_id}
        found = known[wanted] if wanted in known else self._tokenizer.get_vocab().get(wanted)
        if found is None:
            there = sorted({str(token) for token in self._tokenizer.all_special_tokens})
            raise TokenizationError(
                f"text_start is {wanted!r}, and the tokenizer has no such token; expected bos, eos, none or a token, as {there}"
            )
        if self._before and found not in self._before:
            own = [self._token(token) for token in self._before]
            raise TokenizationError(
                f"text_start is {wanted!r} ({self._token(found)!r}), and the tokenizer begins every text with {own} itself; "
                "expected one start: use none"
            )
        if self._n_rows is not None and found >= self._n_rows:
            self._check_rows((found,), wanted)
        return int(found)

    def _token(self, number: int) -> str:
        return str(self._tokenizer.convert_ids_to_tokens(number))


def _goes_on(head: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Return whether the ids of a prompt with its answer begin with the prompt's own."""
    return len(whole) > len(head) and whole[: len(head)] == head
