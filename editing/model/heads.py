"""Answers after prompts, one implementation per head kind: where a model predicts an answer's tokens, and its logits there."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

import torch
import transformers
from torch import Tensor

from editing.model.families import HeadKind
from editing.model.tokens import Rows, pad_rows

TokenChoice = Literal["answer", "all"]
Ids = tuple[int, ...]


class AnswerRows(NamedTuple):
    """Prompts with their answers, ready for one forward pass, and where each answer token is predicted."""

    inputs: Rows
    """What the (first) stack of blocks reads."""
    decoder: Rows | None
    """What an encoder-decoder's second stack reads."""
    heads: tuple[int, ...]
    """Tokens of each prompt."""
    row: Tensor
    """int64 [token]"""
    column: Tensor
    """int64 [token], the position whose prediction is the token."""
    token: Tensor
    """int64 [token], what the answer says there (a class, for a classifier)."""

    def mask(self, stack: int, tokens: TokenChoice) -> Tensor:
        """Return the positions [row, column] of one stack that the answer's loss is attributed to."""
        rows = self.inputs if stack == 0 or self.decoder is None else self.decoder
        # An encoder has no answer tokens: all of its tokens count.
        if tokens == "all" or (self.decoder is not None and stack == 0):
            return rows.mask.bool()
        chosen = torch.zeros_like(rows.mask, dtype=torch.bool)
        chosen[self.row, self.column] = True
        return chosen


class Head(Protocol):
    """How one kind of model reads prompts and answers them."""

    @property
    def auto_class(self) -> Any:
        """The Hugging Face class that loads such a model."""
        ...

    def rows(self, model: Any, heads: Sequence[Ids], tails: Sequence[Ids], *, whole: bool = False) -> AnswerRows:
        """Return prompts with their answers; ``whole`` puts a decoder's last answer token into its input too."""
        ...

    longest: int | None
    """Tokens that an answer can have at most; None: any number."""

    def logits(self, lm: Any, rows: AnswerRows) -> Tensor:
        """Return the logits [token, vocab] at the answers' tokens; differentiable."""
        ...

    def next_logits(self, lm: Any, heads: Sequence[Ids], tails: Sequence[Ids]) -> Tensor:
        """Return the logits [row, vocab] of what follows each prompt and the part of its answer that is there."""
        ...


class CausalHead:
    """A decoder: the prompt's last position predicts the answer's first token."""

    longest: int | None = None

    @property
    def auto_class(self) -> Any:
        return transformers.AutoModelForCausalLM

    def rows(self, model: Any, heads: Sequence[Ids], tails: Sequence[Ids], *, whole: bool = False) -> AnswerRows:
        where = [
            (row, len(head) - 1 + k, token)
            for row, (head, tail) in enumerate(zip(heads, tails, strict=True))
            for k, token in enumerate(tail)
        ]
        inputs = pad_rows([head + (tail if whole else tail[:-1]) for head, tail in zip(heads, tails, strict=True)])
        return AnswerRows(inputs, None, tuple(map(len, heads)), *_columns(where))

    def logits(self, lm: Any, rows: AnswerRows) -> Tensor:
        with lm.prompts_end_at(rows.heads):
            final = lm.forward(rows.inputs)
        out: Tensor = lm.logits(final[rows.row.to(final.device), rows.column.to(final.device)])
        return out

    def next_logits(self, lm: Any, heads: Sequence[Ids], tails: Sequence[Ids]) -> Tensor:
        rows = pad_rows([head + tail for head, tail in zip(heads, tails, strict=True)])
        out: Tensor = lm.next_logprobs(rows, [len(head) for head in heads])
        return out


class Seq2SeqHead:
    """An encoder-decoder: the encoder reads the prompt, the decoder gives the answer."""

    longest: int | None = None

    @property
    def auto_class(self) -> Any:
        return transformers.AutoModelForSeq2SeqLM

    def rows(self, model: Any, heads: Sequence[Ids], tails: Sequence[Ids], *, whole: bool = False) -> AnswerRows:
        start = (int(model.config.decoder_start_token_id),)
        where = [(row, k, token) for row, tail in enumerate(tails) for k, token in enumerate(tail)]
        decoder = pad_rows([start + tail[:-1] for tail in tails])
        return AnswerRows(pad_rows(heads), decoder, tuple(map(len, heads)), *_columns(where))

    def logits(self, lm: Any, rows: AnswerRows) -> Tensor:
        device = lm.input_device
        assert rows.decoder is not None
        out = lm.model(
            input_ids=rows.inputs.ids.to(device),
            attention_mask=rows.inputs.mask.to(device),
            decoder_input_ids=rows.decoder.ids.to(device),
            decoder_attention_mask=rows.decoder.mask.to(device),
            use_cache=False,
        )
        picked: Tensor = out.logits[rows.row.to(device), rows.column.to(device)]
        return picked

    def next_logits(self, lm: Any, heads: Sequence[Ids], tails: Sequence[Ids]) -> Tensor:
        # One more token, whatever it is, makes a position that predicts it.
        rows = self.rows(lm.model, heads, [(*tail, 0) for tail in tails])
        last = torch.tensor([len(tail) for tail in tails]).cumsum(0) + torch.arange(len(tails))
        return self.logits(lm, rows)[last.to(lm.input_device)]


class ClassifierHead:
    """An encoder with a classification head: one "token", the class, predicted at the first position."""

    longest: int | None = 1

    @property
    def auto_class(self) -> Any:
        return transformers.AutoModelForSequenceClassification

    def rows(self, model: Any, heads: Sequence[Ids], tails: Sequence[Ids], *, whole: bool = False) -> AnswerRows:
        where = [(row, 0, tail[0]) for row, tail in enumerate(tails)]
        return AnswerRows(pad_rows(heads), None, tuple(map(len, heads)), *_columns(where))

    def logits(self, lm: Any, rows: AnswerRows) -> Tensor:
        device = lm.input_device
        out = lm.model(input_ids=rows.inputs.ids.to(device), attention_mask=rows.inputs.mask.to(device))
        picked: Tensor = out.logits[rows.row.to(device)]
        return picked

    def next_logits(self, lm: Any, heads: Sequence[Ids], tails: Sequence[Ids]) -> Tensor:
        return self.logits(lm, self.rows(lm.model, heads, [(0,) for _ in tails]))


HEADS: dict[HeadKind, Head] = {"causal": CausalHead(), "seq2seq": Seq2SeqHead(), "classifier": ClassifierHead()}


def _columns(where: Sequence[tuple[int, int, int]]) -> tuple[Tensor, Tensor, Tensor]:
    row, column, token = zip(*where, strict=True)
    return torch.tensor(row), torch.tensor(column), torch.tensor(token)
