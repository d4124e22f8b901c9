"""GRACE (arXiv:2211.11031): a codebook beside one layer, whose entries answer for the prompts inside their ε-balls."""

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from editing.errors import HparamsError
from editing.methods.editor import Artifacts, BaseEditor, EditResult, FactReport, State, causal_only, editor, require
from editing.model.families import Family, submodule
from editing.model.heads import AnswerRows
from editing.model.lm import LanguageModel
from editing.model.patches import Patch, PatchChange, patch_kind
from editing.model.weights import Part
from editing.requests import EditRequest

KIND = "grace"
SPLIT_GAP = 1e-5
"""How far apart the balls of two conflicting edits end."""
BOUNDARY_SLACK = 4.0
"""Slack of "inside", in roundings of the query: an expanded ball's edge is exactly at the edit that expanded it, and in another
batch or padding the same prompt's query differs by a rounding or two."""
Branch = Literal["first", "new", "split", "expand", "covered"]


class Where(NamedTuple):
    """Positions in one forward pass."""

    query: Tensor
    """int64 [row], whose input is compared with the codebook's keys."""
    replaced: Tensor
    """bool [row, column], whose outputs become the value of the key found."""


@patch_kind(KIND)
class Codebook(Patch):
    """Rows of (key, value, epsilon, label) at one module: ``grace:MODULE:REPLACEMENT:QUERY``.

    A prompt whose query lies inside the ball of its nearest key gets that key's value as the module's output.  The
    query is the input at the prompt's last token (``prompt_end``), or, as the official code's layout has it, at the
    answer's first (``answer_start``).
    """

    @property
    def module(self) -> str:
        return self.name.split(":")[1]

    @property
    def replacement(self) -> str:
        return self.name.split(":")[2]

    @property
    def reads_answer(self) -> bool:
        return self.name.endswith(":answer_start")

    @property
    def size(self) -> int:
        return len(self.columns.get("key", ()))

    def nearest(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Return (index, distance) [row] of the nearest key of each query; the first of equals."""
        queries = queries.to(torch.promote_types(queries.dtype, torch.float32))
        distances = (queries[:, None] - self.table("key").to(queries)).norm(dim=2)
        found = distances.min(dim=1)
        return found.indices, found.values

    def inside(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest key [row] and whether each query lies in its ball [row]."""
        index, distance = self.nearest(queries)
        edge = self.table("epsilon").to(distance)[index]
        if self.reads_answer:  # the official layout compares without slack
            return index, distance <= edge
        rounding = torch.finfo(queries.dtype).eps * queries.norm(dim=1).to(distance)
        return index, distance <= edge + BOUNDARY_SLACK * rounding

    def where(self, ends: Sequence[int], width: int) -> Where:
        """Return the positions for rows whose prompts have ``ends`` tokens."""
        end = torch.tensor(list(ends))
        query = (end - 1 + int(self.reads_answer)).clamp_max(width - 1)
        column = torch.arange(width)
        if self.replacement == "all":
            return Where(query, torch.ones(len(end), width, dtype=torch.bool))
        if self.replacement == "last":
            return Where(query, column == query[:, None])
        return Where(query, column < end[:, None])

    def attach(self, lm: Any, stack: ExitStack) -> None:
        if lm.prompt_ends is None or not self.size:
            return
        module = submodule(lm.model, self.module)
        stack.callback(module.register_forward_hook(self._hook(lm.prompt_ends)).remove)

    def _hook(self, ends: Sequence[int]) -> Any:
        def replace(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            where = self.where(ends, output.shape[1])
            queries = args[0][torch.arange(len(where.query)), where.query.to(output.device)]
            index, inside = self.inside(queries)
            chosen = self.table("value").to(output)[index]
            mask = where.replaced.to(output.device) & inside[:, None]
            return torch.where(mask[..., None], chosen[:, None], output)

        return replace


class _Known(NamedTuple):
    """What one edit brings to the codebook."""

    query: Tensor
    label: Tensor
    initial: Tensor


@editor(KIND)
@dataclass(frozen=True, kw_only=True)
class Grace(BaseEditor):
    """One codebook entry per edit, unless an entry with the same answer is near enough to grow.

    Labels are compared token by token.  Under protocol ``code`` by the mean of the label row, -100 included, as the
    official code has it, and a conflict at distance 0 is the silent no-op that it is there.
    """

    epsilon: float
    """Radius of a new ball, in the units of the layer's inputs."""
    steps: int
    lr: float
    replacement: str
    part: str
    """Which projection of the layer is replaced: ``mlp_in`` or ``mlp_out``."""
    expand: str
    """``coverage``: a ball grows to take in a near edit with its answer; ``moving_average``: its key moves there too."""
    initial: str
    """``warm``: a new value begins as the layer's own output; ``cold``: as uniform random numbers."""
    value_seed: int
    protocol: str

    version: ClassVar[int] = 2
    max_batch: ClassVar[int | None] = 1
    max_layers: ClassVar[int | None] = 1
    writes: ClassVar[Literal["low_rank", "dense", "nothing"]] = "low_rank"

    def __post_init__(self) -> None:
        require(self, epsilon=self.epsilon > 0, steps=self.steps > 0, lr=self.lr > 0)
        for field, allowed in (
            ("replacement", ("prompt", "last", "all")),
            ("part", ("mlp_in", "mlp_out")),
            ("expand", ("coverage", "moving_average")),
            ("initial", ("warm", "cold")),
        ):
            if getattr(self, field) not in allowed:
                raise HparamsError(f"Grace: {field} is {getattr(self, field)!r}; expected one of {list(allowed)}")

    @classmethod
    def refusal(cls, family: Family, n_layers: int) -> str | None:
        return causal_only(family, "its query is the prompt's last token in a left-to-right model")

    def seeds(self) -> Sequence[str]:
        return ("value_seed",) if self.initial == "cold" else ()

    def patch_name(self, lm: LanguageModel, layer: int) -> str:
        part: Part = "mlp_in" if self.part == "mlp_in" else "mlp_out"
        query = "answer_start" if self.protocol == "code" else "prompt_end"
        return f"{KIND}:{lm.module_name(layer, part)}:{self.replacement}:{query}"

    def edit(
        self, lm: LanguageModel, batch: Sequence[EditRequest], layers: Sequence[int], state: State, artifacts: Artifacts
    ) -> EditResult:
        (request,), (layer,) = batch, layers
        head = lm.format.prompts([request.prompt])[0]
        tail = lm.format.answers([request.prompt], [request.target_new])[0]
        _, changes, losses = self.edit_ids(
            lm, self.patch_name(lm, layer), head, tail, self.label(head, tail, closing=True)
        )
        report = FactReport(request_id=request.request_id, target_loss=losses[-1], n_steps=len(losses))
        return EditResult((), {}, (report,), losses=tuple(losses), patches=changes)

    def edit_ids(
        self,
        lm: LanguageModel,
        name: str,
        head: tuple[int, ...],
        tail: tuple[int, ...],
        label: Tensor,
        initial: Tensor | None = None,
    ) -> tuple[Branch, tuple[PatchChange, ...], list[float]]:
        """Return the branch taken, the codebook changes of one edit, and the losses; the model is left as it was.

        Args:
            label: What tells answers apart.
            initial: A new value's start, in place of what ``initial`` says.
        """
        before = lm.patches.snapshot()
        try:
            live = lm.patches.get(name)
            book = live.copy() if live is not None else Codebook(name)
            assert isinstance(book, Codebook)
            rows = lm.answer_rows([head], [tail], whole=book.reads_answer)
            query, own = self._read(lm, book, rows)
            known = _Known(query, label, own if initial is None else initial.to(own))
            branch, changes = self._place(book, known)
            lm.patches.restore(before)
            for change in changes:
                lm.patches.apply(change, lm.input_device)
            trained, losses = self._train(lm, name, rows, known.query)
            return branch, (*changes, trained), losses
        finally:
            lm.patches.restore(before)

    def label(self, head: tuple[int, ...], tail: tuple[int, ...], *, closing: bool) -> Tensor:
        """Return what tells an answer from another: its ids, or the official mean of the whole label row.

        In that row the prompt is -100, and so is an end token after the answer (``closing``).
        """
        if self.protocol != "code":
            return torch.tensor(tail)
        row = [-100] * len(head) + list(tail) + [-100] * closing
        return torch.tensor(row, dtype=torch.float32).mean()

    def _read(self, lm: LanguageModel, book: Codebook, rows: AnswerRows) -> tuple[Tensor, Tensor]:
        """Return the query and the start of a new value: the layer's own output there, or random numbers."""
        where = book.where(rows.heads, rows.inputs.ids.shape[1])
        found: list[tuple[Tensor, Tensor]] = []

        def keep(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            found.append((args[0][0, where.query[0]], output[0, where.query[0]]))
            raise _Seen

        module = submodule(lm.model, book.module)
        handle = module.register_forward_hook(keep)
        try:
            with torch.no_grad(), suppress(_Seen):  # the patches are not told where the prompt ends, so they rest
                lm.forward(rows.inputs)
        finally:
            handle.remove()
        query, own = (state.clone() for state in found[0])
        own = own.to(torch.promote_types(own.dtype, torch.float32))  # Adam in 16 bits would divide by nothing
        if self.initial == "cold":
            draw = torch.Generator().manual_seed(self.value_seed + book.size)
            own = torch.rand(own.shape, generator=draw, dtype=torch.float64).to(own)
        return query, own

    def _place(self, book: Codebook, known: _Known) -> tuple[Branch, tuple[PatchChange, ...]]:
        """Return the branch that an edit takes, and its changes of keys, balls and labels."""
        epsilon = torch.tensor(self.epsilon, dtype=torch.float64)
        if not book.size:
            return "first", self._appended(book, known, epsilon)
        (nearest,), (distance,) = book.nearest(known.query[None])
        index, t = int(nearest), float(distance)
        radius = float(book.table("epsilon")[index])
        if t > self.epsilon + radius:
            return "new", self._appended(book, known, epsilon)
        if not torch.equal(book.columns["label"][index].cpu(), known.label.cpu()):
            if t == 0 and self.protocol != "code":
                # The same prompt with another answer: the entry itself is written anew.
                return "covered", (PatchChange(book.name, "label", index, known.label),)
            half = torch.tensor(t / 2, dtype=torch.float64)
            shrunk = PatchChange(book.name, "epsilon", index, half - SPLIT_GAP)
            return "split", (*self._appended(book, known, half), shrunk)
        if t > radius:
            wider = PatchChange(book.name, "epsilon", index, torch.tensor(t, dtype=torch.float64))
            if self.expand == "coverage":
                return "expand", (wider,)
            between = (book.columns["key"][index].to(known.query) + known.query) / 2
            return "expand", (wider, PatchChange(book.name, "key", index, between))
        return "covered", ()

    @staticmethod
    def _appended(book: Codebook, known: _Known, epsilon: Tensor) -> tuple[PatchChange, ...]:
        columns = {"key": known.query, "value": known.initial, "epsilon": epsilon, "label": known.label}
        return tuple(PatchChange(book.name, column, book.size, value) for column, value in columns.items())

    def _train(self, lm: LanguageModel, name: str, rows: AnswerRows, query: Tensor) -> tuple[PatchChange, list[float]]:
        """Optimise the value of the entry nearest to the query; it acts only while the query lies in its ball."""
        book = lm.patches[name]
        assert isinstance(book, Codebook)
        index = int(book.nearest(query[None])[0])
        value = book.columns["value"][index].detach().clone().requires_grad_(True)
        book.columns["value"][index] = value
        optimizer = torch.optim.Adam([value], lr=self.lr)
        losses = []
        for _ in range(self.steps):
            loss = lm.answer_loss(rows)
            losses.append(float(loss.detach()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return PatchChange(name, "value", index, value.detach().clone()), losses


class _Seen(Exception):
    pass
