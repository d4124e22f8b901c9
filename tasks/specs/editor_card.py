"""What there is: editors, models, data sets, benchmarks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from editing.hparams import resolve_hparams
from editing.model.families import FAMILIES


@dataclass(frozen=True, kw_only=True)
class EditorCard:
    """An editor with its hyper-parameters for one model, checked."""

    name: str
    version: int
    needs: frozenset[str]
    max_batch: int | None
    max_layers: int | None
    hparams: Mapping[str, Any]
    preset: str | None = None
    context_texts: tuple[str, ...] | None = None
    """Context prefixes that are given, in place of sampled ones."""

    def refusal(self, family: str, n_layers: int) -> str | None:
        """Return why the editor cannot edit ``n_layers`` layers of a model of this family; None if it can."""
        from editing.methods.editor import editor_class

        found: str | None = editor_class(self.name).refusal(FAMILIES[family], n_layers)
        return found


def editor_needs(name: str) -> frozenset[str]:
    """Return what an editor needs besides a model and facts."""
    from editing.methods.editor import editor_class

    return frozenset(editor_class(name).needs)


def ledger_floats(name: str, n_edits: int, d_out: int, d_in: int) -> int:
    """Return about how many numbers one round of an editor adds to the ledger per layer."""
    from editing.methods.editor import editor_class

    dense = d_out * d_in
    per_round: dict[str, int] = {"dense": dense, "low_rank": min(dense, n_edits * (d_out + d_in)), "nothing": 0}
    return per_round[editor_class(name).writes]


def editor_card(
    name: str, *, model: str, protocol: str, overrides: Mapping[str, Any], preset: str | None = None
) -> EditorCard:
    """Return an editor's card.

    Raises:
        HparamsError: An unknown editor, preset or hyper-parameter, or an impossible value.
    """
    from editing.methods.editor import make_editor

    hparams = resolve_hparams(name, model=model, protocol=protocol, overrides=overrides, preset=preset)
    made = make_editor(name, hparams)
    return EditorCard(
        name=name,
        version=made.version,
        needs=made.needed(),
        max_batch=made.max_batch,
        max_layers=made.max_layers,
        hparams=hparams,
        preset=preset,
    )
