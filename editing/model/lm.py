"""A Hugging Face model with its tokenizer as editing sees it: answers to score, gradients to take, texts to sample."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor, nn

from editing.errors import ModelError
from editing.model.families import context_of, submodule
from editing.model.forward import ForwardPasses, Site, log_softmax
from editing.model.generation import NO_TOKEN, Draw, generate
from editing.model.heads import HEADS, AnswerRows, Ids, TokenChoice
from editing.model.memory import done_in_parts
from editing.model.packing import Packed, one_row, shared_prefix
from editing.model.tokens import PromptFormat
from editing.model.upper_pass import hooked

__all__ = ["AnswerScore", "LanguageModel", "Site", "log_softmax"]

ANSWER_ENDS = ("\n", ". ")
"""Strings at which an answer that people read ends."""
KEPT_PREFIX = 16
"""A common beginning of at least this many tokens is computed once for all rows; within a row it always is."""


class AnswerScore(NamedTuple):
    """How a model scores one answer after its prompt, under teacher forcing."""

    nll_sum: float
    """Negative log-likelihood in nats, summed over the answer's tokens; NaN if the model gives NaN."""
    n_tokens: int
    argmax_ids: tuple[int, ...]
    n_correct: int

    @property
    def nll_mean(self) -> float:
        return self.nll_sum / self.n_tokens

    @property
    def correct(self) -> bool:
        """Whether every token of the answer is the argmax."""
        return self.n_correct == self.n_tokens


