"""Patches: edits that live beside the weights.  A patch is a table of rows, changed entry by entry, and a hook or a rule."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from editing.errors import ModelError


class PatchChange(NamedTuple):
    """One row of a patch's table, set or appended."""

    patch: str
    """``KIND`` or ``KIND:DETAILS``; the kind names a class in the registry, the details say what it is applied to."""
    column: str
    row: int
    """The row that is set; one past the last one appends."""
    value: Tensor


class Patch:
    """A table of named columns whose rows are tensors, and what it does to a model.

    Subclasses override :meth:`rewrite` or :meth:`attach`.
    """

    kind: ClassVar[str]

    def __init__(self, name: str) -> None:
        self.name = name
        self.columns: dict[str, list[Tensor]] = {}

    def copy(self) -> "Patch":
        twin = type(self)(self.name)
        twin.columns = {column: list(rows) for column, rows in self.columns.items()}
        return twin

    def set(self, column: str, index: int, value: Tensor) -> None:
        """Set or append one row.

        Raises:
            ModelError: The index leaves a gap.
        """
        rows = self.columns.setdefault(column, [])
        if not 0 <= index <= len(rows):
            raise ModelError(f"patch {self.name}: row {index} of {column!r} does not exist; there are {len(rows)}")
        rows[index : index + 1] = [value]

    def table(self, column: str) -> Tensor:
        """Return a column as one tensor [row, ...]."""
        return torch.stack(self.columns[column])

    @property
    def reads_answer(self) -> bool:
        """Whether the patch looks at the answer's own tokens, so that all of them must stand in the input."""
        return False

    def rewrite(self, prompt: str) -> str:
        """Return the prompt that the model reads instead."""
        return prompt

    def attach(self, lm: Any, stack: ExitStack) -> None:
        """Install what the patch does to forward passes; ``stack`` takes it off again."""


_KINDS: dict[str, type[Patch]] = {}


def patch_kind(kind: str) -> Callable[[type[Patch]], type[Patch]]:
    """Register a patch class under the kind that its changes name."""

    def register(cls: type[Patch]) -> type[Patch]:
        cls.kind = kind
        _KINDS[kind] = cls
        return cls

    return register


class Patches:
    """The patches of one model, in the order in which they came."""

    def __init__(self) -> None:
        self._live: dict[str, Patch] = {}

    def __bool__(self) -> bool:
        return bool(self._live)

    def __getitem__(self, name: str) -> Patch:
        return self._live[name]

    def get(self, name: str) -> Patch | None:
        return self._live.get(name)

    def all(self) -> tuple[Patch, ...]:
        return tuple(self._live.values())

    def apply(self, change: PatchChange, device: torch.device | None = None) -> None:
        """Make one change, its row on ``device``; the first change of a patch creates it."""
        if change.patch not in self._live:
            self._live[change.patch] = _KINDS[change.patch.partition(":")[0]](change.patch)
        self._live[change.patch].set(change.column, change.row, change.value.to(device))

    def clear(self) -> None:
        self._live.clear()

    def snapshot(self) -> dict[str, Patch]:
        return {name: patch.copy() for name, patch in self._live.items()}

    def restore(self, snapshot: dict[str, Patch]) -> None:
        self._live = {name: patch.copy() for name, patch in snapshot.items()}

    @property
    def reads_answer(self) -> bool:
        return any(patch.reads_answer for patch in self._live.values())

    def rewrite(self, prompt: str) -> str:
        for patch in self._live.values():
            prompt = patch.rewrite(prompt)
        return prompt

    def attach(self, lm: Any, stack: ExitStack) -> None:
        for patch in self._live.values():
            patch.attach(lm, stack)