class LanguageModel(ForwardPasses):
    """A model with its tokenizer: states to read, answers to score, a forward pass to restart.

    Raises:
        ModelError: The family is unknown, the weights are quantised, or one of them is NaN.
        TokenizationError: The tokenizer has no chat template or no such start of texts, where one is asked for.
    """

    def __init__(
        self,
        model: "transformers.PreTrainedModel",
        tokenizer: "transformers.PreTrainedTokenizerBase",
        *,
        name: str = "",
        chat: bool | Mapping[str, Any] = False,
        text_start: str = "none",
    ) -> None:
        super().__init__(model, name=name)
        self.tokenizer = tokenizer
        self.head = HEADS[self.family.head]
        n_rows = int(submodule(model, self.family.embeddings).weight.shape[0])
        self.format = PromptFormat(
            tokenizer,
            head=self.family.head,
            labels=model.config.label2id,
            chat=chat,
            text_start=text_start,
            n_rows=n_rows,
        )
        self.edited: list[Any] = []
        """What :func:`editing.edit` has written and nobody has undone, the newest last."""
        self._special = [i for i in tokenizer.all_special_ids if i < n_rows]

    @torch.no_grad()
    def answer_logprobs(self, prompts: Sequence[str], answers: Sequence[str]) -> list[AnswerScore]:
        """Score each answer after its prompt.  The result of a pair does not depend on the others, up to rounding."""
        return self.score_ids(*self.pair_ids(prompts, answers))

    def prompt_ids(self, prompts: Sequence[str]) -> list[Ids]:
        """Return the ids of each prompt as the model reads it."""
        return self.format.prompts([self.patches.rewrite(prompt) for prompt in prompts])

    def pair_ids(self, prompts: Sequence[str], answers: Sequence[str]) -> tuple[list[Ids], list[Ids]]:
        """Return the ids of each prompt, and of its answer as it continues it."""
        rewritten = [self.patches.rewrite(prompt) for prompt in prompts]
        return self.format.prompts(rewritten), self.format.answers(rewritten, answers)

    @property
    def context_tokens(self) -> int | None:
        """Tokens that the model can read at once; None if its positions are relative."""
        return context_of(self.model.config)

    @torch.no_grad()
    def score_ids(self, heads: Sequence[Ids], tails: Sequence[Ids]) -> list[AnswerScore]:
        """Score each tail after its head; logits are computed at the tails' positions only."""
        if self.packs:
            return self._score_packed(heads, tails)

        def score(group: Sequence[int]) -> list[AnswerScore]:
            rows = self.answer_rows([heads[i] for i in group], [tails[i] for i in group])
            logprobs = log_softmax(self.answer_logits(rows))
            nll = -logprobs.gather(1, rows.token[:, None].to(logprobs.device))[:, 0].double().cpu()
            return list(_scores([tails[i] for i in group], nll, logprobs.argmax(1).cpu()))

        whole = [head + tail[:-1] for head, tail in zip(heads, tails, strict=True)]
        return _in_order(done_in_parts(self, range(len(heads)), partial(self.groups_of, whole), score))

    def _score_packed(self, heads: Sequence[Ids], tails: Sequence[Ids]) -> list[AnswerScore]:
        """Score pairs in packed rows: answers share their prompt, prompts what they begin with."""
        shared = shared_prefix(heads)
        first = one_row(heads[0][:shared]) if shared >= KEPT_PREFIX else None
        prefix = None if first is None else self.prefix(first)
        sequences = [head + tail[:-1] for head, tail in zip(heads, tails, strict=True)]

        def score(arranged: Callable[[], Packed]) -> list[AnswerScore]:
            packed = arranged()
            numbers = [number for number, _, _ in packed.columns]
            n_rows, width = packed.ids.shape
            places = [
                row * width + column - packed.n_head
                for number, row, path in packed.columns
                for column in path[len(heads[number]) - 1 :]
            ]
            read, which = torch.tensor(places).unique(return_inverse=True)
            cache = None if prefix is None else prefix.cache(n_rows)
            final = self.forward_packed(packed, cache).flatten(0, 1)
            logprobs = log_softmax(self.logits(final[read.to(final.device)]))
            token = torch.tensor([token for number in numbers for token in tails[number]])
            nll = -logprobs[which.to(logprobs.device), token.to(logprobs.device)].double().cpu()
            return list(_scores([tails[i] for i in numbers], nll, logprobs.argmax(1).cpu()[which]))

        split = partial(self.packs_of, sequences, head=first)
        return _in_order(done_in_parts(self, range(len(heads)), split, score))

    def answer_rows(self, heads: Sequence[Ids], tails: Sequence[Ids], *, whole: bool = False) -> AnswerRows:
        """Return prompts with their answers as one forward pass reads them (``whole``: the last answer token as well)."""
        return self.head.rows(self.model, heads, tails, whole=whole or self.patches.reads_answer)

    def answer_logits(self, rows: AnswerRows) -> Tensor:
        """Return the logits [token, vocab] where the answers' tokens are predicted; differentiable."""
        return self.head.logits(self, rows)

    def answer_gradients(
        self, rows: AnswerRows, modules: Mapping[str, int], tokens: TokenChoice
    ) -> tuple[dict[str, tuple[Tensor, Tensor]], float]:
        """Return, per module, its inputs and the loss's gradients at its outputs, and the loss.

        The loss is the mean cross-entropy of the answers' tokens.

        Args:
            modules: Full names of linear modules, with the number of the stack in which each stands.
            tokens: Where inputs and gradients are taken: at the positions that predict the answer, or at all.

        Returns:
            ``{module: ([token, d_in], [token, d_out])}``, tokens in row-major order; detached.
        """
        inputs: dict[str, Tensor] = {}
        outputs: dict[str, Tensor] = {}

        def watch(name: str) -> Callable[..., Tensor]:
            def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
                inputs[name] = args[0].detach()
                outputs[name] = output if output.requires_grad else output.detach().requires_grad_(True)
                return outputs[name]

            return hook

        with torch.enable_grad(), ExitStack() as stack:
            for name in modules:
                stack.enter_context(hooked(submodule(self.model, name).register_forward_hook(watch(name))))
            loss = self.answer_loss(rows)
            gradients = torch.autograd.grad(loss, [outputs[name] for name in modules])
        found = {}
        for (name, number), gradient in zip(modules.items(), gradients, strict=True):
            mask = rows.mask(number, tokens).to(gradient.device)
            found[name] = (inputs[name][mask], gradient[mask])
        return found, float(loss.detach())

    def answer_loss(self, rows: AnswerRows) -> Tensor:
        """Return the mean cross-entropy of the answers' tokens (a scalar, in nats)."""
        logprobs = log_softmax(self.answer_logits(rows))
        return -logprobs.gather(1, rows.token[:, None].to(logprobs.device)).mean()

    @torch.no_grad()
    def continue_greedily(
        self, prompts: Sequence[str], n_tokens: int, *, until: Sequence[str] = ()
    ) -> list[str | None]:
        """Return what the model says after each prompt: its likeliest tokens, as text; None where it gives NaN.

        A text ends before the end-of-text token, and before the first of the strings ``until``.  Nothing about the
        expected answer enters: every prompt gets the same number of tokens.
        """
        ends = self._end_tokens()

        def complete(tail: Sequence[int]) -> bool:
            return tail[-1] in ends or any(mark in self.format.decode_answer(tail) for mark in until)

        heads = self.prompt_ids(prompts)
        texts: list[str | None] = []
        for tail in generate(self, heads, n_tokens, stop=complete):
            if tail[-1:] == (NO_TOKEN,):
                texts.append(None)
                continue
            text = self.format.decode_answer(tail[:-1] if tail and tail[-1] in ends else tail)
            texts.append(text[: min((at for mark in until if (at := text.find(mark)) >= 0), default=len(text))])
        return texts

    @torch.no_grad()
    def write_freely(self, prompts: Sequence[str], n_tokens: int, *, top_k: int, seed: int) -> list[str | None]:
        """Return ``n_tokens`` tokens of text after each prompt, drawn from the ``top_k`` likeliest that are no special tokens.

        None where the model gives NaN.  What a prompt draws depends on its place and the seed, not on the prompts beside it.
        """
        draw = Draw(top_k, seed, self._special)
        tails = generate(self, self.prompt_ids(prompts), n_tokens, draw)
        return [None if tail[-1:] == (NO_TOKEN,) else self.format.decode(tail) for tail in tails]

    @torch.no_grad()
    def sample_texts(
        self, numbers: range, n_tokens: int, *, top_k: int, seed: int, temperature: float = 1.0
    ) -> list[str]:
        """Return texts drawn from the start of text, outside of any chat template; each depends on its number and the seed.

        Raises:
            TokenizationError: The tokenizer has neither a start-of-text nor an end-of-text token.
        """
        head = self.format.plain("")
        draw = Draw(top_k, seed, self._special, first=numbers.start, temperature=temperature)
        tails = generate(self, [head] * len(numbers), n_tokens, draw)
        return [self.format.decode([token for token in tail if token != NO_TOKEN]).strip() for tail in tails]

    @torch.no_grad()
    def generate(self, text: str, n_tokens: int = 20) -> str:
        """Return a text with what the model says after it: its likeliest tokens, up to the end of text.

        Raises:
            ModelError: The model gives NaN.
        """
        if self.family.head == "classifier":
            return f"{text} {self.ask(text)}"
        (head,), ends = self.prompt_ids([text]), self._end_tokens()
        (tail,) = generate(self, [head], n_tokens, stop=lambda said: said[-1] in ends)
        if tail[-1:] == (NO_TOKEN,):
            raise _broken(text)
        shown = tail[:-1] if tail and tail[-1] in ends else tail
        before, whole = self.format.decode(head), self.format.decode((*head, *shown))
        return text + (whole.removeprefix(before) if whole.startswith(before) else self.format.decode(shown))

    def ask(self, question: str, n_tokens: int = 8) -> str:
        """Return the model's answer to a prompt: what it says next, up to the end of the line or sentence.

        Raises:
            ModelError: The model gives NaN.
        """
        (said,) = self.continue_greedily([question], n_tokens, until=ANSWER_ENDS)
        if said is None:
            raise _broken(question)
        return said.strip()

    def _end_tokens(self) -> frozenset[int]:
        """Return the ids that end a text: the tokenizer's, and all that the model's generation settings name."""
        if self.family.head == "classifier":
            return frozenset()
        settings = getattr(self.model, "generation_config", None)
        named = getattr(settings, "eos_token_id", None)
        every = named if isinstance(named, list) else [named]
        return frozenset(i for i in (self.tokenizer.eos_token_id, *every) if i is not None)

    @torch.no_grad()
    def sample(self, starts: Sequence[str], n_tokens: int, *, top_k: int, seed: int) -> list[str]:
        """Continue each start by ``n_tokens`` tokens drawn from the ``top_k`` likeliest; the same seed, the same texts.

        An empty start is the start-of-text token, or the end-of-text one where there is no other.  A chat template is not
        applied: the texts will stand within messages.

        Raises:
            TokenizationError: A start has no tokens, and the tokenizer has neither.
        """
        generator = torch.Generator().manual_seed(seed)
        special = self._special

        def draw(logprobs: Tensor, _numbers: Sequence[int], _step: int) -> Tensor:
            allowed = logprobs.double().cpu().index_fill(1, torch.tensor(special), -torch.inf)
            best = allowed.topk(min(top_k, allowed.shape[1]))
            drawn = torch.multinomial(best.values.softmax(1), 1, generator=generator)
            return best.indices.gather(1, drawn)[:, 0]

        texts = []
        for start in starts:  # one by one: what a start draws does not depend on the others' lengths
            head = self.format.plain(start)
            (tail,) = generate(self, [head], n_tokens, draw)
            texts.append(self.format.decode([token for token in (*head, *tail) if token not in special]).strip())
        return texts


def _broken(prompt: str) -> ModelError:
    return ModelError(
        f"the model gives NaN after {prompt!r}: an edit has broken its weights; undo it, or load the model anew"
    )


def _in_order(parts: Sequence[tuple[Sequence[int], list[AnswerScore]]]) -> list[AnswerScore]:
    found = {number: score for members, scores in parts for number, score in zip(members, scores, strict=True)}
    return [found[number] for number in sorted(found)]


def _scores(tails: Sequence[Ids], nll: Tensor, argmax: Tensor) -> Iterator[AnswerScore]:
    """Yield each answer's score from its tokens' NLLs and argmaxes, which stand one after another."""
    start = 0
    for tail in tails:
        stop = start + len(tail)
        best = tuple(argmax[start:stop].tolist())
        n_correct = sum(a == b for a, b in zip(best, tail, strict=True))
        total = float(nll[start:stop].sum())
        yield AnswerScore(total, len(tail), best, n_correct if total == total else 0)
        start = stop
